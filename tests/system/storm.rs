//! Members come, leave and are killed all the time, so that the group hardly ever stops rebalancing.
//!
//! `MILLPOND_TEST_STORM_SECONDS=300` is the full form: 12 members over 720 partitions. The usual one is shorter and smaller.

use crate::child::Process;
use crate::pond::{Pond, Shape};
use crate::spine::seed;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

const CAUGHT_UP: Duration = Duration::from_secs(180);

struct Storm {
    seconds: u64,
    members: usize,
    /// The longest time between two members that come or go, in milliseconds.
    pause_ms_max: u64,
    partitions: u32,
    rate: u64,
}

fn size() -> Storm {
    let seconds = std::env::var("MILLPOND_TEST_STORM_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    match seconds {
        Some(seconds) => Storm {
            seconds,
            members: 12,
            pause_ms_max: 500,
            partitions: 720,
            rate: 4_000,
        },
        None => Storm {
            seconds: 20,
            members: 4,
            pause_ms_max: 1_000,
            partitions: 96,
            rate: 5_000,
        },
    }
}

/// Starts members that are away, and ends those that are there: some as told, some at once. Returns how often each was done.
fn toggle(pond: &Pond, storm: &Storm, random: &mut SmallRng) -> [u32; 3] {
    let mut members: Vec<Option<Process>> = (0..storm.members).map(|_| None).collect();
    let mut leaving = Vec::new();
    let [mut started, mut told, mut killed] = [0; 3];
    let end = Instant::now() + Duration::from_secs(storm.seconds);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(
            random.random_range(0..storm.pause_ms_max),
        ));
        let member = &mut members[random.random_range(0..storm.members)];
        match member.take() {
            None => {
                started += 1;
                let arguments = ["run", "--set", "admin.listen=127.0.0.1:0"];
                *member = Some(pond.start(&arguments, &[]));
            }
            Some(process) if random.random() => {
                told += 1;
                process.signal("-TERM");
                leaving.push(process);
            }
            Some(process) => {
                killed += 1;
                process.kill();
            }
        }
        leaving.retain_mut(Process::is_running);
    }
    for process in leaving {
        let ended = process.wait(CAUGHT_UP);
        assert!(ended.status.success(), "{}", ended.stderr);
    }
    // Those that are left die at once, so that nothing but what they committed before counts.
    members.into_iter().flatten().for_each(|process| {
        process.kill();
    });
    [started, told, killed]
}

#[test]
fn a_storm_of_members_loses_nothing_and_commits_nothing_that_is_not_applied() {
    let storm = size();
    let shape = Shape {
        partitions: storm.partitions,
        ..Shape::default()
    };
    let pond = Pond::new("storm", &shape);
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let (messages, rate) = (storm.seconds * storm.rate, storm.rate.to_string());
    let load = pond.start(
        &[
            "load",
            "--messages",
            &messages.to_string(),
            "--rows",
            "20000",
            "--rate",
            &rate,
        ],
        &[],
    );
    let done = toggle(&pond, &storm, &mut random);
    load.wait(CAUGHT_UP).json();
    let verdict = pond.verify();
    // On a busy machine no member may live long enough to commit anything, and then there is nothing to be wrong.
    let wrong = ["mismatched", "missing", "extra"].map(|name| verdict[name].as_u64());
    let is_untouched = verdict["rows_checked"] == 0 && wrong == [Some(0); 3];
    assert!(is_untouched || verdict["ok"] == true, "{verdict}");
    println!("seed {seed}: started, told to stop, killed {done:?}; behind: {verdict}");

    let mut last = pond.start(&["run", "--until-caught-up"], &[]);
    assert!(
        last.ends_within(CAUGHT_UP),
        "seed {seed}: a partition is stuck:\n{}\n{}",
        pond.command(&["lag"]).stdout,
        last.kill().stderr
    );
    let summary = last.wait(CAUGHT_UP).json();
    let verdict = pond.assert_exact();
    println!("{summary}\n{verdict}");
    assert_eq!(verdict["messages_read"], messages, "seed {seed}");
}
