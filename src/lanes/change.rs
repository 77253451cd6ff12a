//! The poller's part of a change of lanes: ask, collect, move; or give back (README.md, steps 1 and 2). It never waits: the
//! poller comes by in each round.

use super::deal::{deal, empty};
use super::{Duty, JoiningLane, Lane};
use crate::ids::ShardIndex;
use crossbeam_channel::{Receiver, Sender};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long workers may take to hand over. Those that have done so stand still meanwhile, so it bounds the pause; a batch takes
/// some 50 ms at the usual size, and longer than this only where something is wrong with the shard.
pub const HAND_OVER_MAX: Duration = Duration::from_millis(200);

/// A shard is to have another number of workers in this core group.
#[derive(Debug)]
pub struct LaneChange {
    /// Which shard.
    pub shard: ShardIndex,
    /// How many.
    pub workers: usize,
    /// The lanes of those that are missing; their workers are connected.
    pub joining: Vec<JoiningLane>,
    /// Where the outcome is told.
    pub reply: Sender<Outcome>,
}

/// What became of a change.
pub type Outcome = Result<Changed, Refused>;

/// It is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// How many workers there were.
    pub before: usize,
    /// From the first question to the last duty given: what a worker stood still at most.
    pub pause: Duration,
    /// Messages that were in the old lanes.
    pub moved: usize,
}

/// It is not done, and everything is as before.
#[derive(Debug)]
pub struct Refused {
    /// Why, for people.
    pub why: String,
    /// How long workers stood still for nothing.
    pub pause: Duration,
    /// What was given for the new workers, to try again with.
    pub joining: Vec<JoiningLane>,
}

/// Who asks the poller for changes.
#[derive(Clone, Debug)]
pub struct Changer(Sender<LaneChange>);

impl Changer {
    /// Asks, to be told over the change's channel. The poller has to be woken.
    ///
    /// # Errors
    /// The poller ends, or has ended.
    pub fn ask(&self, change: LaneChange) -> Result<(), Refused> {
        self.0.send(change).map_err(|refused| Refused {
            why: STOPPING.to_owned(),
            pause: Duration::ZERO,
            joining: refused.0.joining,
        })
    }
}

const STOPPING: &str = "the consumer is stopping";

/// The changes that the poller was asked for.
#[derive(Debug)]
pub struct Changes {
    asked: Receiver<LaneChange>,
    changer: Changer,
    under_way: Option<UnderWay>,
}

/// All workers of the shard are asked.
#[derive(Debug)]
struct UnderWay {
    change: LaneChange,
    began: Instant,
    /// By lane: what was handed over so far.
    duties: Vec<Option<Duty>>,
}

impl Default for Changes {
    fn default() -> Self {
        let (sender, asked) = crossbeam_channel::unbounded();
        Self {
            asked,
            changer: Changer(sender),
            under_way: None,
        }
    }
}

impl Changes {
    /// For those who ask.
    pub fn changer(&self) -> Changer {
        self.changer.clone()
    }

    /// Whether workers stand still until the poller comes by.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Goes on as far as is possible without waiting.
    pub fn go_on(&mut self, shards: &mut [Vec<Lane>], batch_rows_max: usize) {
        if self.under_way.is_none() {
            self.under_way = self.asked.try_recv().ok().and_then(|change| {
                let lanes = &shards[change.shard.0];
                UnderWay::begin(change, lanes)
            });
        }
        let Some(mut under_way) = self.under_way.take() else {
            return;
        };
        let lanes = &mut shards[under_way.change.shard.0];
        under_way.collect(lanes);
        if under_way.duties.iter().all(Option::is_some) {
            under_way.finish(lanes, batch_rows_max);
        } else if crate::clock::now() - under_way.began >= HAND_OVER_MAX {
            let why = under_way.who_is_busy(lanes);
            under_way.refuse(lanes, why);
        } else {
            self.under_way = Some(under_way);
        }
    }

    /// Everybody gets back what he handed over, and nothing is changed any more: the poller is about to drain.
    pub fn end(&mut self, shards: &[Vec<Lane>]) {
        self.asked = crossbeam_channel::never();
        if let Some(under_way) = self.under_way.take() {
            let lanes = &shards[under_way.change.shard.0];
            under_way.refuse(lanes, STOPPING.to_owned());
        }
    }
}

impl UnderWay {
    /// Asks all workers, if the change fits what there is.
    fn begin(change: LaneChange, lanes: &[Lane]) -> Option<Self> {
        let under_way = Self {
            began: crate::clock::now(),
            duties: lanes.iter().map(|_| None).collect(),
            change,
        };
        let LaneChange {
            workers, joining, ..
        } = &under_way.change;
        if lanes.len().min(*workers) + joining.len() != *workers || *workers == 0 {
            let why = format!("there are {} workers by now; ask again", lanes.len());
            under_way.tell_refused(why, Duration::ZERO);
            return None;
        }
        lanes.iter().for_each(Lane::ask);
        Some(under_way)
    }

    fn collect(&mut self, lanes: &[Lane]) {
        for (lane, duty) in lanes.iter().zip(&mut self.duties) {
            if duty.is_none() {
                *duty = lane.handed();
            }
        }
    }

    /// All duties are here: nobody but us can touch the shard's rows.
    fn finish(self, lanes: &mut Vec<Lane>, batch_rows_max: usize) {
        let Self {
            change,
            began,
            duties,
        } = self;
        let (before, workers) = (lanes.len(), change.workers);
        let mut receivers = Vec::with_capacity(workers);
        let mut batches = Vec::new();
        let mut parked = Vec::new();
        for (lane, duty) in lanes.iter_mut().zip(duties.into_iter().flatten()) {
            let (receiver, of_lane, of_rows) = empty(lane, duty);
            receivers.push(receiver);
            batches.extend(of_lane);
            parked.extend(of_rows);
        }
        let waiting = batches.iter().chain(parked.iter().map(|(_, batch)| batch));
        let moved = waiting.map(|batch| batch.rows.len()).sum();
        // Before their lanes are dropped: who watches the threads must not take their end for an accident.
        let surplus = lanes.iter().skip(workers);
        surplus.for_each(|lane| lane.recorder.set_on_duty(false));
        lanes.truncate(workers);
        receivers.truncate(workers);
        for JoiningLane { lane, receiver } in change.joining {
            lane.recorder.set_on_duty(true);
            lanes.push(lane);
            receivers.push(receiver);
        }
        let mut parked_by_lane: Vec<Vec<_>> = lanes.iter().map(|_| Vec::new()).collect();
        for (key, batch) in parked {
            parked_by_lane[super::lane_of(key.subscription, workers)].push((key, batch));
        }
        for ((lane, receiver), parked) in lanes.iter().zip(receivers).zip(parked_by_lane) {
            lane.give(Duty {
                lane: receiver,
                carried: VecDeque::new(),
                parked,
            });
        }
        let pause = crate::clock::now() - began;
        for batch in batches {
            deal(lanes, batch, batch_rows_max);
        }
        let changed = Changed {
            before,
            pause,
            moved,
        };
        // Who asked may have given up waiting.
        let _ = change.reply.send(Ok(changed));
    }

    fn who_is_busy(&self, lanes: &[Lane]) -> String {
        let waited_for = lanes.iter().zip(&self.duties);
        let busy = waited_for.filter(|(_, duty)| duty.is_none());
        let busy: Vec<String> = busy.map(|(lane, _)| lane.recorder.doing()).collect();
        busy.join("; ")
    }

    /// Everybody goes on as before.
    fn refuse(mut self, lanes: &[Lane], why: String) {
        for (lane, duty) in lanes.iter().zip(std::mem::take(&mut self.duties)) {
            if let Some(duty) = duty.or_else(|| lane.ask_no_more()) {
                lane.give(duty);
            }
        }
        let pause = crate::clock::now() - self.began;
        self.tell_refused(why, pause);
    }

    fn tell_refused(self, why: String, pause: Duration) {
        let refused = Refused {
            why,
            pause,
            joining: self.change.joining,
        };
        // Without anybody to hear it, the new lanes are dropped, and their workers end.
        let _ = self.change.reply.send(Err(refused));
    }
}
