//! A thread of the consumer panics. The process must not live on without it: its work would be nobody's, and all would look well.

use crate::child::Ended;
use crate::faults::trial::{Load, SOON, Trial, pond};
use std::process::ExitStatus;

/// Where, and the thread's name. The process ends at once, or after what is finished was committed.
const POINTS: [(&str, &str); 9] = [
    ("rules", "mp-rules"),
    ("hot", "mp-hot"),
    ("log-writer", "log-writer"),
    ("accept", "admin-accept"),
    ("look-up", "mp-lookup-0"),
    ("look-up-shard", "mp-lookup-0."),
    ("after-write", "mp-w0."),
    ("dead-letter", "mp-dead"),
    ("before-commit", "mp-poll-0"),
];

fn says_who(ended: &Ended, thread: &str) -> bool {
    let mut lines = ended.stderr.lines();
    lines.any(|line| line.contains("panicked") && line.contains(thread))
}

#[test]
fn a_panic_of_any_thread_ends_the_process_and_the_next_life_is_exact() {
    let pond = pond("panics", "drain_deadline_s = 4");
    let load = Load {
        seconds: 8,
        rows: 20_000,
        broken: 300,
    };
    let mut trial = Trial::begin(pond, &load);
    let mut statuses: Vec<ExitStatus> = Vec::new();
    for (point, thread) in POINTS {
        let life = trial
            .pond
            .start(&["run"], &[("MILLPOND_TEST_PANIC", point)]);
        let ended = life.wait(SOON);
        assert!(!ended.status.success(), "{point}: {}", ended.stderr);
        assert!(says_who(&ended, thread), "{point}: {}", ended.stderr);
        statuses.push(ended.status);
    }
    let consumer = trial.pond.start(&["run"], &[]);
    let recovery = trial.recover();
    let statuses: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    let observed = format!("{} lives ended: {}", POINTS.len(), statuses.join(", "));
    trial.conclude("threads panic", &observed, recovery, consumer);
}

/// A request is one client's. Its answer says so, and nobody else is to suffer.
#[test]
fn a_panic_of_one_request_ends_its_connection_and_nothing_else() {
    let pond = pond("request-panics", "");
    let mut life = pond.start(&["run"], &[("MILLPOND_TEST_PANIC", "scrape")]);
    pond.wait_for("the scrape fails", SOON, |pond| {
        pond.admin("/metrics")
            .is_some_and(|(status, _)| status == 500)
    });
    let live = pond.admin("/livez").unwrap();
    assert_eq!(live.0, 200, "{live:?}");
    assert!(life.is_running());
    let ended = life.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
}
