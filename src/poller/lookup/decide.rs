//! Where a partition begins, from what Kafka and its shard know of it.

use super::Start;
use crate::config::checked::{OnLostRecords, Start as ConfiguredStart};
use crate::ids::{Note, OffsetAndEpoch, Partition};
use crate::observe::recorder::PartitionAlarm;

/// What the group and the shard know of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What the group committed, if it ever did.
    pub committed: Option<OffsetAndEpoch>,
    /// What its last owner wrote beside that.
    pub note: Option<Note>,
    /// Where the partition began when the shard first saw it.
    pub first_seen: Option<i64>,
}

/// What the log of a partition holds: offsets from `first` up to, not including, `end`.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// The oldest record's.
    pub first: i64,
    /// The next record's.
    pub end: i64,
}

/// Where a partition begins, and whether anything between there and where it should begin is gone.
pub fn decide(
    partition: Partition,
    known: Known,
    log: Log,
    configured: ConfiguredStart,
    on_lost_records: OnLostRecords,
) -> Start {
    let wanted = match known {
        Known {
            committed: Some(committed),
            ..
        } => committed.offset,
        // Its commits are gone (the group was deleted, or they expired): reading from its beginning again is harmless.
        Known {
            first_seen: Some(first),
            ..
        } => first,
        Known { .. } => match configured {
            ConfiguredStart::Earliest => log.first,
            ConfiguredStart::Latest => log.end,
        },
    };
    let offset = wanted.clamp(log.first, log.end);
    let lost = offset != wanted;
    // What is known of the log holds up to what was committed, not beyond.
    let committed = known
        .committed
        .filter(|committed| offset <= committed.offset);
    let frontier = match known {
        Known {
            note: Some(note), ..
        } => note.ceiling,
        // Nothing is ever applied before the shard has seen the partition.
        Known {
            first_seen: None, ..
        } => offset,
        // Somebody moved the offsets, or an older version wrote them: nobody can have dispatched what is not there yet.
        Known { .. } => log.end,
    };
    Start {
        partition,
        offset,
        end: log.end,
        committed: known.committed.map(|committed| committed.offset),
        leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        stopped: lost && on_lost_records == OnLostRecords::Stop,
        alarm: if lost {
            PartitionAlarm::RecordsLost
        } else {
            PartitionAlarm::None
        },
        before: known.note,
        frontier: frontier.max(offset),
        rules_end: 0,
    }
}

pub(super) fn say_alarm(start: &Start) {
    if start.alarm == PartitionAlarm::None {
        return;
    }
    let partition = start.partition.0;
    let offset = start.offset;
    if start.stopped {
        tracing::error!(
            partition,
            offset,
            committed = start.committed,
            "the partition stands still: the log no longer holds what comes after the committed offset. Bring the records \
             back, or set consumer.on_lost_records = \"skip\" and restart to go on at this offset"
        );
    } else {
        tracing::error!(
            partition,
            offset,
            committed = start.committed,
            "records are gone; going on behind them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::EpochId;

    const LOG: Log = Log {
        first: 100,
        end: 500,
    };

    /// Read up to the leader epoch 3.
    fn at(offset: i64) -> OffsetAndEpoch {
        OffsetAndEpoch {
            offset,
            leader_epoch: 3,
        }
    }

    fn start(committed: Option<i64>, first_seen: Option<i64>) -> (i64, bool) {
        let known = Known {
            committed: committed.map(at),
            note: None,
            first_seen,
        };
        let start = decide(
            Partition(0),
            known,
            LOG,
            ConfiguredStart::Latest,
            OnLostRecords::Stop,
        );
        assert_eq!(start.stopped, start.alarm == PartitionAlarm::RecordsLost);
        (start.offset, start.stopped)
    }

    #[test]
    fn reading_goes_on_at_the_committed_offset() {
        assert_eq!(start(Some(300), Some(0)), (300, false));
        assert_eq!(start(Some(500), Some(0)), (500, false));
    }

    #[test]
    fn the_configured_start_is_only_for_a_partition_that_was_never_seen() {
        assert_eq!(start(None, None), (500, false));
        assert_eq!(start(None, Some(200)), (200, false));
    }

    #[test]
    fn records_that_are_gone_stop_the_partition() {
        assert_eq!(start(Some(99), Some(0)), (100, true));
        assert_eq!(start(None, Some(0)), (100, true));
        // The log ends before what was committed: it was truncated or made anew.
        assert_eq!(start(Some(501), Some(0)), (500, true));
    }

    #[test]
    fn what_was_read_vouches_for_the_log_below_and_for_nothing_above() {
        let leader_epoch = |committed: Option<i64>| {
            let known = Known {
                committed: committed.map(at),
                note: None,
                first_seen: Some(0),
            };
            let (latest, skip) = (ConfiguredStart::Latest, OnLostRecords::Skip);
            decide(Partition(0), known, LOG, latest, skip).leader_epoch
        };
        assert_eq!(leader_epoch(Some(300)), 3);
        assert_eq!(leader_epoch(Some(501)), 3, "the end is gone");
        assert_eq!(leader_epoch(Some(99)), -1, "the beginning is gone");
        assert_eq!(leader_epoch(None), -1);
    }

    #[test]
    fn skipping_goes_on_behind_the_gap_with_an_alarm() {
        let known = Known {
            committed: Some(at(7)),
            note: None,
            first_seen: Some(0),
        };
        let start = decide(
            Partition(0),
            known,
            LOG,
            ConfiguredStart::Earliest,
            OnLostRecords::Skip,
        );
        assert_eq!(
            (start.offset, start.stopped, start.alarm),
            (100, false, PartitionAlarm::RecordsLost)
        );
    }

    #[test]
    fn nobody_has_dispatched_beyond_the_frontier() {
        let frontier = |note: Option<i64>, first_seen| {
            let known = Known {
                committed: Some(at(300)),
                note: note.map(|ceiling| Note {
                    incarnation: 1,
                    epoch: EpochId(1),
                    ceiling,
                }),
                first_seen,
            };
            let (latest, stop) = (ConfiguredStart::Latest, OnLostRecords::Stop);
            decide(Partition(0), known, LOG, latest, stop).frontier
        };
        assert_eq!(frontier(Some(350), Some(0)), 350, "the last owner says so");
        assert_eq!(
            frontier(Some(900), Some(0)),
            900,
            "it may go on up to there"
        );
        assert_eq!(frontier(Some(10), Some(0)), 300);
        assert_eq!(
            frontier(None, Some(0)),
            500,
            "the end of the log, without a word"
        );
        assert_eq!(frontier(None, None), 300, "nothing was applied yet");
    }
}
