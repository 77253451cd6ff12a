//! Which letters are meant, and reading them.

use super::{ANSWER_TIMEOUT, DeadLettersError, Letter, Place};
use crate::config::checked::Kafka;
use crate::dead::Reason;
use crate::ids::{AppId, Partition};
use crate::kafka::admin::Admin;
use crate::kafka::reader::{Reader, Span};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long no record may come before the end is reached.
const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

/// A choice of letters. One that says nothing means all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these reasons.
    pub reasons: Vec<Reason>,
    /// Only those whose value names this app.
    pub app: Option<AppId>,
    /// Only those that come from this partition of the topic of updates.
    pub source_partition: Option<Partition>,
    /// Only those whose message is stamped then or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only those at these places of the dead letter topic.
    pub places: BTreeSet<Place>,
}

impl Selection {
    /// Whether a letter is meant.
    pub fn holds(&self, letter: &Letter) -> bool {
        let recent = |at_ms| self.since_ms.is_none_or(|since_ms| at_ms >= since_ms);
        let reason = || {
            letter
                .reason()
                .is_some_and(|own| self.reasons.contains(&own))
        };
        let from = || letter.origin().map(|origin| origin.partition);
        (self.places.is_empty() || self.places.contains(&letter.place))
            && letter.timestamp_ms.is_none_or(recent)
            && (self.source_partition.is_none() || from() == self.source_partition)
            && (self.reasons.is_empty() || reason())
            && (self.app.is_none() || letter.app() == self.app)
    }
}

/// Hands every letter that is meant and there now to `each`; those of a partition in their order.
pub fn read(
    admin: &Admin,
    kafka: &Kafka,
    selection: &Selection,
    mut each: impl FnMut(Letter) -> Result<(), DeadLettersError>,
) -> Result<(), DeadLettersError> {
    let spans = spans(admin, kafka, selection)?;
    let mut reader = Reader::open(kafka, &kafka.dead_letter_topic, &spans)?;
    while let Some(message) = reader.next(RECORD_TIMEOUT) {
        let letter = Letter::of(&message?);
        if selection.holds(&letter) {
            each(letter)?;
        }
    }
    Ok(())
}

/// The letter at that place.
pub fn find(admin: &Admin, kafka: &Kafka, place: Place) -> Result<Letter, DeadLettersError> {
    let selection = Selection {
        places: BTreeSet::from([place]),
        ..Selection::default()
    };
    let mut found = None;
    read(admin, kafka, &selection, |letter| {
        found = Some(letter);
        Ok(())
    })?;
    found.ok_or_else(|| DeadLettersError::Gap {
        topic: kafka.dead_letter_topic.clone(),
        place,
    })
}

/// What is to be read: the whole topic as it is now, less what the selection can rule out.
fn spans(
    admin: &Admin,
    kafka: &Kafka,
    selection: &Selection,
) -> Result<Vec<Span>, DeadLettersError> {
    let topic = &kafka.dead_letter_topic;
    let mut starts = admin.start_offsets(topic, ANSWER_TIMEOUT)?;
    let ends = admin.end_offsets(topic, ANSWER_TIMEOUT)?;
    for place in &selection.places {
        check_there(topic, *place, &starts, &ends)?;
    }
    if let Some(since_ms) = selection.since_ms {
        // Everything below is older; above may be older ones too.
        let first = admin.offsets_at(topic, since_ms.max(0), ANSWER_TIMEOUT)?;
        for (start, first) in starts.iter_mut().zip(first) {
            *start = (*start).max(first);
        }
    }
    let whole = (0..).map(Partition).zip(starts.into_iter().zip(ends));
    let spans = whole.filter_map(|(partition, (start, end))| {
        let span = Span {
            partition,
            start,
            end,
        };
        if selection.places.is_empty() {
            return Some(span);
        }
        let of_partition = || {
            selection
                .places
                .iter()
                .filter(|place| place.partition == partition)
        };
        Some(Span {
            start: start.max(of_partition().next()?.offset),
            end: end.min(of_partition().next_back()?.offset + 1),
            ..span
        })
    });
    Ok(spans.collect())
}

/// Whether the log reaches over that place.
pub(super) fn check_there(
    topic: &str,
    place: Place,
    starts: &[i64],
    ends: &[i64],
) -> Result<(), DeadLettersError> {
    let topic = topic.to_owned();
    let (Some(start), Some(end)) = (
        starts.get(place.partition.index()),
        ends.get(place.partition.index()),
    ) else {
        return Err(DeadLettersError::NoPartition {
            topic,
            partitions: starts.len(),
            asked: place.partition.0,
        });
    };
    if (*start..*end).contains(&place.offset) {
        return Ok(());
    }
    Err(DeadLettersError::NotThere {
        topic,
        place,
        start: *start,
        end: *end,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::dead::header;

    fn letter(place: &str, reason: &str, timestamp_ms: Option<i64>) -> Letter {
        let headers = [
            (header::REASON, reason),
            (header::PARTITION, "4"),
            (header::OFFSET, "1"),
        ];
        let owned =
            |(name, value): (&str, &str)| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Letter {
            place: place.parse().unwrap(),
            timestamp_ms,
            key: None,
            value: None,
            headers: headers.map(owned).into(),
        }
    }

    #[test]
    fn a_selection_that_says_nothing_means_all_and_each_filter_rules_out() {
        let letter = letter("1:7", "bad-id", Some(1000));
        let all = Selection::default();
        assert!(all.holds(&letter));
        let holds = |change: fn(&mut Selection)| {
            let mut selection = all.clone();
            change(&mut selection);
            selection.holds(&letter)
        };
        assert!(holds(|s| s.reasons = vec![Reason::Empty, Reason::BadId]));
        assert!(!holds(|s| s.reasons = vec![Reason::Empty]));
        assert!(holds(|s| s.source_partition = Some(Partition(4))));
        assert!(!holds(|s| s.source_partition = Some(Partition(1))));
        assert!(holds(|s| s.since_ms = Some(1000)));
        assert!(!holds(|s| s.since_ms = Some(1001)));
        assert!(!holds(|s| s.app = Some(AppId([0; 16]))));
        assert!(holds(|s| s.places = ["1:7".parse().unwrap()].into()));
        assert!(!holds(|s| s.places = ["1:8".parse().unwrap()].into()));
    }

    #[test]
    fn a_letter_without_a_time_is_not_ruled_out_by_time() {
        let selection = Selection {
            since_ms: Some(1000),
            ..Selection::default()
        };
        assert!(selection.holds(&letter("1:7", "bad-id", None)));
    }

    #[test]
    fn a_place_outside_of_the_log_is_refused_with_what_is_there() {
        let refused = |place: &str| {
            let place = place.parse().unwrap();
            check_there("t.dlq", place, &[5, 0], &[9, 0])
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(refused("0:5"), None);
        assert_eq!(refused("0:8"), None);
        assert!(refused("0:9").unwrap().contains("offsets 5 up to 9"));
        assert!(refused("0:4").is_some() && refused("1:0").is_some());
        assert!(refused("2:0").unwrap().contains("has 2 partitions"));
    }
}
