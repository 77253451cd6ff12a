//! The number of a shard's workers in one process changes while it runs: what the pipeline does in earnest, but that nobody
//! waits until the new ones are connected.

use super::process::{Thread, worker};
use super::world::{Chance, Met, SHARDS, Shared};
use crate::ids::ShardIndex;
use crate::kafka::dead_letters::DeadLetterSender;
use crate::lanes::change::{Changer, LaneChange, Outcome};
use crate::lanes::joining_lane;
use crate::observe::recorder::WorkerRecorder;
use crate::worker::WorkerSettings;
use crate::worker::apply::Shared as WorkerShared;
use crossbeam_channel::{Receiver, TryRecvError};
use std::sync::Arc;

/// Workers of a shard, at most.
const WORKERS_MAX: usize = 4;

/// What a process needs to change its workers.
pub struct Resizes {
    /// Its poller's ear.
    pub changer: Changer,
    /// How its workers work.
    pub settings: WorkerSettings,
    /// What they share.
    pub shared: WorkerShared,
    /// Where their dead letters go.
    pub letters: DeadLetterSender,
    /// Workers of each shard.
    pub counts: [usize; SHARDS],
    /// The shard, its number of workers to be, and where the outcome is told.
    pub asked: Option<(usize, usize, Receiver<Outcome>)>,
}

impl Resizes {
    /// Asks for another number of workers, unless that was done before and is not answered yet: those that join.
    pub fn ask(&mut self, world: &Shared, member: usize, chance: &mut Chance) -> Vec<Thread> {
        let (shard, workers) = (chance.of(0..=SHARDS - 1), chance.of(1..=WORKERS_MAX));
        let before = self.counts[shard];
        if self.asked.is_some() || workers == before {
            return Vec::new();
        }
        let (mut joining, mut threads) = (Vec::new(), Vec::new());
        for lane in before..workers {
            let recorder = Arc::new(WorkerRecorder::new(0, ShardIndex(shard), lane));
            let (lane, post) = joining_lane(&recorder);
            joining.push(lane);
            let own = (recorder, self.shared.clone(), self.letters.clone());
            threads.push(worker(
                world,
                member,
                self.settings.clone(),
                (None, post),
                own,
            ));
        }
        let (reply, replied) = crossbeam_channel::bounded(1);
        let change = LaneChange {
            shard: ShardIndex(shard),
            workers,
            joining,
            reply,
        };
        // Those that join a process that stops end with it.
        if self.changer.ask(change).is_ok() {
            self.asked = Some((shard, workers, replied));
            let line =
                || format!("member {member}: shard {shard} is to have {workers}, not {before}");
            world.borrow_mut().tell(line);
        }
        threads
    }

    /// Looks for an answer.
    pub fn hear(&mut self, world: &Shared) {
        let Some((shard, workers, replied)) = &self.asked else {
            return;
        };
        match replied.try_recv() {
            Ok(Ok(changed)) => {
                self.counts[*shard] = *workers;
                let mut world = world.borrow_mut();
                world.meet(Met::Resized);
                if changed.moved > 0 {
                    world.meet(Met::ResizedFullLanes);
                }
            }
            Ok(Err(_)) => world.borrow_mut().meet(Met::ResizeRefused),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {}
        }
        self.asked = None;
    }
}
