//! The whole consumer under a seeded schedule: the product's own poller, tracker, lanes and workers, with a simulated group,
//! topic and database around them. One thread, one clock that is turned by hand, no waiting: a seed is a story, and the
//! same one each time.
//!
//! - [`world`]: what all share; the kinds of events
//! - [`topic`], [`group`], [`member`]: Kafka, from the logs to what a poller sees
//! - [`database`], [`transaction`], [`server`], [`session`]: shards, from rows and links to what a worker sees
//! - [`process`]: one life of the program; [`lookups`]: its look-up threads; [`resize`]: other numbers of workers; [`rules`]: the
//!   rules topic and who keeps it
//! - [`truth`]: what should be
//! - [`schedule`]: a seed from beginning to end
//!
//! `MILLPOND_SIM_SEEDS` is how many seeds are run, `MILLPOND_SIM_SEED` the only one.

mod database;
mod group;
mod lookups;
mod member;
mod process;
mod resize;
mod rules;
mod schedule;
mod server;
mod session;
mod topic;
mod transaction;
mod truth;
mod world;

use crate::fault;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use schedule::Run;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Counts, Met};

/// Seeds of a run, unless the environment says otherwise.
const SEEDS: u64 = 14_000;
/// The environment's name for the only seed to be run.
const ONLY_SEED: &str = "MILLPOND_SIM_SEED";
/// How often each kind of event is met at least over that many seeds.
const MET_MIN: u64 = 1000;
/// Seeds within which each broken guarantee is noticed.
const MUTANT_SEEDS: u64 = 200;

/// One seed: what was met and how many steps it took, or what went wrong.
fn run(seed: u64) -> Result<(Counts, u64), String> {
    let alone = number_from_environment(ONLY_SEED).is_some();
    let mut run = Run::new(seed, alone);
    // What panics is dropped afterwards, with all that it holds.
    catch_unwind(AssertUnwindSafe(|| run.run())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let text = text.unwrap_or_else(|| "a panic without words".to_owned());
        let story = run.story();
        format!("{story}\nseed {seed}: {text}\nits story: {ONLY_SEED}={seed} cargo test --lib simulation::seeds_end")
    })
}

fn number_from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {value:?}; it must be a number")),
    )
}

/// Runs these seeds on all cores, until one fails.
fn run_all(seeds: std::ops::Range<u64>) -> Result<Counts, String> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        let mut total = [0; Met::ALL.len()];
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let (met, _) = run(seed).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            total
                .iter_mut()
                .zip(met)
                .for_each(|(total, met)| *total += met);
        }
        Ok(total)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<Result<Counts, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join =
            |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("seeds are caught");
        threads.into_iter().map(join).collect()
    });
    let mut total = [0; Met::ALL.len()];
    for met in results {
        total
            .iter_mut()
            .zip(met?)
            .for_each(|(total, met)| *total += met);
    }
    Ok(total)
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the counts, for who asks with --nocapture"
)]
fn seeds_end_exact_and_meet_every_kind_of_event() {
    let seeds = match number_from_environment(ONLY_SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("MILLPOND_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let all = seeds.end - seeds.start >= SEEDS;
    let met = run_all(seeds).unwrap_or_else(|failure| panic!("{failure}"));
    let mut rare = Vec::new();
    for what in Met::ALL {
        let count = met[*what as usize];
        println!("{what:?} {count}");
        if all && count < MET_MIN {
            rare.push(format!("{what:?} only {count} times"));
        }
    }
    assert!(rare.is_empty(), "met too rarely: {rare:?}");
}

#[test]
fn seeds_tell_the_same_story_each_time() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "how each was noticed, with --nocapture"
)]
fn seeds_notice_every_broken_guarantee() {
    for mutant in [
        "fence-off",
        "commit-highest",
        "fold-not-cut",
        "dead-epochs-not-dropped",
        "stale-epoch-accepted",
        "lanes-split-out-of-order",
        "ceiling-off",
        "edges-not-awaited",
        "frontier-off",
        "open-commits-not-awaited",
        "cuts-not-noticed",
        "link-outside-its-lock",
        "link-refused-not-remembered",
    ] {
        fault::in_tests::BROKEN.set(Some(mutant));
        let noticed = (0..MUTANT_SEEDS).find_map(|seed| run(seed).err());
        fault::in_tests::BROKEN.set(None);
        let noticed = noticed.unwrap_or_else(|| panic!("{mutant}: {MUTANT_SEEDS} seeds end exact"));
        println!("{mutant}: {noticed}");
    }
}
