//! The dead letters, read along: from which messages they come.

use millpond::config::checked::Kafka;
use millpond::ids::Partition;
use millpond::kafka::KafkaError;
use millpond::kafka::admin::Admin;
use millpond::kafka::reader::{Message, Reader, Span};
use std::collections::HashSet;
use std::time::Duration;

/// Each question to the broker ends by then.
const ANSWER: Duration = Duration::from_secs(5);

/// Those that were read.
pub struct Letters {
    kafka: Kafka,
    admin: Admin,
    /// The next offset to read, by partition of the dead letter topic.
    next: Vec<i64>,
    /// Partition and offset of the messages.
    known: HashSet<(i32, i64)>,
}

impl Letters {
    pub fn open(kafka: &Kafka) -> Result<Self, KafkaError> {
        Ok(Self {
            kafka: kafka.clone(),
            admin: Admin::connect(kafka)?,
            next: Vec::new(),
            known: HashSet::new(),
        })
    }

    pub fn has(&self, partition: i32, offset: i64) -> bool {
        self.known.contains(&(partition, offset))
    }

    /// Reads all that are there now. `false`: not all could be read.
    pub fn read_on(&mut self) -> bool {
        let topic = self.kafka.dead_letter_topic.clone();
        let Ok(ends) = self.admin.end_offsets(&topic, ANSWER) else {
            return false;
        };
        self.next.resize(ends.len(), 0);
        let span = |(partition, (start, end)): (i32, (&i64, &i64))| Span {
            partition: Partition(partition),
            start: *start,
            end: *end,
        };
        let spans: Vec<Span> = (0..).zip(self.next.iter().zip(&ends)).map(span).collect();
        let Ok(mut reader) = Reader::open(&self.kafka, &topic, &spans) else {
            return false;
        };
        while let Some(letter) = reader.next(ANSWER) {
            let Ok(letter) = letter else { return false };
            self.known.extend(origin(&letter));
        }
        self.next = ends;
        true
    }
}

fn origin(letter: &Message<'_>) -> Option<(i32, i64)> {
    let header = |name: &str| {
        let mut found = letter.headers().filter(|(own, _)| *own == name);
        str::from_utf8(found.next()?.1?).ok()
    };
    let partition = header("__dlq.errors.partition")?.parse().ok()?;
    Some((partition, header("__dlq.errors.offset")?.parse().ok()?))
}
