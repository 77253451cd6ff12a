//! Traffic through the edge: what is answered with 200 is in the topic, once, and what a spike does to the shards.

use crate::child::Ended;
use crate::ingest::edge::Edge;
use crate::pond::{Pond, Shape};
use crate::write_rate::{NOTE_WRITES, most_in_a_second, writes};
use millpond::kafka::admin::Admin;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// An edge that is ready, and its URL. Before that it answers 503.
fn edge(pond: &Pond, settings: &[&str]) -> (Edge, String) {
    let edge = Edge::start(pond, settings);
    let url = format!("http://{}", edge.address);
    (edge, url)
}

/// Messages that the topic has.
fn in_topic(pond: &Pond) -> i64 {
    let kafka = pond.configuration().kafka;
    let admin = Admin::connect(&kafka).unwrap();
    admin.end_offsets(&kafka.topic, SOON).unwrap().iter().sum()
}

#[test]
fn what_is_answered_with_200_is_in_the_topic_and_nothing_else() {
    let pond = Pond::new("load-http", &Shape::default());
    let (edge, url) = edge(&pond, &[]);
    let summary = pond.load(&["--http", &url, "--messages", "20000", "--rows", "5000"]);
    println!("{summary}");
    assert_eq!(summary["answers"], json!({"200": 20_000}));
    assert_eq!(
        (&summary["loop"], &summary["lost"]),
        (&"closed".into(), &0.into())
    );
    assert_eq!(in_topic(&pond), 20_000);

    let paced = ["--http", &url, "--messages", "3000", "--rate", "1000"];
    let summary = pond.load(&[&paced[..], &["--seed", "2", "--scenario", "zipf"]].concat());
    println!("{summary}");
    assert_eq!(
        (&summary["loop"], &summary["messages"]),
        (&"open".into(), &3_000.into())
    );
    assert!(summary["seconds"].as_f64().unwrap() >= 2.999, "{summary}");
    edge.stop();
    assert_eq!(in_topic(&pond), 23_000);
    assert_eq!(pond.catch_up()["dead_lettered"], 0);
    let verdict = pond.assert_exact();
    assert!(verdict["rows_checked"].as_u64() > Some(5_000), "{verdict}");
}

#[test]
fn links_and_mirrored_updates_of_the_incident_go_through_the_edge() {
    let pond = Pond::new("load-http-pairs", &Shape::default());
    let (edge, url) = edge(&pond, &[]);
    let shape = [
        "--scenario",
        "clothesly",
        "--messages",
        "8000",
        "--rows",
        "300",
    ];
    let summary = pond.load(&[&["--http", &url], &shape[..]].concat());
    println!("{summary}");
    edge.stop();
    let requests = summary["requests"].as_u64().unwrap();
    assert!((4_000..5_000).contains(&requests), "{summary}");
    assert_eq!(
        (&summary["messages"], in_topic(&pond)),
        (&8_000.into(), 8_000)
    );
    assert_eq!(pond.catch_up()["dead_lettered"], 0);
    pond.assert_exact();
    let children: i32 = (0..2)
        .map(|shard| {
            let sql = "SELECT coalesce(sum(children), 0)::int FROM parent";
            pond.shard(shard)
                .query_one(sql, &[])
                .unwrap()
                .get::<_, i32>(0)
        })
        .sum();
    assert!(children > 20, "{children} children");
}

#[test]
fn refused_requests_are_counted_by_reason_and_bring_nothing() {
    let pond = Pond::new("load-http-refused", &Shape::default());
    let (edge, url) = edge(&pond, &["ingest.tokens=[\"sesame\"]"]);
    let with = |token: &str| pond.load(&["--http", &url, "--messages", "500", "--token", token]);
    let refused = with("wrong");
    assert_eq!(refused["answers"], json!({"401": 500}));
    assert_eq!(refused["reasons"], json!({"unauthorized": 500}));
    assert_eq!((&refused["messages"], in_topic(&pond)), (&0.into(), 0));
    assert_eq!(with("sesame")["answers"], json!({"200": 500}));
    edge.stop();
    assert_eq!(in_topic(&pond), 500);
}

/// An edge that is killed leaves requests without an answer. They are not sent again, or some would be in the topic twice;
/// all that was answered is there.
#[test]
fn requests_that_a_killed_edge_leaves_without_answer_are_not_sent_again() {
    let pond = Pond::new("load-http-killed", &Shape::default());
    let (edge, url) = edge(&pond, &[]);
    let load = [
        "load",
        "--http",
        &url,
        "--messages",
        "60000",
        "--rate",
        "2000",
    ];
    let load = pond.start(&load, &[]);
    pond.wait_for("messages come", SOON, |pond| in_topic(pond) > 2_000);
    edge.kill();
    let summary = load.wait(SOON).json();
    println!("{summary}");
    let count = |name: &str| summary[name].as_i64().unwrap();
    assert!(count("lost") > 0 || count("unsent") > 0, "{summary}");
    assert!(count("connection_errors") > 0, "{summary}");
    let found = in_topic(&pond);
    let (answered, lost) = (count("messages"), count("lost"));
    assert!(
        (answered..=answered + lost).contains(&found),
        "{found}: {summary}"
    );
}

/// Of the lines that a watch prints, all but the summary.
fn seconds(ended: &Ended) -> Vec<Value> {
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let parse = |line: &&str| serde_json::from_str(line).unwrap();
    lines[..lines.len() - 1].iter().map(parse).collect()
}

/// The highest value of a key.
fn highest(seconds: &[Value], key: &str) -> f64 {
    let values = seconds.iter().filter_map(|second| second[key].as_f64());
    values.fold(0.0, f64::max)
}

/// 200, 2,000 and 200 requests a second, with a consumer beside it; the summary and the seconds.
fn spike(pond: &Pond) -> (Value, Vec<Value>) {
    let (edge, url) = edge(pond, &[]);
    let consumer = pond.start(&["run"], &[]);
    let rate = ["load", "--scenario", "spike", "--rate", "200"];
    let lasting = ["--calm-seconds", "10", "--spike-seconds", "10"];
    let more = ["--rows", "2000000", "--watch", "--http", &url];
    let ended = pond.command(&[&rate[..], &lasting, &more].concat());
    let summary = ended.json();
    println!("{}\n{summary}", ended.stderr);
    edge.stop();
    let consumed = consumer.terminate(SOON);
    assert!(consumed.status.success(), "{}", consumed.stderr);
    (summary, seconds(&ended))
}

/// The campaign that everything here is for: requests come ten times as fast for a while. All are answered, the rows are
/// written no faster than the bound allows, and what waited is applied afterwards.
#[test]
fn a_spike_waits_in_the_topic_and_the_shards_stay_within_their_bound() {
    let shape = Shape::default();
    let pond = Pond::new("spike", &shape);
    let (bound, workers) = (600, u64::try_from(shape.workers).unwrap());
    let more = 2 * workers;
    for shard in 0..shape.shards {
        pond.shard(shard).batch_execute(NOTE_WRITES).unwrap();
    }
    let bounded = format!("workers = 2\nwrite_rate_max = {bound}");
    pond.reconfigure("workers = 2", &bounded);
    let (summary, seconds) = spike(&pond);

    assert_eq!(summary["answers"], json!({"200": 24_000}));
    assert_eq!(summary["watch"]["caught_up"], true);
    let last = seconds.last().unwrap();
    let behind = (&last["queue_messages"], &last["time_lag_seconds"]);
    assert_eq!(behind, (&json!(0), &json!(0.0)));
    // 2,000 a second come and 1,200 go.
    let queue = highest(&seconds, "queue_messages");
    let time_lag = highest(&seconds, "time_lag_seconds");
    assert!(queue > 3_000.0 && time_lag > 2.0, "{queue}, {time_lag} s");
    assert!(highest(&seconds, "sent_per_s") > 1_500.0);
    let in_spike = seconds.iter().filter(|second| second["phase"] == "spike");
    assert!((8..=12).contains(&in_spike.count()));

    for shard in 0..shape.shards {
        let writes = writes(&mut pond.shard(shard));
        let most = most_in_a_second(&writes);
        println!("shard {shard}: the most rows in a second {most} of {bound} + {more}");
        assert!(most <= bound + more, "{most} rows in a second");
        assert!(most >= bound * 8 / 10, "the bound was not reached: {most}");
    }
    assert_eq!(in_topic(&pond), 24_000);
    pond.assert_exact();
}
