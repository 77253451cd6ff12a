//! Tables that the configuration describes, on real Kafka and Postgres: an account balance under kill -9, devices with a composite
//! key that are deleted and come back, change events as Debezium sends them, and what is said where table and configuration differ.

use crate::pond::{Pond, Sent, Shape};
use crate::spine::{kills, messages, seed};
use millpond::ids::AppId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

mod debezium;
mod events;
mod late;
mod shapes;
mod tools;

const ACCOUNT: &str = r#"
[table]
name = "account"
[table.columns]
tenant = { key = "text", from = "@key.tenant" }
number = { key = "bigint", from = "@key.number" }
balance = { add = "numeric(14,2)", from = "amount" }
bookings = { add = "bigint", from = "count" }
newest = { keep_max = "timestamptz", from = "at" }
lowest = { keep_min = "bigint", from = "seen" }
"#;

/// What an account must hold.
#[derive(Debug, Default, PartialEq)]
struct Account {
    cents: i64,
    bookings: i64,
    newest_s: i64,
    lowest: i64,
}

/// Bookings of accounts, some with an amount that no account can take: the messages by partition, and what they add up to.
struct Books {
    sent: Vec<(i32, String, String)>,
    accounts: BTreeMap<(String, i64), Account>,
    broken: u64,
}

impl Books {
    fn make(pond: &Pond, count: u64, random: &mut SmallRng) -> Self {
        let partitioner = pond.configuration().partitioner;
        let mut books = Self {
            sent: Vec::new(),
            accounts: BTreeMap::new(),
            broken: 0,
        };
        for _ in 0..count {
            let tenant = format!("tenant {}", random.random_range(0..40));
            // Every other booking is of a few accounts, so that there is something to fold.
            let number = match random.random_bool(0.5) {
                true => random.random_range(0..3),
                false => random.random_range(0..1000i64),
            };
            // By the rule in the README, and not by the program's own.
            let app = AppId(xxh3_128(tenant.as_bytes()).to_be_bytes());
            let partition = partitioner.partition_of(app).0;
            let key = format!(r#"{{"tenant":"{tenant}","number":{number}}}"#);
            if random.random_bool(0.002) {
                books.broken += 1;
                let value = r#"{"amount":"0.001","count":1}"#.to_owned();
                books.sent.push((partition, key, value));
                continue;
            }
            let cents = random.random_range(-100_000..100_000i64);
            let (at, seen) = (
                random.random_range(1..1_000_000),
                random.random_range(1..1_000_000),
            );
            let time = jiff::Timestamp::from_second(at).unwrap();
            let (sign, size) = (if cents < 0 { "-" } else { "" }, cents.abs());
            let value = format!(
                r#"{{"amount":{sign}{}.{:02},"count":1,"at":"{time}","seen":{seen}}}"#,
                size / 100,
                size % 100
            );
            books.sent.push((partition, key, value));
            let account = books.accounts.entry((tenant, number)).or_default();
            account.cents += cents;
            account.newest_s = account.newest_s.max(at);
            account.lowest = match account.bookings {
                0 => seen,
                _ => account.lowest.min(seen),
            };
            account.bookings += 1;
        }
        books
    }

    fn produce(&self, pond: &Pond) {
        let sent = self.sent.iter().map(|(partition, key, value)| Sent {
            partition: *partition,
            key: Some(key),
            value: Some(value),
            headers: &[],
        });
        pond.produce(&sent.collect::<Vec<_>>());
    }
}

fn stored_accounts(pond: &Pond, shards: usize) -> BTreeMap<(String, i64), Account> {
    let sql = "SELECT tenant, number, (balance * 100)::bigint, bookings, extract(epoch FROM newest)::bigint, lowest FROM account";
    let mut stored = BTreeMap::new();
    for shard in 0..shards {
        for row in pond.shard(shard).query(sql, &[]).unwrap() {
            let account = Account {
                cents: row.get(2),
                bookings: row.get(3),
                newest_s: row.get(4),
                lowest: row.get(5),
            };
            let before = stored.insert((row.get(0), row.get(1)), account);
            assert_eq!(before, None, "on one shard only");
        }
    }
    stored
}

#[test]
fn kill_9_leaves_every_balance_exact() {
    let shape = Shape {
        consumer: ACCOUNT,
        ..Shape::default()
    };
    let pond = Pond::new("account", &shape);
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let count = messages(60_000);
    let books = Books::make(&pond, count, &mut random);
    books.produce(&pond);
    let mut replayed = 0.0;
    for _ in 0..kills(8) {
        // Slowed down, so that twenty lives fit into the work.
        let rates = [0, 1].map(|shard| format!("shard.s{shard}.write_rate_max={}", count / 240));
        let mut process = pond.start(&["run", "--set", &rates[0], "--set", &rates[1]], &[]);
        pond.wait_for("rows are written", Duration::from_secs(60), |pond| {
            pond.metric("millpond_rows_written_total")
                .is_some_and(|rows| rows > 0.0)
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        replayed += pond.metric("millpond_replayed_total").unwrap_or(0.0);
        assert!(process.is_running(), "it was killed while it worked");
        process.kill();
    }
    let summary = pond.catch_up();
    replayed += summary["replayed"].as_f64().unwrap();
    println!("seed {seed}: replayed {replayed}\n{summary}");
    assert!(replayed > 0.0, "seed {seed}: the kills did not bite");
    let stored = stored_accounts(&pond, 2);
    assert!(stored == books.accounts, "seed {seed}: rows differ");
    let verdict = pond.assert_exact();
    assert_eq!(
        verdict["dead_letters"], books.broken,
        "seed {seed}: {verdict}"
    );
    assert_eq!(
        verdict["rows_checked"],
        stored.len(),
        "seed {seed}: {verdict}"
    );
    verify_notices_every_change(&pond);
    let letters = pond.dead_letters();
    let reasons = letters
        .iter()
        .map(|letter| letter.header("__dlq.errors.reason"));
    assert!(reasons.clone().all(|reason| reason == "bad-value"));
    let mut places: Vec<(&str, &str)> = letters
        .iter()
        .map(|letter| {
            (
                letter.header("__dlq.errors.partition"),
                letter.header("__dlq.errors.offset"),
            )
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len() as u64, books.broken, "seed {seed}");
}

/// That a verification which finds nothing would have found something.
fn verify_notices_every_change(pond: &Pond) {
    let of_first = |change: &str| {
        let row = "(tenant, number) = (SELECT tenant, number FROM account ORDER BY 1, 2 LIMIT 1)";
        format!("{change} WHERE {row}")
    };
    for (change, counted) in [
        ("UPDATE account SET balance = balance + 0.01", "mismatched"),
        ("UPDATE account SET bookings = bookings - 1", "mismatched"),
        (
            "UPDATE account SET newest = newest - interval '1 second'",
            "mismatched",
        ),
        ("UPDATE account SET lowest = NULL", "mismatched"),
        (
            "UPDATE account SET source_offset = source_offset - 1",
            "missing",
        ),
        (
            "UPDATE account SET updated_at = now() + interval '1 day'",
            "mismatched",
        ),
        ("DELETE FROM account", "missing"),
    ] {
        for shard in 0..2 {
            let mut client = pond.shard(shard);
            client
                .batch_execute("CREATE TABLE kept AS TABLE account")
                .unwrap();
            client.batch_execute(&of_first(change)).unwrap();
        }
        let verdict = pond.verify();
        assert_eq!(
            (&verdict["ok"], &verdict[counted]),
            (&false.into(), &2.into()),
            "{change}: {verdict}"
        );
        for shard in 0..2 {
            let back = "TRUNCATE account; INSERT INTO account TABLE kept; DROP TABLE kept";
            pond.shard(shard).batch_execute(back).unwrap();
        }
    }
    pond.assert_exact();
}

const DEVICE: &str = r#"
[table]
name = "device"
delete = "field"
delete_field = "op"
delete_values = ["gone"]
[table.columns]
site = { key = "text", from = "@key.site" }
unit = { key = "integer", from = "@key.unit" }
state = { set = "text" }
config = { set = "jsonb" }
labels = { merge = "jsonb" }
starts = { add = "integer" }
"#;

const ANY: &str = "partition_by = \"any\"";

#[derive(Clone, Debug, Default, PartialEq)]
struct Device {
    state: Option<String>,
    labels: BTreeMap<String, i64>,
    starts: i64,
}

/// Partition, key and value.
type Message = (i32, String, Option<String>);
/// By site and unit; `None` for one that is deleted.
type Devices = BTreeMap<(String, i32), Option<Device>>;

/// Updates and deletes of a few devices: the messages, and what is there after each of them, by device.
fn device_stream(count: u64, random: &mut SmallRng) -> (Vec<Message>, Devices) {
    let mut sent = Vec::new();
    let mut devices = Devices::new();
    for _ in 0..count {
        let (site, unit) = (
            format!("s{}", random.random_range(0..20)),
            random.random_range(0..60),
        );
        // The producer keeps a row on one partition.
        let partition = unit % 4;
        let key = format!(r#"{{"site":"{site}","unit":{unit}}}"#);
        let device = devices.entry((site, unit)).or_default();
        let value = match random.random_range(0..10) {
            0 => {
                *device = None;
                None
            }
            1 => {
                *device = None;
                Some(r#"{"op":"gone","state":5}"#.to_owned())
            }
            2..5 => {
                let state = format!("state {}", random.random_range(0..1000));
                device.get_or_insert_default().state = Some(state.clone());
                Some(format!(r#"{{"op":"is","state":"{state}"}}"#))
            }
            5..8 => {
                let (name, value) = (
                    format!("l{}", random.random_range(0..4)),
                    random.random_range(0..9),
                );
                let labels = &mut device.get_or_insert_default().labels;
                match value {
                    0 => labels.remove(&name),
                    _ => labels.insert(name.clone(), value),
                };
                let value = match value {
                    0 => "null".to_owned(),
                    _ => value.to_string(),
                };
                Some(format!(r#"{{"labels":{{"{name}":{value}}}}}"#))
            }
            _ => {
                let starts = random.random_range(-3..9);
                device.get_or_insert_default().starts += starts;
                Some(format!(r#"{{"starts":{starts}}}"#))
            }
        };
        sent.push((partition, key, value));
    }
    (sent, devices)
}

fn produce(pond: &Pond, sent: &[Message]) {
    let sent = sent.iter().map(|(partition, key, value)| Sent {
        partition: *partition,
        key: Some(key),
        value: value.as_deref(),
        headers: &[],
    });
    pond.produce(&sent.collect::<Vec<_>>());
}

fn stored_devices(pond: &Pond) -> Devices {
    let sql = "SELECT site, unit, source_deleted, state, labels::text, starts, config FROM device";
    let rows = pond.shard(0).query(sql, &[]).unwrap();
    let stored = rows.iter().map(|row| {
        let labels: &str = row.get(4);
        let device = Device {
            state: row.get(3),
            labels: serde_json::from_str(labels).unwrap(),
            starts: i64::from(row.get::<_, i32>(5)),
        };
        let is_deleted: bool = row.get(2);
        if is_deleted {
            assert_eq!(
                device,
                Device::default(),
                "nothing is left of a deleted row"
            );
        }
        ((row.get(0), row.get(1)), (!is_deleted).then_some(device))
    });
    stored.collect()
}

#[test]
fn devices_that_are_deleted_and_come_back_are_exact_under_kill_9() {
    let shape = Shape {
        partitions: 4,
        shards: 1,
        kafka: ANY,
        consumer: DEVICE,
        ..Shape::default()
    };
    let pond = Pond::new("device", &shape);
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let count = messages(30_000);
    let (sent, devices) = device_stream(count, &mut random);
    produce(&pond, &sent);
    for _ in 0..5 {
        let rate = format!("shard.s0.write_rate_max={}", count / 40);
        let mut process = pond.start(&["run", "--set", &rate], &[]);
        pond.wait_for("rows are written", Duration::from_secs(60), |pond| {
            pond.metric("millpond_rows_written_total")
                .is_some_and(|rows| rows > 0.0)
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        assert!(process.is_running(), "it was killed while it worked");
        process.kill();
    }
    let summary = pond.catch_up();
    println!("seed {seed}: {summary}");
    assert_eq!(summary["dead_lettered"], 0, "seed {seed}");
    assert!(stored_devices(&pond) == devices, "seed {seed}: rows differ");
    let verdict = pond.assert_exact();
    assert_eq!(
        verdict["rows_checked"],
        devices.len(),
        "seed {seed}: {verdict}"
    );
    // What came before a delete stays without effect when the group goes back to the beginning.
    pond.good(&["rewind", "--to", "-1d", "--apply"]);
    let again = pond.catch_up();
    assert_eq!(again["rows_written"], 0, "seed {seed}: {again}");
    assert!(
        stored_devices(&pond) == devices,
        "seed {seed}: rows differ after the replay"
    );
    // The replay committed to the end again, so deleted rows may go for good.
    let deleted = devices.values().filter(|device| device.is_none()).count();
    let purge = "DELETE FROM device WHERE source_deleted";
    let purged = pond.shard(0).execute(purge, &[]).unwrap();
    assert_eq!(purged, deleted as u64, "seed {seed}");
    let verdict = pond.assert_exact();
    assert_eq!(
        verdict["rows_checked"],
        devices.len() - deleted,
        "seed {seed}: {verdict}"
    );
}

#[test]
fn what_the_database_refuses_is_refused_alone_and_only_once() {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        kafka: ANY,
        consumer: DEVICE,
        ..Shape::default()
    };
    let pond = Pond::new("refusing", &shape);
    let key = |unit: i32| format!(r#"{{"site":"s","unit":{unit}}}"#);
    let starts = |unit: i32, starts: i32| (0, key(unit), Some(format!(r#"{{"starts":{starts}}}"#)));
    let mut sent = vec![
        starts(1, i32::MAX),
        // Beyond the column's type on the way, although not at the end.
        starts(1, 1),
        starts(1, -5),
        (0, key(2), Some(r#"{"config":{"a":"\u0000"}}"#.to_owned())),
        starts(3, 1),
    ];
    // So that the breaker takes none of it for a change of the schema.
    sent.extend((10..200).map(|unit| starts(unit, 1)));
    produce(&pond, &sent);
    let summary = pond.catch_up();
    assert_eq!(summary["dead_lettered"], 2, "{summary}");
    let mut reasons: Vec<String> = pond
        .dead_letters()
        .iter()
        .map(|letter| letter.header("__dlq.errors.reason").to_owned())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["database", "overflow"]);
    let sql = "SELECT unit, starts, source_deleted FROM device WHERE unit < 4 ORDER BY unit";
    let rows: Vec<(i32, i32, bool)> = pond
        .shard(0)
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    // Of a row whose only update was refused, the fence is there and nothing to be seen.
    assert_eq!(
        rows,
        [(1, i32::MAX - 5, false), (2, 0, true), (3, 1, false)]
    );
    pond.assert_exact();
}
