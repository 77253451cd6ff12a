//! Another client writes the same rows, in another order or not, in transactions of its own, so that Postgres ends statements of ours: as
//! victims of deadlocks, or since they can't be serialized. It sets rows to what they are, so that nothing is different after.

use crate::faults::trial::{Load, SOON, Trial, pond};
use crate::pond::{Pond, SHARDS};
use crate::reading::Reading;
use postgres::{Client, IsolationLevel};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Rows that a transaction of theirs locks, one after the other.
const ROWS: usize = 300;
/// Statements that have to be sent again on each shard.
const RETRIES_MIN: f64 = 3.0;
/// Whoever finds a deadlock is its victim, and finds it after having waited for so long: in sessions of ours, and in the rival's.
pub const PATIENCE: &str = "20ms";
pub const RIVALS_PATIENCE: &str = "SET deadlock_timeout = '2s'; SET lock_timeout = '5s'";

/// In which order a transaction writes its rows: ours write by key.
#[derive(Clone, Copy)]
pub enum Order {
    Shuffled,
    ByKey,
}

/// One transaction that writes some rows.
pub fn write_some(
    client: &mut Client,
    order: Order,
    random: &mut SmallRng,
) -> Result<(), postgres::Error> {
    let rows = client.query(
        "SELECT app_id::text, subscription_id::text FROM subscription LIMIT 2000",
        &[],
    )?;
    let mut rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    rows.shuffle(random);
    rows.truncate(ROWS);
    if matches!(order, Order::ByKey) {
        rows.sort_unstable();
    }
    let transaction = client.build_transaction();
    let mut transaction = transaction
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()?;
    let update = transaction.prepare(
        "UPDATE subscription SET tags = tags \
         WHERE app_id = ($1::text)::uuid AND subscription_id = ($2::text)::uuid",
    )?;
    for (app, subscription) in &rows {
        transaction.execute(&update, &[app, subscription])?;
    }
    transaction.commit()
}

/// For sessions that begin from now on.
pub fn set_for_database(pond: &Pond, shard: usize, setting: &str) {
    let mut client = pond.shard(shard);
    let name = client.query_one("SELECT current_database()::text", &[]);
    let name: String = name.unwrap().get(0);
    let set = format!("ALTER DATABASE {name} SET {setting}");
    client.batch_execute(&set).unwrap();
}

/// Writes on both shards until statements of ours had to be sent again on both, for that reason.
fn rival_until_seen(trial: &Trial, order: Order, is_said: impl Fn() -> bool) -> [f64; 2] {
    let over = AtomicBool::new(false);
    let rival = |shard: usize| {
        let mut client = trial.pond.shard(shard);
        client.batch_execute(RIVALS_PATIENCE).unwrap();
        let mut random = SmallRng::seed_from_u64(shard as u64);
        while !over.load(Ordering::Relaxed) {
            // It may be a victim itself.
            let _ = write_some(&mut client, order, &mut random);
        }
    };
    let retries = |now: &Reading| {
        SHARDS.map(|shard| now.sum_of("millpond_retries_total", &[("shard", shard)]))
    };
    std::thread::scope(|scope| {
        let rivals = [0, 1].map(|shard| {
            scope.spawn({
                let rival = &rival;
                move || rival(shard)
            })
        });
        let until = Instant::now() + SOON;
        let is_seen = || {
            let now = Reading::take(trial.pond.admin_port)?;
            let on_both = retries(&now).iter().all(|count| *count >= RETRIES_MIN);
            (on_both && is_said()).then_some(())
        };
        while is_seen().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        for rival in rivals {
            rival.join().unwrap();
        }
    });
    retries(&trial.reading())
}

fn survives(name: &str, settings: [&str; 2], order: Order, sqlstate: &str) {
    let pond = pond(name, "");
    for (shard, setting) in settings.iter().enumerate() {
        set_for_database(&pond, shard, setting);
    }
    let load = Load {
        seconds: 10,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::running(pond, &load);
    let says = format!(r#""sqlstate":"{sqlstate}""#);
    let retries = rival_until_seen(&trial, order, || consumer.has_said(&says));
    let seen = consumer.has_said(&says) && retries.iter().all(|count| *count >= RETRIES_MIN);
    assert!(seen, "{retries:?} retries: {}", consumer.said());
    let recovery = trial.recover();
    let observed = format!("SQLSTATE {sqlstate}, {retries:?} statements sent again");
    trial.conclude(name, &observed, recovery, consumer);
}

#[test]
fn deadlocks_with_another_client_are_tried_again() {
    let patience = format!("deadlock_timeout = '{PATIENCE}'");
    survives(
        "deadlocks",
        [&patience, &patience],
        Order::Shuffled,
        "40P01",
    );
}

#[test]
fn databases_that_ask_for_more_isolation_are_written_to_as_exactly() {
    let defaults = [
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_isolation = 'serializable'",
    ];
    survives("serialization-failures", defaults, Order::ByKey, "40001");
}
