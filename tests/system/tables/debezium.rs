//! A table follows another one: Debezium's connector for Postgres captures its changes, Kafka Connect writes them, and Millpond
//! applies them. The properties are those of `src/table/README.md`; three connectors write the same changes in three ways.

use super::ANY;
use crate::child::Process;
use crate::pond::{Letter, Pond, Shape, environment, free_port};
use crate::spine::seed;
use postgres::Client;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A JVM starts, on a machine under load, and makes three snapshots.
const STARTED: Duration = Duration::from_secs(180);
const CAPTURED: Duration = Duration::from_secs(180);

/// Everything of the source but its key is set from paths that begin like this.
fn columns(before: &str) -> String {
    format!(
        r#"
[table.columns]
region = {{ key = "text", from = "@key.region" }}
number = {{ key = "integer", from = "@key.number" }}
name = {{ set = "text", from = "{before}name" }}
credit = {{ set = "numeric(10,2)", from = "{before}credit" }}
visits = {{ set = "bigint", from = "{before}visits" }}
score = {{ set = "double precision", from = "{before}score" }}
born = {{ set = "date", from = "{before}born" }}
seen = {{ set = "timestamptz", from = "{before}seen" }}
active = {{ set = "boolean", from = "{before}active" }}
token = {{ set = "uuid", from = "{before}token" }}
notes = {{ set = "text", from = "{before}notes" }}
"#
    )
}

/// A way of writing changes: what the connector is told besides, and how the table then begins.
struct Way {
    name: &'static str,
    connector: &'static str,
    table: &'static str,
    columns: &'static str,
}

const WAYS: [Way; 3] = [
    Way {
        name: "envelope",
        connector: "",
        table: "delete = \"field\"\ndelete_field = \"op\"\ndelete_values = [\"d\"]",
        columns: "after.",
    },
    Way {
        name: "tombstone",
        connector: "transforms=unwrap\n\
             transforms.unwrap.type=io.debezium.transforms.ExtractNewRecordState\n",
        table: "delete = \"tombstone\"",
        columns: "",
    },
    Way {
        name: "rewrite",
        connector: "transforms=unwrap\n\
             transforms.unwrap.type=io.debezium.transforms.ExtractNewRecordState\n\
             transforms.unwrap.delete.tombstone.handling.mode=rewrite\n",
        table: "delete = \"field\"\ndelete_field = \"__deleted\"\ndelete_values = [\"true\"]",
        columns: "",
    },
];

/// What Millpond needs of a worker, and of the connector in every way.
const WORKER: &str = "key.converter=org.apache.kafka.connect.json.JsonConverter\n\
     key.converter.schemas.enable=false\n\
     value.converter=org.apache.kafka.connect.json.JsonConverter\n\
     value.converter.schemas.enable=false\n";
const CONNECTOR: &str = "connector.class=io.debezium.connector.postgresql.PostgresConnector\n\
     plugin.name=pgoutput\n\
     publication.autocreate.mode=filtered\n\
     decimal.handling.mode=string\n\
     time.precision.mode=isostring\n";

const SOURCE: &str = "CREATE SCHEMA shop;
    CREATE TABLE shop.customer (region text, number integer, PRIMARY KEY (region, number),
        name text, credit numeric(10,2), visits bigint, score double precision, born date, seen timestamptz,
        active boolean, token uuid, notes text);
    ALTER TABLE shop.customer REPLICA IDENTITY FULL";

/// Kafka Connect with its connectors. Ended with its test, and what it left in Postgres with it.
struct Connect {
    child: Child,
    source: Client,
    directory: TempDir,
}

impl Connect {
    /// Captures the source, which is in the first pond's database.
    fn start(ponds: &[Pond]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let worker = format!(
            "bootstrap.servers={}\nplugin.path={}\nplugin.discovery=service_load\nlisteners=http://127.0.0.1:{}\n\
             offset.storage.file.filename={}\noffset.flush.interval.ms=500\n{WORKER}",
            environment("MILLPOND_TEST_KAFKA"),
            environment("MILLPOND_TEST_DEBEZIUM"),
            free_port(),
            path("offsets").display(),
        );
        std::fs::write(path("worker.properties"), worker).unwrap();
        let mut source = ponds[0].shard(0);
        let row = source
            .query_one("SELECT current_database(), inet_server_port()", &[])
            .unwrap();
        let (database, port): (String, i32) = (row.get(0), row.get(1));
        let mut files = vec![path("worker.properties")];
        for (way, pond) in WAYS.iter().zip(ponds) {
            let prefix = pond.topic.strip_suffix(".shop.customer").unwrap();
            let slot = prefix.replace('-', "_");
            let mut text = format!(
                "name={}\ntopic.prefix={prefix}\ntable.include.list=shop.customer\nslot.name={slot}\n\
                 publication.name={slot}\n{CONNECTOR}{}",
                way.name, way.connector
            );
            write!(
                text,
                "database.hostname=127.0.0.1\ndatabase.port={port}\ndatabase.user=postgres\n\
                 database.password=none\ndatabase.dbname={database}\n"
            )
            .unwrap();
            files.push(path(way.name));
            std::fs::write(path(way.name), text).unwrap();
        }
        let log = std::fs::File::create(path("log")).unwrap();
        let settings = environment("MILLPOND_TEST_DIR") + "/log4j2.properties";
        let child = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={settings}"))
            .args(["-cp", &(environment("KAFKA_LIBS") + "/*")])
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .args(files)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Java is there");
        Self {
            child,
            source,
            directory,
        }
    }

    /// Waits until nothing is missing of what only comes about while it runs.
    fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        mut missing: impl FnMut() -> Option<String>,
    ) {
        let deadline = Instant::now() + within;
        while let Some(missing) = missing() {
            let is_running = self.child.try_wait().unwrap().is_none();
            if !is_running || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
                panic!(
                    "{what}: not within {within:?}: {missing}; Connect runs: {is_running}; it said:\n{log}"
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A database with a slot can't be dropped, and a slot can't be before the server has noticed that nobody reads it.
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE database = current_database() AND NOT active";
        let left = "SELECT FROM pg_replication_slots WHERE database = current_database()";
        for _ in 0..100 {
            let _ = self.source.execute(drop, &[]);
            if self
                .source
                .query(left, &[])
                .is_ok_and(|left| left.is_empty())
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// All rows as text, one a line.
fn rows(client: &mut Client, from: &str) -> Vec<String> {
    let columns = "region, number, name, credit, visits, score, born, seen, active, token, notes";
    let sql =
        format!("SELECT row::text FROM (SELECT {columns} FROM {from}) row ORDER BY region, number");
    let rows = client.query(&sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const ALIVE: &str = "customer WHERE NOT source_deleted";

/// What happens to the source in one transaction, by SQL alone: rows come, change, change their key, and go.
fn happen(source: &mut Client, random: &mut SmallRng) {
    let mut transaction = source.transaction().unwrap();
    for _ in 0..random.random_range(1..20) {
        let region = ["north", "süd \"x\"", "west\\e"][random.random_range(0..3usize)];
        let number = random.random_range(0..60i32);
        let mut execute = |sql: &str| transaction.execute(sql, &[&region, &number]).unwrap();
        match random.random_range(0..10) {
            0..4 => execute(
                "INSERT INTO shop.customer SELECT $1, $2, 'name ' || random(), round((random() * 20000000 - 10000000)::numeric, 2),
                    (random() * 9e18)::bigint, random() * 1e9 - 5e8, date '1969-01-01' + (random() * 40000)::int,
                    timestamptz '1960-01-01' + random() * interval '30000 days', random() < 0.5, gen_random_uuid(),
                    (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300))
                 ON CONFLICT DO NOTHING",
            ),
            4..6 => execute("UPDATE shop.customer SET credit = credit / 2, visits = visits - 1, name = name || 'é\t\"' WHERE (region, number) = ($1, $2)"),
            6 => execute(
                "UPDATE shop.customer SET name = NULL, credit = NULL, visits = NULL, score = NULL, born = NULL, seen = NULL,
                    active = NULL, token = NULL WHERE (region, number) = ($1, $2)",
            ),
            7 => execute("UPDATE shop.customer SET number = number + 1000 WHERE (region, number) = ($1, $2)
                AND NOT EXISTS (SELECT FROM shop.customer WHERE (region, number) = ($1, $2 + 1000))"),
            8 => execute("UPDATE shop.customer SET notes = upper(notes) WHERE (region, number % 1000) = ($1, $2)"),
            _ => execute("DELETE FROM shop.customer WHERE (region, number % 1000) = ($1, $2)"),
        };
    }
    match random.random_bool(0.1) {
        true => transaction.rollback().unwrap(),
        false => transaction.commit().unwrap(),
    }
}

fn pond_of(way: &Way) -> Pond {
    let shape = Shape {
        partitions: 4,
        shards: 1,
        kafka: ANY,
        ..Shape::default()
    };
    let mut pond = Pond::without_init(&format!("debezium-{}", way.name), &shape);
    let table = format!(
        "[table]\nname = \"customer\"\n{}\n{}[admin]",
        way.table,
        columns(way.columns)
    );
    pond.reconfigure("[admin]", &table);
    // Debezium names its topics.
    let topic = format!("{}.shop.customer", pond.topic);
    pond.reconfigure(
        &format!("topic = \"{}\"\ngroup", pond.topic),
        &format!("topic = \"{topic}\"\ngroup"),
    );
    pond.topic = topic;
    pond.good(&["init"]);
    pond
}

#[test]
fn a_table_follows_another_one_through_debezium_under_kill_9() {
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let ponds = WAYS.map(|way| pond_of(&way));
    let mut source = ponds[0].shard(0);
    source.batch_execute(SOURCE).unwrap();
    // What is there before is told by a snapshot.
    (0..20).for_each(|_| happen(&mut source, &mut random));
    let mut connect = Connect::start(&ponds);
    let run = |pond: &Pond| pond.start(&["run"], &[]);
    let mut consumers: Vec<Process> = ponds.iter().map(run).collect();
    let mut targets = ponds.each_ref().map(|pond| pond.shard(0));
    for (target, way) in targets.iter_mut().zip(&WAYS) {
        connect.wait_for(way.name, STARTED, || {
            let is_empty = rows(target, ALIVE).is_empty();
            is_empty.then(|| "there are no rows".to_owned())
        });
    }
    for _ in 0..3 {
        for pond in &ponds {
            (0..25).for_each(|_| happen(&mut source, &mut random));
            // Only then its admin address is free.
            consumers.remove(0).kill();
            consumers.push(run(pond));
        }
    }
    (0..50).for_each(|_| happen(&mut source, &mut random));
    let expected = rows(&mut source, "shop.customer");
    assert!(expected.len() > 20, "seed {seed}: {}", expected.len());
    for (place, ((target, way), pond)) in targets.iter_mut().zip(&WAYS).zip(&ponds).enumerate() {
        let what = format!("seed {seed}: {}", way.name);
        connect.wait_for(&what, CAPTURED, || {
            let letters = pond.dead_letters();
            let why = |letter: &Letter| letter.header("__dlq.errors.message").to_owned();
            let why: Vec<String> = letters.iter().map(why).collect();
            assert!(why.is_empty(), "{what}: {why:?}");
            let stored = rows(target, ALIVE);
            (stored != expected).then(|| {
                let not_in = |all: &[String], others: &[String]| -> Vec<String> {
                    let others = |row: &&String| !others.contains(row);
                    all.iter().filter(others).cloned().collect()
                };
                format!(
                    "missing {:#?}, too many {:#?}, the consumer said {}",
                    not_in(&expected, &stored),
                    not_in(&stored, &expected),
                    consumers[place].said()
                )
            })
        });
    }
    drop(connect);
    for consumer in consumers {
        consumer.terminate(Duration::from_secs(60)).json();
    }
    for ((target, way), pond) in targets.iter_mut().zip(&WAYS).zip(&ponds) {
        let summary = pond.catch_up();
        assert!(rows(target, ALIVE) == expected, "seed {seed}: {}", way.name);
        assert!(pond.dead_letters().is_empty(), "seed {seed}: {summary}");
        let deleted = rows(target, "customer WHERE source_deleted").len();
        let verdict = pond.assert_exact();
        println!("seed {seed}: {}: {deleted} deleted, {verdict}", way.name);
        assert!(deleted > 0, "seed {seed}: {}", way.name);
        assert_eq!(verdict["rows_checked"], expected.len() + deleted);
    }
}
