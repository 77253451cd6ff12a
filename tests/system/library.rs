//! A program that reads a binary form of its own and writes with statements of its own (`library/meters.rs`), killed with -9.

use crate::child::Process;
use crate::pond::{Pond, Shape, environment};
use crate::spine::{messages, seed};
use millpond::ids::AppId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

const TABLES: &str = "CREATE TABLE meter (name text PRIMARY KEY, readings bigint NOT NULL,
        watt_hours bigint NOT NULL CHECK (watt_hours < 1000000000000), last_hour integer NOT NULL);
    CREATE TABLE large_reading (meter text NOT NULL, hour integer NOT NULL, watt_hours bigint NOT NULL)";

/// Readings, sum, and last hour of a meter.
type Meters = BTreeMap<String, (i64, i64, i32)>;

/// What was sent, and what must come of it.
#[derive(Default)]
struct Readings {
    sent: Vec<(i32, String, Vec<u8>)>,
    meters: Meters,
    large: Vec<(String, i32, i64)>,
    /// Too short; and of a size that no meter can have.
    broken: u64,
    refused: u64,
}

impl Readings {
    fn make(pond: &Pond, count: u64, random: &mut SmallRng) -> Self {
        let partitioner = pond.configuration().partitioner;
        let mut readings = Self::default();
        for _ in 0..count {
            // Every other reading is of a few meters, so that there are several of one in a batch.
            let meter = match random.random_bool(0.5) {
                true => format!("hot {}", random.random_range(0..3)),
                false => format!("meter {}", random.random_range(0..2000)),
            };
            let app = AppId(xxh3_128(meter.as_bytes()).to_be_bytes());
            let partition = partitioner.partition_of(app).0;
            let (hour, size) = (
                random.random_range(0..1_000_000),
                random.random_range(0..100_000i64),
            );
            let (watt_hours, length) = match random.random_range(0..1000) {
                0 => (size, 11),
                1 => (2_000_000_000_000, 12),
                _ => (size, 12),
            };
            let value = [&i32::to_be_bytes(hour)[..], &watt_hours.to_be_bytes()].concat();
            readings
                .sent
                .push((partition, meter.clone(), value[..length].to_vec()));
            match (length, watt_hours == size) {
                (11, _) => readings.broken += 1,
                (_, false) => readings.refused += 1,
                _ => {
                    let row = readings.meters.entry(meter.clone()).or_insert((0, 0, hour));
                    *row = (row.0 + 1, row.1 + watt_hours, row.2.max(hour));
                    if watt_hours >= 90_000 {
                        readings.large.push((meter, hour, watt_hours));
                    }
                }
            }
        }
        readings.large.sort();
        readings
    }

    fn produce(&self, pond: &Pond) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", environment("MILLPOND_TEST_KAFKA"))
            .create()
            .unwrap();
        for (partition, key, value) in &self.sent {
            let record = BaseRecord::to(&pond.topic).partition(*partition);
            let record = record.key(key.as_str()).payload(value.as_slice());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }
}

fn stored(pond: &Pond) -> (Meters, Vec<(String, i32, i64)>) {
    let (mut meters, mut large) = (Meters::new(), Vec::new());
    for shard in 0..2 {
        let mut client = pond.shard(shard);
        for row in client.query("SELECT * FROM meter", &[]).unwrap() {
            let of = (row.get(1), row.get(2), row.get(3));
            assert_eq!(meters.insert(row.get(0), of), None, "on one shard only");
        }
        let rows = client.query("SELECT * FROM large_reading", &[]).unwrap();
        large.extend(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))));
    }
    large.sort();
    (meters, large)
}

/// The program, with the topic, its fences and its own tables made.
struct Program {
    pond: Pond,
}

impl Program {
    fn new(name: &str) -> Self {
        let pond = Pond::without_init(name, &Shape::default());
        (0..2).for_each(|shard| pond.shard(shard).batch_execute(TABLES).unwrap());
        let program = Self { pond };
        program.catch_up(&[]);
        program
    }

    fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let arguments = [&[self.pond.config.to_str().unwrap()], arguments].concat();
        Process::of(env!("CARGO_BIN_EXE_meters"), &arguments, environment)
    }

    fn catch_up(&self, environment: &[(&str, &str)]) -> Value {
        let process = self.start(&["--until-caught-up"], environment);
        process.wait(Duration::from_secs(300)).json()
    }

    /// Ends where the program is asked to crash.
    fn crash(&self, point: &str) {
        let mut process = self.start(&[], &[("MILLPOND_TEST_CRASH", point)]);
        assert!(process.ends_within(Duration::from_secs(60)), "{point}");
    }
}

#[test]
fn a_program_whose_fences_were_not_compared_would_be_noticed() {
    let program = Program::new("meters-off");
    let mut random = SmallRng::seed_from_u64(seed());
    let readings = Readings::make(&program.pond, 1000, &mut random);
    readings.produce(&program.pond);
    // What was written then is not committed, and so comes again.
    program.crash("after-write");
    program.catch_up(&[("MILLPOND_TEST_MUTANT", "fence-off")]);
    let count = |meters: &Meters| meters.values().map(|meter| meter.0).sum::<i64>();
    let (stored, _) = stored(&program.pond);
    assert!(count(&stored) > count(&readings.meters));
}

#[test]
fn a_program_with_its_own_messages_and_statements_is_exact_under_kill_9() {
    let program = Program::new("meters");
    let pond = &program.pond;
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let readings = Readings::make(pond, messages(60_000), &mut random);
    readings.produce(pond);
    let fast = std::fs::read_to_string(&pond.config).unwrap();
    // Slowed down, so that several lives fit into the work.
    pond.reconfigure("workers = 2", "workers = 2\nwrite_rate_max = 800");
    let mut replayed = 0.0;
    program.crash("before-own-commit");
    program.crash("after-write");
    for _ in 0..8 {
        let mut process = program.start(&[], &[]);
        pond.wait_for("rows are written", Duration::from_secs(60), |pond| {
            let rows = pond.metric("millpond_rows_written_total");
            rows.is_some_and(|rows| rows > 0.0)
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        replayed += pond.metric("millpond_replayed_total").unwrap_or(0.0);
        assert!(process.is_running(), "it was killed while it worked");
        process.kill();
    }
    std::fs::write(&pond.config, fast).unwrap();
    let summary = program.catch_up(&[]);
    replayed += summary["replayed"].as_f64().unwrap();
    println!("seed {seed}: replayed {replayed}\n{summary}");
    assert!(replayed > 0.0, "seed {seed}: the kills did not bite");
    let (meters, large) = stored(pond);
    assert!(meters == readings.meters, "seed {seed}: meters differ");
    assert!(
        large == readings.large,
        "seed {seed}: large readings differ"
    );
    let mut letters: Vec<(String, i32, String)> = Vec::new();
    for letter in pond.dead_letters() {
        let header = |name: &str| letter.header(&format!("__dlq.errors.{name}")).to_owned();
        let partition = header("partition").parse().unwrap();
        letters.push((header("reason"), partition, header("offset")));
    }
    letters.sort();
    // At least once each.
    letters.dedup();
    let of = |reason: &str| letters.iter().filter(|(own, ..)| own == reason).count() as u64;
    assert_eq!(of("bad-value"), readings.broken, "seed {seed}");
    assert_eq!(of("database"), readings.refused, "seed {seed}");
    assert_eq!(letters.len() as u64, readings.broken + readings.refused);
}
