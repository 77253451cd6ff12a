//! Skip rules on a running group. What is compared: a row that is updated all the time stands still from the rule on, whoever
//! has its partition, and goes on once the rule is removed; and `verify` decides every message as the consumers did.

use crate::child::Process;
use crate::pond::{Pond, Shape, environment, free_port};
use crate::reading::Reading;
use rand::Rng;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// What is waited for happens by then, or never.
const SOON: Duration = Duration::from_secs(60);
/// How long a row is watched that must not move.
const WATCH: Duration = Duration::from_millis(1500);
/// Between two updates of a hot row.
const PACE: Duration = Duration::from_millis(20);
const PARTITIONS: i32 = 12;

/// A row that is updated all the time.
#[derive(Clone, Debug)]
struct HotRow {
    app: String,
    subscription: String,
    partition: i32,
}

/// Updates rows until it is told to stop.
struct Updates {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Updates {
    fn of(pond: &Pond, rows: Vec<HotRow>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, until) = (pond.topic.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", environment("MILLPOND_TEST_KAFKA"))
                .set("linger.ms", "1")
                .create()
                .unwrap();
            let mut number = 0;
            while !until.load(Ordering::Relaxed) {
                for row in &rows {
                    number += 1;
                    let value = format!(
                        "{{\"app_id\":\"{}\",\"subscription_id\":\"{}\",\"tags\":{{\"n\":{number}}},\"counts\":{{\"c\":1}}}}",
                        row.app, row.subscription
                    );
                    let record = BaseRecord::to(&topic)
                        .partition(row.partition)
                        .key(&row.subscription)
                        .payload(&value);
                    producer.send(record).map_err(|(error, _)| error).unwrap();
                }
                producer.poll(PACE);
            }
            producer.flush(SOON).unwrap();
            number
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// How many there were.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A member of the group with an admin address of its own.
struct Member {
    process: Process,
    port: u16,
}

impl Member {
    fn start(pond: &Pond, environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let listen = format!("admin.listen=127.0.0.1:{port}");
        let process = pond.start(&["run", "--set", &listen], environment);
        Self { process, port }
    }

    fn assigned(&self) -> f64 {
        let reading = Reading::take(self.port);
        let assigned = reading.and_then(|now| now.sum("millpond_assigned_partitions"));
        assigned.unwrap_or(0.0)
    }

    fn has(&self, partition: i32) -> bool {
        let Some((_, page)) = crate::reading::ask(self.port, "/metrics") else {
            return false;
        };
        let series = format!("millpond_in_memory_messages{{partition=\"{partition}\"");
        page.lines().any(|line| line.starts_with(&series))
    }

    fn rules(&self, pond: &Pond, arguments: &[&str]) -> Value {
        let address = format!("127.0.0.1:{}", self.port);
        let common = ["--format", "json", "--admin", &address];
        let ended = pond.command(&[&["rules"], arguments, &common[..]].concat());
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
        ended.json()
    }

    /// Adds a rule for the row; its id.
    fn add(&self, pond: &Pond, row: &HotRow) -> String {
        let (app, row) = (row.app.as_str(), row.subscription.as_str());
        let arguments = [
            "add",
            "--app",
            app,
            "--subscription",
            row,
            "--reason",
            "too hot",
            "--author",
            "ann",
        ];
        let rule = self.rules(pond, &arguments);
        rule["id"].as_str().unwrap().to_owned()
    }

    fn skipped(&self, pond: &Pond, id: &str) -> u64 {
        let rules = self.rules(pond, &["list", "--all"]);
        let rules = rules.as_array().unwrap().iter();
        let rule = rules.clone().find(|rule| rule["id"] == id).unwrap();
        rule["skipped"].as_u64().unwrap()
    }

    fn stop(self) {
        let ended = self.process.terminate(SOON);
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

fn rows(pond: &Pond) -> Vec<HotRow> {
    let row = |at: u8| {
        let app = format!("{at:02x}000000-0000-4000-8000-000000000001");
        HotRow {
            subscription: format!("{at:02x}000000-0000-4000-8000-000000000002"),
            partition: pond.partition_of(&app),
            app,
        }
    };
    (0..=255).step_by(4).map(row).collect()
}

/// Its fence's offset, and the time of its newest update in milliseconds.
fn stored(pond: &Pond, row: &HotRow) -> Option<(i64, i64)> {
    let shard = usize::from(row.partition >= PARTITIONS / 2);
    let query = "SELECT source_offset, (extract(epoch FROM updated_at) * 1000)::bigint FROM subscription \
                 WHERE app_id = $1::text::uuid AND subscription_id = $2::text::uuid";
    let found = pond
        .shard(shard)
        .query_opt(query, &[&row.app, &row.subscription])
        .unwrap()?;
    Some((found.get(0), found.get(1)))
}

fn fence(pond: &Pond, row: &HotRow) -> i64 {
    stored(pond, row).expect("the row is there").0
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

fn assert_stands_still(pond: &Pond, rows: &[HotRow], when: &str) {
    let before: Vec<i64> = rows.iter().map(|row| fence(pond, row)).collect();
    std::thread::sleep(WATCH);
    let after: Vec<i64> = rows.iter().map(|row| fence(pond, row)).collect();
    assert_eq!(before, after, "{when}: a skipped row moved");
}

fn wait_until_all_is_assigned(pond: &Pond, members: &[&Member]) {
    pond.wait_for("all partitions are assigned", SOON, |_| {
        let assigned: Vec<f64> = members.iter().map(|member| member.assigned()).collect();
        assigned.iter().all(|count| *count > 0.0)
            && assigned.iter().sum::<f64>() == f64::from(PARTITIONS)
    });
}

fn wait_until_moving(pond: &Pond, row: &HotRow) {
    let mut before = None;
    pond.wait_for("the row moves", SOON, |pond| {
        let now = stored(pond, row);
        now.is_some() && now > *before.get_or_insert(now)
    });
}

/// Everything is applied, everybody has left, and every row is what verify makes of the log and the rules.
fn assert_exact(pond: &Pond, members: Vec<Member>) -> Value {
    members.into_iter().for_each(Member::stop);
    pond.catch_up();
    let verdict = pond.assert_exact();
    println!("{verdict}");
    verdict
}

#[test]
fn a_rule_holds_on_every_process_over_restarts_and_moves_until_it_is_removed() {
    let pond = Pond::new("rules", &Shape::default());
    let load = pond.start(
        &[
            "load",
            "--messages",
            "30000",
            "--rate",
            "800",
            "--rows",
            "3000",
        ],
        &[],
    );
    let (first, second) = (Member::start(&pond, &[]), Member::start(&pond, &[]));
    wait_until_all_is_assigned(&pond, &[&first, &second]);
    // One row of each process, and one of which nobody complains.
    let all = rows(&pond);
    let of = |member: &Member| all.iter().find(|row| member.has(row.partition)).unwrap();
    let skipped = [of(&first).clone(), of(&second).clone()];
    let is_other = |row: &&HotRow| skipped.iter().all(|known| known.app != row.app);
    let free = all.iter().find(is_other).unwrap().clone();
    let updates = Updates::of(&pond, [&skipped[..], std::slice::from_ref(&free)].concat());
    skipped.iter().for_each(|row| wait_until_moving(&pond, row));

    let asked_ms = now_ms();
    let ids = skipped.clone().map(|row| first.add(&pond, &row));
    for (row, member) in skipped.iter().zip([&first, &second]) {
        pond.wait_for("something is skipped", SOON, |pond| {
            ids.iter().any(|id| member.skipped(pond, id) > 0)
        });
        let (_, newest_ms) = stored(&pond, row).unwrap();
        println!(
            "partition {}: the newest update that was applied came {} ms after the rules were asked for",
            row.partition,
            newest_ms - asked_ms
        );
        assert!(newest_ms - asked_ms < 5000);
    }
    assert_stands_still(&pond, &skipped, "after the rules");
    wait_until_moving(&pond, &free);

    second.process.kill();
    let second = Member::start(&pond, &[]);
    assert_stands_still(&pond, &skipped, "while a process is dead");
    wait_until_all_is_assigned(&pond, &[&first, &second]);
    assert_stands_still(&pond, &skipped, "after a kill");
    first.stop();
    assert_stands_still(&pond, &skipped, "after all partitions moved to one process");
    second.stop();
    let (first, second) = (Member::start(&pond, &[]), Member::start(&pond, &[]));
    wait_until_all_is_assigned(&pond, &[&first, &second]);
    wait_until_moving(&pond, &free);
    assert_stands_still(&pond, &skipped, "after a restart of all");

    second.rules(&pond, &["remove", &ids[0], "--author", "bob"]);
    wait_until_moving(&pond, &skipped[0]);
    assert_stands_still(&pond, &skipped[1..], "while another rule ended");
    let sent = updates.end();
    load.wait(SOON * 2).json();
    let verdict = assert_exact(&pond, vec![first, second]);
    let count = verdict["skipped"].as_u64().unwrap();
    assert!(count > 0 && count < sent, "{count} of {sent} skipped");
}

#[test]
fn a_process_that_dies_while_a_rule_is_decided_leaves_every_row_exact() {
    let pond = Pond::new("rules-kill", &Shape::default());
    let all = rows(&pond);
    let updates = Updates::of(&pond, all.clone());
    let first = Member::start(&pond, &[]);
    // It dies just before it writes an edge; the others anywhere.
    let crash = [("MILLPOND_TEST_CRASH", "before-edge")];
    let environments: [&[(&str, &str)]; 4] = [&crash, &[], &[], &[]];
    let mut ruled: Vec<String> = Vec::new();
    for (round, environment) in environments.into_iter().enumerate() {
        let second = Member::start(&pond, environment);
        wait_until_all_is_assigned(&pond, &[&first, &second]);
        let is_free = |row: &&HotRow| second.has(row.partition) && !ruled.contains(&row.app);
        let here: Vec<HotRow> = all.iter().filter(is_free).take(2).cloned().collect();
        assert_eq!(here.len(), 2);
        ruled.extend(here.iter().map(|row| row.app.clone()));
        here.iter().for_each(|row| wait_until_moving(&pond, row));
        let delay = Duration::from_millis(rand::rng().random_range(0..400));
        let mut process = second.process;
        let is_told_to_crash = !environment.is_empty();
        let killer = std::thread::spawn(move || {
            if is_told_to_crash {
                assert!(process.ends_within(SOON), "it did not come to the point");
            } else {
                std::thread::sleep(delay);
                drop(process.kill());
            }
        });
        let ids: Vec<String> = here.iter().map(|row| first.add(&pond, row)).collect();
        killer.join().unwrap();
        pond.wait_for("the first has all", SOON, |_| {
            first.assigned() == f64::from(PARTITIONS)
        });
        pond.wait_for("the rules skip", SOON, |pond| {
            ids.iter().all(|id| first.skipped(pond, id) > 0)
        });
        assert_stands_still(
            &pond,
            &here,
            &format!("round {round}, killed after {delay:?}"),
        );
        println!("round {round}: {} rules, killed after {delay:?}", ids.len());
    }
    updates.end();
    let verdict = assert_exact(&pond, vec![first]);
    assert!(verdict["skipped"].as_u64().unwrap() > 0);
    // Read again from the beginning: every decision is the same, so nothing changes.
    let rewound = pond.good(&["rewind", "--to", "2020-01-01T00:00:00Z", "--apply"]);
    println!("{}", rewound.stdout);
    let again = pond.catch_up();
    println!("{again}");
    assert_eq!(again["rows_written"], 0, "{again}");
    assert!(again["skipped"].as_u64().unwrap() > 0, "{again}");
    pond.assert_exact();
}

#[test]
fn what_is_wrong_with_a_rule_is_said() {
    let pond = Pond::new("rules-wrong", &Shape::default());
    let member = Member::start(&pond, &[]);
    wait_until_all_is_assigned(&pond, &[&member]);
    let address = format!("127.0.0.1:{}", member.port);
    let run = |arguments: &[&str]| {
        let all = [&["rules"], arguments, &["--admin", &address]].concat();
        pond.command(&all)
    };
    let app = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
    let cases: [(&[&str], &str); 5] = [
        (
            &["add", "--app", "x", "--reason", "r", "--author", "a"],
            "no UUID",
        ),
        (
            &["add", "--app", app, "--reason", " ", "--author", "a"],
            "reason is empty",
        ),
        (
            &[
                "add", "--app", app, "--reason", "r", "--author", "a", "--until", "-2h",
            ],
            "does not lie ahead",
        ),
        (&["remove", app, "--author", "a"], "there is no rule"),
        (&["remove", "x", "--author", "a"], "invalid value"),
    ];
    for (arguments, expected) in cases {
        let ended = run(arguments);
        assert!(!ended.status.success(), "{arguments:?}");
        assert!(
            ended.stderr.contains(expected),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    let list = member.rules(&pond, &["list", "--all"]);
    assert_eq!(list.as_array().unwrap().len(), 0, "{list}");
    let added = run(&[
        "add", "--app", app, "--reason", "r", "--author", "a", "--until", "2h",
    ]);
    assert!(added.status.success(), "{}", added.stderr);
    assert!(added.stdout.contains("active"), "{}", added.stdout);
    assert_eq!(pond_metric(member.port), Some(1.0));
    member.stop();
}

#[test]
fn a_rule_is_changed_by_who_has_the_token_only() {
    let pond = Pond::new("rules-token", &Shape::default());
    let app = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
    let port = free_port();
    let listen = format!("admin.listen=127.0.0.1:{port}");
    let guarded = Member {
        process: pond.start(
            &["run", "--set", &listen, "--set", "admin.token=sesame"],
            &[],
        ),
        port,
    };
    wait_until_all_is_assigned(&pond, &[&guarded]);
    let address = format!("127.0.0.1:{port}");
    let add = [
        "rules", "add", "--app", app, "--reason", "r", "--author", "a", "--admin", &address,
    ];
    let refused = pond.command(&add);
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("authorization"),
        "{}",
        refused.stderr
    );
    pond.good(&[&add[..], &["--set", "admin.token=sesame"]].concat());
    let list = guarded.rules(&pond, &["list"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    guarded.stop();
}

fn pond_metric(port: u16) -> Option<f64> {
    Reading::take(port)?.sum("millpond_rules_active")
}
