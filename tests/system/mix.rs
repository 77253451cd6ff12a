//! Faults of all kinds, at random and over one another, on a group that works all the time: nothing is lost, nothing takes
//! effect twice, and the checker that runs along has nothing to say.
//!
//! A fault counts only if its effect was seen. `MILLPOND_TEST_MIX=full` is the full form (`tests/faults --full`; there
//! is `middle` too), and `MILLPOND_TEST_SOAK_SECONDS=7200` is a soak (`tests/soak`); the usual one takes a minute. `MILLPOND_TEST_SEED` decides which
//! faults come in which order; how they meet is up to the machine.
//!
//! - [`kinds`]: which there are, what each needs for itself, and which comes next
//! - [`of_members`], [`of_postgres`], [`of_kafka`], [`of_operators`]: what each does, and by what it is seen
//! - [`fleet`]: the members of the group
//! - [`traffic`]: the load
//! - [`tally`]: what came of it
//! - [`soak`]: what must stay flat

mod fleet;
mod kinds;
mod of_kafka;
mod of_members;
mod of_operators;
mod of_postgres;
mod soak;
mod tally;
mod traffic;

use crate::checker::{Checker, Looks, Members};
use crate::limits::conflicts;
use crate::pond::{Pond, SHARDS, Shape};
use crate::reading::Reading;
use crate::services;
use crate::spine::seed;
use fleet::Fleet;
use kinds::{Bag, Chosen};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use soak::Sampler;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tally::{Outcome, Tally};
use traffic::Traffic;

/// What is waited for happens within this time, or never.
const SOON: Duration = Duration::from_secs(60);
const CAUGHT_UP: Duration = Duration::from_secs(300);

/// How large a mix is.
#[derive(Clone, Debug)]
struct Size {
    members: usize,
    /// Of those, how many no fault ends: what they hold over time is looked at.
    kept: usize,
    partitions: u32,
    rows: u32,
    /// Messages a second, and how many there are at least.
    rate: u32,
    messages: u64,
    /// Faults that must be seen; injecting goes on until then, and for that long at least, and no longer than that.
    observed: usize,
    time: Range<Duration>,
    /// Between two injections, in milliseconds.
    pause_ms: Range<u64>,
    at_once: usize,
    one_row_in: u64,
    storm: Storm,
}

/// How many members come and go in a storm, and for how long.
#[derive(Clone, Copy, Debug)]
struct Storm {
    members: usize,
    time: Duration,
}

/// The usual one.
fn small() -> Size {
    Size {
        members: 3,
        kept: 0,
        partitions: 48,
        rows: 20_000,
        rate: 3_000,
        messages: 0,
        observed: 12,
        time: Duration::ZERO..Duration::from_secs(90),
        pause_ms: 0..600,
        at_once: 4,
        one_row_in: 1,
        storm: Storm {
            members: 4,
            time: Duration::from_secs(6),
        },
    }
}

fn size() -> Size {
    let variable = |name| std::env::var(name).ok();
    if let Some(seconds) = variable("MILLPOND_TEST_SOAK_SECONDS") {
        let seconds: u64 = seconds.parse().expect("a number of seconds");
        return Size {
            kept: 2,
            members: 4,
            observed: 0,
            time: Duration::from_secs(seconds)..Duration::from_secs(seconds),
            // Twenty in a short one; in two hours one in fifteen seconds or so.
            pause_ms: 1_000..(seconds * 50).clamp(3_000, 30_000),
            at_once: 2,
            one_row_in: 4,
            ..small()
        };
    }
    match variable("MILLPOND_TEST_MIX").as_deref() {
        None => small(),
        Some("middle") => Size {
            members: 6,
            partitions: 240,
            rows: 100_000,
            rate: 8_000,
            messages: 1_000_000,
            observed: 60,
            time: Duration::ZERO..Duration::from_secs(300),
            pause_ms: 0..2_000,
            one_row_in: 2,
            ..small()
        },
        Some("full") => Size {
            members: 12,
            partitions: 720,
            rows: 200_000,
            rate: 20_000,
            messages: 20_000_000,
            observed: 200,
            time: Duration::ZERO..Duration::from_secs(5_400),
            pause_ms: 0..4_000,
            one_row_in: 8,
            storm: Storm {
                members: 8,
                time: Duration::from_secs(20),
            },
            ..small()
        },
        Some(other) => panic!("MILLPOND_TEST_MIX={other}: it may be middle or full"),
    }
}

/// What faults are done to.
struct World {
    pond: Pond,
    checker: Checker,
    fleet: Fleet,
    storm: Storm,
}

/// A fault that is not over yet; at the latest when it is dropped.
struct Harm<'a> {
    checker: &'a Checker,
    number: usize,
    is_over: std::cell::Cell<bool>,
}

impl Harm<'_> {
    /// From now on it has to be got over.
    fn over(&self) {
        if !self.is_over.replace(true) {
            self.checker.fault_ends(self.number);
        }
    }
}

impl Drop for Harm<'_> {
    fn drop(&mut self) {
        self.over();
    }
}

impl World {
    fn begin(size: &Size) -> Self {
        let shape = Shape {
            partitions: size.partitions,
            consumer: "commit_interval_ms = 200\ndrain_deadline_s = 5\nin_memory_max_per_partition = 1000",
            ..Shape::default()
        };
        let pond = Pond::new("mix", &shape);
        if size.messages > 0 {
            use_small_segments(&pond);
        }
        for shard in 0..2 {
            let patience = format!("deadlock_timeout = '{}'", conflicts::PATIENCE);
            conflicts::set_for_database(&pond, shard, &patience);
            pond.shard(shard)
                .batch_execute("ALTER TABLE subscription ADD CHECK (NOT tags ? 'poison')")
                .unwrap();
        }
        let looks = Looks {
            one_row_in: size.one_row_in,
            recovery_max: CAUGHT_UP,
        };
        let members = Members::default();
        let checker = Checker::watch(&pond, looks, members.clone());
        let fleet = Fleet::begin(&pond, size.members, members);
        let world = Self {
            pond,
            checker,
            fleet,
            storm: size.storm,
        };
        let all = f64::from(size.partitions);
        let has_all = || world.sum("millpond_assigned_partitions", &[]) == all;
        assert!(within(SOON, has_all), "not all partitions are assigned");
        world
    }

    fn harm(&self, kind: &'static str) -> Harm<'_> {
        Harm {
            checker: &self.checker,
            number: self.checker.fault_begins(kind),
            is_over: false.into(),
        }
    }

    /// Over all members that answer.
    fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let readings = self.fleet.ports().into_iter().filter_map(Reading::take);
        readings.map(|now| now.sum_of(metric, labels)).sum()
    }
}

/// Waits for a condition; whether it came.
fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + time;
    while !condition() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

fn pause(random: &mut SmallRng, milliseconds: Range<u64>) {
    std::thread::sleep(Duration::from_millis(random.random_range(milliseconds)));
}

/// A broker that was killed reads again what it had not flushed, which is each partition's last segment: with the usual size, the whole log.
fn use_small_segments(pond: &Pond) {
    let mut tool = services::tell(&services::directory(), "kafka-tool");
    tool.args([
        "kafka.admin.ConfigCommand",
        "--alter",
        "--topic",
        &pond.topic,
    ])
    .args(["--bootstrap-server", &pond.configuration().kafka.brokers])
    .args(["--add-config", "segment.bytes=1048576"]);
    assert!(tool.status().unwrap().success(), "{}", pond.topic);
}

/// Injects until there was enough of it; what came of each.
fn inject(world: &World, size: &Size, traffic: &Traffic, random: &mut SmallRng) -> Tally {
    let (mut tally, mut bag) = (Tally::default(), Bag::new(size));
    let (mut busy, mut running) = (HashSet::new(), 0);
    let (tell, told) = mpsc::channel::<(Chosen, Outcome)>();
    let began = Instant::now();
    std::thread::scope(|scope| {
        loop {
            while let Ok((chosen, outcome)) = told.try_recv() {
                busy.remove(&chosen.needs());
                running -= 1;
                tally.add(outcome);
            }
            let enough = tally.observed() >= size.observed && traffic.sent() >= size.messages;
            let time = began.elapsed();
            let is_over = time >= size.time.end || traffic.has_ended();
            if is_over || (enough && time >= size.time.start) {
                break;
            }
            pause(random, size.pause_ms.clone());
            let chosen = (running < size.at_once)
                .then(|| bag.next(&busy, random))
                .flatten();
            let Some(chosen) = chosen else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            busy.insert(chosen.needs());
            running += 1;
            let (tell, mut own) = (tell.clone(), SmallRng::seed_from_u64(random.random()));
            let thread = std::thread::Builder::new().name(chosen.kind.name().to_owned());
            thread
                .spawn_scoped(scope, move || {
                    let outcome = chosen.run(world, &mut own);
                    let _ = tell.send((chosen, outcome));
                })
                .unwrap();
        }
    });
    told.try_iter().for_each(|(_, outcome)| tally.add(outcome));
    tally
}

#[test]
fn a_random_mix_of_faults_loses_nothing_and_does_nothing_twice() {
    let (size, seed) = (size(), seed());
    println!("seed {seed}: {size:?}");
    let mut random = SmallRng::seed_from_u64(seed);
    let world = World::begin(&size);
    let mut traffic = Traffic::begin(&world.pond, &size, seed);
    let both_have_rows = || {
        SHARDS
            .iter()
            .all(|shard| world.sum("millpond_messages_total", &[("shard", shard)]) > 500.0)
    };
    assert!(within(SOON, both_have_rows), "nothing is applied");
    let sampler = (size.kept > 0).then(|| Sampler::begin(&world, &size));
    let tally = inject(&world, &size, &traffic, &mut random);
    let samples = sampler.map(Sampler::end);
    let sent = traffic.end();
    let recovered = within(CAUGHT_UP, || world.checker.has_recovered());
    let most = sent / size.one_row_in / 2;
    let kept_up = within(CAUGHT_UP, || world.checker.compared() > most);
    let World {
        pond,
        checker,
        fleet,
        ..
    } = world;
    let findings = checker.end();
    fleet.end();
    let last = pond.start(&["run", "--until-caught-up"], &[]);
    last.wait(CAUGHT_UP).json();
    let verdict = pond.assert_exact();

    let mut report = tally.report(seed, sent, &findings, &verdict);
    let flat = samples.map(|samples| samples.judge(&mut report));
    println!("{report}");
    if let Ok(path) = std::env::var("MILLPOND_TEST_REPORT") {
        std::fs::write(path, &report).unwrap();
    }
    assert!(
        findings.wrong.is_empty(),
        "seed {seed}: {:#?}",
        findings.wrong
    );
    assert!(recovered, "seed {seed}: the group did not come back");
    assert!(kept_up, "seed {seed}: the checker compared too little");
    assert!(verdict["messages_read"].as_u64() >= Some(sent), "{verdict}");
    assert!(
        tally.observed() >= size.observed / 2,
        "seed {seed}: the faults did not bite"
    );
    assert!(flat != Some(false), "not flat");
}
