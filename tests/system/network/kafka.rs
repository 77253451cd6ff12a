//! The broker is behind a bad network, for the consumer only.

use super::{HARM, STILL, kafka_address, kafka_told, kafka_told_port};
use crate::checker::{Checker, Looks, Members};
use crate::child::Process;
use crate::faults::trial::{Load, RATE, SOON, Trial, applied, pond};
use crate::pond::{Pond, SHARDS, environment, free_port};
use crate::proxy::{End, Manner, Proxy, Way};
use crate::reading::Reading;
use crate::spine::seed;
use millpond::kafka::admin::Admin;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// There is one address that the broker tells.
static TOLD: Mutex<()> = Mutex::new(());

/// Requests that nobody answers are given up after that time, as the detour has it; librdkafka's own default is a minute.
const REQUEST: &str = "\"socket.timeout.ms\" = \"4000\"";

const RECEIVED: &str = "millpond_received_messages_total";
const CUTS: u32 = 6;

/// The proxy at the address that the broker tells, one at a time.
struct Detour {
    proxy: Proxy,
    _alone: MutexGuard<'static, ()>,
}

impl Detour {
    fn open() -> Self {
        let alone = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        let address = SocketAddr::from(([127, 0, 0, 1], kafka_told_port()));
        Self {
            proxy: Proxy::on(address, kafka_address()),
            _alone: alone,
        }
    }

    /// The configuration that leads through it.
    fn config(pond: &Pond) -> PathBuf {
        let settings = format!("[kafka.librdkafka]\n{REQUEST}\n\"broker.address.family\" = \"v4\"");
        pond.detour(&[
            (&environment("MILLPOND_TEST_KAFKA"), &kafka_told()),
            ("[kafka.librdkafka]", &settings),
        ])
    }
}

fn received(trial: &Trial) -> f64 {
    let received = trial.reading().sum(RECEIVED);
    received.unwrap()
}

fn assigned(now: &Reading) -> Option<f64> {
    now.sum("millpond_assigned_partitions")
}

#[test]
fn connections_to_the_broker_that_are_cut_sliced_or_narrow_are_got_over() {
    let detour = Detour::open();
    let proxy = &detour.proxy;
    let pond = pond("network-kafka", "");
    let consumer = Process::start(&Detour::config(&pond), &["run"], &[]);
    let load = Load {
        seconds: 20,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::with(pond, &load, consumer);

    // Less comes through than is produced.
    proxy.set(
        Way::Down,
        Manner {
            bytes_per_second: Some(10_000),
            ..Manner::default()
        },
    );
    let admin = Admin::connect(&trial.pond.configuration().kafka).unwrap();
    trial.wait_for("the consumer falls behind", |now| {
        let Ok(ends) = admin.end_offsets(&trial.pond.topic, SOON) else {
            return false;
        };
        let produced = ends.iter().sum::<i64>() as f64;
        now.sum(RECEIVED)
            .is_some_and(|received| produced > received + f64::from(RATE))
    });

    // Then everything comes in slices, and catches up.
    proxy.set_both(Manner {
        slice: Some((2000, Duration::from_millis(1))),
        ..Manner::default()
    });
    let before = received(&trial);
    trial.wait_for("messages come in slices", |now| {
        now.sum(RECEIVED) > Some(before + f64::from(RATE))
    });
    proxy.set_both(Manner::default());

    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let made = proxy.made();
    for cut in 0..CUTS {
        // What comes after a cut comes over another connection.
        let before = received(&trial);
        match cut % 3 {
            0 => _ = proxy.end_all(End::Cut),
            1 => _ = proxy.end_all(End::Reset),
            _ => proxy.end_after(Way::Down, random.random_range(1..20_000), End::Reset),
        }
        trial
            .pond
            .wait_for("the end has come", SOON, |_| !proxy.end_is_due());
        trial.wait_for("messages come again", |now| {
            now.sum(RECEIVED) > Some(before)
        });
    }
    let made = proxy.made() - made;
    assert!(made > 0, "connections were made anew");
    let recovery = trial.recover();
    let observed = format!(
        "seed {seed}: a second behind at 10 kB/s, sliced, {CUTS} cuts, {made} connections made anew"
    );
    trial.conclude("kafka cut and narrow", &observed, recovery, consumer);
}

/// The broker throws the silent member out, and another one takes its partitions over; what the silent one still does is
/// harmless. Then the other one goes, and the first, whose connections are dead for ever, has to make others.
#[test]
fn a_member_whose_broker_says_nothing_past_the_session_is_replaced_and_comes_back() {
    let detour = Detour::open();
    let proxy = &detour.proxy;
    let pond = pond("network-silent", "");
    let first = Process::start(&Detour::config(&pond), &["run"], &[]);
    let load = Load {
        seconds: 24,
        ..Load::default()
    };
    let (mut trial, first) = Trial::with(pond, &load, first);
    let looks = Looks {
        one_row_in: 20,
        recovery_max: 2 * SOON,
    };
    let checker = Checker::watch(&trial.pond, looks, Members::default());
    let port = free_port();
    let listen = format!("admin.listen=127.0.0.1:{port}");

    proxy.set_both(STILL);
    let second = trial.pond.start(&["run", "--set", &listen], &[]);
    trial
        .pond
        .wait_for("the second has all partitions", SOON, |_| {
            Reading::take(port).is_some_and(|now| assigned(&now) == Some(12.0))
        });
    trial.wait_for("the first knows that it has none", |now| {
        assigned(now) == Some(0.0)
    });
    trial
        .pond
        .wait_for("both shards go on with the second", SOON, |_| {
            Reading::take(port)
                .is_some_and(|now| SHARDS.iter().all(|shard| applied(&now, shard) > 500.0))
        });
    // What the first had sent arrives late.
    proxy.set_both(Manner::default());
    trial.wait_for("the first is a member again", |now| {
        assigned(now) == Some(6.0)
    });

    // Its connections are dead, but new ones are not: it comes back by itself while it is alone.
    let ended = second.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
    trial.wait_for("the first has all partitions", |now| {
        assigned(now) == Some(12.0)
    });
    let (stranded, made) = (proxy.connections(), proxy.made());
    proxy.strand();
    let before = received(&trial);
    std::thread::sleep(HARM / 2);
    trial.wait_for("messages come over other connections", |now| {
        now.sum(RECEIVED) > Some(before + 5000.0)
    });
    assert!(proxy.made() > made);
    let recovery = trial.recover();
    let findings = checker.end();
    assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
    let observed = format!(
        "12 partitions taken over by another member and given back, {stranded} connections dead for ever; {} messages \
         compared meanwhile",
        findings.compared
    );
    trial.conclude("kafka half-open", &observed, recovery, first);
}
