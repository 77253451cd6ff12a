//! What a verification found: the counts that scripts read, and a few differences for people.

use crate::dead::Reason;
use crate::ids::{Partition, RowKey, ShardIndex};
use serde::Serialize;
use std::fmt;

/// So many differences are described; all are counted.
pub(super) const EXAMPLES_MAX: usize = 20;

/// The result. Serialises to the one JSON line that the command prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing differs, and something was checked.
    pub ok: bool,
    /// Rows in Postgres that the log could judge.
    pub rows_checked: u64,
    /// Rows that hold something else than their updates up to their fence make of them.
    pub mismatched: u64,
    /// Rows that are absent, or whose fence is too low, though an update of them is below the committed offset.
    pub missing: u64,
    /// Rows that no update made, or that are on another shard than their app's.
    pub extra: u64,
    /// Rows in Postgres whose beginning the log does not have.
    pub unverifiable: u64,
    /// Messages in the topic, all partitions, start to end.
    pub messages_read: u64,
    /// Good messages that a rule skips.
    pub skipped: u64,
    /// Messages with a dead letter of this topic and group.
    pub dead_letters: u64,
    /// Messages below the committed offset that need a dead letter and have none with the right reason.
    pub dead_letters_missing: u64,
    /// Dead letters that no message explains.
    pub dead_letters_unexpected: u64,
    /// Parents whose children were counted.
    pub parents_checked: u64,
    /// Parents with another number of children than is stored for them.
    pub children_mismatched: u64,
    /// How long it took.
    pub seconds: f64,
    /// The first differences.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// One difference, for people.
#[derive(Debug)]
pub struct Example {
    /// Its kind.
    pub difference: Difference,
    /// The row, and the shard where it is or should be.
    pub row: Option<(RowKey, ShardIndex)>,
    /// The partition, where it is known.
    pub partition: Option<Partition>,
    /// The offset of the message in question.
    pub offset: Option<i64>,
    /// What the model has.
    pub model: String,
    /// What is really there.
    pub found: String,
}

/// The kinds of difference. Each is counted in the field of [`Report`] that is named so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// [`Report::mismatched`].
    Mismatched,
    /// [`Report::missing`].
    Missing,
    /// [`Report::extra`].
    Extra,
    /// [`Report::dead_letters_missing`].
    DeadLetterMissing,
    /// [`Report::dead_letters_unexpected`].
    DeadLetterUnexpected,
    /// [`Report::children_mismatched`].
    Children,
}

impl Report {
    /// Counts a difference, and keeps it as an example if it is among the first.
    pub(super) fn differ(&mut self, example: Example) {
        *match example.difference {
            Difference::Mismatched => &mut self.mismatched,
            Difference::Missing => &mut self.missing,
            Difference::Extra => &mut self.extra,
            Difference::DeadLetterMissing => &mut self.dead_letters_missing,
            Difference::DeadLetterUnexpected => &mut self.dead_letters_unexpected,
            Difference::Children => &mut self.children_mismatched,
        } += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example);
        }
    }

    /// A message that needs a letter with that reason has none.
    pub(super) fn letter_missing(&mut self, partition: Partition, offset: i64, reason: Reason) {
        let model =
            format!("a dead letter with the reason {reason}, since its offset is committed");
        let found = "no such letter".to_owned();
        self.differ(Example {
            model,
            found,
            ..Example::of_message(Difference::DeadLetterMissing, partition, offset)
        });
    }

    /// A letter with a reason that its message, if there is one, does not give.
    pub(super) fn letter_unexpected(&mut self, partition: Partition, offset: i64, reason: Reason) {
        self.differ(Example {
            model: "no message there that would be refused so".to_owned(),
            found: format!("a dead letter with the reason {reason}"),
            ..Example::of_message(Difference::DeadLetterUnexpected, partition, offset)
        });
    }

    /// A letter, here by its own place, that does not say where it comes from.
    pub(super) fn letter_unreadable(&mut self, partition: Partition, offset: i64) {
        self.differ(Example {
            model: "letters say where they come from, and why".to_owned(),
            found: "at this place of the dead letter topic: one without these headers".to_owned(),
            ..Example::of_message(Difference::DeadLetterUnexpected, partition, offset)
        });
    }

    /// How many differences there are, of all kinds.
    pub fn differences(&self) -> u64 {
        self.mismatched
            + self.missing
            + self.extra
            + self.dead_letters_missing
            + self.dead_letters_unexpected
            + self.children_mismatched
    }
}

impl Example {
    fn of_message(difference: Difference, partition: Partition, offset: i64) -> Self {
        Self {
            difference,
            row: None,
            partition: Some(partition),
            offset: Some(offset),
            model: String::new(),
            found: String::new(),
        }
    }
}

impl Difference {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mismatched => "mismatched",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::DeadLetterMissing => "dead letter missing",
            Self::DeadLetterUnexpected => "dead letter unexpected",
            Self::Children => "children mismatched",
        }
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.difference.as_str())?;
        if let Some((row, _)) = self.row {
            write!(
                f,
                " app_id={} subscription_id={}",
                row.app, row.subscription
            )?;
        }
        if let Some(partition) = self.partition {
            write!(f, " partition={partition}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " offset={offset}")?;
        }
        write!(f, "\n  model: {}\n  found: {}", self.model, self.found)
    }
}
