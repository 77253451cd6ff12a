//! Logs stop nobody, and an app that is watched is logged whole.

use crate::child::Process;
use crate::pond::{Pond, Shape};
use serde_json::Value;
use std::io::{PipeReader, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const DROPPED: &str = "millpond_log_lines_dropped_total";
/// A line of each would be some times what pipe and queue hold.
const MESSAGES: usize = 40_000;

/// Reads a pipe from now on; its lines so far.
fn read(mut pipe: PipeReader) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let saying = said.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            saying.lock().unwrap().push_str(&text);
        }
    });
    said
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Starts a consumer whose stderr is in the caller's hands, and waits until it has applied so many messages.
fn applying(pond: &Pond, messages: usize) -> (Process, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let config = pond.config.to_str().unwrap();
    let arguments = [
        "run",
        "--set",
        "telemetry.applied_sample=1",
        "--config",
        config,
    ];
    let consumer = Process::start_saying(&arguments, &[], writer);
    pond.wait_for("all is applied", SOON, |pond| {
        pond.metric("millpond_messages_total") == Some(messages as f64)
    });
    (consumer, reader)
}

#[test]
fn a_stderr_that_nobody_reads_or_that_is_closed_stops_nobody() {
    let pond = Pond::new("unread", &Shape::default());
    let count = MESSAGES.to_string();
    pond.load(&["--messages", &count]);
    let (consumer, unread) = applying(&pond, MESSAGES);
    let dropped = pond.metric(DROPPED).unwrap();
    assert!(dropped > 0.0, "pipe and queue held all of it");
    // Once somebody reads, a line says how many are missing, and no other is.
    let said = read(unread);
    pond.wait_for("it says how many were dropped", SOON, |_| {
        said.lock().unwrap().contains("\"dropped\":")
    });
    let seen = lines(&said.lock().unwrap());
    let told = seen.iter().find_map(|line| line["dropped"].as_f64());
    assert!(told.unwrap() >= dropped, "{told:?} {dropped}");
    let applied = seen.iter().filter(|line| line["weight"] == 1).count();
    let missing = (MESSAGES - applied) as f64;
    let dropped = pond.metric(DROPPED).unwrap();
    assert!(
        (missing..missing + 50.0).contains(&dropped),
        "{missing} {dropped}"
    );
    let ended = consumer.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.status);
    // Its last words are there: the queue is flushed at the end.
    pond.wait_for("its last words", SOON, |_| {
        said.lock().unwrap().contains("told to stop")
    });

    // Closed, while all that comes next is logged.
    pond.load(&["--messages", "2000", "--seed", "2"]);
    let (consumer, closed) = applying(&pond, 2000);
    drop(closed);
    pond.load(&["--messages", "1000", "--seed", "3"]);
    pond.wait_for("it goes on", SOON, |pond| {
        pond.metric("millpond_messages_total") == Some(3000.0)
    });
    pond.wait_for("drops are counted", SOON, |pond| {
        pond.metric(DROPPED).unwrap() > 0.0
    });
    assert!(consumer.terminate(SOON).status.success());
    pond.assert_exact();
}

/// Applied and logged lines of an app: how many, and what their weights add up to.
fn logged(consumer: &Process, app: &str) -> (usize, u64) {
    let lines = lines(&consumer.said());
    let of_app = lines
        .iter()
        .filter(|line| line["app_id"] == app && line["msg"] == "update applied");
    let weights = of_app.map(|line| {
        for field in ["partition", "offset", "lane", "rows", "elapsed_us"] {
            assert!(line[field].is_number(), "{field}: {line}");
        }
        assert_eq!(line["shard"], "s0", "{line}");
        line["weight"].as_u64().unwrap()
    });
    weights.fold((0, 0), |(count, sum), weight| (count + 1, sum + weight))
}

/// What can't be asked for: what is wrong with the arguments, and what the consumer refuses.
fn assert_refusals(pond: &Pond, id: &str) {
    for (arguments, code) in [
        (&["log", "watch"][..], 2),
        (&["log", "watch", "--app", "x"], 2),
        (&["log", "watch", "--app", id, "--for", "25h"], 2),
        (&["log", "unwatch", "--subscription", id], 1),
        (&["run", "--set", "telemetry.level=a=b=c"], 2),
    ] {
        let ended = pond.command(arguments);
        assert_eq!(
            ended.status.code(),
            Some(code),
            "{arguments:?} {}",
            ended.stderr
        );
    }
}

#[test]
fn what_is_watched_is_logged_whole_and_of_the_rest_one_in_so_many() {
    let shape = Shape {
        workers: 1,
        ..Shape::default()
    };
    let pond = Pond::new("watched", &shape);
    let arguments = ["run", "--set", "telemetry.applied_sample=100"];
    let consumer = pond.start(&arguments, &[]);
    pond.wait_for("it is ready", SOON, |pond| {
        pond.admin("/readyz")
            .is_some_and(|(status, _)| status == 200)
    });
    let apps = [1, 2].map(|n| format!("0{n}000000-0000-4000-8000-000000000001"));
    let mut applied = 0;
    let mut send = || {
        for app in &apps {
            let update = |n: usize| {
                let row = format!("5a000000-0000-4000-8000-{:012x}", n % 50);
                let value =
                    format!(r#"{{"app_id":"{app}","subscription_id":"{row}","counts":{{"n":1}}}}"#);
                (row, value)
            };
            let updates: Vec<_> = (0..500).map(update).collect();
            pond.produce_to(pond.partition_of(app), &updates);
        }
        applied += 1000;
        pond.wait_for("all is applied", SOON, |pond| {
            pond.metric("millpond_messages_total") == Some(f64::from(applied))
        });
        std::thread::sleep(Duration::from_millis(200));
    };
    let watched = &apps[0];
    pond.good(&["log", "watch", "--app", watched, "--for", "5m"]);
    send();
    assert_eq!(logged(&consumer, watched), (500, 500));
    assert_eq!(logged(&consumer, &apps[1]), (5, 500));
    let list: Value = pond.good(&["log", "list", "--format", "json"]).json();
    assert_eq!(list["applied_sample"], 100);
    assert_eq!(list["watched"][0]["app_id"], *watched);
    assert_eq!(list["watched"][0]["logged"], 500);
    // Both count as everybody does from now on.
    pond.good(&["log", "unwatch", "--app", watched]);
    send();
    let all = [logged(&consumer, watched), logged(&consumer, &apps[1])];
    assert_eq!(all[0].0 + all[1].0, 500 + 5 + 10, "{all:?}");
    // A level is read again; warnings come as before.
    pond.reconfigure("[admin]", "[telemetry]\nlevel = \"warn\"\n[admin]");
    consumer.signal("-HUP");
    pond.wait_for("the level is set", SOON, |pond| {
        pond.command(&["log", "list"]).status.success() && consumer.has_said("another level")
    });
    send();
    let after = [logged(&consumer, watched), logged(&consumer, &apps[1])];
    assert_eq!(after, all, "nothing of the third thousand");
    assert_refusals(&pond, watched);
    assert!(consumer.terminate(SOON).status.success());
}
