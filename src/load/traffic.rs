//! Which message is the i-th of a run: pure and deterministic, so the same seed gives the same rows and the same messages,
//! on any machine and in any order of asking.

use super::broken;
use super::clothesly::{Clothesly, Part, random};
use super::padding;
use super::rows::Rows;
use crate::dead::Reason;
use crate::ids::{AppId, Partition, RowKey, SubscriptionId};
use crate::partitioner::Partitioner;
use crate::table::Table;
use rand::{Rng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};
use std::io::Write;
use std::sync::Arc;
use uuid::Builder;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// How messages are spread over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Every row alike.
    Uniform,
    /// The n-th row gets a share in proportion to 1/n, as customers' sizes do.
    Zipf,
    /// [`HOT_SHARE`] of the messages are for one row, the others are uniform.
    Hot,
    /// The incident: one app, most of whose rows have one parent. [`clothesly`](super::clothesly) says it all.
    Clothesly,
}

/// What goes to the one row of [`Scenario::Hot`].
pub const HOT_SHARE: f64 = 0.3;

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct TrafficOptions {
    /// Decides every choice below.
    pub seed: u64,
    /// How messages are spread over rows.
    pub scenario: Scenario,
    /// Messages of the run, over which the broken ones are spread.
    pub messages: u64,
    /// Customers' datasets; row i belongs to app i modulo this.
    pub apps: u32,
    /// Rows over all apps; with [`Scenario::Clothesly`] those of the one app, and the others have some besides.
    pub rows: u32,
    /// With [`Scenario::Clothesly`], rows that have the one parent, if not 96 %: with a link limit in force, as many as it is.
    pub linked: Option<u32>,
    /// The share of the messages that add to counts, from 0 to 1.
    pub counts_share: f64,
    /// How many messages can't be applied.
    pub broken: u64,
    /// What is wrong with them, in turn. See [`broken::reasons`].
    pub broken_reasons: Vec<Reason>,
    /// A larger value is one of the things that may be wrong.
    pub value_bytes_max: usize,
    /// Shorter values of updates are filled up to it, see [`padding`](super::padding); those of [`Scenario::Clothesly`]'s own app
    /// are as they were in the incident.
    pub value_bytes_min: usize,
}

/// A message of a run. Meant to be used again, so that generating doesn't allocate.
#[derive(Debug)]
pub struct Message {
    /// The Kafka key.
    pub key: Vec<u8>,
    /// The value, unless it is null.
    pub value: Vec<u8>,
    /// Whether the value is null.
    pub tombstone: bool,
    /// Where it goes.
    pub partition: Partition,
    /// Why it can't be applied; `None` for an update.
    pub broken: Option<Reason>,
}

impl Message {
    /// The value as Kafka gets it; `None` for null.
    pub fn value(&self) -> Option<&[u8]> {
        (!self.tombstone).then_some(self.value.as_slice())
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> u64 {
        let bytes = self.key.len() + self.value().map_or(0, <[u8]>::len);
        u64::try_from(bytes).expect("a length fits")
    }
}

impl Default for Message {
    fn default() -> Self {
        Self {
            key: vec![],
            value: vec![],
            tombstone: false,
            partition: Partition(0),
            broken: None,
        }
    }
}

/// Generates the messages of a run.
pub struct Traffic {
    pub(super) options: TrafficOptions,
    partitioner: Partitioner,
    zipf: Zipf<f64>,
    pub(super) clothesly: Option<Clothesly>,
    /// Of a table that the configuration describes.
    table: Option<Rows>,
}

/// Names of tags with the values that they take, as JSON.
const TAGS: [(&str, &[&str]); 8] = [
    (
        "first_name",
        &[
            r#""Ada""#,
            r#""Jon""#,
            r#""Zoë""#,
            r#""Núria""#,
            r#""Grace""#,
        ],
    ),
    ("plan", &[r#""free""#, r#""team""#, r#""enterprise""#]),
    (
        "language",
        &[r#""en""#, r#""de""#, r#""pt-BR""#, r#""日本語""#],
    ),
    ("vip", &["true", "false"]),
    ("level", &["1", "2", "3", "17", "42", "100"]),
    ("balance", &["0", "12.5", "-3.25", "1999.99"]),
    (
        "last_page",
        &[
            r#""/cart""#,
            r#""/checkout?step=2""#,
            r#""a \"quoted\" title""#,
        ],
    ),
    ("cohort", &[r#""2024-01""#, r#""2025-07""#, r#""2026-11""#]),
];
const COUNTS: [&str; 3] = ["sessions", "purchases", "credits"];

impl Traffic {
    /// Panics unless there is at least one app and one row, and a reason for broken messages if some are wanted; the command
    /// refuses such arguments with a message before.
    pub fn new(options: TrafficOptions, partitioner: Partitioner) -> Self {
        assert!(
            options.apps > 0 && options.rows > 0,
            "at least one app and one row"
        );
        assert!(
            options.broken == 0 || !options.broken_reasons.is_empty(),
            "something to be wrong"
        );
        assert!(
            options.broken <= options.messages,
            "broken messages are among the messages"
        );
        let zipf = Zipf::new(f64::from(options.rows), 1.0)
            .expect("at least one row and a positive exponent");
        let mut traffic = Self {
            options,
            partitioner,
            zipf,
            clothesly: None,
            table: None,
        };
        let (seed, rows) = (traffic.options.seed, traffic.options.rows);
        if traffic.options.scenario == Scenario::Clothesly {
            let beside = traffic.row_of_many(0).app;
            let clothesly = Clothesly::new(
                seed,
                (rows, traffic.options.linked),
                beside,
                &traffic.partitioner,
            );
            traffic.clothesly = Some(clothesly);
        }
        traffic
    }

    /// The same for rows of a table that the configuration describes; `apps` are the values of the column that picks the shard.
    /// None of them is broken.
    pub fn for_table(options: TrafficOptions, partitioner: Partitioner, table: Arc<Table>) -> Self {
        let rows = Rows {
            table,
            seed: options.seed,
            groups: options.apps,
        };
        let broken = 0;
        let mut traffic = Self::new(TrafficOptions { broken, ..options }, partitioner);
        traffic.table = Some(rows);
        traffic
    }

    /// Partitions that the messages go to.
    pub fn partitions(&self) -> u32 {
        self.partitioner.partitions()
    }

    /// What the run consists of.
    pub fn options(&self) -> &TrafficOptions {
        &self.options
    }

    /// How many rows there are.
    pub fn rows(&self) -> u32 {
        let apps = self.options.apps;
        let more = |clothesly: &Clothesly| clothesly.other_rows(apps).saturating_add(1);
        let more = self.clothesly.as_ref().map_or(0, more);
        self.options.rows.saturating_add(more)
    }

    /// The key of a row, below [`rows`](Self::rows). Random ids, as version 4 UUIDs are. In [`Scenario::Clothesly`] first the
    /// one app's children, then their parent, then the rows of other apps.
    pub fn row(&self, index: u32) -> RowKey {
        match &self.clothesly {
            Some(clothesly) if index <= self.options.rows => clothesly.row(index),
            Some(_) => self.row_of_many(index - self.options.rows - 1),
            None => self.row_of_many(index),
        }
    }

    pub(super) fn row_of_many(&self, index: u32) -> RowKey {
        let TrafficOptions { seed, apps, .. } = self.options;
        RowKey {
            app: AppId(id(seed, "app", index % apps)),
            subscription: SubscriptionId(id(seed, "subscription", index)),
        }
    }

    /// Writes the message with that number, from 0 and below `messages`.
    pub fn write(&self, number: u64, message: &mut Message) {
        message.tombstone = false;
        message.broken = None;
        message.value.clear();
        if let Some(rows) = &self.table {
            let mut random = random(self.options.seed, number);
            let row = rows.write(self.pick_row(&mut random), &mut random, message);
            message.partition = self.partitioner.partition_of(row.app);
            return;
        }
        let row = self.write_value(number, &mut message.value);
        message.partition = self.partitioner.partition_of(row.app);
        message.key.clear();
        push_id(&mut message.key, row.subscription.0);
        if let Some(reason) = self.broken_reason(number) {
            broken::spoil(
                message,
                reason,
                row,
                self.partitioner.partitions(),
                self.options.value_bytes_max,
            );
        }
    }

    fn write_value(&self, number: u64, json: &mut Vec<u8>) -> RowKey {
        let mut random = random(self.options.seed, number);
        let row = match &self.clothesly {
            None => self.row(self.pick_row(&mut random)),
            Some(own) => match own.write(number, own.other_rows(self.options.apps), json) {
                Part::Own(row) => return row,
                Part::Other(index) => self.row_of_many(index),
            },
        };
        self.write_update(row, &mut random, json);
        let options = &self.options;
        padding::pad(json, options.value_bytes_min, options.seed, number);
        row
    }

    pub(super) fn pick_row(&self, random: &mut SmallRng) -> u32 {
        let rows = self.options.rows;
        match self.options.scenario {
            Scenario::Uniform => random.random_range(0..rows),
            Scenario::Zipf => rank(self.zipf.sample(random)) - 1,
            Scenario::Hot if random.random_bool(HOT_SHARE) => 0,
            Scenario::Hot | Scenario::Clothesly => random.random_range(0..rows),
        }
    }

    /// What is wrong with the message, if it is a broken one. The run has `broken` even steps; the last message of each is.
    fn broken_reason(&self, number: u64) -> Option<Reason> {
        let TrafficOptions {
            broken,
            messages,
            broken_reasons: reasons,
            ..
        } = &self.options;
        let steps_before =
            |number: u64| u128::from(number) * u128::from(*broken) / u128::from(*messages);
        let step = steps_before(number);
        (step < steps_before(number + 1)).then(|| {
            let turn = step % u128::try_from(reasons.len()).expect("a length fits");
            reasons[usize::try_from(turn).expect("below a length")]
        })
    }

    /// The members that every update may have, each after a comma.
    pub(super) fn write_changes(&self, random: &mut SmallRng, json: &mut Vec<u8>) {
        json.extend_from_slice(br#","tags":{"#);
        write_tags(random, json);
        json.push(b'}');
        if random.random_bool(self.options.counts_share) {
            write_counts(random, json);
        }
    }

    fn write_update(&self, row: RowKey, random: &mut SmallRng, json: &mut Vec<u8>) {
        json.extend_from_slice(br#"{"app_id":""#);
        push_id(json, row.app.0);
        json.extend_from_slice(br#"","subscription_id":""#);
        push_id(json, row.subscription.0);
        json.push(b'"');
        self.write_changes(random, json);
        // Some messages say what device it is, and few hold what the wire format doesn't know.
        match random.random_range(0..1000) {
            0..50 => {
                let token: u64 = random.random();
                write!(
                    json,
                    r#","device_type":"android","identifier":"token-{token:016x}""#
                )
                .expect("a Vec takes all");
            }
            50..55 => json.extend_from_slice(br#","sdk":{"name":"web","version":[5,2]}"#),
            _ => {}
        }
        json.push(b'}');
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number from 1 to the count of rows, which is a u32"
)]
fn rank(sample: f64) -> u32 {
    sample as u32
}

/// One to three tags, of which some are removed.
fn write_tags(random: &mut SmallRng, json: &mut Vec<u8>) {
    let (first, count) = (
        random.random_range(0..TAGS.len()),
        random.random_range(1..=3),
    );
    for tag in 0..count {
        // The step has no divisor in common with the number of tags, so no name comes twice.
        let (name, values) = TAGS[(first + 3 * tag) % TAGS.len()];
        let value = match random.random_range(0..100) {
            0..4 => "null",
            4..6 => r#""""#,
            _ => values[random.random_range(0..values.len())],
        };
        push_member(json, tag == 0, name, value);
    }
}

/// Mostly one more session; at times something is taken away, or two counts change.
fn write_counts(random: &mut SmallRng, json: &mut Vec<u8>) {
    json.extend_from_slice(br#","counts":{"#);
    match random.random_range(0..10) {
        0 => push_member(
            json,
            true,
            COUNTS[2],
            ["-1", "-5", "-20"][random.random_range(0..3)],
        ),
        1 => {
            push_member(json, true, COUNTS[0], "1");
            push_member(
                json,
                false,
                COUNTS[1],
                ["1", "2", "3"][random.random_range(0..3)],
            );
        }
        _ => push_member(json, true, COUNTS[0], "1"),
    }
    json.push(b'}');
}

pub(super) fn push_member(json: &mut Vec<u8>, first: bool, name: &str, value: &str) {
    if !first {
        json.push(b',');
    }
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(br#"":"#);
    json.extend_from_slice(value.as_bytes());
}

/// A random id of that kind, the same for the same seed.
pub(super) fn id(seed: u64, what: &str, index: u32) -> [u8; 16] {
    let seed = seed ^ xxh3_64(what.as_bytes());
    Builder::from_random_bytes(xxh3_128_with_seed(&index.to_le_bytes(), seed).to_le_bytes())
        .into_uuid()
        .into_bytes()
}

/// Appends a UUID's usual text.
pub(super) fn push_id(text: &mut Vec<u8>, id: [u8; 16]) {
    let mut buffer = uuid::Uuid::encode_buffer();
    text.extend_from_slice(
        uuid::Uuid::from_bytes(id)
            .hyphenated()
            .encode_lower(&mut buffer)
            .as_bytes(),
    );
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
