//! The consumer's wall clock jumps, by a library that stands between it and the kernel (`clock.c`); the monotonic clock goes on.

use crate::child::{Process, log_lines};
use crate::faults::trial::{Load, RATE, SOON, Trial, applied, pond};
use crate::pond::SHARDS;
use crate::reading::Reading;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How far off the clock is, one after the other.
const JUMPS_S: [i64; 3] = [3600, -3600, 0];
/// A log line is as far off as the clock, but for this.
const NEAR_S: i64 = 300;

/// Made for this test, beside the file that it reads.
fn library(directory: &Path) -> PathBuf {
    let library = directory.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/limits/clock.c");
    let made = Command::new("gcc")
        .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(made.unwrap().success(), "{source} can't be compiled");
    library
}

/// In place: the consumer has it in its memory.
fn turn(file: &File, seconds: i64) {
    file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
}

/// How far off the last log line's time is.
fn off_s(consumer: &Process) -> Option<i64> {
    let lines = log_lines(&consumer.said());
    let at: jiff::Timestamp = lines.last()?["ts"].as_str()?.parse().ok()?;
    Some(at.as_second() - jiff::Timestamp::now().as_second())
}

/// No time and no count is below nothing, or longer ago than the clock is off.
fn assert_sane(trial: &Trial, off_s: i64) {
    let now = trial.reading();
    let (what, least) = now.shortest_time().unwrap();
    assert!(least >= 0.0, "{what}: {least}");
    let bound = off_s.max(0) as f64 + 60.0;
    for name in [
        "millpond_time_lag_seconds",
        "millpond_oldest_in_memory_seconds",
    ] {
        let most = now.most(name).unwrap();
        let bound = if name.contains("oldest") { 60.0 } else { bound };
        assert!(most < bound, "{name}: {most} with a clock {off_s} s off");
    }
    let live = trial.pond.admin("/livez").unwrap();
    assert_eq!(live.0, 200, "{live:?}");
}

#[test]
fn jumps_of_the_wall_clock_stall_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (library, path) = (library(directory.path()), directory.path().join("offset"));
    let file = File::create(&path).unwrap();
    turn(&file, 0);
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("MILLPOND_TEST_CLOCK", path.to_str().unwrap()),
    ];
    let pond = pond("clock", "");
    let load = Load {
        seconds: 20,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::running_in(pond, &load, &environment);
    let mut seen = Vec::new();
    for off in JUMPS_S {
        let commits = |now: &Reading| now.sum("millpond_commits_total").unwrap();
        let before = trial.reading();
        turn(&file, off);
        for shard in SHARDS {
            let done = applied(&before, shard);
            trial.wait_for("the shard goes on", |now| {
                applied(now, shard) > done + f64::from(RATE) / 2.0
            });
            assert_sane(&trial, off);
        }
        trial.wait_for("offsets are committed", |now| {
            commits(now) > commits(&before)
        });
        // SIGHUP is answered by a line.
        consumer.signal("-HUP");
        let near = |off_now: i64| (off_now - off).abs() < NEAR_S;
        trial.pond.wait_for("a log line of that time", SOON, |_| {
            off_s(&consumer).is_some_and(near)
        });
        seen.push(off_s(&consumer).unwrap());
    }
    let recovery = trial.recover();
    let observed = format!("its log was {seen:?} s off");
    trial.conclude("the clock jumps", &observed, recovery, consumer);
}
