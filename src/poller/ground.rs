//! Whether the log below where an epoch begins is still the one that was read: a leader that lacked its end may have taken over since
//! (an unclean election, a lost disk), and written other records in place of some that are finished.
//!
//! With each offset that is committed goes the leader epoch up to which the log was read. A new leader's epoch is higher than
//! all before, so whatever is written behind a cut that came later has a higher one than that. Hence:
//!
//! 1. `Unproven`, where an epoch begins at a committed offset. Its first message has a leader epoch no higher than the one
//!    that was committed: nothing was cut, 3. That is so nearly always, and costs nothing. A higher one: 2.
//! 2. `InDoubt`, also where no message came for a while. Maybe only the leader changed. The message is not taken: the client begins there again, and asks the broker first where the log of
//!    the committed leader epoch ends. If that is below, an error comes that says where, and stands for records that are gone. 3.
//! 3. `Proven`. From here on the client itself asks, whenever the leader changes.
//!
//! Going on behind a cut (`on_lost_records = "skip"`) is going back to it: what is behind it now was never read. Its leader epochs are
//! higher, so the fences of rows let it through, and no longer what was read before.
//!
//! Not noticed: a cut before the first message of a group was read, or where what was read last is the mark of a transaction, of which
//! librdkafka doesn't tell the leader epoch (then -1 is committed); and two unclean elections of which each led back to a
//! leader whose records the other lacked.

use super::lookup::Start;
use crate::clock;
use crate::fault;
use crate::ids::OffsetAndEpoch;
use crate::observe::recorder::PartitionAlarm;
use std::time::{Duration, Instant};

/// Of a log that was written anew up to where an epoch begins, and no further, no message comes to tell.
const FIRST_MESSAGE_WITHIN: Duration = Duration::from_secs(5);

/// What an epoch stands on.
#[derive(Debug)]
pub struct Ground {
    /// Where it began, and up to which leader epoch the log below was read.
    begins: OffsetAndEpoch,
    certainty: Certainty,
    began: Instant,
    /// The highest leader epoch that was read, below the beginning or since.
    highest: i32,
    /// No record below this offset has a higher one.
    known_below: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Proven,
    Unproven,
    InDoubt,
}

impl Ground {
    /// Of an epoch that begins at `start`.
    pub fn of(start: &Start) -> Self {
        let certainty = match start.leader_epoch {
            ..0 => Certainty::Proven,
            // The log ends below what was committed: it was cut off, there or further below.
            _ if start.alarm == PartitionAlarm::RecordsLost => Certainty::InDoubt,
            _ => Certainty::Unproven,
        };
        Self {
            begins: start.place(),
            certainty,
            began: clock::now(),
            highest: start.leader_epoch,
            known_below: start.offset,
        }
    }

    /// A message of this leader epoch is there. Whether it can be taken.
    pub fn bears(&mut self, leader_epoch: i32) -> bool {
        if self.certainty == Certainty::Unproven {
            self.certainty = match leader_epoch <= self.begins.leader_epoch {
                true => Certainty::Proven,
                false => Certainty::InDoubt,
            };
        }
        if fault::mutant("cuts-not-noticed") {
            self.certainty = Certainty::Proven;
        }
        self.certainty == Certainty::Proven
    }

    /// Where the client has to begin again, after asking the broker.
    pub fn doubted(&mut self) -> Option<OffsetAndEpoch> {
        let is_late = || clock::now() >= self.began + FIRST_MESSAGE_WITHIN;
        if self.certainty == Certainty::Unproven && is_late() {
            self.certainty = Certainty::InDoubt;
        }
        (self.certainty == Certainty::InDoubt).then_some(self.begins)
    }

    /// The client has begun again.
    pub fn is_asked(&mut self) {
        self.certainty = Certainty::Proven;
    }

    /// The log was read up to there.
    pub fn read_up_to(&mut self, place: OffsetAndEpoch) {
        if place.leader_epoch >= 0 {
            self.highest = self.highest.max(place.leader_epoch);
            self.known_below = self.known_below.max(place.offset);
        }
    }

    /// An offset, below which everything was read. One too low a leader epoch would make a log that is whole look cut off.
    pub fn place(&self, offset: i64) -> OffsetAndEpoch {
        let is_known = offset <= self.known_below;
        OffsetAndEpoch {
            offset,
            leader_epoch: if is_known { self.highest } else { -1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::turned;
    use crate::config::checked::{OnLostRecords, Start as ConfiguredStart};
    use crate::ids::Partition;
    use crate::poller::lookup::decide::{Known, Log, decide};

    fn place(offset: i64, leader_epoch: i32) -> OffsetAndEpoch {
        OffsetAndEpoch {
            offset,
            leader_epoch,
        }
    }

    /// Committed at 300, read up to that leader epoch; the log ends there.
    fn ground(leader_epoch: i32, end: i64) -> Ground {
        let known = Known {
            committed: Some(place(300, leader_epoch)),
            note: None,
            first_seen: Some(0),
        };
        let log = Log { first: 100, end };
        let (earliest, skip) = (ConfiguredStart::Earliest, OnLostRecords::Skip);
        Ground::of(&decide(Partition(0), known, log, earliest, skip))
    }

    #[test]
    fn a_message_of_the_same_leader_proves_the_log_below() {
        let mut ground = ground(3, 500);
        assert_eq!(ground.doubted(), None, "before anything was read");
        assert!(ground.bears(3) && ground.bears(4));
        assert_eq!(ground.doubted(), None, "the client asks from now on");
    }

    #[test]
    fn a_message_of_a_later_leader_waits_until_the_broker_was_asked() {
        let mut ground = ground(3, 500);
        assert!(!ground.bears(4));
        assert!(!ground.bears(3), "nothing of what was read counts");
        assert_eq!(ground.doubted(), Some(place(300, 3)));
        ground.is_asked();
        assert_eq!(ground.doubted(), None);
        assert!(ground.bears(4));
    }

    #[test]
    fn a_log_that_ends_below_is_asked_about_before_anything_is_read() {
        assert_eq!(ground(3, 200).doubted(), Some(place(200, 3)));
    }

    #[test]
    fn a_log_of_which_nothing_comes_is_asked_about_after_a_while() {
        turned::stop();
        let mut ground = ground(3, 300);
        turned::forward(FIRST_MESSAGE_WITHIN - Duration::from_millis(1));
        assert_eq!(ground.doubted(), None);
        turned::forward(Duration::from_millis(1));
        assert_eq!(ground.doubted(), Some(ground.begins));
    }

    #[test]
    fn nothing_is_asked_where_nobody_knows_what_was_read() {
        let mut ground = ground(-1, 500);
        assert!(ground.bears(7));
        assert_eq!(ground.doubted(), None);
    }

    #[test]
    fn what_is_committed_goes_with_the_highest_leader_epoch_read() {
        let mut ground = ground(3, 500);
        assert_eq!(ground.place(300).leader_epoch, 3);
        ground.read_up_to(place(308, 5));
        ground.read_up_to(place(310, 4));
        assert_eq!(ground.place(310).leader_epoch, 5);
    }

    #[test]
    fn behind_a_record_whose_leader_epoch_nobody_tells_none_is_committed() {
        let mut ground = ground(3, 500);
        ground.read_up_to(place(310, 3));
        ground.read_up_to(place(311, -1));
        assert_eq!(ground.place(310), place(310, 3));
        assert_eq!(ground.place(311), place(311, -1));
        ground.read_up_to(place(312, 4));
        assert_eq!(ground.place(311), place(311, 4));
    }
}
