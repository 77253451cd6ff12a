//! The dead letter topic for people: read it, send letters again, drop them. No group is joined, and nothing changes unless
//! it is asked for by its own call. What writes the letters is `kafka::dead_letters`.

// One letter, and which of them are meant.
mod letter;
mod select;
// What can be done about them.
mod discard;
mod plan;
mod replay;

pub use discard::{Cut, Discard, cuts, discard};
pub use letter::{Letter, Place, Summary};
pub use plan::{Fate, Limits, Planned, overtaken, partitions_behind, plan};
pub use replay::{Sent, replay};
pub use select::{Selection, find, read};

use crate::kafka::KafkaError;
use crate::kafka::reader::ReadError;
use crate::sink::standing::StandingError;
use std::time::Duration;

/// How long the brokers may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a command on dead letters can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// Name another one.
    #[error(
        "there is no letter at {place}: partition {} of topic {topic} has offsets {start} up to {end}, the last one \
         excluded",
        place.partition
    )]
    NotThere {
        /// The dead letter topic.
        topic: String,
        /// What was asked for.
        place: Place,
        /// The first offset that is there.
        start: i64,
        /// The first one that is not there yet.
        end: i64,
    },
    /// Name another one: the log reaches over it, but the record was compacted away or never committed.
    #[error("there is no letter at {place} of topic {topic}, though there are some behind it")]
    Gap {
        /// The dead letter topic.
        topic: String,
        /// What was asked for.
        place: Place,
    },
    /// Name another one.
    #[error("topic {topic} has {partitions} partitions; there is no partition {asked}")]
    NoPartition {
        /// The dead letter topic.
        topic: String,
        /// How many it has.
        partitions: usize,
        /// What was asked for.
        asked: i32,
    },
    /// Choose fewer letters.
    #[error(
        "the letters hold more than {} MiB, which is as much as is held in memory at once; choose fewer, by --limit or \
         the other filters",
        bytes_max >> 20
    )]
    TooMany {
        /// The limit.
        bytes_max: usize,
    },
    /// The configuration is not the topic's.
    #[error(
        "topic {topic} has {found} partitions, kafka.partitions says {configured}: a replayed letter would go to a wrong \
         one. Set it to {found}"
    )]
    Partitions {
        /// The topic of updates.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many it should have.
        configured: u32,
    },
    /// Kafka is away or refuses.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The letters could not be read to the end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A shard could not be asked how new its rows are.
    #[error(transparent)]
    Standing(#[from] StandingError),
}
