//! What is done to a shard.

use super::{World, pause, within};
use crate::faults::postgres::ReadOnly;
use crate::limits::conflicts::{self, Order};
use crate::pond::{SHARDS, server};
use crate::services::{Harm, Trouble};
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use rand::rngs::SmallRng;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SERVERS: [&str; 2] = ["postgres-0", "postgres-1"];
/// How long an effect may take to show.
const SHOWS: Duration = Duration::from_secs(8);
/// The same where somebody must come to write, which the broker may prevent for a while.
const WRITES: Duration = Duration::from_secs(15);
/// More than the servers allow.
const CONNECTIONS: usize = 250;

/// Workers of the shard.
const OURS: &str = "datname = current_database() AND application_name LIKE 'millpond/%'";

fn connect(world: &World, shard: usize) -> Option<Client> {
    let mut config: Config = world.pond.address(shard).parse().unwrap();
    config
        .application_name("mix")
        .connect_timeout(Duration::from_secs(5))
        .options("-c lock_timeout=5s");
    config.connect(NoTls).ok()
}

fn count(client: &mut Client, query: &str) -> i64 {
    client.query_one(query, &[]).map_or(0, |row| row.get(0))
}

/// Connections of the shard that members miss.
fn down(world: &World, shard: usize) -> f64 {
    let labels = [("shard", SHARDS[shard]), ("state", "down")];
    world.sum("millpond_connections", &labels)
}

fn are_down(world: &World, shard: usize) -> Option<String> {
    let mut most = 0.0;
    let shows = within(SHOWS, || {
        most = down(world, shard);
        most > 0.0
    });
    shows.then(|| format!("{most} connections down"))
}

pub fn backends_ended(world: &World, shard: usize) -> Option<String> {
    let mut client = connect(world, shard)?;
    let query =
        format!("SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND pg_terminate_backend(pid)");
    let mut ended = 0;
    let seen = within(SHOWS, || {
        ended = count(&mut client, &query);
        ended > 0
    });
    seen.then(|| format!("{ended} of them"))
}

/// Seen by the members' own counts of statements that had to be sent again.
pub fn statements_cancelled(world: &World, shard: usize) -> Option<String> {
    let mut client = connect(world, shard)?;
    let retries = |world: &World| world.sum("millpond_retries_total", &[("shard", SHARDS[shard])]);
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND state = 'active' AND pg_cancel_backend(pid)"
    );
    let (mut cancelled, mut before) = (0, retries(world));
    let seen = within(SHOWS, || {
        cancelled += count(&mut client, &query);
        let now = retries(world);
        // A member that is gone takes its count along.
        let has_risen = cancelled > 0 && now > before;
        before = now;
        has_risen
    });
    seen.then(|| format!("{cancelled} cancelled"))
}

pub fn killed(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    let killed = Trouble::begin(SERVERS[shard], Harm::Killed);
    let seen = are_down(world, shard);
    pause(random, 0..1500);
    killed.end();
    seen
}

/// Whether a server says anything at all: its answer to a client that asks for TLS.
fn answers(shard: usize) -> bool {
    const ASK_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let config: Config = server(shard).parse().unwrap();
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", config.get_ports()[0]))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&ASK_FOR_TLS)?;
        stream.read_exact(&mut [0])
    };
    asked().is_ok()
}

pub fn frozen(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    const STILL: Duration = Duration::from_secs(1);
    let frozen = Trouble::begin(SERVERS[shard], Harm::Frozen);
    pause(random, 1000..4000);
    let (answers, still) = (answers(shard), world.checker.still_for(shard));
    frozen.end();
    let seen = !answers && still > STILL;
    seen.then(|| format!("nothing committed for {:.1} s", still.as_secs_f64()))
}

/// Holds what `lock` locks until members were seen to wait for it, and a while longer.
fn locked(world: &World, shard: usize, random: &mut SmallRng, lock: &str) -> Option<String> {
    let (mut locker, mut other) = (connect(world, shard)?, connect(world, shard)?);
    locker.batch_execute("BEGIN").ok()?;
    locker.batch_execute(lock).ok()?;
    let query =
        format!("SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND wait_event_type = 'Lock'");
    let mut waiting = 0;
    let seen = within(WRITES, || {
        waiting = count(&mut other, &query);
        waiting > 0
    });
    pause(random, 500..3000);
    // If the server is gone by now, so is the lock.
    let _ = locker.batch_execute("ROLLBACK");
    seen.then(|| format!("{waiting} workers wait"))
}

pub fn table_locked(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    locked(world, shard, random, "LOCK TABLE subscription")
}

/// In the order of their keys, as workers lock them.
pub fn rows_locked(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    let lock = "SELECT 1 FROM subscription WHERE (app_id, subscription_id) IN \
                (SELECT app_id, subscription_id FROM subscription TABLESAMPLE SYSTEM (10) LIMIT 500) \
                ORDER BY app_id, subscription_id FOR UPDATE";
    locked(world, shard, random, lock)
}

/// Seen by the server's own count, but for those whose victim was the other client.
pub fn deadlocks(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    const COUNT: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let (mut rival, mut other) = (connect(world, shard)?, connect(world, shard)?);
    rival.batch_execute(conflicts::RIVALS_PATIENCE).ok()?;
    let before = count(&mut other, COUNT);
    let (mut own, mut ours) = (0, 0);
    let seen = within(WRITES, || {
        if let Err(error) = conflicts::write_some(&mut rival, Order::Shuffled, random) {
            own += i64::from(error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED));
        }
        ours = count(&mut other, COUNT) - before - own;
        ours > 0
    });
    seen.then(|| format!("{ours} statements of ours were victims"))
}

pub fn read_only(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    let read_only = ReadOnly::begin(shard);
    let seen = are_down(world, shard);
    pause(random, 0..2000);
    drop(read_only);
    seen
}

/// A connection without a client: one open file of ours. `Err`: what the server said instead, or nothing.
fn bare_connection(config: &Config) -> Result<TcpStream, String> {
    let parameters = [
        "user",
        config.get_user().unwrap(),
        "database",
        config.get_dbname().unwrap(),
    ];
    // Its length, the protocol's version 3.0, names and values, and the end of those.
    let text = parameters.map(|text| format!("{text}\0")).concat() + "\0";
    let length = u32::try_from(8 + text.len()).unwrap();
    let hello = [&length.to_be_bytes(), &[0, 3, 0, 0][..], text.as_bytes()].concat();
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", config.get_ports()[0]))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&hello)?;
        let mut answer = [0; 512];
        let length = stream.read(&mut answer)?;
        std::io::Result::Ok((stream, answer[..length].to_vec()))
    };
    match asked() {
        Ok((stream, answer)) if answer.first() == Some(&b'R') => Ok(stream),
        Ok((_, answer)) => Err(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// All that the server has are ours, and those of the workers are ended.
pub fn no_connections(world: &World, shard: usize, random: &mut SmallRng) -> Option<String> {
    let config: Config = world.pond.address(shard).parse().unwrap();
    let mut client = connect(world, shard)?;
    let mut hogs = Vec::new();
    let mut fill = || {
        while hogs.len() < CONNECTIONS {
            match bare_connection(&config) {
                Ok(stream) => hogs.push(stream),
                Err(why) => return why.contains("53300"),
            }
        }
        false
    };
    let mut is_full = fill();
    let end =
        format!("SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND pg_terminate_backend(pid)");
    let seen = within(SHOWS, || {
        count(&mut client, &end);
        is_full |= fill();
        is_full && down(world, shard) > 0.0
    });
    pause(random, 500..2000);
    let held = hogs.len();
    drop(hogs);
    seen.then(|| format!("SQLSTATE 53300 with {held} others"))
}
