//! An asynchronous standby takes over that lacks a tail: updates whose offsets are committed are not there any more. `verify`
//! says which rows lack them, and `rewind` brings them back, each once.

use crate::pond::{Pond, Shape, server};
use crate::reading::Reading;
use crate::services::{Harm, Standby, Trouble};
use postgres::{Client, Config, NoTls};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn connect(port: u16) -> Client {
    let mut config: Config = server(1).parse().unwrap();
    config = Config::new()
        .host("127.0.0.1")
        .port(port)
        .user(config.get_user().unwrap())
        .dbname(config.get_dbname().unwrap())
        .clone();
    config.connect(NoTls).unwrap()
}

/// Waits until the standby has all that the primary has, then takes the way between the two.
fn cut(pond: &Pond, primary: &mut Client, standby: &Standby) {
    let has_all =
        "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_flush_lsn()";
    pond.wait_for("the standby has everything", SOON, |_| {
        primary.query_one(has_all, &[]).unwrap().get::<_, i64>(0) == 1
    });
    let mut standby = connect(standby.port);
    standby
        .batch_execute("ALTER SYSTEM SET primary_conninfo = ''")
        .unwrap();
    standby.batch_execute("SELECT pg_reload_conf()").unwrap();
    pond.wait_for("nobody follows the primary", SOON, |_| {
        let followers = primary.query_one("SELECT count(*) FROM pg_stat_replication", &[]);
        followers.unwrap().get::<_, i64>(0) == 0
    });
}

/// Bytes of the primary's log that the standby never got.
fn lost_bytes(primary: &mut Client, standby: &Standby) -> i64 {
    let received = connect(standby.port).query_one("SELECT pg_last_wal_receive_lsn()::text", &[]);
    let received: String = received.unwrap().get(0);
    let ahead = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), $1::text::pg_lsn)::int8";
    primary.query_one(ahead, &[&received]).unwrap().get(0)
}

/// What was done, and when.
struct Lost {
    before_the_tail: String,
    bytes: i64,
    died: Instant,
    /// The server is given back when the test ends.
    _killed: Trouble,
}

/// A tail is applied and committed that the standby never gets; then the primary dies in the middle of more, and the standby
/// takes its place while the consumer is stopped.
fn fail_over(pond: &Pond, standby: &Standby) -> Lost {
    let old_port = server(1).parse::<Config>().unwrap().get_ports()[0];
    let mut primary = connect(old_port);
    cut(pond, &mut primary, standby);
    let before_the_tail = jiff::Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(10));

    let consumer = pond.start(&["run"], &[]);
    let rows = ["--rows", "2000", "--scenario", "zipf"];
    let tail = ["--messages", "10000", "--broken", "20"];
    pond.load(&[&tail[..], &rows].concat());
    // Those that are broken don't count.
    pond.wait_for("the tail is committed", SOON, |pond| {
        pond.metric("millpond_messages_total") > Some(9_900.0)
            && pond.metric("millpond_lag_messages") == Some(0.0)
    });
    let bytes = lost_bytes(&mut primary, standby);
    assert!(bytes > 0, "the standby lacks a tail");
    let more = ["load", "--messages", "12000", "--rate", "6000"];
    let more = pond.start(&[&more[..], &rows].concat(), &[]);
    pond.wait_for("more is applied", SOON, |pond| {
        pond.metric("millpond_messages_total") > Some(13_000.0)
    });
    let died = Instant::now();
    let killed = Trouble::begin("postgres-1", Harm::Killed);
    pond.wait_for("the shard is down", SOON, |pond| {
        let reading = Reading::take(pond.admin_port);
        reading.is_some_and(|now| crate::faults::down(&now, "s1") > 0.0)
    });
    assert!(consumer.terminate(SOON).status.success());
    more.wait(SOON).json();
    standby.promote();
    let [old, new] = [old_port, standby.port].map(|port| format!("port={port} "));
    pond.reconfigure(&old, &new);
    Lost {
        before_the_tail,
        bytes,
        died,
        _killed: killed,
    }
}

#[test]
fn the_tail_that_a_failover_loses_is_seen_to_be_missing_and_a_rewind_brings_it_back() {
    // The consumer is told to stop while the shard is away.
    let shape = Shape {
        consumer: "drain_deadline_s = 2",
        ..Shape::default()
    };
    let pond = Pond::new("failover", &shape);
    let standby = Standby::of("postgres-1");
    pond.load(&["--messages", "20000", "--rows", "2000", "--broken", "20"]);
    pond.catch_up();
    let lost = fail_over(&pond, &standby);

    let verdict = pond.verify();
    assert_eq!(verdict["ok"], false, "{verdict}");
    let missing = verdict["missing"].as_u64().unwrap();
    assert!(missing > 0, "{verdict}");
    let others = (&verdict["mismatched"], &verdict["extra"]);
    assert_eq!(others, (&0.into(), &0.into()), "{verdict}");
    let rewind = ["rewind", "--shard", "s1", "--apply", "--to"];
    pond.good(&[&rewind[..], &[&lost.before_the_tail]].concat());
    let summary = pond.catch_up();
    let verdict = pond.assert_exact();
    assert_eq!(verdict["messages_read"], 42_000, "{verdict}");
    println!(
        "failover: {} bytes of the log lost, {missing} rows lacked committed updates; {} messages read again or anew, {} of them \
         refused by fences; exact {:.1} s after the primary died: {verdict}",
        lost.bytes,
        summary["messages"],
        summary["replayed"],
        lost.died.elapsed().as_secs_f64()
    );
}
