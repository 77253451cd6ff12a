//! The consumer may open no more files: what is open stays so, and what breaks can't be made anew until there is room again.

use crate::child::Process;
use crate::faults::trial::{Load, SOON, Trial, down, pond};
use std::process::Command;
use std::time::Duration;

/// Files that stay open whatever happens: stdin, stdout, stderr. With room for no more, none that is closed can be opened again.
const FEW: u32 = 3;
/// How long it has none.
const WITHOUT: Duration = Duration::from_secs(4);
/// What it may spend on trying in that time: a loop without a pause would take all of a core.
const PROCESSOR_MAX: Duration = Duration::from_secs(2);
const OURS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'millpond/%'";

fn limit(process: &Process, files: &str) {
    let status = Command::new("prlimit")
        .arg(format!("--nofile={files}:"))
        .arg(format!("--pid={}", process.id()))
        .status();
    assert!(status.unwrap().success(), "prlimit --nofile={files}");
}

/// Its limit now, as the kernel tells.
fn limit_now(process: &Process) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    line.unwrap().split_whitespace().nth(3).unwrap().to_owned()
}

/// Processor time of all threads so far.
pub fn processor(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let (_, after) = stat.rsplit_once(')').unwrap();
    let fields = after.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// How many connections of the consumer a shard's server has, once they were ended.
fn end_connections(trial: &Trial, shard: usize) -> i64 {
    let mut client = trial.pond.shard(shard);
    let end = format!("SELECT count(pg_terminate_backend(pid)) {OURS}");
    client.query_one(&end, &[]).unwrap().get(0)
}

fn connections(trial: &Trial, shard: usize) -> i64 {
    let mut client = trial.pond.shard(shard);
    let count = format!("SELECT count(*) {OURS}");
    client.query_one(&count, &[]).unwrap().get(0)
}

#[test]
fn a_consumer_without_room_for_open_files_goes_on_once_it_has_it() {
    let load = Load {
        seconds: 9,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::running(pond("open-files", ""), &load);
    let before = limit_now(&consumer);
    limit(&consumer, &FEW.to_string());
    let ended: i64 = (0..2).map(|shard| end_connections(&trial, shard)).sum();
    assert!(ended >= 4, "{ended} connections were ended");
    trial.pond.wait_for("it says why", SOON, |_| {
        consumer.has_said("Too many open files")
    });
    let spent = processor(&consumer);
    std::thread::sleep(WITHOUT);
    let spent = processor(&consumer) - spent;
    let left: i64 = (0..2).map(|shard| connections(&trial, shard)).sum();
    assert_eq!(left, 0, "none can be made");
    assert!(
        spent < PROCESSOR_MAX,
        "{spent:?} of processor time in {WITHOUT:?}"
    );
    limit(&consumer, &before);
    trial.wait_for("its connections are back", |now| {
        down(now, "s0") + down(now, "s1") == 0.0
    });
    let recovery = trial.recover();
    let observed = format!(
        "{ended} connections ended and none made; {spent:?} of processor time in {WITHOUT:?}"
    );
    let ended = trial.conclude("no open files", &observed, recovery, consumer);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_consumer_that_may_open_too_few_files_says_so_at_its_start() {
    let pond = pond("few-files", "");
    let config = pond.config.to_str().unwrap();
    let binary = crate::child::binary();
    let arguments = ["--nofile=60:60", &binary, "run", "--config", config];
    let ended = Process::of("prlimit", &arguments, &[]).wait(SOON);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for words in ["60 files may be open", "ulimit -n", "LimitNOFILE"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}
