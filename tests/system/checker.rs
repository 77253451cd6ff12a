//! A checker that runs along: while a test does harm, it asks all the time what the group has committed and what the rows
//! hold, and keeps what must not be: a commit ahead of what is applied, a commit or a fence that goes back, memory above its
//! formula, a fault after which the group does not come back in time.
//!
//! It joins no group and changes nothing. Threads, each ended with the checker:
//!
//! - `checker-group`: what is committed, so pauses and recoveries ([`timeline`])
//! - `checker-s0` and so on: the log of that shard's partitions, and its rows ([`log`], [`rows`], [`letters`]); one each, as a
//!   frozen Postgres holds whoever asks it
//! - `checker-memory`: the members' resident memory against the formula ([`memory`])

mod group;
mod letters;
mod log;
mod memory;
mod rows;
mod shard;
mod tests;
pub mod timeline;

pub use memory::resident_bytes;

use crate::pond::Pond;
use millpond::ids::AppId;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use timeline::{Recoveries, Timeline};

/// How a checker looks.
#[derive(Clone, Copy)]
pub struct Looks {
    /// Of so many rows one is compared.
    pub one_row_in: u64,
    /// From the end of a fault until all that was in the log by then is committed, whatever other faults there are.
    pub recovery_max: Duration,
}

/// Who is to be looked at, by process id: the port of its admin address.
pub type Members = Arc<Mutex<BTreeMap<u32, u16>>>;

/// What the threads share.
struct Shared {
    stop: AtomicBool,
    wrong: Mutex<Vec<String>>,
    /// Messages below a committed offset that were compared with their row or found in the dead letters.
    compared: AtomicU64,
    /// Apps that a rule may skip, which nobody but `verify` can judge.
    spared: Mutex<HashSet<AppId>>,
    timeline: Mutex<Timeline>,
    /// The largest share of what the formula allows that a member's memory took.
    memory_share_max: Mutex<f64>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn report(&self, wrong: String) {
        let mut all = self.wrong.lock().unwrap();
        // One fault in the product may show all the time, and in many rows.
        if all.len() < 10 {
            println!("the checker: {wrong}");
        }
        if all.len() < 1000 {
            all.push(wrong);
        }
    }
}

/// Watches a pond until it is ended or dropped.
pub struct Checker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a checker saw.
pub struct Findings {
    /// Everything that must not be.
    pub wrong: Vec<String>,
    pub compared: u64,
    /// 1 would be all that the formula allows.
    pub memory_share_max: f64,
    pub recoveries: Recoveries,
}

impl Checker {
    /// Begins to look. The topic must be there, with all of its records.
    pub fn watch(pond: &Pond, looks: Looks, members: Members) -> Self {
        let config = pond.configuration();
        let shards = config.shards.len();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            wrong: Mutex::default(),
            compared: AtomicU64::new(0),
            spared: Mutex::default(),
            timeline: Mutex::new(Timeline::new(shards)),
            memory_share_max: Mutex::default(),
        });
        let begin = |name: String, watch: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || watch(&shared)).unwrap()
        };
        let mut threads = Vec::new();
        for shard in 0..shards {
            let (config, address) = (config.clone(), pond.address(shard));
            let watch =
                move |shared: &Shared| shard::watch(&config, shard, &address, looks, shared);
            threads.push(begin(format!("checker-s{shard}"), Box::new(watch)));
        }
        let of_group = config.clone();
        let watch = move |shared: &Shared| timeline::watch(&of_group, looks, shared);
        threads.push(begin("checker-group".to_owned(), Box::new(watch)));
        let watch = move |shared: &Shared| memory::watch(&config, &members, shared);
        threads.push(begin("checker-memory".to_owned(), Box::new(watch)));
        Self { shared, threads }
    }

    /// What was wrong so far.
    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().unwrap().clone()
    }

    pub fn compared(&self) -> u64 {
        self.shared.compared.load(Ordering::Relaxed)
    }

    /// The app's rows are not looked at any more: to be said before a rule is asked for.
    pub fn spare(&self, app: AppId) {
        self.shared.spared.lock().unwrap().insert(app);
    }

    /// A fault begins; the number to end it by.
    pub fn fault_begins(&self, kind: &'static str) -> usize {
        self.shared.timeline.lock().unwrap().begin(kind)
    }

    /// The fault is gone, and has to be got over from now on.
    pub fn fault_ends(&self, fault: usize) {
        self.shared.timeline.lock().unwrap().end(fault);
    }

    /// How long ago it began.
    pub fn fault_begun_for(&self, fault: usize) -> Duration {
        self.shared.timeline.lock().unwrap().begun_for(fault)
    }

    /// Whether every fault that has ended is got over.
    pub fn has_recovered(&self) -> bool {
        self.shared.timeline.lock().unwrap().has_recovered()
    }

    /// For how long the broker has not told what is committed.
    pub fn unanswered_for(&self) -> Duration {
        self.shared.timeline.lock().unwrap().answered.elapsed()
    }

    /// For how long nothing of the shard was committed although there was something to do.
    pub fn still_for(&self, shard: usize) -> Duration {
        self.shared.timeline.lock().unwrap().still_for(shard)
    }

    /// Ends it; what it saw.
    pub fn end(mut self) -> Findings {
        self.join();
        let timeline = self.shared.timeline.lock().unwrap();
        Findings {
            wrong: self.wrong(),
            compared: self.compared(),
            memory_share_max: *self.shared.memory_share_max.lock().unwrap(),
            recoveries: timeline.recoveries(),
        }
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                self.shared.report(format!("{name} died"));
            }
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.join();
    }
}
