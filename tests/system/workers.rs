//! The number of workers changes while messages flow: each row's updates stay in order, nothing is lost or applied twice, and
//! who waits for a frozen statement is told so.
//!
//! `MILLPOND_TEST_RESIZE_SECONDS=60` is the full form of the first one.

use crate::child::Process;
use crate::faults::locks::lock_the_table;
use crate::pond::{Pond, Sent, Shape};
use crate::reading::Reading;
use crate::services::{Harm, Trouble};
use crate::spine::seed;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is waited for happens within this time, or never.
pub const SOON: Duration = Duration::from_secs(60);
/// Messages of each chunk of the load, and how often one is due.
const CHUNK: usize = 250;
const CHUNK_EVERY: Duration = Duration::from_millis(100);
/// Few, so that lanes hold several updates of a row at once.
const ROWS: usize = 300;

/// Rows by number, spread over apps and both shards.
fn ids(row: usize) -> (String, String) {
    let first = (row * 37) % 256;
    let app = format!("{first:02x}000000-0000-4000-8000-{:012x}", row % 40);
    (app, format!("5a000000-0000-4000-8000-{row:012x}"))
}

/// Keeps, in each shard, a record of every moment at which a row's newest number was not the count of its updates. The k-th
/// update of a row sets the number to k and adds one to the count, so two that swap show at once. Each row takes a
/// millisecond, so that lanes fill on any machine.
fn watch_order(pond: &Pond) {
    for shard in 0..2 {
        pond.shard(shard)
            .batch_execute(
                "CREATE TABLE swapped(row uuid, number text, count text);
                 CREATE FUNCTION watch_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF NEW.tags->>'number' IS DISTINCT FROM NEW.counts->>'updates' THEN
                         INSERT INTO swapped
                         VALUES (NEW.subscription_id, NEW.tags->>'number', NEW.counts->>'updates');
                     END IF;
                     PERFORM pg_sleep(0.001);
                     RETURN NULL;
                 END $$;
                 CREATE TRIGGER watch_order AFTER INSERT OR UPDATE ON subscription
                 FOR EACH ROW EXECUTE FUNCTION watch_order()",
            )
            .unwrap();
    }
}

/// How often the order was wrong, over both shards.
fn swapped(pond: &Pond) -> i64 {
    let of = |shard| -> i64 {
        let row = pond
            .shard(shard)
            .query_one("SELECT count(*) FROM swapped", &[]);
        row.unwrap().get(0)
    };
    of(0) + of(1)
}

/// Produces numbered updates at a fixed rate until told to stop, now and then many at once; how many.
fn produce(pond: &Pond, seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed);
    let rows: Vec<(String, String, i32)> = (0..ROWS)
        .map(|row| {
            let (app, id) = ids(row);
            let partition = pond.partition_of(&app);
            (app, id, partition)
        })
        .collect();
    let mut numbers = vec![0; ROWS];
    let (mut due, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let many = random.random_bool(0.05);
        let picked: Vec<(usize, String)> = (0..if many { 10 * CHUNK } else { CHUNK })
            .map(|_| {
                let row = random.random_range(0..ROWS);
                numbers[row] += 1;
                let ((app, id, _), number) = (&rows[row], numbers[row]);
                (row, format!(r#"{{"app_id":"{app}","subscription_id":"{id}","tags":{{"number":"{number}"}},"counts":{{"updates":1}}}}"#))
            })
            .collect();
        let messages: Vec<Sent<'_>> = picked
            .iter()
            .map(|(row, value)| Sent {
                partition: rows[*row].2,
                key: Some(&rows[*row].1),
                value: Some(value),
                headers: &[],
            })
            .collect();
        pond.produce(&messages);
        sent += messages.len() as u64;
        due += CHUNK_EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sent
}

fn is_ready(pond: &Pond) -> bool {
    pond.admin("/readyz")
        .is_some_and(|(status, _)| status == 200)
}

/// A consumer that is ready.
pub fn running(pond: &Pond, environment: &[(&str, &str)]) -> Process {
    let consumer = pond.start(&["run"], environment);
    pond.wait_for("it is ready", SOON, is_ready);
    consumer
}

/// What `workers get` says of a shard.
pub fn workers(pond: &Pond, shard: usize) -> Value {
    let all = pond.good(&["workers", "get", "--format", "json"]).json();
    all["shards"][shard].clone()
}

fn caught_up(pond: &Pond) -> bool {
    let lag = pond.command(&["lag", "--format", "json"]).json();
    let mut lags = lag.as_array().unwrap().iter();
    lags.all(|partition| partition["lag"] == 0)
}

/// What changing the number of workers for a while came to.
#[derive(Default)]
struct Story {
    done: usize,
    refused: Vec<String>,
    pauses_ms: Vec<f64>,
    moved: u64,
    sent: u64,
    swapped: i64,
    exact: bool,
    /// In a life that nobody killed, nothing may look like a replay: it would be a swap.
    replayed: f64,
}

impl Story {
    /// One change of all shards.
    fn set(&mut self, pond: &Pond, workers: usize) {
        let ended = pond.command(&["workers", "set", &workers.to_string()]);
        match ended.status.success() {
            true => self.done += 1,
            false => self.refused.push(ended.stderr.trim().to_owned()),
        }
        let pauses = ended.stdout.lines().filter_map(|line| {
            let (_, pause) = line.split_once(", pause ")?;
            pause.strip_suffix(" ms")?.parse::<f64>().ok()
        });
        self.pauses_ms.extend(pauses);
    }

    /// The messages that changes of lanes moved, by the consumer's own lines.
    fn count_moved(&mut self, stderr: &str) {
        let lines = stderr
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        self.moved += lines.filter_map(|line| line["moved"].as_u64()).sum::<u64>();
    }

    fn pause_ms(&self, share: f64) -> f64 {
        let mut sorted = self.pauses_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        sorted
            .get((last as f64 * share).ceil() as usize)
            .copied()
            .unwrap_or(0.0)
    }
}

/// Changes the number of workers every second under load, with one kill -9 half-way if so told; a
/// build that is broken on purpose only until it has swapped two updates.
fn change_under_load(name: &str, seconds: u64, mutant: &'static str, kills: bool) -> Story {
    let shape = Shape {
        consumer: "batch_rows_max = 20",
        ..Shape::default()
    };
    let pond = Pond::new(name, &shape);
    watch_order(&pond);
    let seed = seed();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let environment = [("MILLPOND_TEST_MUTANT", mutant)];
    let mut consumer = Some(running(&pond, &environment));
    let mut story = Story::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&pond, seed, &stop));
        let begin = Instant::now();
        for second in 0..seconds {
            if kills && second == seconds / 2 {
                story.replayed += pond.metric("millpond_replayed_total").unwrap();
                let killed = consumer.take().expect("it runs").kill();
                story.count_moved(&killed.stderr);
                consumer = Some(running(&pond, &environment));
            }
            story.set(&pond, random.random_range(1..=16));
            let next = begin + Duration::from_secs(second + 1);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if !mutant.is_empty() && swapped(&pond) > 0 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        story.sent = producer.join().unwrap();
    });
    pond.wait_for("everything is committed", SOON * 2, caught_up);
    if !kills {
        story.replayed += pond.metric("millpond_replayed_total").unwrap();
    }
    let ended = consumer.expect("it runs").terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
    story.count_moved(&ended.stderr);
    story.swapped = swapped(&pond);
    let verdict = pond.verify();
    story.exact = verdict["ok"] == true && verdict["messages_read"] == story.sent;
    story
}

fn resize_seconds() -> u64 {
    std::env::var("MILLPOND_TEST_RESIZE_SECONDS")
        .map_or(15, |text| text.parse().expect("a number of seconds"))
}

#[test]
fn workers_change_every_second_under_load_and_no_two_updates_of_a_row_swap() {
    let seconds = resize_seconds();
    let story = change_under_load("resize", seconds, "", true);
    println!(
        "{} messages, {} changes of both shards done, {} refused, {} messages moved; pauses of {} lanes' changes: p50 {:.1} ms, p99 {:.1} ms, \
         max {:.1} ms\n{}",
        story.sent,
        story.done,
        story.refused.len(),
        story.moved,
        story.pauses_ms.len(),
        story.pause_ms(0.5),
        story.pause_ms(0.99),
        story.pause_ms(1.0),
        story.refused.join("\n")
    );
    assert_eq!(story.swapped, 0, "updates of a row swapped");
    assert_eq!(story.replayed, 0.0, "an update was taken for a replay");
    assert!(story.exact, "a row is wrong");
    assert!(story.done > 0 && story.moved > 0, "nothing was changed");
}

#[test]
fn lanes_that_are_split_out_of_order_are_noticed() {
    let story = change_under_load("unsorted", 60, "lanes-split-out-of-order", false);
    println!(
        "{} moved, {} swapped, {} taken for replays, exact: {}",
        story.moved, story.swapped, story.replayed, story.exact
    );
    // Two that swapped within one statement are folded in the wrong order: no replay is counted.
    assert!(story.swapped > 0 && !story.exact);
}

#[test]
fn a_statement_that_is_frozen_refuses_the_change_and_says_why() {
    let pond = Pond::new("resize-frozen", &Shape::default());
    let consumer = running(&pond, &[]);
    pond.load(&["--messages", "4000", "--rows", "1000"]);
    pond.wait_for("everything is committed", SOON, caught_up);
    let frozen = Trouble::begin("postgres-1", Harm::Frozen);
    pond.load(&["--messages", "4000", "--rows", "1000", "--seed", "1"]);
    let is_busy = |now: &Reading| {
        now.sum_of(
            "millpond_connections",
            &[("shard", "s1"), ("state", "busy")],
        ) == 2.0
    };
    pond.wait_for("statements are in flight", SOON, |pond| {
        Reading::take(pond.admin_port).is_some_and(|now| is_busy(&now))
    });
    // Fewer, since a new one could not connect.
    let refused = pond.command(&["workers", "set", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    println!("{}", refused.stderr);
    let done = "shard s0, core group 0: 2 -> 1 workers, pause ";
    assert!(refused.stderr.contains(done), "{}", refused.stderr);
    let why = "shard s1, core group 0: stays at 2 workers: tried 4 times: lane ";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert!(refused.stderr.contains("s; its statement has not returned"));
    frozen.end();
    let now = workers(&pond, 1);
    assert_eq!(now["workers"], 2);
    assert!(now["last_change"]["refused"].is_string(), "{now}");
    assert_eq!(workers(&pond, 0)["workers"], 1);
    pond.wait_for("everything is committed", SOON, caught_up);
    let set = pond.good(&["workers", "set", "3", "--shard", "s1"]);
    let done = "shard s1, core group 0: 2 -> 3 workers, pause ";
    assert!(set.stdout.starts_with(done), "{}", set.stdout);
    assert!(consumer.terminate(SOON).status.success());
    pond.assert_exact();
}

/// Workers that wait before they try again, or for the write rate, have no statement in flight: they hand over what they had
/// begun with.
#[test]
fn workers_that_only_wait_hand_over_at_once() {
    let pond = Pond::new("resize-waiting", &Shape::default());
    let consumer = running(&pond, &[]);
    let mut locker = pond.shard(1);
    lock_the_table(&mut locker);
    pond.load(&["--messages", "6000", "--rows", "1000"]);
    let is_waiting = |now: &Reading| now.sum_of("millpond_retries_total", &[("shard", "s1")]) > 0.0;
    pond.wait_for("s1 waits for the lock", SOON, |pond| {
        Reading::take(pond.admin_port).is_some_and(|now| is_waiting(&now))
    });
    // A statement waits for the lock for a second, and is tried again after up to two.
    pond.wait_for("they are changed", SOON, |pond| {
        let ended = pond.command(&["workers", "set", "5", "--shard", "s1"]);
        let why =
            "it tries again after this: canceling statement due to lock timeout (SQLSTATE 55P03)";
        assert!(
            ended.status.success() || ended.stderr.contains(why),
            "{}",
            ended.stderr
        );
        ended.status.success()
    });
    locker.batch_execute("ROLLBACK").unwrap();
    pond.wait_for("everything is committed", SOON, caught_up);
    pond.reconfigure("workers = 2", "workers = 2\nwrite_rate_max = 100");
    consumer.signal("-HUP");
    pond.wait_for("there is a bound", SOON, |_| {
        consumer.has_said("shard.s1.write_rate_max")
    });
    pond.load(&["--messages", "3000", "--rows", "1000", "--seed", "1"]);
    std::thread::sleep(Duration::from_secs(1));
    for workers in ["8", "3"] {
        pond.wait_for("they are changed again", SOON, |pond| {
            let ended = pond.command(&["workers", "set", workers]);
            println!("{}{}", ended.stdout, ended.stderr);
            ended.status.success()
        });
    }
    pond.reconfigure("write_rate_max = 100", "write_rate_max = 0");
    consumer.signal("-HUP");
    pond.wait_for("everything is committed", SOON, caught_up);
    assert_eq!(pond.metric("millpond_replayed_total"), Some(0.0));
    assert!(consumer.terminate(SOON).status.success());
    pond.assert_exact();
}

#[test]
fn updates_that_wait_for_a_locked_row_move_with_their_lane() {
    let pond = Pond::new("resize-parked", &Shape::default());
    let consumer = running(&pond, &[]);
    pond.load(&["--messages", "2000", "--rows", "200"]);
    pond.wait_for("everything is committed", SOON, caught_up);
    let mut locker = pond.shard(0);
    crate::faults::locks::lock_a_row(&mut locker);
    pond.load(&["--messages", "20000", "--rows", "200", "--seed", "1"]);
    let parked = |pond: &Pond| pond.metric("millpond_parked").unwrap_or(0.0);
    pond.wait_for("updates wait", SOON, |pond| parked(pond) > 0.0);
    for workers in [7, 1, 3] {
        // While one is at a batch it may be refused.
        pond.wait_for("they are changed", SOON, |pond| {
            let ended = pond.command(&["workers", "set", &workers.to_string()]);
            ended.status.success()
        });
        assert!(parked(&pond) > 0.0, "they wait still");
        assert_eq!(
            pond.metric("millpond_workers"),
            Some(f64::from(workers * 2))
        );
    }
    locker.batch_execute("ROLLBACK").unwrap();
    pond.wait_for("everything is committed", SOON, caught_up);
    assert_eq!(pond.metric("millpond_replayed_total"), Some(0.0));
    assert!(consumer.terminate(SOON).status.success());
    pond.assert_exact();
}

fn connections(pond: &Pond) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name LIKE 'millpond/%'";
    pond.shard(0).query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn connections_come_and_go_with_workers_and_a_database_that_takes_none_refuses_the_change() {
    let shape = Shape {
        shards: 1,
        ..Shape::default()
    };
    let pond = Pond::new("resize-connections", &shape);
    let consumer = running(&pond, &[]);
    pond.good(&["workers", "set", "9"]);
    // Besides those of the workers, one asks where partitions begin.
    assert!((9..=10).contains(&connections(&pond)));
    pond.good(&["workers", "set", "2"]);
    pond.wait_for("the others are closed", SOON, |pond| connections(pond) <= 3);
    assert_eq!(pond.metric("millpond_connections"), Some(2.0));
    let name = pond.shard(0).query_one("SELECT current_database()", &[]);
    let name: String = name.unwrap().get(0);
    let mut other = crate::pond::admin_client(0);
    let allow = |allowed: bool| format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}");
    other.batch_execute(&allow(false)).unwrap();
    let refused = pond.command(&["workers", "set", "4"]);
    assert_eq!(refused.status.code(), Some(1));
    println!("{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("stays at 2 workers: a new worker could not connect within 10s")
    );
    assert!(
        refused
            .stderr
            .contains("is not currently accepting connections")
    );
    assert!(is_ready(&pond), "the others go on");
    other.batch_execute(&allow(true)).unwrap();
    pond.load(&["--messages", "1000"]);
    pond.wait_for("everything is committed", SOON, caught_up);
    pond.wait_for("they can be changed again", SOON, |pond| {
        pond.command(&["workers", "set", "4"]).status.success()
    });
    assert!(consumer.terminate(SOON).status.success());
    pond.assert_exact();
}

#[test]
fn what_can_not_be_asked_for_is_refused() {
    let pond = Pond::new("resize-bad", &Shape::default());
    let nobody = pond.command(&["workers", "get"]);
    assert!(nobody.stderr.contains("no consumer answers at 127.0.0.1:"));
    let consumer = running(&pond, &[]);
    for (arguments, why) in [
        (
            &["workers", "set", "0"][..],
            "workers: found 0, allowed are 1 to 64",
        ),
        (
            &["workers", "set", "65"],
            "workers: found 65, allowed are 1 to 64",
        ),
        (
            &["workers", "set", "3", "--shard", "x"],
            r#"there is no shard "x"; there is s0 s1"#,
        ),
    ] {
        let ended = pond.command(arguments);
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
    let same = pond.good(&["workers", "set", "2"]);
    assert!(
        same.stdout
            .contains("shard s0, core group 0: has 2 workers already")
    );
    println!("{}", pond.good(&["workers", "get"]).stdout);
    assert!(consumer.terminate(SOON).status.success());
}
