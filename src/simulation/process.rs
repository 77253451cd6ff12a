//! One life of the program: the product's own poller, lanes and workers as coroutines, and what stands for its other threads.
//! Killing it drops everything where it stands.

use super::member::{NUMBER, SimulatedMember};
use super::session::{INCARNATION, Session};
use super::topic::MESSAGE_BYTES_MAX;
use super::world::{Chance, Met, PARTITIONS, SHARDS, Shared};
use crate::config::checked::{OnLostRecords, OnMissingRow, Start as ConfiguredStart};
use crate::dispatch::{Dispatch, LaneReceiver};
use crate::ids::{Partition, ShardIndex};
use crate::kafka::dead_letters::{DeadLetter, DeadLetterSender, collected};
use crate::observe::Registry;
use crate::observe::recorder::WorkerRecorder;
use crate::poller::assignment::Budget;
use crate::poller::lookup::decide::{Known, Log, decide};
use crate::poller::lookup::{Answer, LookupClient, Question, Start};
use crate::poller::{Ended, Poller, PollerSettings, PollerShared};
use crate::ready::ReadySet;
use crate::sink::rate::WriteRates;
use crate::sink::shape::SUBSCRIPTION;
use crate::sync::{AtomicBool, Ordering};
use crate::worker::apply::{Applier, Shared as WorkerShared};
use crate::worker::{SinkKind, Worker, WorkerSettings};
use corosensei::Coroutine;
use crossbeam_channel::{Receiver, Sender};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A thread of the product.
type Thread = Coroutine<(), (), ()>;

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
}

/// A life.
pub struct Process {
    /// Its number in the group.
    pub member: usize,
    poller: Thread,
    workers: Vec<Thread>,
    lookups: Lookups,
    next_letter: Box<dyn FnMut() -> Option<DeadLetter>>,
    letters: Vec<DeadLetter>,
    stop: Arc<AtomicBool>,
    registry: Arc<Registry>,
    slots: u32,
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
            workers: chance.of(1..=2),
            slots: small(chance.of(1..=16)),
            bytes: u64::from(small(chance.of(600..=20_000))),
            batch_rows,
            lane_rows: chance.of(1..=batch_rows),
            commit_interval: Duration::from_millis(u64::from(small(chance.of(5..=150)))),
        }
    }
}

impl Process {
    /// Starts a life.
    pub fn start(world: &Shared, member: usize, shape: &Shape) -> Self {
        let partitioner = world.borrow().topic.partitioner.clone();
        world.borrow_mut().group.join(member);
        let shard_of = |at| partitioner.shard_of_partition(Partition(at));
        let partitions = i32::try_from(PARTITIONS).expect("few");
        let names = (0..SHARDS).map(|shard| format!("s{shard}")).collect();
        let registry = Arc::new(Registry::new(
            1,
            (0..partitions).map(shard_of).collect(),
            names,
        ));
        let recorders: Vec<Vec<_>> = (0..SHARDS)
            .map(|shard| {
                let recorder = |lane| Arc::new(WorkerRecorder::new(0, ShardIndex(shard), lane));
                (0..shape.workers).map(recorder).collect()
            })
            .collect();
        let rates = Arc::new(WriteRates((0..SHARDS).map(|_| None).collect()));
        let (dispatch, lanes) = Dispatch::new(&recorders, shape.lane_rows);
        let (letters, next_letter) = collected();
        let (abandon, abandoned) = crossbeam_channel::bounded(0);
        let shared = WorkerShared {
            rates: rates.clone(),
            registry: registry.clone(),
            abandon: abandoned,
        };
        let settings = WorkerSettings {
            sink: SinkKind::Postgres,
            baseline: false,
            batch_rows_max: shape.batch_rows,
            batch_linger: Duration::ZERO,
            incarnation: INCARNATION,
            partitioner: Some(partitioner.clone()),
        };
        let lanes = recorders.iter().flatten().zip(lanes.into_iter().flatten());
        let workers = lanes
            .map(|(recorder, lane)| {
                let own = (recorder.clone(), shared.clone(), letters.clone());
                worker(world, member, settings.clone(), lane, own)
            })
            .collect();
        let ready = Arc::new(ReadySet::new(PARTITIONS));
        let stop = Arc::new(AtomicBool::new(false));
        let (client, asked, answer) = LookupClient::without_threads();
        let shared = PollerShared {
            registry: registry.clone(),
            budget: Arc::new(Budget::new(shape.bytes)),
            rates,
            stop: stop.clone(),
        };
        let settings = PollerSettings {
            in_memory_max_per_partition: shape.slots,
            in_memory_max_per_process: None,
            message_max_bytes: MESSAGE_BYTES_MAX,
            commit_interval: Some(shape.commit_interval),
            drain_deadline: DRAIN_DEADLINE,
            commit_deadline: COMMIT_DEADLINE,
            revoke_deadline: REVOKE_DEADLINE,
            partitioner,
        };
        Self {
            member,
            poller: poller(
                world,
                member,
                (dispatch, letters, client),
                ready,
                (settings, shared),
            ),
            workers,
            lookups: Lookups {
                asked,
                answer,
                known: Vec::new(),
            },
            next_letter: Box::new(next_letter),
            letters: Vec::new(),
            stop,
            registry,
            slots: shape.slots,
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
        for partition in &self.registry.partitions {
            let in_memory = partition.in_memory_messages.get();
            assert!(
                in_memory <= i64::from(self.slots),
                "{in_memory} messages in memory"
            );
        }
    }

    /// Tells it to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it was told to stop.
    pub fn is_told_to_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether it was told to stop, and has left the group.
    pub fn has_ended(&self) -> bool {
        self.poller.done()
    }

    /// Its look-up goes on by one step.
    pub fn look_up(&mut self, chance: &mut Chance) {
        self.lookups.step(&self.world, self.member, chance);
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

fn worker(
    world: &Shared,
    member: usize,
    settings: WorkerSettings,
    lane: LaneReceiver,
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
        let mut worker = Worker::new(lane, settings, applier, letters, recorder);
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
    ready: Arc<ReadySet>,
    (settings, shared): (PollerSettings, PollerShared),
) -> Thread {
    let world = world.clone();
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

/// What stands for the look-up threads: first Kafka is asked, then each shard.
struct Lookups {
    asked: Receiver<Question<Partition>>,
    answer: Sender<Answer>,
    /// What Kafka told, and no shard yet.
    known: Vec<(u64, Partition, Option<i64>, Log)>,
}

impl Lookups {
    fn step(&mut self, world: &Shared, member: usize, chance: &mut Chance) {
        let world = &mut *world.borrow_mut();
        if chance.once_in(2)
            && let Ok((number, partitions)) = self.asked.try_recv()
        {
            for partition in partitions {
                let log = &world.topic.logs[partition.index()];
                let (first, end) = (log.first, log.end());
                let committed = world.group.committed[partition.index()];
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
        let of_this = |known: &mut (u64, Partition, Option<i64>, Log)| {
            known.0 == asked && partitioner.shard_of_partition(known.1) == shard
        };
        let on_lost_records = match world.truth.goes_on_behind_gaps {
            true => OnLostRecords::Skip,
            false => OnLostRecords::Stop,
        };
        let mut starts: Vec<Start> = Vec::new();
        for (_, partition, committed, log) in self.known.extract_if(.., of_this) {
            let seen = &mut world.databases[shard.0].seen;
            let known = Known {
                committed,
                first_seen: seen.get(&partition.index()).copied(),
            };
            let start = decide(
                partition,
                known,
                log,
                ConfiguredStart::Earliest,
                on_lost_records,
            );
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
