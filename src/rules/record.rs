//! Rules and edges as the rules topic holds them: keys that say what a record is about, values in JSON.

use crate::ids::{AppId, EpochId, Partition, RowKey, SubscriptionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A longer reason or author is refused: it goes into the log and onto the page.
const TEXT_CHARACTERS_MAX: usize = 500;

/// A rule's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub Uuid);

/// Which updates a rule skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All of an app.
    App(AppId),
    /// Those of one row.
    Row(RowKey),
    /// Those that link to this row as their parent, and those of this row itself.
    Parent(RowKey),
}

/// A rule. Times are whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// What it skips.
    pub target: Target,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub author: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Messages with this Kafka timestamp or a later one are not skipped.
    pub until: Option<Timestamp>,
    /// Who took it back, and when.
    pub removed: Option<Removed>,
}

/// That a rule was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub author: String,
}

/// Which end of a rule an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EdgeKind {
    /// It holds from this offset on.
    Begin,
    /// It holds no longer from this offset on.
    End,
}

/// What an edge is about, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// The rule.
    pub rule: RuleId,
    /// The partition of the updates.
    pub partition: Partition,
    /// Which end.
    pub kind: EdgeKind,
    /// The life of the topic whose offsets are meant.
    pub incarnation: i32,
    /// The epoch of the partition that wrote it.
    pub epoch: EpochId,
}

/// A record of the rules topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A rule, or its newest form.
    Rule(Rule),
    /// An edge and its offset; `None`: a later epoch has copied it.
    Edge(EdgeKey, Option<i64>),
}

/// A rule's value.
#[derive(Serialize, Deserialize)]
struct WrittenRule {
    app_id: String,
    subscription_id: Option<String>,
    parent_id: Option<String>,
    reason: String,
    author: String,
    created_at: String,
    until: Option<String>,
    removed: Option<WrittenRemoved>,
}

#[derive(Serialize, Deserialize)]
struct WrittenRemoved {
    at: String,
    author: String,
}

impl RuleId {
    /// A new one.
    pub fn random() -> Self {
        Self(uuid::Builder::from_random_bytes(rand::random()).into_uuid())
    }

    /// Reads a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Target {
    /// From the ids as they are written.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(app: &str, subscription: Option<&str>, parent: Option<&str>) -> Result<Self, String> {
        let app = AppId::parse(app.as_bytes())
            .ok_or_else(|| format!("app_id {app:?} is no UUID; a rule needs the app's id"))?;
        let row = |name: &str, text: &str| {
            let subscription = SubscriptionId::parse(text.as_bytes());
            let subscription = subscription.ok_or_else(|| format!("{name} {text:?} is no UUID"))?;
            Ok::<_, String>(RowKey { app, subscription })
        };
        match (subscription, parent) {
            (None, None) => Ok(Self::App(app)),
            (Some(text), None) => row("subscription_id", text).map(Self::Row),
            (None, Some(text)) => row("parent_id", text).map(Self::Parent),
            (Some(_), Some(_)) => Err(
                "a rule is for a subscription or for a parent, not for both; make two".to_owned(),
            ),
        }
    }

    /// The app that it is in.
    pub fn app(self) -> AppId {
        match self {
            Self::App(app) => app,
            Self::Row(row) | Self::Parent(row) => row.app,
        }
    }

    /// The subscription that it names, and the parent.
    pub fn ids(self) -> (Option<SubscriptionId>, Option<SubscriptionId>) {
        match self {
            Self::App(_) => (None, None),
            Self::Row(row) => (Some(row.subscription), None),
            Self::Parent(row) => (None, Some(row.subscription)),
        }
    }
}

impl Rule {
    /// Whether it may still skip what comes now.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.removed.is_none() && self.until.is_none_or(|until| now < until)
    }

    /// Whether a message with that Kafka timestamp (milliseconds since 1970, -1 for none) comes before its end time.
    pub fn is_within(&self, timestamp_ms: i64) -> bool {
        let until = self.until.map(Timestamp::as_millisecond);
        timestamp_ms < 0 || until.is_none_or(|until| timestamp_ms < until)
    }
}

/// A reason or an author as given.
///
/// # Errors
/// It is empty, or too long.
pub fn check_text(name: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err(format!(
            "{name} is empty; say it for those who find the rule later"
        )),
        1..=TEXT_CHARACTERS_MAX => Ok(text.to_owned()),
        count => Err(format!(
            "{name} has {count} characters; {TEXT_CHARACTERS_MAX} at most"
        )),
    }
}

impl EdgeKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
        }
    }
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it. Nobody but us should write there.
    pub fn parse(key: &[u8], value: Option<&[u8]>) -> Result<Self, String> {
        let key = std::str::from_utf8(key).map_err(|_| "its key is no text".to_owned())?;
        let unknown = || format!("its key {key:?} is none of ours");
        match key.split_once('/') {
            Some(("rule", id)) => {
                let id = RuleId::parse(id).ok_or_else(unknown)?;
                let value = value.ok_or("a rule is removed by saying so, never by null")?;
                read_rule(id, value).map(Self::Rule)
            }
            Some(("edge", rest)) => {
                let key = read_edge_key(rest).ok_or_else(unknown)?;
                let offset = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
                let offset = value
                    .map(|value| offset(value).ok_or("its offset is no number".to_owned()))
                    .transpose()?;
                Ok(Self::Edge(key, offset))
            }
            _ => Err(unknown()),
        }
    }

    /// Its key and value.
    pub fn write(&self) -> (String, Option<String>) {
        match self {
            Self::Rule(rule) => (format!("rule/{}", rule.id), Some(write_rule(rule))),
            Self::Edge(key, offset) => {
                let kind = key.kind.as_str();
                let EdgeKey {
                    rule,
                    partition,
                    incarnation,
                    epoch,
                    ..
                } = key;
                (
                    format!("edge/{rule}/{partition}/{kind}/{incarnation}/{epoch}"),
                    offset.map(|offset| offset.to_string()),
                )
            }
        }
    }
}

fn read_rule(id: RuleId, value: &[u8]) -> Result<Rule, String> {
    let written: WrittenRule =
        serde_json::from_slice(value).map_err(|error| format!("its value: {error}"))?;
    let time = |text: &str| {
        text.parse::<Timestamp>()
            .map_err(|error| format!("its value: {text:?}: {error}"))
    };
    let removed = written.removed.map(|removed| {
        Ok::<_, String>(Removed {
            at: time(&removed.at)?,
            author: removed.author,
        })
    });
    Ok(Rule {
        id,
        target: Target::of(
            &written.app_id,
            written.subscription_id.as_deref(),
            written.parent_id.as_deref(),
        )?,
        reason: written.reason,
        author: written.author,
        created_at: time(&written.created_at)?,
        until: written.until.as_deref().map(time).transpose()?,
        removed: removed.transpose()?,
    })
}

fn write_rule(rule: &Rule) -> String {
    let (subscription, parent) = rule.target.ids();
    let written = WrittenRule {
        app_id: rule.target.app().to_string(),
        subscription_id: subscription.map(|id| id.to_string()),
        parent_id: parent.map(|id| id.to_string()),
        reason: rule.reason.clone(),
        author: rule.author.clone(),
        created_at: rule.created_at.to_string(),
        until: rule.until.map(|until| until.to_string()),
        removed: rule.removed.as_ref().map(|removed| WrittenRemoved {
            at: removed.at.to_string(),
            author: removed.author.clone(),
        }),
    };
    serde_json::to_string(&written).expect("plain values are JSON")
}

fn read_edge_key(rest: &str) -> Option<EdgeKey> {
    let mut parts = rest.split('/');
    let key = EdgeKey {
        rule: RuleId::parse(parts.next()?)?,
        partition: Partition(parts.next()?.parse().ok().filter(|at| *at >= 0)?),
        kind: match parts.next()? {
            "begin" => EdgeKind::Begin,
            "end" => EdgeKind::End,
            _ => return None,
        },
        incarnation: parts.next()?.parse().ok()?,
        epoch: EpochId::parse(parts.next()?)?,
    };
    parts.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
    const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

    fn round_trip(record: &Record) {
        let (key, value) = record.write();
        let value = value.as_deref().map(str::as_bytes);
        assert_eq!(&Record::parse(key.as_bytes(), value).unwrap(), record);
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        for target in [
            Target::of(APP, None, None),
            Target::of(APP, Some(ROW), None),
            Target::of(APP, None, Some(ROW)),
        ] {
            let mut rule = Rule {
                id: RuleId::random(),
                target: target.unwrap(),
                reason: "she said \"stop\"".to_owned(),
                author: "ann".to_owned(),
                created_at: "2026-03-01T10:00:00Z".parse().unwrap(),
                until: None,
                removed: None,
            };
            round_trip(&Record::Rule(rule.clone()));
            rule.until = Some("2026-03-01T11:00:00.123Z".parse().unwrap());
            rule.removed = Some(Removed {
                at: "2026-03-01T10:30:00Z".parse().unwrap(),
                author: "bob".to_owned(),
            });
            round_trip(&Record::Rule(rule));
        }
        for kind in [EdgeKind::Begin, EdgeKind::End] {
            let key = EdgeKey {
                rule: RuleId::random(),
                partition: Partition(7),
                kind,
                incarnation: 2,
                epoch: EpochId(u64::MAX),
            };
            round_trip(&Record::Edge(key, Some(1 << 40)));
            round_trip(&Record::Edge(key, None));
        }
    }

    #[test]
    fn what_is_none_of_ours_is_said_so() {
        for (key, value) in [
            ("", None),
            ("rule/x", Some("{}")),
            (&*format!("rule/{ROW}"), None),
            (&*format!("rule/{ROW}"), Some("{}")),
            (
                &*format!("edge/{ROW}/0/middle/1/00000000000000ff"),
                Some("1"),
            ),
            (
                &*format!("edge/{ROW}/-1/begin/1/00000000000000ff"),
                Some("1"),
            ),
            (
                &*format!("edge/{ROW}/0/begin/1/00000000000000ff"),
                Some("x"),
            ),
            (&*format!("edge/{ROW}/0/begin/1/ff"), Some("1")),
        ] {
            let parsed = Record::parse(key.as_bytes(), value.map(str::as_bytes));
            assert!(parsed.is_err(), "{key}: {parsed:?}");
        }
    }

    #[test]
    fn an_end_time_is_compared_with_the_messages_own_time() {
        let rule = Rule {
            id: RuleId::random(),
            target: Target::of(APP, None, None).unwrap(),
            reason: String::new(),
            author: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            until: Some(Timestamp::from_millisecond(1000).unwrap()),
            removed: None,
        };
        assert!(rule.is_within(999) && !rule.is_within(1000));
        assert!(rule.is_within(-1), "a message without a time is within");
    }

    #[test]
    fn a_target_is_one_thing() {
        assert!(Target::of("x", None, None).is_err());
        assert!(Target::of(APP, Some("x"), None).is_err());
        assert!(Target::of(APP, Some(ROW), Some(ROW)).is_err());
        assert!(check_text("reason", "  ").is_err());
        assert!(check_text("reason", &"x".repeat(501)).is_err());
        assert_eq!(check_text("reason", " why ").unwrap(), "why");
    }
}
