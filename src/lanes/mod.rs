//! The lanes: one queue of batches for each worker, and how their number changes while running (README.md, beside this
//! file, has the protocol and its argument).
//!
//! A lane is an unbounded channel of batches. What bounds it are the slots: every message in it holds one, and a partition
//! without a free slot is not read.
//!
//! - [`change`]: the poller's part of a change
//! - [`deal`]: what was in the old lanes, dealt to the new ones

pub mod change;
mod deal;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

use crate::dispatch::Batch;
use crate::ids::{RowKey, SubscriptionId};
use crate::observe::recorder::WorkerRecorder;
use crate::sync::{AtomicBool, Ordering};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use std::collections::VecDeque;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Lanes of a shard in a core group, at most. Each is a connection: a server bears few hundred of them.
pub const WORKERS_MAX: usize = 64;
/// Empty batches kept for use again, per lane. Few, so that those that go round stay in the processor's caches: with 64 a
/// message cost a tenth more.
const SPARE_BATCHES_MAX: usize = 4;
/// With more messages in a lane a new batch will wait for a while, and should take no more memory than it needs.
const DEEP_LANE_ROWS: u64 = 10_000;

/// The lane that owns a row: the same for every spelling of its id.
pub fn lane_of(subscription: SubscriptionId, lanes: usize) -> usize {
    usize::try_from(xxh3_64(&subscription.0) % lanes as u64).expect("below the number of lanes")
}

/// The poller's end of a lane.
#[derive(Debug)]
pub struct Lane {
    /// What is not sent yet.
    pub open: Batch,
    /// What the lane's worker records.
    pub recorder: Arc<WorkerRecorder>,
    sender: Sender<Batch>,
    spare: Receiver<Batch>,
    asked: Arc<AtomicBool>,
    handed: Receiver<Duty>,
    duties: Sender<Duty>,
}

/// The worker's end of a lane: the right to take what is in it.
#[derive(Debug)]
pub struct LaneReceiver {
    /// Batches to be worked on, empty ones among them; disconnected once the poller has ended.
    pub batches: Receiver<Batch>,
    spare: Sender<Batch>,
}

/// Everything that a worker is responsible for, but for the turn that it is in.
#[derive(Debug)]
pub struct Duty {
    /// Its lane.
    pub lane: LaneReceiver,
    /// What it took from the lane and did not finish, in order.
    pub carried: VecDeque<Batch>,
    /// Rows that somebody else holds locked, each with its messages in order.
    pub parked: Vec<(RowKey, Batch)>,
}

/// Where a worker hears that it is to hand over, and what it is to do next.
#[derive(Debug)]
pub struct Post {
    asked: Arc<AtomicBool>,
    hand: Sender<Duty>,
    duties: Receiver<Duty>,
}

/// Whether a worker is asked to hand over; for those parts of it that wait.
#[derive(Clone, Debug, Default)]
pub struct Question(Arc<AtomicBool>);

impl Question {
    #[cfg(test)]
    pub(crate) fn open() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether it is asked now.
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a worker without a duty will get one.
#[derive(Debug)]
pub enum NextDuty {
    /// This one.
    Begins(Duty),
    /// Perhaps later.
    NotYet,
    /// No more: it ends.
    Never,
}

/// A lane that its worker has no right to yet.
#[derive(Debug)]
pub struct JoiningLane {
    lane: Lane,
    receiver: LaneReceiver,
}

/// A new lane: the poller's end, the worker's end, and the worker's post.
pub fn lane(recorder: &Arc<WorkerRecorder>) -> (Lane, LaneReceiver, Post) {
    let (sender, batches) = crossbeam_channel::unbounded();
    let (spare_sender, spare) = crossbeam_channel::bounded(SPARE_BATCHES_MAX);
    let (hand, handed) = crossbeam_channel::bounded(1);
    let (duties, next) = crossbeam_channel::bounded(1);
    let asked = Arc::new(AtomicBool::new(false));
    let lane = Lane {
        open: Batch::default(),
        recorder: recorder.clone(),
        sender,
        spare,
        asked: asked.clone(),
        handed,
        duties,
    };
    let receiver = LaneReceiver {
        batches,
        spare: spare_sender,
    };
    let post = Post {
        asked,
        hand,
        duties: next,
    };
    (lane, receiver, post)
}

/// A lane for a worker that is to join: its post has no duty yet.
pub fn joining_lane(recorder: &Arc<WorkerRecorder>) -> (JoiningLane, Post) {
    let (lane, receiver, post) = lane(recorder);
    (JoiningLane { lane, receiver }, post)
}

impl Lane {
    /// Sends the open batch.
    pub fn flush(&mut self) {
        let next = self
            .spare
            .try_recv()
            .unwrap_or_else(|_| self.open.as_large_again());
        let batch = std::mem::replace(&mut self.open, next);
        self.send(batch);
    }

    /// Sends a batch behind those that were sent before. The open one must be empty, or sent first.
    fn send(&self, mut batch: Batch) {
        self.recorder.sent.add(batch.rows.len() as u64);
        if self.recorder.lane_depth() > DEEP_LANE_ROWS {
            batch.shrink();
        }
        // A worker that is gone has ended the process or is about to: its slots stay open, and the messages are read again.
        let _ = self.sender.send(batch);
    }

    /// Asks the worker to hand over.
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // Wakes it up if it waits for its lane; an empty batch is passed over.
        let _ = self.sender.send(Batch::default());
    }

    /// What the worker handed over, if it has.
    fn handed(&self) -> Option<Duty> {
        self.handed.try_recv().ok()
    }

    /// Takes the question back. A duty: the worker had heard it already.
    fn ask_no_more(&self) -> Option<Duty> {
        // Pairs with the swap in `hears_question`: one of the two gets the flag.
        let unheard = self.asked.swap(false, Ordering::AcqRel);
        // A worker that has heard it sends its duty at once. None comes from one that panicked meanwhile.
        (!unheard).then(|| self.handed.recv().ok()).flatten()
    }

    /// Gives the worker something to do. It has nothing, so there is room.
    fn give(&self, duty: Duty) {
        let _ = self.duties.try_send(duty);
    }
}

impl LaneReceiver {
    /// Gives a finished batch back for use again.
    pub fn recycle(&self, mut batch: Batch) {
        batch.clear();
        // A full store of spares: this one is freed.
        let _ = self.spare.try_send(batch);
    }
}

impl Post {
    /// For who only looks whether it is asked.
    pub fn question(&self) -> Question {
        Question(self.asked.clone())
    }

    /// Whether the worker is to hand over now. Once true, it must.
    pub fn hears_question(&self) -> bool {
        // The plain look first: it is asked hardly ever.
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::AcqRel)
    }

    /// Hands over.
    pub fn hand_over(&self, duty: Duty) {
        // A poller that is gone has ended the process: the slots stay open, and the messages are read again.
        let _ = self.hand.try_send(duty);
    }

    /// What the worker is to do next, within that time.
    pub fn next_duty(&self, within: std::time::Duration) -> NextDuty {
        use crossbeam_channel::RecvTimeoutError::{Disconnected, Timeout};
        match crate::clock::receive_within(&self.duties, within) {
            Ok(duty) => NextDuty::Begins(duty),
            Err(Timeout) => NextDuty::NotYet,
            Err(Disconnected) => NextDuty::Never,
        }
    }

    /// The same, at once.
    pub fn next_duty_now(&self) -> NextDuty {
        match self.duties.try_recv() {
            Ok(duty) => NextDuty::Begins(duty),
            Err(TryRecvError::Empty) => NextDuty::NotYet,
            Err(TryRecvError::Disconnected) => NextDuty::Never,
        }
    }
}
