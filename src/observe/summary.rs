//! What a run did, as one JSON line, and its distributions as an HdrHistogram log.

use super::process;
use super::recorder::Registry;
use crate::clock;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// What a run did. The fields' names are its JSON keys.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Messages finished: applied, replayed, skipped or dead-lettered.
    pub messages: u64,
    /// Rows written.
    pub rows_written: u64,
    /// Messages that another one's row write covered.
    pub folded: u64,
    /// Folds of which the fence let only the later part through.
    pub folds_cut: u64,
    /// Messages that were applied before.
    pub replayed: u64,
    /// Messages that a rule or `on_missing_row` skipped.
    pub skipped: u64,
    /// Messages that are in the dead letter topic.
    pub dead_lettered: u64,
    /// How long the work took.
    pub seconds: f64,
    /// Messages by seconds.
    pub messages_per_s: f64,
    /// Microseconds of processor time of the whole process by messages.
    pub cpu_us_per_message: f64,
    /// The most memory that was in use; 0 where the kernel doesn't tell.
    pub peak_rss_bytes: u64,
    /// From dispatch to the statement's return.
    pub apply_us: Quantiles,
    /// From the Kafka timestamp to applied.
    pub end_to_end_us: Quantiles,
}

/// A distribution of durations, in microseconds; all 0 without a value.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Half of the values are at or below it.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The largest.
    pub max: u64,
    /// How many values.
    pub count: u64,
}

impl Summary {
    /// Of what is recorded so far. Time counts from the first message received to the last one finished.
    pub fn of(registry: &Registry) -> Self {
        let elapsed = registry.worked();
        let messages = registry.finished();
        let histograms = registry.histograms();
        Self {
            messages,
            rows_written: registry.sum(|worker| worker.rows_written.get()),
            folded: registry.sum(|worker| worker.folded.get()),
            folds_cut: registry.sum(|worker| worker.folds_cut.get()),
            replayed: registry.sum(|worker| worker.replayed.get()),
            skipped: registry.sum(|worker| worker.skipped.get()),
            dead_lettered: registry.dead_lettered(),
            seconds: elapsed.as_secs_f64(),
            messages_per_s: ratio(Duration::from_secs(messages), elapsed),
            cpu_us_per_message: ratio(process::cpu(), Duration::from_micros(messages)),
            peak_rss_bytes: process::status().map_or(0, |status| status.resident_bytes_peak),
            apply_us: Quantiles::of(&histograms.apply_us),
            end_to_end_us: Quantiles::of(&histograms.end_to_end_us),
        }
    }
}

/// 0 where there is nothing to divide by, since JSON has no infinity.
fn ratio(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        0.0
    } else {
        part.div_duration_f64(whole)
    }
}

impl Quantiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

/// Writes all distributions to a new file in HdrHistogram's log format (1.3), which its plotters read: one interval for the
/// whole run, tagged `apply_us`, `end_to_end_us` and `batch_rows`. An existing file is replaced.
///
/// # Errors
/// The file can't be written.
pub fn write_histogram_log(path: &Path, registry: &Registry) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let lasted = clock::now().duration_since(registry.started);
    let started =
        UNIX_EPOCH + Duration::from_millis(clock::wall_ms().unsigned_abs()).saturating_sub(lasted);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(started)
        .with_base_time(started)
        .begin_log_with(&mut file, &mut serializer)?;
    let all = registry.histograms();
    for (name, histogram) in [
        ("apply_us", &all.apply_us),
        ("end_to_end_us", &all.end_to_end_us),
        ("batch_rows", &all.batch_rows),
    ] {
        log.write_histogram(histogram, Duration::ZERO, lasted, Tag::new(name))
            .map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error,
                IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
            })?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::recorder::WorkerRecorder;
    use super::*;
    use crate::dead::Reason;
    use crate::ids::ShardIndex;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::sync::Arc;

    fn two_workers() -> Registry {
        let registry = Registry::new(1, vec![ShardIndex(0)], vec!["a".to_owned()]);
        for lane in 0..2 {
            let worker = Arc::new(WorkerRecorder::new(0, ShardIndex(0), lane));
            worker.messages.add(500);
            worker.finished_at_us.set(5_000_000);
            worker.rows_written.add(300);
            worker.folded.add(200);
            for value in 1..=500 {
                worker.histograms.lock().apply_us.record(value * 2).unwrap();
            }
            registry.workers.lock().push(worker);
        }
        registry.pollers[0].first_message_at_us.set(1_000_000);
        registry.dead_letters[Reason::Empty as usize].add(3);
        registry
    }

    #[test]
    fn the_summary_has_the_promised_keys_and_sums_over_the_workers() {
        let summary = Summary::of(&two_workers());
        let json = serde_json::to_value(&summary).unwrap();
        let keys = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>();
        let mut promised = "messages rows_written folded folds_cut replayed skipped dead_lettered seconds messages_per_s \
                            cpu_us_per_message peak_rss_bytes apply_us end_to_end_us"
            .split_whitespace()
            .collect::<Vec<_>>();
        promised.sort_unstable();
        assert_eq!(keys, promised);
        assert_eq!(json["messages"], 1000);
        assert_eq!(json["rows_written"], 600);
        assert_eq!(json["dead_lettered"], 3);
        assert_eq!(json["messages_per_s"], 250.0);
        assert!(summary.cpu_us_per_message > 0.0 && summary.peak_rss_bytes > 0);
        assert_eq!(
            json["apply_us"],
            serde_json::json!({"p50": 500, "p90": 900, "p99": 990, "p999": 1000, "max": 1000, "count": 1000})
        );
    }

    #[test]
    fn a_run_without_messages_has_only_finite_figures() {
        let registry = Registry::new(1, vec![], vec![]);
        let json = serde_json::to_string(&Summary::of(&registry)).unwrap();
        assert!(!json.contains("null"), "{json}");
    }

    #[test]
    fn the_histogram_log_is_read_back_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.hlog");
        write_histogram_log(&path, &two_workers()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let intervals = IntervalLogIterator::new(&bytes).filter_map(|entry| match entry.unwrap() {
            LogEntry::Interval(interval) => {
                Some((interval.tag().unwrap().as_str(), interval.max()))
            }
            LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
        });
        assert_eq!(
            intervals.collect::<Vec<_>>(),
            [
                ("apply_us", 1000.0),
                ("end_to_end_us", 0.0),
                ("batch_rows", 0.0)
            ]
        );
    }
}
