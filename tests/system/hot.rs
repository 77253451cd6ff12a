//! The incident at one glance: half of a shard's messages are for one row, and everybody can see which.

use crate::child::log_lines;
use crate::pond::{Pond, Sent, Shape};
use crate::reading::{self, Reading};
use crate::services::{Harm, Trouble};
use millpond::ids::{AppId, RowKey};
use millpond::load::traffic::HOT_SHARE;
use millpond::load::{Scenario, Traffic, TrafficOptions};
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// From the start of the load until the row is at the top.
const AT_A_GLANCE: Duration = Duration::from_secs(10);

const APPS: u32 = 40;
const ROWS: u32 = 2000;
/// The traffic that [`traffic`] knows.
const HOT_LOAD: [&str; 9] = [
    "load",
    "--scenario",
    "hot",
    "--apps",
    "40",
    "--rows",
    "2000",
    "--seed",
    "1",
];
const PARENT: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ADDRESS: &str = "admin@clothes.example";

/// What `load` sends, asked for its rows.
fn traffic(pond: &Pond) -> Traffic {
    let options = TrafficOptions {
        seed: 1,
        scenario: Scenario::Hot,
        messages: 60_000,
        apps: APPS,
        rows: ROWS,
        linked: None,
        counts_share: 0.2,
        broken: 0,
        broken_reasons: vec![],
        value_bytes_max: 65_536,
        value_bytes_min: 0,
    };
    Traffic::new(options, pond.configuration().partitioner)
}

/// The hot row, its shard, and the share that it must have of the shard's messages.
fn expected(pond: &Pond) -> (RowKey, usize, f64) {
    let traffic = traffic(pond);
    let partitioner = pond.configuration().partitioner;
    let shard = |app: AppId| partitioner.shard_of(app).0;
    let hot = traffic.row(0);
    let apps = (0..APPS).map(|app| traffic.row(app).app);
    let beside = apps.filter(|app| shard(*app) == shard(hot.app)).count();
    let others = (1.0 - HOT_SHARE) * beside as f64 / f64::from(APPS);
    (hot, shard(hot.app), HOT_SHARE / (HOT_SHARE + others))
}

/// An update that gives the row an address and a parent.
fn introduce(pond: &Pond, row: &RowKey) {
    let value = format!(
        r#"{{"app_id":"{}","subscription_id":"{}","parent_id":"{PARENT}","device_type":"email","identifier":"{ADDRESS}"}}"#,
        row.app, row.subscription
    );
    pond.produce(&[Sent {
        partition: pond.partition_of(&row.app.to_string()),
        key: Some(&row.subscription.to_string()),
        value: Some(&value),
        headers: &[],
    }]);
}

fn hot_shard(pond: &Pond, query: &str, shard: usize) -> Option<Value> {
    let (status, body) = pond.admin(&format!("/api/hot{query}"))?;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    Some(answer["shards"][shard].clone())
}

/// The first log line whose message begins so and that is about that row or app.
pub fn logged(stderr: &str, message: &str, id: &str) -> Value {
    let is_it = |line: &Value| {
        let begins = line["msg"]
            .as_str()
            .unwrap_or_default()
            .starts_with(message);
        begins && line.to_string().contains(id)
    };
    let found = log_lines(stderr).into_iter().find(is_it);
    found.unwrap_or_else(|| panic!("no line {message:?} about {id} in\n{stderr}"))
}

/// What `/api/hot` and the metrics must show of the hot row while the load runs.
fn assert_shown(pond: &Pond, row: &RowKey, shard: usize, share: f64) {
    let (app_id, row_id) = (row.app.to_string(), row.subscription.to_string());
    let begun = Instant::now();
    let mut seen = Value::Null;
    pond.wait_for("the row and its app are first", AT_A_GLANCE, |pond| {
        seen = hot_shard(pond, "", shard).unwrap_or_default();
        seen["rows"][0]["subscription_id"] == row_id.as_str()
            && seen["apps"][0]["app_id"] == app_id.as_str()
    });
    println!("first after {:?}: {}", begun.elapsed(), seen["rows"][0]);
    assert_eq!(seen["rows"][0]["rule"], rule(row));
    assert_eq!(seen["rows"][0]["parent_id"], PARENT, "{seen}");
    // The load gives rows a token now and then.
    let identifier = seen["rows"][0]["identifier"].as_str().unwrap();
    assert!(identifier == ADDRESS || identifier.starts_with("token-"));
    pond.wait_for("the row's share is what it should be", SOON, |pond| {
        let seen = hot_shard(pond, "", shard).unwrap();
        let found = seen["rows"][0]["by_messages"]["share"].as_f64().unwrap();
        (found - share).abs() < 0.05
    });
    let shown = Reading::take(pond.admin_port).unwrap();
    let metric = shown.sum_of("millpond_hot_row_share", &[("shard", &name(shard))]);
    assert!((metric - share).abs() < 0.1, "{metric}, not {share}");
    let (status, body) = pond.admin("/api/hot?top=0").unwrap();
    assert_eq!((status, body.contains("1 to 100")), (400, true), "{body}");
}

/// What the log must say of it, and what it must not.
fn assert_logged(stderr: &str, row: &RowKey, shard: usize) {
    let (app_id, row_id) = (row.app.to_string(), row.subscription.to_string());
    let warning = logged(stderr, "one row has", &row_id);
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["shard"], name(shard));
    assert_eq!(warning["app_id"], app_id);
    assert_eq!(warning["rule"], rule(row));
    assert_eq!(warning["parent_id"], PARENT);
    assert_eq!(warning["identifier_hash"].as_str().unwrap().len(), 16);
    assert!(warning["share"].as_f64().unwrap() > 0.25);
    let warning = logged(stderr, "one app has", &app_id);
    assert_eq!(
        warning["rule"],
        format!("millpond rules add --app {app_id} --reason \"…\"")
    );
    let status = logged(stderr, "status", &row_id);
    for name in [
        "messages_per_s",
        "rows_per_s",
        "lag_messages",
        "in_memory_messages",
    ] {
        assert!(status[name].is_number(), "{name} in {status}");
    }
    for secret in [ADDRESS, "token-"] {
        assert!(!stderr.contains(secret), "{secret} is in the log");
    }
}

fn name(shard: usize) -> String {
    format!("s{shard}")
}

/// The rule that skips a row, as it is offered.
pub fn rule(row: &RowKey) -> String {
    let RowKey { app, subscription } = row;
    format!("millpond rules add --app {app} --subscription {subscription} --reason \"…\"")
}

#[test]
fn a_hot_row_and_its_app_are_seen_at_once_named_and_warned_of() {
    let pond = Pond::new(
        "hot",
        &Shape {
            workers: 4,
            consumer: "[hot]\nwarn_app_share = 0.4",
            ..Shape::default()
        },
    );
    let (row, shard, share) = expected(&pond);
    assert!(share > 0.4, "the app is to be warned of, too: {share}");
    introduce(&pond, &row);
    let process = pond.start(&["run"], &[]);
    pond.wait_for("the consumer is ready", SOON, |pond| {
        pond.admin("/readyz")
            .is_some_and(|(status, _)| status == 200)
    });
    let load = pond.start(
        &[&HOT_LOAD[..], &["--messages", "60000", "--rate", "3000"]].concat(),
        &[],
    );
    assert_shown(&pond, &row, shard, share);
    let in_status = format!("{}: row {}/{}", name(shard), row.app, row.subscription);
    pond.wait_for("both are warned of, and in the status line", SOON, |_| {
        process.has_said("one row has a large share")
            && process.has_said("one app has a large share")
            && process.has_said(&in_status)
    });
    load.wait(SOON).json();
    pond.wait_for("all is applied", SOON, |pond| {
        pond.metric("millpond_lag_messages") == Some(0.0)
    });
    let ended = process.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_logged(&ended.stderr, &row, shard);
    pond.assert_exact();
}

#[test]
fn a_frozen_shard_leaves_the_rows_unnamed_and_holds_no_answer() {
    let pond = Pond::new("hot-frozen", &Shape::default());
    let (row, shard, _) = expected(&pond);
    let process = pond.start(&["run"], &[]);
    pond.load(&[&HOT_LOAD[1..], &["--messages", "20000"]].concat());
    pond.wait_for("the row is first", SOON, |pond| {
        let seen = hot_shard(pond, "?top=1", shard).unwrap_or_default();
        seen["rows"][0]["subscription_id"] == row.subscription.to_string()
    });
    let frozen = Trouble::begin(["postgres-0", "postgres-1"][shard], Harm::Frozen);
    let begun = Instant::now();
    // More rows than were asked for before, so that the shard must be asked.
    let (status, body) = reading::ask(pond.admin_port, "/api/hot?top=100").unwrap();
    let took = begun.elapsed();
    frozen.end();
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&body).unwrap();
    let seen = &answer["shards"][shard];
    assert!(seen["identities_missing"].is_string(), "{seen}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    println!("answered in {took:?}: {}", seen["identities_missing"]);
    pond.wait_for("rows are named again", SOON, |pond| {
        let seen = hot_shard(pond, "?top=100", shard).unwrap();
        seen["identities_missing"].is_null()
    });
    assert!(process.terminate(SOON).status.success());
}

#[test]
fn waits_for_the_write_rate_are_not_the_databases_time() {
    let pond = Pond::new(
        "hot-waits",
        &Shape {
            shards: 1,
            consumer: "batch_rows_max = 50",
            ..Shape::default()
        },
    );
    pond.reconfigure("workers = 2", "workers = 2\nwrite_rate_max = 400");
    pond.load(&["--messages", "8000", "--rows", "8000"]);
    let process = pond.start(&["run"], &[]);
    // When so many rows were written, and how long workers had waited by then.
    let at = |rows: f64| {
        pond.wait_for("more rows are written", SOON, |pond| {
            pond.metric("millpond_rows_written_total") >= Some(rows)
        });
        let waited = pond.metric("millpond_write_rate_wait_seconds_total");
        (Instant::now(), waited.unwrap())
    };
    let (begin, waited_before) = at(800.0);
    let (end, waited) = at(5000.0);
    let seen = hot_shard(&pond, "", 0).unwrap();
    let waited_per_s = (waited - waited_before) / (end - begin).as_secs_f64();
    let database_per_s = seen["database_seconds_per_s"].as_f64().unwrap();
    println!("of 2 workers' seconds: {waited_per_s} waits, {database_per_s} database time");
    assert!(waited_per_s > 1.0, "the bound holds them back");
    assert!(database_per_s > 0.0);
    // Two workers have two seconds a second for both; it began with a burst.
    assert!(database_per_s < 2.0 - waited_per_s + 0.5, "{seen}");
    assert!(process.terminate(SOON).status.success());
}
