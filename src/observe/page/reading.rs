//! From what the process has recorded to the document. Reads counters and copies of pointers; it takes no lock that a poller or
//! a worker takes for a message.

use super::board::Recent;
use super::document::{
    Document, HotItem, HotItems, LANES_MAX, Now, Partitions, Poller, Process, RULES_MAX, Readiness,
    Rules, Shard, ShownRule, TOP_MAX,
};
use super::findings::BEHIND_S;
use super::sampler::rounded;
use crate::dead::Reason;
use crate::hot::{By, Picture, rule_for_app, rule_for_row};
use crate::ids::ShardIndex;
use crate::observe::Registry;
use crate::observe::process;
use crate::observe::recorder::{ConnectionState, PartitionRecorder, WorkerRecorder};
use crate::rules::table::{Entry, Table};
use crate::sync::Ordering;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// A batch takes milliseconds. One that takes so long is worth a word.
const LONG_BATCH_MS: i64 = 5000;

/// All but `changes`, `findings` and `processes`.
pub fn document(registry: &Registry, readiness: Readiness, rules: &Table) -> Document {
    let (at_ms, running_ms) = (crate::clock::wall_ms(), crate::clock::running_ms());
    let recent = registry.page.recent();
    let workers = registry.workers_on_duty();
    let partitions = partitions(registry, at_ms);
    let shards = shards(registry, &partitions, &recent, (&workers, running_ms));
    let about = &registry.page.about;
    Document {
        at_ms,
        process: this_process(registry),
        topic: about.topic.clone(),
        group: about.group.clone(),
        partitions_of_topic: registry.partitions.len(),
        readiness,
        now: now(registry, &recent, &partitions),
        partitions,
        shards,
        pollers: pollers(registry, running_ms),
        latency: (*recent.latency).clone(),
        history: (*recent.history).clone(),
        hot: hot(registry, &registry.hot.picture()),
        rules: shown_rules(rules, crate::clock::timestamp()),
        ..Document::default()
    }
}

fn this_process(registry: &Registry) -> Process {
    let status = process::status().ok();
    Process {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: registry.page.about.host.clone(),
        pid: std::process::id(),
        uptime_s: registry.started.elapsed().as_secs(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        rss_bytes: status.map_or(0, |status| status.resident_bytes),
        threads: status.map_or(0, |status| status.threads),
    }
}

fn now(registry: &Registry, recent: &Recent, partitions: &Partitions) -> Now {
    let sum = |rate: fn(&super::board::ShardRates) -> f64| recent.shards.iter().map(rate).sum();
    let counts = Reason::ALL.iter().zip(&registry.dead_letters);
    let most = counts.max_by_key(|(_, count)| count.get());
    let most = most.filter(|(_, count)| count.get() > 0);
    Now {
        messages_per_s: rounded(recent.messages_per_s()),
        received_per_s: rounded(recent.received_per_s),
        rows_per_s: rounded(sum(|shard| shard.rows_per_s)),
        skipped_per_s: rounded(sum(|shard| shard.skipped_per_s)),
        dead_per_s: rounded(recent.dead_per_s),
        dead_reason: most.map_or(String::new(), |(reason, count)| {
            format!("{}: {}", reason.as_str(), count.get())
        }),
        cpu: rounded(recent.cpu),
        idle: rounded(recent.idle),
        lag: partitions.lag.iter().map(|lag| (*lag).max(0)).sum(),
        time_lag_s: seconds(partitions.time_lag_ms.iter().copied().max().unwrap_or(0)),
        in_memory: partitions.in_memory.iter().sum(),
        assigned: partitions.number.len(),
        kafka_errors: recent.minute.kafka_errors,
        commit_failures: recent.minute.commit_failures,
    }
}

/// A lag of -1 is one that is not known yet.
fn partitions(registry: &Registry, now_ms: i64) -> Partitions {
    let mut columns = Partitions::default();
    for (number, partition) in registry.partitions.iter().enumerate() {
        if !partition.assigned.load(Ordering::Relaxed) {
            continue;
        }
        let is_known = partition.watermark.get() >= 0 && partition.end_offset.get() >= 0;
        let lag = partition.lag_messages();
        columns.number.push(number);
        columns.lag.push(if is_known { lag } else { -1 });
        let time_lag = Duration::from_secs_f64(partition.time_lag_seconds(now_ms));
        columns
            .time_lag_ms
            .push(i64::try_from(time_lag.as_millis()).unwrap_or(i64::MAX));
        columns.oldest_ms.push(oldest_ms(partition));
        columns.in_memory.push(partition.in_memory_messages.get());
        columns.alarm.push(partition.alarm.get());
    }
    columns
}

fn oldest_ms(partition: &PartitionRecorder) -> i64 {
    match partition.oldest_dispatched_ms.get() {
        0 => 0,
        dispatched_ms => crate::clock::running_ms() - dispatched_ms,
    }
}

fn shards(
    registry: &Registry,
    partitions: &Partitions,
    recent: &Recent,
    (workers, now_ms): (&[Arc<WorkerRecorder>], i64),
) -> Vec<Shard> {
    let mut lanes_left = LANES_MAX;
    let groups = registry.pollers.len().max(1);
    let names = registry.shard_names.iter().enumerate();
    let shards = names.map(|(index, name)| {
        let own = workers.iter().filter(|worker| worker.shard.0 == index);
        let own: Vec<&WorkerRecorder> = own.map(|worker| &**worker).collect();
        let lanes = lanes(&own, now_ms, lanes_left);
        lanes_left -= lanes.len();
        let rates = recent.shards.get(index).copied().unwrap_or_default();
        let state = &registry.shards[index];
        let mut shard = Shard {
            name: name.clone(),
            apps: apps(registry.page.about.apps.get(index).copied()),
            up: !state.down.load(Ordering::Relaxed),
            why: state.why.lock().clone(),
            lag_per_s: rounded(recent.minute.lag_per_s.get(index).copied().unwrap_or(0.0)),
            messages_per_s: rounded(rates.messages_per_s),
            rows_per_s: rounded(rates.rows_per_s),
            held_back: rounded(rates.held_back),
            bound: u32::try_from(state.write_rate_max.get()).unwrap_or(0),
            connections: connections(&own),
            parked: own.iter().map(|worker| worker.parked.get()).sum(),
            workers: own.len() / groups,
            longest: longest(&own, now_ms),
            lanes,
            ..Shard::default()
        };
        add_partitions(&mut shard, registry, partitions, ShardIndex(index));
        shard
    });
    shards.collect()
}

/// What is known of the shard's partitions.
fn add_partitions(shard: &mut Shard, registry: &Registry, columns: &Partitions, of: ShardIndex) {
    let owners = &registry.shard_of_partition;
    let all = owners.iter().filter(|owner| **owner == of).count();
    let first = owners.iter().position(|owner| *owner == of).unwrap_or(0);
    shard.partitions = (first, all);
    let mut oldest_ms = 0;
    for (at, number) in columns.number.iter().enumerate() {
        if owners[*number] != of {
            continue;
        }
        let time_lag_ms = columns.time_lag_ms[at];
        shard.here += 1;
        shard.lag += columns.lag[at].max(0);
        shard.behind += usize::from(seconds(time_lag_ms) >= BEHIND_S);
        if time_lag_ms > oldest_ms {
            (oldest_ms, shard.oldest_partition) = (time_lag_ms, *number);
        }
    }
    shard.time_lag_s = seconds(oldest_ms);
    if all > 0 {
        shard.bound_here = rounded(f64::from(shard.bound) * shard.here as f64 / all as f64);
    }
}

/// `80–ff`.
fn apps(range: Option<(u8, u8)>) -> String {
    range.map_or(String::new(), |(first, last)| {
        format!("{first:02x}–{last:02x}")
    })
}

fn connections(workers: &[&WorkerRecorder]) -> [usize; 3] {
    let mut counts = [0; 3];
    for worker in workers {
        counts[usize::try_from(connection(worker)).unwrap_or(0)] += 1;
    }
    counts
}

fn connection(worker: &WorkerRecorder) -> i64 {
    match worker.connection_state() {
        ConnectionState::Idle => 0,
        ConnectionState::Busy => 1,
        ConnectionState::Down => 2,
    }
}

fn lanes(workers: &[&WorkerRecorder], now_ms: i64, max: usize) -> Vec<[i64; 6]> {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let lane = |worker: &&WorkerRecorder| {
        [
            number(worker.group),
            number(worker.lane),
            i64::try_from(worker.lane_depth()).unwrap_or(i64::MAX),
            connection(worker),
            worker.parked.get(),
            batch_ms(worker, now_ms),
        ]
    };
    let mut lanes: Vec<[i64; 6]> = workers.iter().map(lane).collect();
    lanes.sort_unstable();
    lanes.truncate(max);
    lanes
}

/// How long the worker has been at its batch; 0 between two.
fn batch_ms(worker: &WorkerRecorder, now_ms: i64) -> i64 {
    match worker.turn_began_ms.get() {
        0 => 0,
        began_ms => (now_ms - began_ms).max(0),
    }
}

fn longest(workers: &[&WorkerRecorder], now_ms: i64) -> String {
    let longest = workers
        .iter()
        .max_by_key(|worker| batch_ms(worker, now_ms))
        .filter(|worker| batch_ms(worker, now_ms) >= LONG_BATCH_MS);
    longest.map_or(String::new(), |worker| worker.doing())
}

fn pollers(registry: &Registry, now_ms: i64) -> Vec<Poller> {
    let pollers = registry.pollers.iter().map(|poller| Poller {
        silent_ms: match poller.polled_at_ms.get() {
            0 => 0,
            polled_at_ms => (now_ms - polled_at_ms).max(0),
        },
        partitions: poller.partitions.get(),
        rebalances: poller.rebalances.get(),
    });
    pollers.collect()
}

fn hot(registry: &Registry, picture: &Picture) -> HotItems {
    let shards = || picture.shards.iter().enumerate();
    let rows = shards().flat_map(|(shard, of)| {
        let rows = of.rows.iter().take(TOP_MAX);
        rows.map(move |row| HotItem {
            shard,
            app: row.key.app.to_string(),
            subscription: row.key.subscription.to_string(),
            share: rounded(row.by(By::Messages).share),
            messages_per_s: rounded(row.by(By::Messages).per_s),
            database_share: rounded(row.by(By::DatabaseTime).share),
            rule: rule_for_row(&row.key),
        })
    });
    let apps = shards().flat_map(|(shard, of)| {
        let apps = of.apps.iter().take(TOP_MAX);
        apps.map(move |app| HotItem {
            shard,
            app: app.key.to_string(),
            subscription: String::new(),
            share: rounded(app.by(By::Messages).share),
            messages_per_s: rounded(app.by(By::Messages).per_s),
            database_share: rounded(app.by(By::DatabaseTime).share),
            rule: rule_for_app(&app.key),
        })
    });
    HotItems {
        row_share: registry.page.about.row_share,
        app_share: registry.page.about.app_share,
        rows: heaviest(rows.collect()),
        apps: heaviest(apps.collect()),
    }
}

fn heaviest(mut items: Vec<HotItem>) -> Vec<HotItem> {
    items.sort_by(|one, other| other.messages_per_s.total_cmp(&one.messages_per_s));
    items.truncate(TOP_MAX);
    items
}

fn shown_rules(table: &Table, now: Timestamp) -> Rules {
    let active = table.entries.iter();
    let mut active: Vec<&Entry> = active.filter(|entry| entry.rule.is_active(now)).collect();
    active.sort_by_key(|entry| std::cmp::Reverse(entry.rule.created_at));
    Rules {
        active: active.len(),
        shown: active.into_iter().take(RULES_MAX).map(shown).collect(),
    }
}

fn shown(entry: &Entry) -> ShownRule {
    let rule = &entry.rule;
    let (subscription, parent) = rule.target.ids();
    ShownRule {
        id: rule.id.to_string(),
        app: rule.target.app().to_string(),
        subscription: subscription.map_or(String::new(), |id| id.to_string()),
        parent: parent.map_or(String::new(), |id| id.to_string()),
        reason: rule.reason.clone(),
        author: rule.author.clone(),
        created_at: rule.created_at.to_string(),
        until: rule.until.map_or(String::new(), |until| until.to_string()),
        skipped: entry.skipped.get(),
        undecided: entry.undecided.len(),
    }
}

fn seconds(milliseconds: i64) -> f64 {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)).as_secs_f64()
}
