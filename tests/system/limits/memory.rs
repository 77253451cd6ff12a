//! The kernel gives the consumer as much memory as the documentation promises to be enough, or far too little.

use super::cgroup::Group;
use crate::pond::{Pond, Shape};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const SIGKILL: i32 = 9;
const MIB: f64 = 1_048_576.0;
const MESSAGES: u64 = 300_000;
const VALUE_BYTES: u64 = 500;
const CAUGHT_UP: Duration = Duration::from_secs(150);
/// Nothing can be done with it.
const TOO_LITTLE: f64 = 24.0 * MIB;

/// What the documentation says (src/config/README.md, "Memory") of the settings below.
fn formula() -> f64 {
    let (partitions, workers) = (12.0, 4.0);
    let (value, in_memory) = (VALUE_BYTES as f64, 16.0 * MIB);
    // A fetch brings 64 KiB a partition at least, or one batch of the producer, which is 1 MB at most.
    let fetched = 1000.0 * partitions + partitions * 1e6 / value;
    let of_fetched = value + 1000.0;
    25.0 * MIB
        + 0.1 * MIB * (workers + partitions)
        + 1.2 * in_memory
        + 160.0 * in_memory / value
        + of_fetched * fetched
}

/// A little more: the kernel's own for its sockets, and the program's pages of files, count in the group too.
fn enough() -> f64 {
    formula() + 32.0 * MIB
}

/// All of it is there before anybody reads, so that all is held that may be held.
fn pond_with_backlog() -> Pond {
    let shape = Shape {
        consumer: "in_memory_bytes_max = \"16MiB\"",
        ..Shape::default()
    };
    let pond = Pond::new("memory", &shape);
    pond.reconfigure(
        "[kafka.librdkafka]",
        "[kafka.librdkafka]\n\"queued.min.messages\" = \"1000\"\n\"fetch.message.max.bytes\" = \"65536\"",
    );
    let (messages, bytes) = (MESSAGES.to_string(), VALUE_BYTES.to_string());
    let sizes = [
        "--messages",
        &messages,
        "--rows",
        "500",
        "--value-bytes",
        &bytes,
    ];
    pond.load(&sizes);
    pond
}

#[test]
fn a_backlog_is_applied_within_the_memory_that_is_documented_and_after_a_life_that_had_too_little()
{
    let group = match Group::new("memory", "memory") {
        Ok(group) => group,
        Err(why) => {
            println!("memory: skipped, since no control group can be made here: {why}");
            return;
        }
    };
    let pond = pond_with_backlog();
    group.limit_memory(TOO_LITTLE);
    let ended = group.run(&pond, &["--until-caught-up"]).wait(CAUGHT_UP);
    assert_eq!(ended.status.signal(), Some(SIGKILL), "{}", ended.stderr);
    let killed = group.killed();
    assert!(killed > 0, "by whom, then?");
    group.limit_memory(enough());
    group.forget_peak();
    let ended = group.run(&pond, &["--until-caught-up"]).wait(CAUGHT_UP);
    ended.json();
    let peak = group.memory_peak();
    assert_eq!(group.killed(), killed, "it had enough");
    let verdict = pond.assert_exact();
    assert!(
        verdict["messages_read"].as_u64() >= Some(MESSAGES),
        "{verdict}"
    );
    println!(
        "memory: {MESSAGES} messages of {VALUE_BYTES} bytes; killed {killed} times with {:.0} MiB; exact with {:.0} MiB, of which \
         the formula {:.0}; at most {:.0} taken",
        TOO_LITTLE / MIB,
        enough() / MIB,
        formula() / MIB,
        peak.map_or(f64::NAN, |peak| peak as f64 / MIB),
    );
}
