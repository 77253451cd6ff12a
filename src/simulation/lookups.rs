//! What stands for a process's look-up threads: Kafka tells at one time, each shard at another, and the partition may have
//! moved on meanwhile. What follows is decided by the product.

use super::world::{Chance, Met, Shared};
use crate::config::checked::Start as ConfiguredStart;
use crate::ids::{Note, OffsetAndEpoch, Partition};
use crate::poller::lookup::decide::{Known, Log, decide};
use crate::poller::lookup::{Answer, Question, Start};
use crossbeam_channel::{Receiver, Sender};

/// What the group has committed, its note, and the end of the rules topic.
type Committed = (Option<OffsetAndEpoch>, Option<Note>, i64);

/// What stands for the look-up threads: first Kafka is asked, then each shard.
pub struct Lookups {
    asked: Receiver<Question<Partition>>,
    answer: Sender<Answer>,
    /// What Kafka told, and no shard yet.
    known: Vec<(u64, Partition, Committed, Log)>,
}

impl Lookups {
    /// Nothing is asked yet.
    pub fn new(asked: Receiver<Question<Partition>>, answer: Sender<Answer>) -> Self {
        Self {
            asked,
            answer,
            known: Vec::new(),
        }
    }

    /// Asks Kafka, or a shard, what is asked first or by chance.
    pub fn step(&mut self, world: &Shared, member: usize, chance: &mut Chance) {
        let world = &mut *world.borrow_mut();
        if chance.once_in(2)
            && let Ok((number, partitions)) = self.asked.try_recv()
        {
            for partition in partitions {
                let log = &world.topic.logs[partition.index()];
                let (first, end) = (log.first, log.end());
                let at = partition.index();
                let rules_end = i64::try_from(world.rules.records.len()).expect("small");
                let committed = (world.group.committed[at], world.group.notes[at], rules_end);
                self.known
                    .push((number, partition, committed, Log { first, end }));
            }
            return;
        }
        let Some((asked, one, ..)) = chance.pick(&self.known).copied() else {
            return;
        };
        let shard = world.topic.partitioner.shard_of_partition(one);
        if world.databases[shard.0].dead {
            return;
        }
        let partitioner = world.topic.partitioner.clone();
        let of_this = |known: &mut (u64, Partition, Committed, Log)| {
            known.0 == asked && partitioner.shard_of_partition(known.1) == shard
        };
        let on_lost_records = world.truth.on_lost_records();
        let mut starts: Vec<Start> = Vec::new();
        for (_, partition, (committed, note, rules_end), log) in self.known.extract_if(.., of_this)
        {
            let seen = &mut world.databases[shard.0].seen;
            let known = Known {
                committed,
                note,
                first_seen: seen.get(&partition.index()).copied(),
            };
            let mut start = decide(
                partition,
                known,
                log,
                ConfiguredStart::Earliest,
                on_lost_records,
            );
            start.rules_end = rules_end;
            if known.first_seen.is_none() {
                seen.insert(partition.index(), start.offset);
                world.truth.begin(partition.index(), start.offset);
            }
            starts.push(start);
        }
        for start in &starts {
            if start.stopped {
                world.meet(Met::Stopped);
            }
            if !world.group.is_granted(member, start.partition.index()) {
                world.meet(Met::StaleAnswer);
            }
        }
        // The poller may have ended.
        let _ = self.answer.send(Answer::Begin {
            number: asked,
            starts,
        });
    }
}
