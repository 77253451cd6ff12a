//! The rules of the topic and where they hold, read from the rules topic and from what the group has committed. Written from
//! the description of the topic alone, beside the consumer's reading of it and not from it.
//!
//! An owner of a partition writes under the name of its epoch from which offset on each rule holds, and before it dispatches
//! anything, copies what the owner before had decided. Its name stands beside the offset that it commits. So the edges of
//! the epoch that committed last are all there are. Where nothing stands there, as another tool moved the offsets, the
//! newest edge counts.

use super::judge::{Change, Update};
use super::run::{ANSWER_TIMEOUT, RECORD_TIMEOUT, Topic, VerifyError};
use crate::{
    config::Config,
    ids::{AppId, EpochId, Partition, SubscriptionId},
    kafka::{admin::Admin, reader::Reader},
};
use hashbrown::HashMap;
use jiff::Timestamp;
use serde_json::Value;

/// What the rules skip.
#[derive(Default)]
pub(super) struct Skips {
    /// By the app that they are about.
    by_app: HashMap<AppId, Vec<Rule>>,
}

/// A rule, and the offsets in which it holds.
struct Rule {
    row: Option<SubscriptionId>,
    parent: Option<SubscriptionId>,
    until_ms: Option<i64>,
    /// First offset, and the one behind the last; by partition.
    spans: HashMap<i32, (i64, i64)>,
}

/// An edge with the epoch that wrote it, in the order of the topic.
struct Edge {
    rule: String,
    partition: i32,
    begins: bool,
    epoch: EpochId,
    offset: i64,
}

impl Skips {
    /// Reads them. There are none if there is no such topic.
    pub fn read(admin: &Admin, config: &Config) -> Result<Self, VerifyError> {
        let kafka = &config.kafka;
        let name = format!("{}.rules", kafka.topic);
        if admin.topic_partitions(&name, ANSWER_TIMEOUT)?.is_none() {
            return Ok(Self::default());
        }
        let notes = admin.committed_notes(&kafka.group, &kafka.topic, ANSWER_TIMEOUT)?;
        let owners = notes.iter().map(|note| {
            let note = note.filter(|note| note.incarnation == kafka.incarnation);
            note.map(|note| note.epoch)
        });
        let topic = Topic::look(admin, &name)?;
        let mut reader = Reader::open(kafka, &topic.name, &topic.spans)?;
        let mut records: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        while let Some(record) = reader.next(RECORD_TIMEOUT) {
            let record = record?;
            let unreadable = |why: &str| VerifyError::Rules {
                topic: name.clone(),
                offset: record.offset(),
                why: why.to_owned(),
            };
            let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
            let key = key.ok_or_else(|| unreadable("its key is no text"))?;
            records.push((key.to_owned(), record.value().map(<[u8]>::to_vec)));
        }
        Self::of(&records, kafka.incarnation, &owners.collect::<Vec<_>>()).map_err(|(at, why)| {
            VerifyError::Rules {
                topic: name,
                offset: i64::try_from(at).unwrap_or(i64::MAX),
                why,
            }
        })
    }

    /// What these records say, if those epochs committed last. An error has the number of its record.
    fn of(
        records: &[(String, Option<Vec<u8>>)],
        incarnation: i32,
        owners: &[Option<EpochId>],
    ) -> Result<Self, (usize, String)> {
        let mut rules: HashMap<String, (AppId, Rule)> = HashMap::new();
        let mut edges: Vec<Edge> = Vec::new();
        for (at, (key, value)) in records.iter().enumerate() {
            let parts: Vec<&str> = key.split('/').collect();
            let read = match (parts.as_slice(), value) {
                (["rule", id], Some(value)) => rule(value).map(|rule| {
                    rules.insert((*id).to_owned(), rule);
                }),
                (["edge", id, partition, kind, life, epoch], value) => {
                    if life.parse() != Ok(incarnation) {
                        continue;
                    }
                    let value = value.as_deref();
                    edge((id, partition, kind, epoch), value, &mut edges)
                }
                _ => None,
            };
            read.ok_or_else(|| (at, format!("{key} is no rule and no edge of one")))?;
        }
        for (id, (_, rule)) in &mut rules {
            for edge in edges.iter().filter(|edge| edge.rule == *id) {
                let place = usize::try_from(edge.partition).ok();
                let owner = place.and_then(|place| owners.get(place)).copied().flatten();
                if owner.is_some_and(|owner| owner != edge.epoch) {
                    continue;
                }
                // Without an owner's name a later one replaces those before.
                let span = rule.spans.entry(edge.partition);
                let span = span.or_insert((i64::MAX, i64::MAX));
                if edge.begins {
                    span.0 = edge.offset;
                } else {
                    span.1 = edge.offset;
                }
            }
        }
        let mut by_app: HashMap<AppId, Vec<Rule>> = HashMap::new();
        for (_, (app, rule)) in rules {
            by_app.entry(app).or_default().push(rule);
        }
        Ok(Self { by_app })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_app.is_empty()
    }

    /// Whether a rule skips a good message.
    pub fn skip(
        &self,
        (partition, offset): (Partition, i64),
        timestamp_ms: i64,
        update: &Update<'_>,
    ) -> bool {
        let Some(rules) = self.by_app.get(&update.row.app) else {
            return false;
        };
        let own = update.row.subscription;
        rules.iter().any(|rule| {
            let in_span = rule
                .spans
                .get(&partition.0)
                .is_some_and(|(from, to)| (*from..*to).contains(&offset));
            let in_time = rule
                .until_ms
                .is_none_or(|until| timestamp_ms < 0 || timestamp_ms < until);
            let is_meant = match (rule.row, rule.parent) {
                (Some(row), _) => row == own,
                (None, Some(parent)) => parent == own || update.parent == Change::Set(parent),
                (None, None) => true,
            };
            in_span && in_time && is_meant
        })
    }
}

fn rule(value: &[u8]) -> Option<(AppId, Rule)> {
    let value: Value = serde_json::from_slice(value).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let id = |name: &str| match text(name) {
        None => Some(None),
        Some(text) => SubscriptionId::parse(text.as_bytes()).map(Some),
    };
    let until = match text("until") {
        None => None,
        Some(text) => Some(text.parse::<Timestamp>().ok()?.as_millisecond()),
    };
    let rule = Rule {
        row: id("subscription_id")?,
        parent: id("parent_id")?,
        until_ms: until,
        spans: HashMap::new(),
    };
    Some((AppId::parse(text("app_id")?.as_bytes())?, rule))
}

/// Adds an edge, or takes one back.
fn edge(
    (id, partition, kind, epoch): (&str, &str, &str, &str),
    value: Option<&[u8]>,
    edges: &mut Vec<Edge>,
) -> Option<()> {
    let partition: i32 = partition.parse().ok()?;
    let begins = match kind {
        "begin" => true,
        "end" => false,
        _ => return None,
    };
    let epoch = EpochId::parse(epoch)?;
    let is_this = |edge: &Edge| {
        edge.rule == id && (edge.partition, edge.begins, edge.epoch) == (partition, begins, epoch)
    };
    let Some(value) = value else {
        edges.retain(|edge| !is_this(edge));
        return Some(());
    };
    let offset = std::str::from_utf8(value).ok()?.parse().ok()?;
    if !edges.iter().any(is_this) {
        edges.push(Edge {
            rule: id.to_owned(),
            partition,
            begins,
            epoch,
            offset,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ids::RowKey;

    const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
    const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

    fn update(subscription: &str, parent: Option<&str>) -> Update<'static> {
        let id = |text: &str| SubscriptionId::parse(text.as_bytes()).unwrap();
        Update {
            row: RowKey {
                app: AppId::parse(APP.as_bytes()).unwrap(),
                subscription: id(subscription),
            },
            parent: parent.map_or(Change::Leave, |parent| Change::Set(id(parent))),
            device_type: Change::Leave,
            identifier: Change::Leave,
            tags: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn skips(records: &[(String, Option<&str>)], owner: Option<u64>) -> Skips {
        let records: Vec<_> = records
            .iter()
            .map(|(key, value)| (key.clone(), value.map(|value| value.as_bytes().to_vec())))
            .collect();
        Skips::of(&records, 1, &[owner.map(EpochId)]).unwrap()
    }

    fn edge_key(kind: &str, epoch: u64) -> String {
        format!("edge/r/0/{kind}/1/{}", EpochId(epoch))
    }

    #[test]
    fn the_edges_of_the_epoch_that_committed_last_count() {
        let of_app = format!("{{\"app_id\":\"{APP}\",\"subscription_id\":null,\"until\":null}}");
        let log = [
            ("rule/r".to_owned(), Some(&*of_app)),
            (edge_key("begin", 7), Some("10")),
            (edge_key("end", 7), Some("20")),
            (edge_key("begin", 8), Some("15")),
        ];
        let decide = |owner| {
            let skips = skips(&log, owner);
            let skip = |at| skips.skip((Partition(0), at), 0, &update(ROW, None));
            (0..30).filter(|at| skip(*at)).collect::<Vec<i64>>()
        };
        assert_eq!(decide(Some(7)), (10..20).collect::<Vec<_>>());
        assert_eq!(decide(Some(8)), (15..30).collect::<Vec<_>>());
        assert!(decide(Some(9)).is_empty());
        assert_eq!(decide(None), (15..20).collect::<Vec<_>>(), "the newest");
    }

    #[test]
    fn a_rule_is_for_a_row_or_a_parent_until_its_time() {
        const OTHER: &str = "00000000-0000-0000-0000-000000000001";
        let rule = |name: &str| {
            format!(
                "{{\"app_id\":\"{APP}\",\"{name}\":\"{ROW}\",\"until\":\"1970-01-01T00:00:01Z\"}}"
            )
        };
        let (of_row, of_parent) = (rule("subscription_id"), rule("parent_id"));
        let with = |rule: &str| {
            let log = [
                ("rule/r".to_owned(), Some(rule)),
                (edge_key("begin", 7), Some("10")),
            ];
            skips(&log, Some(7))
        };
        let skip = |skips: &Skips, at, update| skips.skip((Partition(0), 10), at, &update);
        let skips = with(&of_row);
        assert!(skip(&skips, 999, update(ROW, None)) && skip(&skips, -1, update(ROW, None)));
        assert!(!skip(&skips, 1000, update(ROW, None)));
        assert!(!skip(&skips, 0, update(OTHER, Some(ROW))));
        let skips = with(&of_parent);
        assert!(skip(&skips, 0, update(ROW, None)) && skip(&skips, 0, update(OTHER, Some(ROW))));
        assert!(!skip(&skips, 0, update(OTHER, None)));
    }

    #[test]
    fn a_record_that_is_none_of_ours_is_an_error_and_not_left_out() {
        for (key, value) in [
            ("rule/r", None),
            ("rule/r", Some("{}")),
            ("edge/r/0/begin/1/x", Some("1")),
            ("what", Some("1")),
        ] {
            let records = [(key.to_owned(), value.map(|value| value.as_bytes().to_vec()))];
            assert!(Skips::of(&records, 1, &[]).is_err(), "{key}");
        }
    }
}
