//! What a scrape shows of what was recorded.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Consumer, Format, Metrics};
use crate::clock;
use crate::dead::Reason;
use crate::hot::{Counting, Picture, Shelf};
use crate::ids::{AppId, RowKey, ShardIndex, SubscriptionId};
use crate::observe::recorder::{ConnectionState, Registry, WorkerRecorder};
use crate::sync::Ordering;
use std::sync::Arc;
use std::time::Duration;

fn registry() -> Arc<Registry> {
    let shard_of_partition = (0..720)
        .map(|partition| ShardIndex(partition / 360))
        .collect();
    let registry = Registry::new(1, shard_of_partition, vec!["a".to_owned(), "b".to_owned()]);
    for (shard, lane) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let worker = WorkerRecorder::new(0, ShardIndex(shard), lane);
        worker.messages.add(10);
        registry.workers.lock().push(Arc::new(worker));
    }
    Arc::new(registry)
}

fn metrics(registry: &Arc<Registry>) -> Metrics {
    Metrics::new().with(Consumer(registry.clone()))
}

fn render(registry: &Arc<Registry>) -> String {
    String::from_utf8(metrics(registry).render(Format::OpenMetrics)).unwrap()
}

#[track_caller]
fn assert_shows(page: &str, line: &str) {
    assert!(
        page.lines().any(|found| found == line),
        "no line {line} in\n{page}"
    );
}

#[test]
fn counters_are_summed_by_shard_and_states_counted() {
    let registry = registry();
    registry.workers.lock()[3].set_connection_state(ConnectionState::Busy);
    registry.workers.lock()[2].sent.add(5);
    registry.workers.lock()[2].taken.add(2);
    registry.workers.lock()[0].rate_wait_ns.add(1_500_000_000);
    registry.workers.lock()[0].rate_waits.add(3);
    registry.shards[1].down.store(true, Ordering::Relaxed);
    registry.shards[1].write_rate_max.set(900);
    registry.dead_letters[Reason::BadTags as usize].add(7);
    let page = render(&registry);
    for line in [
        "millpond_messages_total{shard=\"a\"} 20",
        "millpond_lane_depth{shard=\"b\",group=\"0\",lane=\"0\"} 3",
        "millpond_connections{shard=\"b\",state=\"busy\"} 1",
        "millpond_connections{shard=\"b\",state=\"down\"} 1",
        "millpond_write_rate_wait_seconds_total{shard=\"a\"} 1.5",
        "millpond_write_rate_waits_total{shard=\"a\"} 3",
        "millpond_write_rate_max{shard=\"b\"} 900",
        "millpond_ready 0",
        "millpond_shard_up{shard=\"a\"} 1",
        "millpond_shard_up{shard=\"b\"} 0",
        "millpond_dead_letters_total{reason=\"bad-tags\"} 7",
        "millpond_received_bytes_total{group=\"0\"} 0",
    ] {
        assert_shows(&page, line);
    }
}

#[test]
fn only_assigned_partitions_are_shown_with_their_lag() {
    let registry = registry();
    let partition = &registry.partitions[400];
    partition.assigned.store(true, Ordering::Relaxed);
    partition.watermark.set(10);
    partition.end_offset.set(25);
    let page = render(&registry);
    assert_shows(
        &page,
        "millpond_lag_messages{partition=\"400\",shard=\"b\"} 15",
    );
    assert_shows(
        &page,
        "millpond_oldest_in_memory_seconds{partition=\"400\",shard=\"b\"} 0.0",
    );
    assert!(!page.contains("partition=\"399\""));
    assert!(
        !page.contains("millpond_last_applied_timestamp_seconds{"),
        "nothing is applied yet"
    );
    partition.last_applied_timestamp_ms.set(1_700_000_000_250);
    partition.oldest_timestamp_ms.set(clock::wall_ms() - 60_000);
    let page = render(&registry);
    assert_shows(
        &page,
        "millpond_last_applied_timestamp_seconds{partition=\"400\",shard=\"b\"} 1700000000.25",
    );
    assert!(page.contains("millpond_time_lag_seconds{partition=\"400\",shard=\"b\"} 60."));
}

#[test]
fn buckets_hold_what_is_at_or_below_their_bound() {
    let registry = registry();
    for (worker, us) in [(0, 100), (1, 101), (2, 60_000_000), (3, 100_000_000)] {
        registry.workers.lock()[worker]
            .histograms
            .lock()
            .apply_us
            .record(us)
            .unwrap();
    }
    let page = render(&registry);
    for (bound, count) in [
        ("0.0001", 1),
        ("0.0002", 2),
        ("20.0", 2),
        ("60.0", 3),
        ("+Inf", 4),
    ] {
        assert_shows(
            &page,
            &format!("millpond_apply_seconds_bucket{{le=\"{bound}\"}} {count}"),
        );
    }
    assert_shows(&page, "millpond_apply_seconds_count 4");
    let sum = page
        .lines()
        .find_map(|line| line.strip_prefix("millpond_apply_seconds_sum "));
    assert!((159.8..160.2).contains(&sum.unwrap().parse::<f64>().unwrap()));
}

#[test]
fn every_name_begins_as_promised_and_comes_once() {
    let page = render(&registry());
    let mut names = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect::<Vec<_>>();
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("millpond_") || name.starts_with("process_"))
    );
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn a_scrape_of_720_partitions_takes_milliseconds() {
    let registry = registry();
    registry
        .partitions
        .iter()
        .for_each(|partition| partition.assigned.store(true, Ordering::Relaxed));
    let metrics = metrics(&registry);
    for format in [Format::OpenMetrics, Format::Text, Format::Protobuf] {
        let fastest = (0..10).map(|_| {
            let begin = clock::now();
            assert!(metrics.render(format).len() > 100_000);
            begin.elapsed()
        });
        let fastest = fastest.min().unwrap();
        assert!(
            fastest < Duration::from_millis(15),
            "{format:?}: {fastest:?}"
        );
    }
}

#[test]
fn hot_shares_are_shown_by_shard_without_saying_whose_they_are() {
    let registry = registry();
    let begin = clock::now();
    let later = begin + Duration::from_secs(1);
    let mut counting = Counting::new(begin);
    let row = |app, number| RowKey {
        app: AppId([app; 16]),
        subscription: SubscriptionId([number; 16]),
    };
    let rows = [(row(0xee, 1), 30), (row(0xee, 2), 20), (row(0xdd, 3), 10)];
    counting.sample(60, rows.into_iter());
    counting.count(Duration::ZERO, later);
    let shelf = Shelf::default();
    counting.hand_over(&shelf, later);
    let shelves = [(ShardIndex(1), &shelf)].into_iter();
    registry.hot.show(Picture::of(2, shelves, later));
    let page = render(&registry);
    assert_shows(&page, "millpond_hot_row_share{shard=\"a\"} 0.0");
    assert_shows(&page, "millpond_hot_row_share{shard=\"b\"} 0.5");
    assert!(page.contains("millpond_hot_app_share{shard=\"b\"} 0.833"));
    assert!(!page.contains("eeee"));
}
