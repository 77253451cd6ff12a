//! Deletes letters for good. Kafka deletes only the beginning of a partition's log, so what goes is everything below an
//! offset of each partition.

use super::select::check_there;
use super::{ANSWER_TIMEOUT, DeadLettersError, Place};
use crate::config::checked::Kafka;
use crate::ids::Partition;
use crate::kafka::admin::Admin;

/// Which letters are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discard {
    /// All that are there now.
    All,
    /// Those below the first one whose message is stamped then or later, in milliseconds since 1970.
    Before(i64),
    /// These, and those below them on the same partition.
    UpTo(Vec<Place>),
}

/// What goes of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The partition of the dead letter topic.
    pub partition: Partition,
    /// The first offset that is there now.
    pub start: i64,
    /// The first offset that stays. At `start` nothing goes.
    pub keep_from: i64,
    /// The end of the partition's log.
    pub end: i64,
}

/// What would go, by partition.
pub fn cuts(admin: &Admin, kafka: &Kafka, what: &Discard) -> Result<Vec<Cut>, DeadLettersError> {
    let topic = &kafka.dead_letter_topic;
    let starts = admin.start_offsets(topic, ANSWER_TIMEOUT)?;
    let ends = admin.end_offsets(topic, ANSWER_TIMEOUT)?;
    let keep_from = match what {
        Discard::All => ends.clone(),
        Discard::Before(at_ms) => admin.offsets_at(topic, (*at_ms).max(0), ANSWER_TIMEOUT)?,
        Discard::UpTo(places) => {
            let mut keep_from = starts.clone();
            for place in places {
                check_there(topic, *place, &starts, &ends)?;
                let kept = &mut keep_from[place.partition.index()];
                *kept = (*kept).max(place.offset + 1);
            }
            keep_from
        }
    };
    let partitions = (0..).map(Partition).zip(starts).zip(ends).zip(keep_from);
    let cut = |(((partition, start), end), keep_from): (((_, i64), i64), i64)| Cut {
        partition,
        start,
        // Letters that came since the ends were asked for stay.
        keep_from: keep_from.clamp(start, end.max(start)),
        end,
    };
    Ok(partitions.map(cut).collect())
}

/// Deletes them.
pub fn discard(admin: &Admin, kafka: &Kafka, cuts: &[Cut]) -> Result<(), DeadLettersError> {
    let offsets: Vec<(Partition, i64)> = cuts
        .iter()
        .filter(|cut| cut.keep_from > cut.start)
        .map(|cut| (cut.partition, cut.keep_from))
        .collect();
    if !offsets.is_empty() {
        admin.delete_records_below(&kafka.dead_letter_topic, &offsets, ANSWER_TIMEOUT)?;
    }
    Ok(())
}
