//! Messages counted by group and by time, and how the counts are printed.

use crate::cli::moment;
use crate::cli::table::table;
use crate::inspect::field::Field;
use crate::inspect::group_key::{KeyWriter, Part, read};
use crate::inspect::groups::{Count, Groups};
use crate::inspect::{Passed, Sieve};
use crate::kafka::reader::Message;
use crate::table::Table;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Rows that are printed unless the user says how many; of each bucket of time, fewer.
const TOP: usize = 20;
const TOP_OF_BUCKET: usize = 3;

/// A longer text is cut in a table.
const TEXT_CHARS_MAX: usize = 60;

/// How long the longest bar of a column is.
const BAR_MAX: u64 = 30;

/// What messages are grouped by.
#[derive(Clone, Debug)]
pub struct GroupBy {
    fields: Vec<Field>,
}

impl GroupBy {
    /// Reads `--group-by`. A subscription belongs to an app: both are shown, unless the app is given.
    pub fn parse(text: &str, app_is_given: bool, table: Option<&Table>) -> Result<Self, String> {
        let id = |name: &str| Field::Json(vec![name.to_owned()]);
        if let Some(table) = table {
            // The row is all of its key; with a table there are no apps and no subscriptions.
            let fields = match text {
                "row" => table.keys.iter().map(|key| Field::at(&key.from)).collect(),
                path => vec![Field::of_table(path, Some(table)).map_err(|error| {
                    format!(
                        "--group-by is row, a column of {} or a PATH. {error}",
                        table.name
                    )
                })?],
            };
            return Ok(Self { fields });
        }
        let fields =
            match text {
                "app" => vec![id("app_id")],
                "subscription" if app_is_given => vec![id("subscription_id")],
                "subscription" => vec![id("app_id"), id("subscription_id")],
                path => vec![Field::parse(path).map_err(|error| {
                    format!("--group-by is app, subscription or a PATH. {error}")
                })?],
            };
        Ok(Self { fields })
    }

    /// What must be taken from each message.
    pub fn fields(&self) -> Vec<Field> {
        self.fields.clone()
    }
}

/// The counts so far.
pub struct Report {
    fields: Vec<Field>,
    every_ms: Option<i64>,
    top: Option<usize>,
    groups: Groups,
    writer: KeyWriter,
}

/// A row of the report.
struct Row<'g> {
    bucket_ms: Option<i64>,
    parts: Vec<Part>,
    count: &'g Count,
    share: f64,
}

impl Report {
    /// Without any message.
    pub fn new(by: Option<GroupBy>, every_ms: Option<i64>, top: Option<usize>) -> Self {
        Self {
            fields: by.map(|by| by.fields).unwrap_or_default(),
            every_ms,
            top,
            groups: Groups::default(),
            writer: KeyWriter::default(),
        }
    }

    /// Counts a message that passed the sieve, which takes the report's fields.
    pub fn add(&mut self, sieve: &Sieve, message: &Message<'_>, passed: &Passed<'_>) {
        let at_ms = message.timestamp().milliseconds();
        let bucket = self.every_ms.map(|every| {
            // Messages without a time come first.
            at_ms.map_or(i64::MIN, |at| at.div_euclid(every) * every)
        });
        self.writer.begin(bucket);
        for (field, found) in sieve.taken(passed) {
            self.writer.add(found.as_ref(), field.is_id());
        }
        let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
        let bytes = size(message.key()) + size(message.value());
        self.groups.add(self.writer.key(), bytes, at_ms);
    }

    /// All messages that were counted.
    pub fn messages(&self) -> u64 {
        self.groups.messages()
    }

    /// For people.
    pub fn text(&self) -> String {
        let (rows, _) = self.rows();
        let mut header = Vec::new();
        header.extend(self.every_ms.map(|_| "TIME".to_owned()));
        for field in &self.fields {
            let name = field.to_string();
            header.push(if field.is_id() {
                name.to_uppercase()
            } else {
                name.replace(' ', "_")
            });
        }
        header.extend(["MESSAGES", "SHARE", "BYTES"].map(str::to_owned));
        let is_timeline = self.every_ms.is_some() && self.fields.is_empty();
        match (self.every_ms, is_timeline) {
            (Some(_), true) => header.extend(["PER-SECOND", "BAR"].map(str::to_owned)),
            (None, _) => header.extend(["FIRST", "LAST"].map(str::to_owned)),
            (Some(_), false) => {}
        }
        let longest = rows.iter().map(|row| row.count.messages).max().unwrap_or(1);
        let lines = rows.iter().map(|row| {
            let mut cells = self.cells(row);
            match (self.every_ms, is_timeline) {
                (Some(every_ms), true) => {
                    let per_second = row.count.messages as f64 * 1e3 / every_ms as f64;
                    cells.push(format!("{per_second:.0}"));
                    let bar = row.count.messages.saturating_mul(BAR_MAX).div_ceil(longest);
                    cells.push("#".repeat(usize::try_from(bar).unwrap_or(0)));
                }
                (None, _) => cells.extend([row.count.first_ms, row.count.last_ms].map(shown)),
                (Some(_), false) => {}
            }
            cells
        });
        table(&header.join(" "), lines)
    }

    fn cells(&self, row: &Row<'_>) -> Vec<String> {
        let mut cells = Vec::new();
        cells.extend(row.bucket_ms.map(|at| self.bucket(at)));
        cells.extend(row.parts.iter().map(cell));
        let at_least = if row.count.missed_max > 0 { ">=" } else { "" };
        cells.push(format!("{at_least}{}", row.count.messages));
        cells.push(format!("{:.1}%", row.share * 100.0));
        cells.push(row.count.bytes.to_string());
        cells
    }

    fn bucket(&self, at_ms: i64) -> String {
        match at_ms {
            i64::MIN => "-".to_owned(),
            at_ms if self.every_ms.is_some_and(|every| every % 1000 != 0) => moment::show(at_ms),
            at_ms => shown(Some(at_ms)),
        }
    }

    /// For programs: an object a line.
    pub fn json(&self) -> Vec<String> {
        let (rows, _) = self.rows();
        let line = |row: &Row<'_>| {
            let mut object = Map::new();
            if let Some(at_ms) = row.bucket_ms {
                let at_ms = if at_ms == i64::MIN {
                    Value::Null
                } else {
                    json!(at_ms)
                };
                object.insert("ts".to_owned(), at_ms);
            }
            for (field, part) in self.fields.iter().zip(&row.parts) {
                match part {
                    Part::Id(id) => object.insert(field.to_string(), json!(id.to_string())),
                    Part::Text(text) => object.insert(field.to_string(), json!(text)),
                    Part::Null => object.insert(field.to_string(), Value::Null),
                    Part::Absent => None,
                    Part::NotJson => object.insert("not_json".to_owned(), json!(true)),
                };
            }
            object.insert("messages".to_owned(), json!(row.count.messages));
            object.insert("share".to_owned(), json!((row.share * 1e6).round() / 1e6));
            object.insert("bytes".to_owned(), json!(row.count.bytes));
            object.insert("first_ts".to_owned(), json!(row.count.first_ms));
            object.insert("last_ts".to_owned(), json!(row.count.last_ms));
            if row.count.missed_max > 0 {
                object.insert("missed_max".to_owned(), json!(row.count.missed_max));
            }
            Value::Object(object).to_string()
        };
        rows.iter().map(line).collect()
    }

    /// What the table doesn't say: how many rows are left out, and how exact the counts are.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let (shown, all) = self.rows();
        if shown.len() < all {
            notes.push(format!(
                "{} of {all} groups are shown; --top shows more",
                shown.len()
            ));
        }
        let missed = self.groups.missed_max();
        if missed > 0 {
            notes.push(format!(
                "approximate: more groups than fit were counted; those marked >= , and those not shown, may have up to {missed} messages more"
            ));
        }
        notes
    }

    /// The rows to be printed, in their order, and how many there are.
    fn rows(&self) -> (Vec<Row<'_>>, usize) {
        let mut rows: Vec<Row<'_>> = Vec::new();
        let mut totals: BTreeMap<Option<i64>, u64> = BTreeMap::new();
        for (key, count) in self.groups.heaviest() {
            let (bucket_ms, parts) = read(key, self.every_ms.is_some());
            *totals.entry(bucket_ms).or_default() += count.messages;
            rows.push(Row {
                bucket_ms,
                parts,
                count,
                share: 0.0,
            });
        }
        // The sort is stable: inside of a bucket those with the most messages stay first.
        rows.sort_by_key(|row| row.bucket_ms);
        let all = rows.len();
        let default = match (self.every_ms.is_some(), self.fields.is_empty()) {
            (true, true) => usize::MAX,
            (true, false) => TOP_OF_BUCKET,
            (false, _) => TOP,
        };
        // A line of time is one bucket a row: there it is the newest that are asked for.
        let top = self.top.unwrap_or(default);
        if self.fields.is_empty() {
            rows.drain(..rows.len().saturating_sub(top));
        } else {
            let mut of_bucket = (None, 0);
            rows.retain(|row| {
                if of_bucket.0 != Some(row.bucket_ms) {
                    of_bucket = (Some(row.bucket_ms), 0);
                }
                of_bucket.1 += 1;
                of_bucket.1 <= top
            });
        }
        for row in &mut rows {
            let total = match self.fields.is_empty() || row.bucket_ms.is_none() {
                true => self.groups.messages(),
                false => totals[&row.bucket_ms],
            };
            row.share = row.count.messages as f64 / total.max(1) as f64;
        }
        (rows, all)
    }
}

fn cell(part: &Part) -> String {
    let text = match part {
        Part::Id(id) => return id.to_string(),
        Part::Null => return "(null)".to_owned(),
        Part::Absent => return "(none)".to_owned(),
        Part::NotJson => return "(no JSON)".to_owned(),
        Part::Text(text) if text.is_empty() => return "\"\"".to_owned(),
        Part::Text(text) => text,
    };
    let mut cell = String::new();
    for char in text.chars().take(TEXT_CHARS_MAX) {
        match char.is_control() {
            true => cell.extend(char.escape_default()),
            false => cell.push(char),
        }
    }
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        cell.push('…');
    }
    cell
}

/// To the second.
fn shown(at_ms: Option<i64>) -> String {
    let Some(at_ms) = at_ms else {
        return "-".to_owned();
    };
    moment::show(at_ms.div_euclid(1000) * 1000).replace(".000Z", "Z")
}
