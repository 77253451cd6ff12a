//! One life of the program: the product's own poller, lanes and workers as coroutines, and what stands for its other threads.
//! Killing it drops everything where it stands.

use super::lookups::Lookups;
use super::member::{NUMBER, SimulatedMember};
use super::resize::Resizes;
use super::rules::Keeper;
use super::session::{INCARNATION, Session};
use super::topic::MESSAGE_BYTES_MAX;
use super::world::{Chance, Met, PARTITIONS, SHARDS, Shared};
use crate::config::checked::OnMissingRow;
use crate::dispatch::Dispatch;
use crate::ids::{EpochId, Partition, ShardIndex};
use crate::kafka::dead_letters::{DeadLetter, DeadLetterSender, collected};
use crate::lanes::{LaneReceiver, Post};
use crate::observe::Registry;
use crate::observe::recorder::WorkerRecorder;
use crate::poller::assignment::{Budget, Slots};
use crate::poller::lookup::LookupClient;
use crate::poller::tenure::Terms;
use crate::poller::{Ended, Poller, PollerSettings, PollerShared};
use crate::ready::ReadySet;
use crate::rules::{Rules, state::Scope};
use crate::sink::rate::WriteRates;
use crate::sink::shape::SUBSCRIPTION;
use crate::sync::{AtomicBool, Ordering};
use crate::worker::apply::{Applier, Shared as WorkerShared};
use crate::worker::{SinkKind, Worker, WorkerSettings};
use corosensei::Coroutine;
use crossbeam_channel::Sender;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A thread of the product.
pub type Thread = Coroutine<(), (), ()>;

/// How long work in flight may take when partitions move.
const REVOKE_DEADLINE: Duration = Duration::from_millis(400);
/// How long work in flight may take at the end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
/// How long the last commit may take.
const COMMIT_DEADLINE: Duration = Duration::from_millis(300);

/// What differs from seed to seed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Workers of each shard.
    workers: usize,
    /// Slots of a partition.
    slots: u32,
    /// Bytes in memory.
    bytes: u64,
    /// Rows of a statement.
    batch_rows: usize,
    /// Rows that a lane gets at once.
    lane_rows: usize,
    /// Between two commits.
    commit_interval: Duration,
    /// How far ahead a ceiling is.
    ahead_min: i64,
}

/// A life.
pub struct Process {
    /// Its number in the group.
    pub member: usize,
    poller: Thread,
    workers: Vec<Thread>,
    resizes: Resizes,
    lookups: Lookups,
    keeper: Keeper,
    next_letter: Box<dyn FnMut() -> Option<DeadLetter>>,
    letters: Vec<DeadLetter>,
    shared: PollerShared,
    shape: Shape,
    /// Dropped when the process gives up on what is in flight.
    _abandon: Sender<()>,
    world: Shared,
}

impl Shape {
    /// By chance.
    pub fn new(chance: &mut Chance) -> Self {
        let small = |number: usize| u32::try_from(number).expect("small");
        let batch_rows = chance.of(1..=12);
        Self {
            workers: chance.of(1..=3),
            slots: small(chance.of(1..=16)),
            bytes: u64::from(small(chance.of(600..=20_000))),
            batch_rows,
            lane_rows: chance.of(1..=batch_rows),
            commit_interval: Duration::from_millis(u64::from(small(chance.of(5..=150)))),
            ahead_min: i64::from(small(chance.of(1..=20))),
        }
    }
    fn poller(&self, world: &Shared, member: usize) -> PollerSettings {
        PollerSettings {
            in_memory_max_per_partition: Slots::new(self.slots),
            in_memory_max_per_process: None,
            message_max_bytes: MESSAGE_BYTES_MAX,
            commit_interval: Some(self.commit_interval),
            drain_deadline: DRAIN_DEADLINE,
            commit_deadline: COMMIT_DEADLINE,
            revoke_deadline: REVOKE_DEADLINE,
            on_lost_records: world.borrow().truth.on_lost_records(),
            partitioner: world.borrow().topic.partitioner.clone(),
            table: None,
            terms: Terms {
                incarnation: INCARNATION,
                ahead_min: self.ahead_min,
            },
            first_epoch: EpochId(u64::try_from(member).expect("few") << 32),
        }
    }

    fn worker(&self, world: &Shared, rules: &Arc<Rules>) -> WorkerSettings {
        WorkerSettings {
            sink: SinkKind::Postgres,
            baseline: false,
            batch_rows_max: self.batch_rows,
            batch_linger: Duration::ZERO,
            incarnation: INCARNATION,
            partitioner: Some(world.borrow().topic.partitioner.clone()),
            table: None,
            rules: rules.clone(),
        }
    }
}

impl Process {
    /// Starts a life.
    pub fn start(world: &Shared, member: usize, shape: &Shape) -> Self {
        world.borrow_mut().group.join(member);
        let (letters, next_letter) = collected();
        let (abandon, abandoned) = crossbeam_channel::bounded(0);
        let (client, asked, answer) = LookupClient::without_threads();
        let rules = Arc::new(Rules::new(true));
        let scope = Scope {
            partitioner: Some((*world.borrow().topic.partitioner).clone()),
            incarnation: INCARNATION,
        };
        let shared = PollerShared {
            registry: registry(world),
            budget: Arc::new(Budget::new(shape.bytes)),
            rates: Arc::new(WriteRates::new((0..SHARDS).map(|_| None), 1)),
            rules: rules.clone(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let of_workers = WorkerShared {
            rates: shared.rates.clone(),
            registry: shared.registry.clone(),
            abandon: abandoned,
            tunables: world.borrow().truth.tunables.clone(),
        };
        let (dispatch, workers) = workers(world, member, shape, (&of_workers, &letters, &rules));
        let resizes = Resizes {
            changer: dispatch.changer(),
            settings: shape.worker(world, &rules),
            shared: of_workers,
            letters: letters.clone(),
            counts: [shape.workers; SHARDS],
            asked: None,
        };
        let parts = (dispatch, letters, client);
        let poller = poller(
            world,
            member,
            parts,
            (shape.poller(world, member), shared.clone()),
        );
        Self {
            member,
            poller,
            workers,
            resizes,
            lookups: Lookups::new(asked, answer),
            keeper: Keeper::new(rules, scope),
            next_letter: Box::new(next_letter),
            letters: Vec::new(),
            shared,
            shape: shape.clone(),
            _abandon: abandon,
            world: world.clone(),
        }
    }

    /// Lets one of its threads go on.
    pub fn step(&mut self, chance: &mut Chance) {
        let number = chance.of(0..=self.workers.len() + 1);
        let thread = match self.workers.get_mut(number) {
            Some(worker) => worker,
            None => &mut self.poller,
        };
        if !thread.done() {
            thread.resume(());
        }
        // Those that were dismissed are gone.
        self.workers.retain(|worker| !worker.done());
        self.resizes.hear(&self.world);
        self.check_memory();
        if self.has_open_breaker() {
            self.world.borrow_mut().meet(Met::BreakerOpen);
        }
    }

    /// A shard of it is to have another number of workers.
    pub fn resize(&mut self, chance: &mut Chance) {
        let joining = self.resizes.ask(&self.world, self.member, chance);
        self.workers.extend(joining);
    }

    /// Whether one of its shards stands still, as the database refused too much.
    fn has_open_breaker(&self) -> bool {
        self.shared.registry.shards.iter().any(|shard| {
            shard.down.load(Ordering::Relaxed)
                && shard.why.lock().contains("more than one update in")
        })
    }

    /// Nothing in memory is beyond its limit.
    fn check_memory(&self) {
        for partition in &self.shared.registry.partitions {
            let messages = partition.in_memory_messages.get();
            let bytes = partition.in_memory_bytes.get().unsigned_abs();
            assert!(
                messages <= i64::from(self.shape.slots),
                "{messages} messages of a partition in memory"
            );
            // One message always may be there.
            assert!(
                messages <= 1 || bytes <= self.shape.bytes,
                "{bytes} bytes in memory"
            );
        }
    }

    /// Whether all memory that epochs had was given back.
    pub fn holds_nothing(&self) -> bool {
        let world = self.world.borrow();
        let partitions = (0..PARTITIONS).filter(|at| world.group.has(self.member, *at));
        let each = self.shape.bytes / (partitions.count().max(1) as u64);
        self.shared.budget.share() == each
    }

    /// Tells it to stop.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Whether it was told to stop.
    pub fn is_told_to_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Whether it was told to stop, and has left the group.
    pub fn has_ended(&self) -> bool {
        self.poller.done()
    }

    /// Its look-up goes on by one step.
    pub fn look_up(&mut self, chance: &mut Chance) {
        self.lookups.step(&self.world, self.member, chance);
    }

    /// Its keeper of the rules topic goes on by one step.
    pub fn keep_rules(&mut self, chance: &mut Chance) {
        self.keeper.step(&self.world, chance);
    }

    /// One of its dead letters is delivered.
    pub fn deliver_letter(&mut self, chance: &mut Chance) {
        self.letters
            .extend(std::iter::from_fn(&mut self.next_letter));
        if self.letters.is_empty() {
            return;
        }
        let letter = self
            .letters
            .swap_remove(chance.of(0..=self.letters.len() - 1));
        let mut world = self.world.borrow_mut();
        let number = number_of(&letter);
        world.truth.letter(number, letter.reason);
        world.meet(Met::Lettered);
        if world.truth.fates[number].lettered > 1 {
            world.meet(Met::LetteredAgain);
        }
        if !world.group.has(self.member, letter.partition.index()) {
            world.meet(Met::StaleReceipt);
        }
        drop(world);
        letter.receipt.delivered();
    }

    /// It is killed: whatever it holds is dropped. Some of its letters are delivered, and it doesn't live to hear of it.
    pub fn kill(mut self, chance: &mut Chance) {
        self.keeper.kill(&self.world, chance);
        self.letters
            .extend(std::iter::from_fn(&mut self.next_letter));
        let mut world = self.world.borrow_mut();
        for letter in &self.letters {
            if chance.once_in(2) {
                world.truth.letter(number_of(letter), letter.reason);
            } else {
                world.meet(Met::LetterDropped);
            }
        }
        if !self.poller.done() {
            world.meet(Met::Killed);
            world.group.die(self.member);
        }
    }
}

fn number_of(letter: &DeadLetter) -> usize {
    let (name, value) = letter
        .headers
        .first()
        .expect("every message has the header");
    assert_eq!(name, NUMBER);
    let value = value.as_deref().expect("the header has a value");
    let text = std::str::from_utf8(value).expect("a number");
    text.parse().expect("a number")
}

fn registry(world: &Shared) -> Arc<Registry> {
    let partitioner = world.borrow().topic.partitioner.clone();
    let partitions = 0..i32::try_from(PARTITIONS).expect("few");
    let shards = partitions.map(|at| partitioner.shard_of_partition(Partition(at)));
    let names = (0..SHARDS).map(|shard| format!("s{shard}")).collect();
    Arc::new(Registry::new(1, shards.collect(), names))
}

/// The lanes and their workers.
fn workers(
    world: &Shared,
    member: usize,
    shape: &Shape,
    (shared, letters, rules): (&WorkerShared, &DeadLetterSender, &Arc<Rules>),
) -> (Dispatch, Vec<Thread>) {
    let recorder = |shard, lane| Arc::new(WorkerRecorder::new(0, ShardIndex(shard), lane));
    let of_shard = |shard| {
        (0..shape.workers)
            .map(|lane| recorder(shard, lane))
            .collect()
    };
    let recorders: Vec<Vec<_>> = (0..SHARDS).map(of_shard).collect();
    let (dispatch, lanes) = Dispatch::new(&recorders, shape.lane_rows);
    let lanes = lanes.into_iter().flatten();
    let workers = recorders.into_iter().flatten().zip(lanes);
    let workers = workers.map(|(recorder, (lane, post))| {
        let own = (recorder, shared.clone(), letters.clone());
        worker(
            world,
            member,
            shape.worker(world, rules),
            (Some(lane), post),
            own,
        )
    });
    (dispatch, workers.collect())
}

/// A worker's thread.
pub fn worker(
    world: &Shared,
    member: usize,
    settings: WorkerSettings,
    (lane, post): (Option<LaneReceiver>, Post),
    (recorder, shared, letters): (Arc<WorkerRecorder>, WorkerShared, DeadLetterSender),
) -> Thread {
    let world = world.clone();
    Coroutine::new(move |turns, ()| {
        let has_looked = Rc::new(Cell::new(false));
        let session = Session::new(turns, &world, (member, recorder.shard), &has_looked);
        let applier = Applier::new(
            session,
            &SUBSCRIPTION,
            OnMissingRow::Insert,
            recorder.clone(),
            &shared,
        );
        let mut worker = Worker::new((lane, post), settings, applier, letters, recorder);
        worker.begin();
        loop {
            turns.suspend(());
            has_looked.set(true);
            if !worker.step() {
                break;
            }
        }
    })
}

fn poller(
    world: &Shared,
    member: usize,
    (dispatch, letters, client): (Dispatch, DeadLetterSender, LookupClient),
    (settings, shared): (PollerSettings, PollerShared),
) -> Thread {
    let world = world.clone();
    let ready = Arc::new(ReadySet::new(PARTITIONS));
    Coroutine::new(move |turns, ()| {
        let recorder = shared.registry.pollers[0].clone();
        let consumer = SimulatedMember {
            turns,
            world,
            member,
            ready: ready.clone(),
        };
        let mut poller = Poller::new(
            (consumer, ready),
            dispatch,
            client,
            letters,
            settings,
            shared,
            recorder,
        );
        // Each round begins by polling, where others go on.
        let ended = loop {
            if let Err(ended) = poller.round() {
                break ended;
            }
        };
        assert_eq!(ended, Ended::Stopped);
        poller.close();
    })
}
