//! The path of a message allocates nothing of ours for it: what is allocated is for a batch, or for a part of one. A test build
//! counts, by thread and line of code (src/allocations.rs).

use crate::child::log_lines;
use crate::pond::{Pond, Shape};
use std::collections::BTreeMap;
use std::time::Duration;

const MESSAGES: u32 = 300_000;
/// A line that runs for one message in twenty, or more, is one that runs for messages. Those for batches, and for what a
/// partition has in one, run for one in a hundred here; those that lay in memory for the first batches, for one in fifty.
const PER_MESSAGE_MAX: f64 = 0.05;
const LONG: Duration = Duration::from_secs(120);

/// Allocations on the threads that messages pass, by crate and line.
fn counted(pond: &Pond, sink: &str) -> BTreeMap<(String, String), u64> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["run", "--until-caught-up", "--sink", sink];
    let path = file.path().to_str().unwrap();
    let consumer = pond.start(&arguments, &[("MILLPOND_TEST_ALLOCATIONS", path)]);
    let ended = consumer.wait(LONG);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.json()["messages"], MESSAGES);
    let mut counts = BTreeMap::new();
    for line in log_lines(&std::fs::read_to_string(path).unwrap()) {
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let thread = text("thread");
        if thread.starts_with("mp-poll") || thread.starts_with("mp-w") {
            let place = (text("crate"), text("line"));
            *counts.entry(place).or_default() += line["times"].as_u64().unwrap();
        }
    }
    counts
}

/// All of each crate, for one message.
fn by_crate(counts: &BTreeMap<(String, String), u64>) -> BTreeMap<&str, f64> {
    let mut sums = BTreeMap::new();
    for ((owner, _), times) in counts {
        *sums.entry(owner.as_str()).or_default() += *times as f64 / f64::from(MESSAGES);
    }
    sums
}

#[test]
fn no_line_of_ours_allocates_for_each_message() {
    let pond = Pond::new("allocations", &Shape::default());
    pond.load(&["--messages", &MESSAGES.to_string(), "--rows", "100000"]);
    // The null sink commits nothing, so that all of it is there again.
    for sink in ["null", "postgres"] {
        let counts = counted(&pond, sink);
        let sums = by_crate(&counts);
        println!("sink {sink}, allocations for a message: {sums:.4?}");
        // Batches need some, so that none at all would mean that nothing was counted.
        assert!(sums.contains_key("millpond"), "{sums:?}");
        let often: Vec<_> = counts
            .iter()
            .filter(|((owner, _), times)| {
                owner == "millpond" && **times as f64 > PER_MESSAGE_MAX * f64::from(MESSAGES)
            })
            .collect();
        assert!(often.is_empty(), "sink {sink}: {often:?}");
    }
}
