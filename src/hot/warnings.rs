//! Which row or app is to be warned of: one that has more than a set share of its shard's messages, while the shard is busy.
//! Of each at most once in [`PAUSE`], with how often it was left out.

use super::counts::{By, window_seconds_max};
use super::picture::{Part, Picture};
use crate::ids::{AppId, RowKey, ShardIndex};
use hashbrown::HashMap;
use std::time::{Duration, Instant};

/// A busy shard has at least so many messages a second, over the whole window. With fewer, one customer's click is a share.
pub const MESSAGES_PER_S_MIN: f64 = 100.0;

/// Between two warnings of the same row or app.
pub const PAUSE: Duration = Duration::from_secs(60);

/// Whom a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A row.
    Row(RowKey),
    /// An app.
    App(AppId),
}

/// A warning that is to be given now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// Where.
    pub shard: ShardIndex,
    /// Of whom.
    pub subject: Subject,
    /// What it has of the messages.
    pub messages: Part,
    /// Looks at the picture, since the last warning, that found the same.
    pub suppressed: u64,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    suppressed: u64,
}

/// What was warned of lately.
#[derive(Debug)]
pub struct Warnings {
    row_share: f64,
    app_share: f64,
    said: HashMap<Subject, Said>,
}

impl Warnings {
    /// For these shares of a shard's messages; 0 is for none.
    pub fn new(row_share: f64, app_share: f64) -> Self {
        Self {
            row_share,
            app_share,
            said: HashMap::new(),
        }
    }

    /// What is to be warned of after a look at the picture.
    pub fn due(&mut self, picture: &Picture, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (index, shard) in picture.shards.iter().enumerate() {
            if shard.window_messages < MESSAGES_PER_S_MIN * window_seconds_max() {
                continue;
            }
            let rows = shard.rows.iter().map(|row| {
                let subject = Subject::Row(row.key);
                (subject, row.by(By::Messages), self.row_share)
            });
            let apps = shard.apps.iter().map(|app| {
                let subject = Subject::App(app.key);
                (subject, app.by(By::Messages), self.app_share)
            });
            let hot = rows
                .chain(apps)
                .filter(|(_, messages, limit)| *limit > 0.0 && messages.share > *limit);
            for (subject, messages, _) in hot.collect::<Vec<_>>() {
                if let Some(suppressed) = self.may_say(subject, now) {
                    due.push(Due {
                        shard: ShardIndex(index),
                        subject,
                        messages,
                        suppressed,
                    });
                }
            }
        }
        self.said
            .retain(|_, said| now.saturating_duration_since(said.at) < PAUSE * 2);
        due
    }

    /// `Some` if it was not said lately: how often it was left out since.
    fn may_say(&mut self, subject: Subject, now: Instant) -> Option<u64> {
        let Some(said) = self.said.get_mut(&subject) else {
            let first = Said {
                at: now,
                suppressed: 0,
            };
            self.said.insert(subject, first);
            return Some(0);
        };
        if now.saturating_duration_since(said.at) < PAUSE {
            said.suppressed += 1;
            return None;
        }
        said.at = now;
        Some(std::mem::take(&mut said.suppressed))
    }
}
