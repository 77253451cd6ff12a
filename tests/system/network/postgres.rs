//! One shard's Postgres is behind a bad network. The other shard's rows go on.

use super::{HARM, STILL, postgres_address, postgres_at};
use crate::child::Process;
use crate::faults::trial::{Load, SOON, Trial, applied, down, pond};
use crate::pond::Pond;
use crate::proxy::{End, Manner, Proxy, Way};
use crate::reading::Reading;
use crate::spine::seed;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

/// As configured: what a partition of the narrow shard may hold.
const IN_MEMORY_MAX: f64 = 400.0;
/// Partitions of a shard.
const PARTITIONS: f64 = 6.0;

/// A consumer that reaches the second shard through a proxy.
fn behind_a_proxy(name: &str, consumer: &'static str, seconds: u32) -> (Proxy, Trial, Process) {
    let pond = pond(name, consumer);
    let proxy = Proxy::to(postgres_address(&pond, 1));
    let process = start(&pond, &proxy);
    let load = Load {
        seconds,
        ..Load::default()
    };
    let (trial, process) = Trial::with(pond, &load, process);
    (proxy, trial, process)
}

fn start(pond: &Pond, proxy: &Proxy) -> Process {
    let other = postgres_at(pond, 1, proxy.address());
    let config = pond.detour(&[(&pond.address(1), &other)]);
    Process::start(&config, &["run"], &[])
}

fn of_s1(name: &'static str) -> impl Fn(&Reading) -> f64 {
    move |now| now.sum_of(name, &[("shard", "s1")])
}

/// Nothing of the second shard is finished any more.
fn wait_until_s1_stands_still(trial: &Trial) {
    let deadline = Instant::now() + SOON;
    while trial.applied_within("s1", Duration::from_millis(500)) > 0.0 {
        assert!(Instant::now() < deadline, "s1 goes on");
    }
}

/// Ends connections in every way, in the middle of answers too: then a statement is committed and its worker does not know.
/// How often they ended.
fn cut_again_and_again(trial: &Trial, proxy: &Proxy, random: &mut SmallRng) -> usize {
    let replayed = of_s1("millpond_replayed_total");
    let (began, before) = (Instant::now(), replayed(&trial.reading()));
    let mut cuts = 0;
    while cuts < 16 || replayed(&trial.reading()) == before {
        assert!(
            began.elapsed() < SOON,
            "{cuts} cuts, and nothing was replayed"
        );
        trial.wait_for("both workers are connected", |now| down(now, "s1") == 0.0);
        std::thread::sleep(Duration::from_millis(random.random_range(0..100)));
        match cuts % 4 {
            0 => _ = proxy.end_all(End::Cut),
            1 => _ = proxy.end_all(End::Reset),
            2 => proxy.end_after(Way::Down, random.random_range(1..40), End::Reset),
            _ => proxy.end_after(Way::Up, random.random_range(1..4000), End::Cut),
        }
        trial
            .pond
            .wait_for("the end has come", SOON, |_| !proxy.end_is_due());
        cuts += 1;
    }
    cuts
}

#[test]
fn connections_that_are_cut_or_say_nothing_stop_their_shard_only() {
    let (proxy, mut trial, consumer) = behind_a_proxy("network-cut", "", 16);
    let seed = seed();
    let cuts = cut_again_and_again(&trial, &proxy, &mut SmallRng::seed_from_u64(seed));
    let retries = of_s1("millpond_retries_total")(&trial.reading());
    let replayed = of_s1("millpond_replayed_total")(&trial.reading());
    assert!(retries > 0.0, "a statement was sent again");
    trial.wait_for("both workers are connected", |now| down(now, "s1") == 0.0);

    // Nothing comes back. What was kept from coming comes in the end, over the same connections.
    let made = proxy.made();
    proxy.set(Way::Down, STILL);
    wait_until_s1_stands_still(&trial);
    trial.assert_goes_on("s0", HARM);
    let stuck = applied(&trial.reading(), "s1");
    proxy.set(Way::Down, Manner::default());
    trial.wait_for("the answers come", |now| applied(now, "s1") > stuck);
    assert_eq!(proxy.made(), made, "and the connections are the same");

    // The connections that are there are dead, and nobody says so, until something on the way does.
    proxy.strand();
    wait_until_s1_stands_still(&trial);
    trial.assert_goes_on("s0", HARM);
    let stuck = applied(&trial.reading(), "s1");
    proxy.end_all(End::Reset);
    trial.wait_for("others are made", |now| applied(now, "s1") > stuck);
    assert!(proxy.made() >= made + 2);

    let recovery = trial.recover();
    let observed = format!(
        "seed {seed}: {cuts} cuts, {retries} statements again, {replayed} messages replayed; s1 stood still twice, s0 went on"
    );
    trial.conclude("postgres cut and half-open", &observed, recovery, consumer);
}

/// The mean time of a statement of both shards since then.
fn mean_apply(now: &Reading, before: &Reading) -> f64 {
    let sum = |reading: &Reading| reading.sum("millpond_apply_seconds_sum").unwrap_or(0.0);
    let count = |reading: &Reading| reading.sum("millpond_apply_seconds_count").unwrap_or(0.0);
    (sum(now) - sum(before)) / (count(now) - count(before))
}

/// The second shard's messages in memory, by the most that was seen of a partition; panics where that is over the limit.
fn most_in_memory(trial: &Trial, time: Duration) -> f64 {
    let began = Instant::now();
    let mut most: f64 = 0.0;
    while began.elapsed() < time {
        let now = trial.reading();
        for partition in 0..12 {
            let labels = [("partition", &*partition.to_string())];
            let held = now.sum_of("millpond_in_memory_messages", &labels);
            assert!(
                held <= IN_MEMORY_MAX,
                "partition {partition} holds {held} messages"
            );
            most = most.max(held);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    most
}

#[test]
fn slow_and_narrow_connections_hold_their_shard_only_and_memory_stays_bounded() {
    let consumer = "in_memory_max_per_partition = 400\nbatch_rows_max = 200";
    let (proxy, mut trial, process) = behind_a_proxy("network-slow", consumer, 18);
    let usual = trial.reading();

    let slow = Duration::from_millis(100);
    proxy.set_both(Manner {
        delay: slow,
        jitter: slow / 4,
        ..Manner::default()
    });
    std::thread::sleep(2 * slow);
    let begun = trial.reading();
    trial.assert_goes_on("s0", HARM);
    let slowed = trial.reading();
    let progress = applied(&slowed, "s1") - applied(&begun, "s1");
    assert!(progress > 0.0, "a slow way is a way");
    let batches = of_s1("millpond_batches_total");
    let most = 2.0 * (HARM.as_secs_f64() + 2.0) / (2.0 * slow.as_secs_f64());
    let slow_batches = batches(&slowed) - batches(&begun);
    assert!(slow_batches > 0.0 && slow_batches < 10.0 * most);

    // Answers come in pieces of a few bytes.
    proxy.set_both(Manner::default());
    proxy.set(
        Way::Down,
        Manner {
            slice: Some((5, Duration::from_millis(1))),
            ..Manner::default()
        },
    );
    let before = applied(&trial.reading(), "s1");
    trial.assert_goes_on("s0", HARM);
    trial.wait_for("s1 goes on", |now| applied(now, "s1") > before + 200.0);

    // Less comes through than there is to write.
    proxy.set_both(Manner::default());
    proxy.set(
        Way::Up,
        Manner {
            bytes_per_second: Some(20_000),
            ..Manner::default()
        },
    );
    trial.wait_for("the narrow shard's partitions are full", |now| {
        let labels = |partition: u32| [("partition", partition.to_string())];
        let held = |partition| {
            let [(name, partition)] = labels(partition);
            now.sum_of("millpond_in_memory_messages", &[(name, &partition)])
        };
        (6..12).map(held).sum::<f64>() > PARTITIONS / 2.0 * IN_MEMORY_MAX
    });
    let most_held = most_in_memory(&trial, HARM);
    trial.assert_goes_on("s0", HARM);
    let carried = proxy.carried(Way::Up);
    proxy.set_both(Manner::default());

    let recovery = trial.recover();
    let observed = format!(
        "s1 applied {progress} in {slow_batches} batches with 200 ms a round trip, at most {most_held} messages of a partition \
         in memory behind 20 kB/s, {carried} bytes up; a message took {:.3} s on average",
        mean_apply(&trial.reading(), &usual)
    );
    trial.conclude("postgres slow and narrow", &observed, recovery, process);
}
