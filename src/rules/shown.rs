//! A rule for people and scripts: what the admin address answers and `rules list` prints.

use super::record::Rule;
use super::table::Entry;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A rule as one process sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub id: String,
    /// The app.
    pub app_id: String,
    /// The row, of a rule for one.
    pub subscription_id: Option<String>,
    /// The parent, of a rule for one.
    pub parent_id: Option<String>,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub author: String,
    /// When.
    pub created_at: String,
    /// Messages with this Kafka timestamp or a later one are not skipped.
    pub until: Option<String>,
    /// When it was taken back.
    pub removed_at: Option<String>,
    /// By whom.
    pub removed_by: Option<String>,
    /// `active`, `over` (its end time has passed) or `removed`.
    pub state: String,
    /// When this process had decided it, or its end, in all its partitions; null before, and where it has none of them.
    pub effective_at: Option<String>,
    /// Partitions of this process in which it is not decided yet.
    pub undecided: Vec<i32>,
    /// Where it holds, as far as this process knows: surely in its own partitions.
    pub spans: Vec<ShownSpan>,
    /// Messages that it has skipped in this process.
    pub skipped: u64,
}

/// Offsets of a partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownSpan {
    /// The partition.
    pub partition: i32,
    /// The first offset in which the rule holds.
    pub from: i64,
    /// The first in which it no longer does; null while it does.
    pub to: Option<i64>,
}

/// What a request for a new rule says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The app.
    pub app_id: String,
    /// A row of it, if the rule is for one.
    #[serde(default)]
    pub subscription_id: Option<String>,
    /// A parent in it, if the rule is for one.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// Why.
    pub reason: String,
    /// Who makes it.
    pub author: String,
    /// Its end time, RFC 3339.
    #[serde(default)]
    pub until: Option<String>,
}

impl Shown {
    /// As it is now.
    pub fn of(entry: &Entry, now: Timestamp) -> Self {
        let rule = &entry.rule;
        let (subscription, parent) = rule.target.ids();
        let mut spans: Vec<ShownSpan> = entry
            .spans
            .iter()
            .map(|(partition, span)| ShownSpan {
                partition: partition.0,
                from: span.from,
                to: span.to,
            })
            .collect();
        spans.sort_by_key(|span| span.partition);
        Self {
            id: rule.id.to_string(),
            app_id: rule.target.app().to_string(),
            subscription_id: subscription.map(|id| id.to_string()),
            parent_id: parent.map(|id| id.to_string()),
            reason: rule.reason.clone(),
            author: rule.author.clone(),
            created_at: rule.created_at.to_string(),
            until: rule.until.map(|until| until.to_string()),
            removed_at: rule.removed.as_ref().map(|removed| removed.at.to_string()),
            removed_by: rule.removed.as_ref().map(|removed| removed.author.clone()),
            state: state(rule, now).to_owned(),
            effective_at: entry.effective_at.map(|at| at.to_string()),
            undecided: entry
                .undecided
                .iter()
                .map(|partition| partition.0)
                .collect(),
            spans,
            skipped: entry.skipped.get(),
        }
    }
}

fn state(rule: &Rule, now: Timestamp) -> &'static str {
    match &rule.removed {
        Some(_) => "removed",
        None if rule.is_active(now) => "active",
        None => "over",
    }
}
