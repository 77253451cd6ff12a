//! Moves a group's committed offsets back to a point in time: for a database that lost a tail. What it did not lose is read
//! again and refused by the fences of the rows.
//!
//! Never forward: what is not applied yet would be lost. And only while the group has no members, which the coordinator
//! holds too: a consumer would go on from where it is and commit over it.

use crate::config::Config;
use crate::ids::{Partition, ShardIndex};
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use std::time::Duration;

/// How long the brokers may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One partition, now and at the point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which one.
    pub partition: Partition,
    /// What the group has committed; `None` if it never did.
    pub committed: Option<i64>,
    /// The first record that is stamped at the point in time or later; the end of the log where there is none.
    pub at: i64,
    /// The oldest record that the log still has.
    pub log_start: i64,
}

impl Move {
    /// Where the committed offset moves to; `None` for a partition that stays.
    pub fn to(&self) -> Option<i64> {
        (self.at < self.committed?).then_some(self.at)
    }

    /// Whether records of the point in time may be gone: the oldest one that is there is of that time or later, and there
    /// were older ones.
    pub fn may_lack_records(&self) -> bool {
        self.log_start > 0 && self.at == self.log_start
    }
}

/// Why offsets can't be moved.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// Correct the name.
    #[error("there is no shard {asked}; the configured ones are {known}")]
    NoShard {
        /// What was asked for.
        asked: String,
        /// All names.
        known: String,
    },
    /// Stop the consumer and try again.
    #[error(
        "group {group} has {members} members; stop them first (one that was killed counts until its session ends, \
         session.timeout.ms)"
    )]
    Busy {
        /// The group.
        group: String,
        /// How many members it has.
        members: usize,
    },
    /// Look at what the group has committed and try again.
    #[error(
        "partition {partition} is committed at {found}, not at {asked}: somebody else commits for group {group}"
    )]
    NotMoved {
        /// The partition.
        partition: Partition,
        /// The group.
        group: String,
        /// Where it should be.
        asked: i64,
        /// Where it is.
        found: i64,
    },
    /// Kafka is away or refuses.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// Each partition, of one shard or of all, now and at the point in time (milliseconds since 1970).
pub fn moves(
    admin: &Admin,
    config: &Config,
    at_ms: i64,
    shard: Option<&str>,
) -> Result<Vec<Move>, RewindError> {
    let shard = shard.map(|name| index_of(config, name)).transpose()?;
    let (group, topic) = (&config.kafka.group, &config.kafka.topic);
    let committed = admin.committed_offsets(group, topic, ANSWER_TIMEOUT)?;
    let starts = admin.start_offsets(topic, ANSWER_TIMEOUT)?;
    let at = admin.offsets_at(topic, at_ms.max(0), ANSWER_TIMEOUT)?;
    let partitions = (0..).map(Partition).zip(committed).zip(starts).zip(at);
    let all = partitions.map(|(((partition, committed), log_start), at)| Move {
        partition,
        committed,
        at: at.max(log_start),
        log_start,
    });
    let is_meant = |partition| {
        shard.is_none_or(|shard| config.partitioner.shard_of_partition(partition) == shard)
    };
    Ok(all.filter(|found| is_meant(found.partition)).collect())
}

fn index_of(config: &Config, name: &str) -> Result<ShardIndex, RewindError> {
    let position = config.shards.iter().position(|shard| shard.name == name);
    position.map(ShardIndex).ok_or_else(|| {
        let names: Vec<&str> = config
            .shards
            .iter()
            .map(|shard| shard.name.as_str())
            .collect();
        RewindError::NoShard {
            asked: name.to_owned(),
            known: names.join(", "),
        }
    })
}

/// Refuses while the group has members.
pub fn refuse_while_running(admin: &Admin, config: &Config) -> Result<(), RewindError> {
    let group = config.kafka.group.clone();
    match admin.group_members(&group, ANSWER_TIMEOUT)? {
        0 => Ok(()),
        members => Err(RewindError::Busy { group, members }),
    }
}

/// Moves them, and asks whether they are where they should be.
pub fn apply(admin: &Admin, config: &Config, moves: &[Move]) -> Result<(), RewindError> {
    refuse_while_running(admin, config)?;
    let (group, topic) = (&config.kafka.group, &config.kafka.topic);
    let offsets: Vec<(Partition, i64)> = moves
        .iter()
        .filter_map(|found| Some((found.partition, found.to()?)))
        .collect();
    if offsets.is_empty() {
        return Ok(());
    }
    if let Err(error) = admin.commit_offsets(group, topic, &offsets) {
        // A consumer that started meanwhile is the better explanation.
        refuse_while_running(admin, config)?;
        return Err(error.into());
    }
    let committed = admin.committed_offsets(group, topic, ANSWER_TIMEOUT)?;
    for (partition, asked) in offsets {
        let found = committed[partition.index()].unwrap_or(-1);
        if found != asked {
            let group = group.clone();
            return Err(RewindError::NotMoved {
                partition,
                group,
                asked,
                found,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(committed: Option<i64>, at: i64, log_start: i64) -> Move {
        Move {
            partition: Partition(0),
            committed,
            at,
            log_start,
        }
    }

    #[test]
    fn offsets_only_move_back() {
        assert_eq!(found(Some(10), 4, 0).to(), Some(4));
        assert_eq!(found(Some(10), 10, 0).to(), None);
        assert_eq!(
            found(Some(10), 12, 0).to(),
            None,
            "what is not applied is not skipped"
        );
        assert_eq!(
            found(None, 4, 0).to(),
            None,
            "it begins where the configuration says"
        );
    }

    #[test]
    fn a_log_that_begins_later_is_told() {
        assert!(found(Some(10), 4, 4).may_lack_records());
        assert!(!found(Some(10), 5, 4).may_lack_records());
        assert!(
            !found(Some(10), 0, 0).may_lack_records(),
            "the log is whole"
        );
    }
}
