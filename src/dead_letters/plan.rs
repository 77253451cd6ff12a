//! What would become of each letter that is sent again. Nothing is sent here.
//!
//! A replayed letter is a new update at the end of the log: it takes effect after everything that its row has had since.
//! So a letter is held back when its row holds a newer update. That also holds back a letter whose replay was applied
//! already, and one whose replay was refused again, for which a newer letter stands.

use super::{ANSWER_TIMEOUT, DeadLettersError, Letter, Place, Selection, read};
use crate::config::Config;
use crate::config::checked::{Kafka, PartitionBy};
use crate::dead::header;
use crate::ids::{Partition, RowKey, ShardIndex};
use crate::kafka::admin::Admin;
use crate::sink::shape::SUBSCRIPTION;
use crate::sink::standing::{Standing, standings};
use crate::update::{self, Rejection, decode, judge};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

/// What the letters of one replay may weigh: they are in memory until all is sent, so that those of a row go in order.
const BYTES_MAX: usize = 256 << 20;

/// What is sent and what is not.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Letters that were replayed as often as this are not sent. Keeps a letter that is refused every time from circling.
    pub attempts_max: u32,
    /// Sends letters whose row holds a newer update.
    pub overwrite_newer: bool,
    /// Sends messages that will be refused again.
    pub force: bool,
    /// No more letters than this are sent, the oldest first; the plan ends with the last of them.
    pub letters_max: usize,
}

/// What becomes of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent to this partition of the topic of updates.
    Send(Partition),
    /// Held back: its row holds a newer update.
    MovedOn(Standing),
    /// Skipped: it would be refused again, for what is in the message.
    Hopeless(Rejection),
    /// Skipped: it was replayed as often as allowed.
    Attempts(u32),
    /// Skipped, always: only its beginning is there.
    Cut,
    /// Skipped, always: it comes from another topic, or was given up by another group.
    Foreign,
    /// Skipped, always: its headers don't say where it comes from.
    Unreadable,
    /// Skipped, always: the same message's letter at that place is taken instead.
    Duplicate(Place),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(partition) => write!(f, "send to partition {partition}"),
            Self::MovedOn(Standing {
                fence,
                updated_at_ms,
            }) => {
                let at = jiff::Timestamp::from_millisecond(*updated_at_ms)
                    .map_or_else(|_| format!("{updated_at_ms} ms"), |at| at.to_string());
                write!(
                    f,
                    "held back: its row holds a newer update, offset {} of {at} (--overwrite-newer)",
                    fence.offset
                )
            }
            Self::Hopeless(Rejection { reason, message }) => {
                write!(
                    f,
                    "skipped: it would be refused again, {reason}: {message} (--force)"
                )
            }
            Self::Attempts(attempts) => {
                write!(
                    f,
                    "skipped: replayed {attempts} times already (--attempts-max)"
                )
            }
            Self::Cut => f.write_str("skipped: only the beginning of its value was kept"),
            Self::Foreign => f.write_str("skipped: of another topic or group"),
            Self::Unreadable => f.write_str("skipped: its headers don't say where it comes from"),
            Self::Duplicate(place) => write!(f, "skipped: the same as {place}"),
        }
    }
}

/// A letter and what becomes of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The letter.
    pub letter: Letter,
    /// The row that it is for, if that can be told.
    pub row: Option<RowKey>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What a replay of these letters would do, in the order in which it would send them.
pub fn plan(
    admin: &Admin,
    config: &Config,
    selection: &Selection,
    limits: &Limits,
) -> Result<Vec<Planned>, DeadLettersError> {
    check_partitions(admin, config)?;
    let mut letters = collect(admin, config, selection)?;
    // Letters of a row come from one partition, so this keeps them in the order of the log.
    letters.sort_by_key(|letter| (letter.origin(), letter.place));
    let mut seen = HashMap::new();
    let mut planned: Vec<Planned> = letters
        .into_iter()
        .map(|letter| judge_alone(config, limits, letter, &mut seen))
        .collect();
    if !limits.overwrite_newer {
        hold_back(config, &mut planned)?;
    }
    let mut sends = planned
        .iter()
        .enumerate()
        .filter(|(_, planned)| planned.is_sent());
    if let Some((first_beyond, _)) = sends.nth(limits.letters_max) {
        planned.truncate(first_beyond);
    }
    Ok(planned)
}

impl Planned {
    /// Whether it is to be sent.
    pub fn is_sent(&self) -> bool {
        matches!(self.fate, Fate::Send(_))
    }
}

fn check_partitions(admin: &Admin, config: &Config) -> Result<(), DeadLettersError> {
    let topic = &config.kafka.topic;
    let configured = config.partitioner.partitions();
    match admin.topic_partitions(topic, ANSWER_TIMEOUT)? {
        Some(found) if found == configured => Ok(()),
        found => Err(DeadLettersError::Partitions {
            topic: topic.clone(),
            found: found.unwrap_or(0),
            configured,
        }),
    }
}

fn collect(
    admin: &Admin,
    config: &Config,
    selection: &Selection,
) -> Result<Vec<Letter>, DeadLettersError> {
    let (mut letters, mut bytes) = (Vec::new(), 0);
    read(admin, &config.kafka, selection, |letter| {
        bytes += letter.bytes();
        if bytes > BYTES_MAX {
            return Err(DeadLettersError::TooMany {
                bytes_max: BYTES_MAX,
            });
        }
        letters.push(letter);
        Ok(())
    })?;
    Ok(letters)
}

/// A message by where it was read and what it holds: a topic that is made anew uses its offsets again.
type Message = (Place, u128);

/// What can be told without asking a shard. `seen`: the messages so far, with their letters.
fn judge_alone(
    config: &Config,
    limits: &Limits,
    letter: Letter,
    seen: &mut HashMap<Message, Place>,
) -> Planned {
    let skipped = |fate, letter| Planned {
        letter,
        row: None,
        fate,
    };
    let Some(origin) = letter.origin() else {
        return skipped(Fate::Unreadable, letter);
    };
    let ours = [
        (header::TOPIC, &config.kafka.topic),
        (header::GROUP, &config.kafka.group),
    ];
    if ours
        .iter()
        .any(|(name, own)| letter.says(name) != Some(own))
    {
        return skipped(Fate::Foreign, letter);
    }
    if letter.cut_from().is_some() {
        return skipped(Fate::Cut, letter);
    }
    let first = *seen
        .entry((origin, letter.content()))
        .or_insert(letter.place);
    if first != letter.place {
        return skipped(Fate::Duplicate(first), letter);
    }
    let attempts = letter.attempts();
    if attempts >= limits.attempts_max {
        return skipped(Fate::Attempts(attempts), letter);
    }
    let home = |app| match config.kafka.partition_by {
        PartitionBy::App => config.partitioner.partition_of(app),
        PartitionBy::Any => origin.partition,
    };
    match row_of(config, &letter) {
        Ok(row) => Planned {
            row: Some(row),
            fate: Fate::Send(home(row.app)),
            letter,
        },
        Err(_) if limits.force => {
            let partition = letter.app().map_or(origin.partition, home);
            skipped(Fate::Send(partition), letter)
        }
        Err(rejection) => skipped(Fate::Hopeless(rejection), letter),
    }
}

/// The row of a message that can be applied now, as the consumer would judge it on its app's own partition.
fn row_of(config: &Config, letter: &Letter) -> Result<RowKey, Rejection> {
    let bytes_max = config.consumer.message_max_bytes;
    let envelope = judge(letter.key.as_deref(), letter.value.as_deref(), bytes_max)?;
    let place = update::Place {
        subscription: envelope.subscription,
        partition: Partition(0),
        // It goes to where it belongs, so it can't be elsewhere.
        partitioner: None,
    };
    Ok(decode(envelope.value, &place)?.key)
}

/// The partitions that letters of the plan go to and on which the group has not finished everything: what lies there
/// can't be seen in the rows yet.
pub fn partitions_behind(
    admin: &Admin,
    config: &Config,
    plan: &[Planned],
) -> Result<BTreeSet<Partition>, DeadLettersError> {
    let Kafka { group, topic, .. } = &config.kafka;
    let committed = admin.committed_offsets(group, topic, ANSWER_TIMEOUT)?;
    let ends = admin.end_offsets(topic, ANSWER_TIMEOUT)?;
    let targets = plan.iter().filter_map(|planned| match planned.fate {
        Fate::Send(partition) => Some(partition),
        _ => None,
    });
    let is_behind = |partition: &Partition| {
        let at = partition.index();
        ends.get(at)
            .is_some_and(|end| committed[at].unwrap_or(0) < *end)
    };
    Ok(targets.filter(is_behind).collect())
}

/// How many letters are held back while a later one of the same row is sent: sent afterwards, they would be out of order.
pub fn overtaken(plan: &[Planned]) -> usize {
    let sent: HashSet<RowKey> = plan
        .iter()
        .filter(|planned| planned.is_sent())
        .filter_map(|planned| planned.row)
        .collect();
    let is_overtaken = |planned: &&Planned| {
        matches!(planned.fate, Fate::MovedOn(_))
            && planned.row.is_some_and(|row| sent.contains(&row))
    };
    plan.iter().filter(is_overtaken).count()
}

/// Holds back the letters whose rows hold a newer update.
fn hold_back(config: &Config, planned: &mut [Planned]) -> Result<(), DeadLettersError> {
    for (index, shard) in config.shards.iter().enumerate() {
        let here = |row: &RowKey| config.partitioner.shard_of(row.app) == ShardIndex(index);
        let mut due: Vec<&mut Planned> = planned
            .iter_mut()
            .filter(|planned| planned.is_sent() && planned.row.as_ref().is_some_and(here))
            .collect();
        if due.is_empty() {
            continue;
        }
        let rows: Vec<RowKey> = due.iter().filter_map(|planned| planned.row).collect();
        let found = standings(&shard.postgres, &SUBSCRIPTION, &rows)?;
        for (planned, standing) in due.iter_mut().zip(found) {
            let Fate::Send(home) = planned.fate else {
                continue;
            };
            if let Some(standing) = standing
                && has_moved_on(&planned.letter, home, config.kafka.incarnation, &standing)
            {
                planned.fate = Fate::MovedOn(standing);
            }
        }
    }
    Ok(())
}

/// Whether a row holds an update that came after the letter's message.
///
/// A letter doesn't say of which life of the topic its offset is, nor of which leader epoch. So offsets tell where both are
/// of one partition and the row of the topic's present life, and timestamps tell too: either is enough to hold it back. A
/// refused update stands at its row's fence itself.
fn has_moved_on(letter: &Letter, home: Partition, incarnation: i32, standing: &Standing) -> bool {
    let later_offset = letter.origin().is_some_and(|origin| {
        origin.partition == home
            && standing.fence.incarnation == incarnation
            && standing.fence.offset > origin.offset
    });
    let later_time = letter
        .timestamp_ms
        .is_some_and(|at_ms| standing.updated_at_ms > at_ms);
    later_offset || later_time
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
