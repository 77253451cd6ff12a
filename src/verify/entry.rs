//! One row of Postgres, and how far the model has come with it.

use super::{
    audit::Message,
    judge::Update,
    report::Difference,
    state::{Digest, Names, State},
    stored::Stored,
};
use crate::ids::Position;

/// A row as Postgres holds it, as a fingerprint, beside the model's.
pub(super) struct Entry {
    fence: Position,
    stored: Digest,
    progress: Progress,
}

enum Progress {
    /// The log can't tell what it should be.
    Unverifiable,
    /// No message of it yet.
    Unseen,
    /// The state after the messages so far, all of them below its fence.
    Below(Box<State>),
    /// Compared at its fence, and equal.
    Equal,
    /// Compared, and reported as different.
    Different,
}

/// What the dead letters say of an update that is good by itself.
#[derive(Default)]
pub(super) struct Refused {
    /// The database refused it: it only moves the fence.
    pub all: bool,
    /// A count overflowed: it only moves the fence. To be compared with what the model says.
    pub overflow: bool,
    /// Its link was over the limit; the rest of it applies.
    pub link: bool,
}

/// What came of one update.
pub(super) struct Step {
    /// A count overflowed; where the model can't tell, what the letters say.
    pub overflows: bool,
    /// What the model has, if that is not what Postgres holds.
    pub difference: Option<String>,
}

/// What is left to say of a row after the last message.
pub(super) enum Verdict {
    /// The log can't tell what it should be.
    Unknown,
    /// It was compared, and reported if it differed.
    Settled,
    /// A difference to report, and what the model has.
    Differs(Difference, String),
}

impl Entry {
    /// A row without any message so far.
    pub fn new(stored: &Stored<'_>, verifiable: bool, names: &mut Names) -> Self {
        Self {
            fence: stored.fence,
            stored: match State::of(&stored.columns, names) {
                Ok(state) => state.digest(stored.updated_at_us),
                Err(_) => Digest::IMPOSSIBLE,
            },
            progress: if verifiable {
                Progress::Unseen
            } else {
                Progress::Unverifiable
            },
        }
    }

    /// The position of the newest update that the row holds.
    pub fn fence(&self) -> Position {
        self.fence
    }

    /// Takes an update at or below the fence; at the fence the row is compared.
    pub fn step(
        &mut self,
        message: &Message<'_>,
        position: Position,
        update: Update<'_>,
        refused: &Refused,
        names: &mut Names,
    ) -> Step {
        let no_verdict = Step {
            overflows: refused.overflow,
            difference: None,
        };
        let mut state = match std::mem::replace(&mut self.progress, Progress::Different) {
            Progress::Unseen => Box::default(),
            Progress::Below(state) => state,
            Progress::Unverifiable => {
                self.progress = Progress::Unverifiable;
                return no_verdict;
            }
            Progress::Different => return no_verdict,
            Progress::Equal => {
                let model = "an update after the one at its fence, with a lower position: it is on two partitions";
                return Step {
                    difference: Some(model.to_owned()),
                    ..no_verdict
                };
            }
        };
        let overflows = !refused.all && state.apply(update, refused.link, names).is_err();
        if position < self.fence {
            self.progress = Progress::Below(state);
            return Step {
                overflows,
                difference: None,
            };
        }
        let updated_at_us = message.timestamp_ms.saturating_mul(1000);
        if state.digest(updated_at_us) == self.stored {
            self.progress = Progress::Equal;
            return Step {
                overflows,
                difference: None,
            };
        }
        let model = show(position, updated_at_us, &state.show(names));
        Step {
            overflows,
            difference: Some(model),
        }
    }

    /// No verdict about this row any more.
    pub fn give_up(&mut self) {
        self.progress = Progress::Unverifiable;
    }

    /// What is left to say after the last message.
    pub fn verdict(&self, names: &Names) -> Verdict {
        match &self.progress {
            Progress::Unverifiable => Verdict::Unknown,
            Progress::Equal | Progress::Different => Verdict::Settled,
            Progress::Unseen => Verdict::Differs(
                Difference::Extra,
                "no row: the log has no update of it up to its fence".to_owned(),
            ),
            Progress::Below(state) => Verdict::Differs(
                Difference::Mismatched,
                format!(
                    "no update of it at its fence; those below make {}",
                    state.show(names)
                ),
            ),
        }
    }
}

/// A row for people, on one line.
pub(super) fn show(fence: Position, updated_at_us: i64, state: &str) -> String {
    let Position {
        incarnation,
        leader_epoch,
        offset,
    } = fence;
    let updated_at = jiff::Timestamp::from_microsecond(updated_at_us)
        .map_or_else(|_| format!("{updated_at_us} µs"), |time| time.to_string());
    format!(
        "fence=(incarnation {incarnation}, leader epoch {leader_epoch}, offset {offset}) updated_at={updated_at} {state}"
    )
}
