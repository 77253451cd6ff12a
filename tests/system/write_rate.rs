//! The bound on a shard's writes over the whole group, by Postgres' own clock and counters, while members come and go.
//!
//! `MILLPOND_TEST_WRITE_RATE=5000` is the full form. The usual one is slower, as it must be reached on a busy machine too.

use crate::child::Process;
use crate::pond::{Pond, Shape, free_port};
use crate::reading::Reading;
use crate::services::{Harm, Trouble};
use postgres::Client;
use std::ops::Range;
use std::time::Duration;

const WORKERS: u64 = 2;
/// At once, each with so many workers.
const MEMBERS_MAX: u64 = 3;
/// So that the steady time between two rebalances is long enough to tell the rate.
const STEADY: Duration = Duration::from_secs(6);
const STALL: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(60);

/// Each statement notes how many rows it wrote. The note's own transaction is the statement's, so Postgres knows when it
/// was committed.
pub const NOTE_WRITES: &str = "
    CREATE TABLE note (rows int NOT NULL);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO note SELECT count(*) FROM written HAVING count(*) > 0; RETURN NULL; END $$;
    CREATE TRIGGER note_insert AFTER INSERT ON subscription REFERENCING NEW TABLE AS written
        FOR EACH STATEMENT EXECUTE FUNCTION note();
    CREATE TRIGGER note_update AFTER UPDATE ON subscription REFERENCING NEW TABLE AS written
        FOR EACH STATEMENT EXECUTE FUNCTION note();";

/// Rows per second over the group.
fn bound() -> u64 {
    std::env::var("MILLPOND_TEST_WRITE_RATE")
        .map_or(2_000, |text| text.parse().expect("a number of rows"))
}

/// When how many rows were written, in microseconds.
pub fn writes(client: &mut Client) -> Vec<(i64, u64)> {
    let sql = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::int8, rows FROM note ORDER BY 1";
    let row = |row: &postgres::Row| (row.get(0), u64::try_from(row.get::<_, i32>(1)).unwrap());
    client.query(sql, &[]).unwrap().iter().map(row).collect()
}

/// The most rows in any second of these.
pub fn most_in_a_second(writes: &[(i64, u64)]) -> u64 {
    let (mut most, mut rows, mut first) = (0, 0, 0);
    for (at, count) in writes {
        rows += count;
        while writes[first].0 + 1_000_000 < *at {
            rows -= writes[first].1;
            first += 1;
        }
        most = most.max(rows);
    }
    most
}

/// Rows per second from the first to the last of these.
fn rate(writes: &[(i64, u64)]) -> f64 {
    let rows: u64 = writes.iter().skip(1).map(|(_, rows)| rows).sum();
    let (first, last) = (writes.first().unwrap().0, writes.last().unwrap().0);
    rows as f64 / Duration::from_micros(u64::try_from(last - first).unwrap()).as_secs_f64()
}

/// Postgres' clock, in microseconds.
fn now_us(client: &mut Client) -> i64 {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
    client.query_one(sql, &[]).unwrap().get(0)
}

fn member(pond: &Pond) -> (Process, u16) {
    let port = free_port();
    let listen = format!("admin.listen=127.0.0.1:{port}");
    (pond.start(&["run", "--set", &listen], &[]), port)
}

/// Waits until each of these has its even part of the partitions.
fn wait_until_shared(pond: &Pond, ports: &[u16], partitions: u32) {
    let part = f64::from(partitions) / ports.len() as f64;
    let has_part = |port: &u16| {
        let assigned = Reading::take(*port).and_then(|now| now.sum("millpond_assigned_partitions"));
        assigned == Some(part)
    };
    pond.wait_for("each has its part", SOON, |_| ports.iter().all(has_part));
}

/// A while in which nobody comes or goes, by Postgres' clock.
fn stay(client: &mut Client) -> Range<i64> {
    let begin = now_us(client);
    std::thread::sleep(STEADY);
    begin..now_us(client)
}

/// Two processes, then three, then two, then a stall of Postgres; the times between the first, and how often the first one waited.
fn come_and_go(pond: &Pond, client: &mut Client, partitions: u32) -> ([Range<i64>; 3], f64) {
    let (first, first_port) = member(pond);
    let (second, second_port) = member(pond);
    let both = [first_port, second_port];
    wait_until_shared(pond, &both, partitions);
    let two = stay(client);
    let (third, third_port) = member(pond);
    wait_until_shared(pond, &[first_port, second_port, third_port], partitions);
    let three = stay(client);
    let ended = third.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
    wait_until_shared(pond, &both, partitions);
    let two_again = stay(client);
    // What was sent to a frozen server is written when it goes on.
    let frozen = Trouble::begin("postgres-0", Harm::Frozen);
    std::thread::sleep(STALL);
    frozen.end();
    stay(client);
    let waits = Reading::take(first_port)
        .unwrap()
        .sum("millpond_write_rate_waits_total");
    for process in [first, second] {
        assert!(process.terminate(SOON).status.success());
    }
    ([two, three, two_again], waits.unwrap())
}

#[test]
fn in_no_second_more_than_the_bound_is_written_and_not_much_less() {
    let shape = Shape {
        partitions: 12,
        shards: 1,
        workers: usize::try_from(WORKERS).unwrap(),
        // More is in memory than can be written before a partition moves or a member leaves.
        consumer: "revoke_deadline_s = 1\ndrain_deadline_s = 6",
        ..Shape::default()
    };
    let pond = Pond::new("write-rate", &shape);
    let bound = bound();
    // What the bound's documentation says: two rows for each connection on top.
    let more = 2 * MEMBERS_MAX * WORKERS;
    let bounded = format!("workers = 2\nwrite_rate_max = {bound}");
    pond.reconfigure("workers = 2", &bounded);
    let mut client = pond.shard(0);
    client.batch_execute(NOTE_WRITES).unwrap();
    // More than can be written in all of the test, and hardly a row twice, so that nothing is folded.
    let messages = (bound * 60).to_string();
    pond.load(&["--messages", &messages, "--rows", "2000000"]);
    let (steady, waits) = come_and_go(&pond, &mut client, shape.partitions);

    let writes = writes(&mut client);
    let noted: u64 = writes.iter().map(|(_, rows)| rows).sum();
    let most = most_in_a_second(&writes);
    let rates = steady.map(|time| {
        let within = writes.iter().filter(|(at, _)| time.contains(at));
        rate(&within.copied().collect::<Vec<_>>())
    });
    println!(
        "{noted} rows; the most in a second {most} of {bound} + {more}; steady {rates:.0?} a second; {waits} waits"
    );
    assert!(most <= bound + more, "{most} rows in a second");
    let reached = rates.iter().all(|rate| *rate >= 0.85 * bound as f64);
    assert!(reached, "the bound is not reached: {rates:.0?}");
    assert!(waits > 0.0);
    // The sessions have ended, so all of them have told the statistics what they wrote.
    pond.wait_for("Postgres' own counters say the same", SOON, |_| {
        let sql =
            "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'subscription'";
        let counted: i64 = client.query_one(sql, &[]).unwrap().get(0);
        u64::try_from(counted).unwrap() == noted
    });
    pond.assert_exact();
}
