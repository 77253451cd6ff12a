//! The second step of a look-up: what a shard has seen of its partitions. A thread for each shard ("mp-lookup-G.S"), as it
//! may have to wait for ever: a frozen server takes the connection and never says a word.

use super::decide::{Known, Log, decide, say_alarm};
use super::{Answer, Mouth, Question, Start, Trouble, patiently};
use crate::config::checked::Config;
use crate::fault;
use crate::ids::{Note, OffsetAndEpoch, Partition, ShardIndex};
use crate::sink::connect::connect;
use crate::sink::schema::{
    Source, check_apps, check_source, check_tables, remember_partitions, seen_partitions,
};
use crate::sink::shape;
use crate::sync::AtomicBool;
use crate::vital;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

/// What Kafka knows of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct InKafka {
    /// Which one.
    pub partition: Partition,
    /// What the group committed, if it ever did.
    pub committed: Option<OffsetAndEpoch>,
    /// What its last owner wrote beside that, in this life of the topic.
    pub note: Option<Note>,
    /// The end of the rules topic.
    pub rules_end: i64,
    /// What can be read.
    pub log: Log,
}

/// The way to each shard's thread. The threads end with it.
#[derive(Default)]
pub(super) struct Shards {
    /// By shard.
    questions: Vec<Sender<Question<InKafka>>>,
    of_partition: Vec<ShardIndex>,
}

impl Shards {
    /// Starts a thread for each shard.
    pub fn start(
        group: usize,
        config: &Arc<Config>,
        source: &Source,
        stop: &Arc<AtomicBool>,
        mouth: &Mouth,
    ) -> std::io::Result<Self> {
        let mut questions = Vec::new();
        for at in 0..config.shards.len() {
            // As many as the poller asks.
            let (ask, asked) = crossbeam_channel::unbounded();
            questions.push(ask);
            let shard = LookupShard {
                shard: ShardIndex(at),
                config: config.clone(),
                source: source.clone(),
            };
            let (stop, mouth) = (stop.clone(), mouth.clone());
            vital::spawn(format!("mp-lookup-{group}.{at}"), move || {
                shard.serve(&asked, &stop, &mouth);
            })?;
        }
        let partitions = 0..config.partitioner.partitions();
        let of_partition = partitions
            .map(|at| Partition(at.cast_signed()))
            .map(|partition| config.partitioner.shard_of_partition(partition));
        Ok(Self {
            questions,
            of_partition: of_partition.collect(),
        })
    }

    /// Asks each shard for its partitions.
    pub fn ask(&self, number: u64, partitions: Vec<InKafka>) {
        let mut by_shard = vec![Vec::new(); self.questions.len()];
        for known in partitions {
            let ShardIndex(shard) = self.of_partition[known.partition.index()];
            by_shard[shard].push(known);
        }
        for (ask, partitions) in self.questions.iter().zip(by_shard) {
            if !partitions.is_empty() {
                // A thread that has ended has said why, in an answer.
                let _ = ask.send((number, partitions));
            }
        }
    }
}

/// What a shard's thread works with.
struct LookupShard {
    shard: ShardIndex,
    config: Arc<Config>,
    source: Source,
}

impl LookupShard {
    fn serve(&self, asked: &Receiver<Question<InKafka>>, stop: &AtomicBool, mouth: &Mouth) {
        let name = format!("shard {}", self.config.shards[self.shard.0].name);
        for (number, partitions) in asked {
            fault::panic_point("look-up-shard");
            match patiently(&name, stop, || self.starts(&partitions)) {
                Some(Ok(starts)) => mouth.say(Answer::Begin { number, starts }),
                Some(Err(why)) => return mouth.say(Answer::Stop(format!("{name}: {why}"))),
                None => return,
            }
        }
    }

    fn starts(&self, partitions: &[InKafka]) -> Result<Vec<Start>, Trouble> {
        let shard = &self.config.shards[self.shard.0];
        let mut client = connect(&shard.postgres, "millpond/lookup")?;
        let shape = shape::of(self.config.table.as_deref());
        check_tables(&mut client, shape)?;
        check_apps(&mut client, shape, shard.apps)?;
        check_source(&mut client, shape, &self.source)?;
        let seen = seen_partitions(&mut client, &self.source)?;
        let mut starts = Vec::new();
        let mut never_seen = Vec::new();
        for in_kafka in partitions {
            let known = Known {
                committed: in_kafka.committed,
                note: in_kafka.note,
                first_seen: seen.get(&in_kafka.partition).copied(),
            };
            let mut start = decide(
                in_kafka.partition,
                known,
                in_kafka.log,
                self.config.kafka.start,
                self.config.consumer.on_lost_records,
            );
            start.rules_end = in_kafka.rules_end;
            if known.first_seen.is_none() {
                never_seen.push((start.partition, start.offset));
            }
            starts.push(start);
        }
        remember_partitions(&mut client, &self.source, &never_seen)?;
        starts.iter().for_each(say_alarm);
        Ok(starts)
    }
}
