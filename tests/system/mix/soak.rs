//! What must stay flat over time while faults come and go: memory, open files and threads of the members that no fault ends,
//! and the connections that all members together have.
//!
//! The rule. The first quarter is warm-up and is left out. The growth of a series is the slope of a line through the rest that
//! no single value can bend (Theil and Sen: the median of the slopes between all pairs), times the time that the rest took.
//! It is flat if that is at most a tenth of the median, or 16 MiB, or 4 of what is counted, whichever is more; and if,
//! where it is more than half of that, the medians of four equal parts of the rest don't rise each time.

use super::{Size, World};
use crate::checker::resident_bytes;
use postgres::{Client, NoTls};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MIB: f64 = 1_048_576.0;
/// Few enough for all pairs.
const POINTS: usize = 500;

/// One figure over time, in seconds.
struct Series {
    name: String,
    /// A growth that is always allowed.
    slack: f64,
    points: Vec<(f64, f64)>,
}

/// What a series came to after the warm-up.
#[derive(Debug)]
struct Growth {
    median: f64,
    largest: f64,
    /// Over the whole time, and for an hour.
    growth: f64,
    per_hour: f64,
    allowed: f64,
    is_flat: bool,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Series {
    fn new(name: String, slack: f64) -> Self {
        let points = Vec::new();
        Self {
            name,
            slack,
            points,
        }
    }

    /// By the rule above. `None`: too few values to tell.
    fn judge(&self) -> Option<Growth> {
        let (first, last) = (self.points.first()?.0, self.points.last()?.0);
        let warm = first + (last - first) / 4.0;
        let rest: Vec<(f64, f64)> = (self.points.iter().copied())
            .filter(|(at, _)| *at >= warm)
            .collect();
        if rest.len() < 8 {
            return None;
        }
        let step = rest.len().div_ceil(POINTS);
        let few: Vec<(f64, f64)> = rest.iter().copied().step_by(step).collect();
        let pairs = few.iter().enumerate().flat_map(|(index, from)| {
            let later = few[index + 1..].iter();
            later.map(move |to| (to.1 - from.1) / (to.0 - from.0))
        });
        let slope = median(pairs.collect());
        let values =
            |part: &[(f64, f64)]| part.iter().map(|(_, value)| *value).collect::<Vec<f64>>();
        let median_of_all = median(values(&rest));
        let allowed = self.slack.max(median_of_all / 10.0);
        let growth = slope * (last - rest[0].0);
        let parts: Vec<f64> = rest
            .chunks(rest.len().div_ceil(4))
            .map(|part| median(values(part)))
            .collect();
        let rises = parts.windows(2).all(|two| two[1] > two[0]);
        Some(Growth {
            median: median_of_all,
            largest: values(&rest).into_iter().fold(0.0, f64::max),
            growth,
            per_hour: slope * 3600.0,
            allowed,
            is_flat: growth <= allowed && !(rises && growth > allowed / 2.0),
        })
    }
}

/// All that was sampled.
pub struct Samples {
    every: Duration,
    series: Vec<Series>,
}

impl Samples {
    /// Adds a table to the report. Whether all is flat.
    pub fn judge(&self, report: &mut String) -> bool {
        writeln!(
            report,
            "\nSampled every {} s; the first quarter left out.\n\n| figure | median | largest | growth | allowed | in an hour | |\n\
             |---|---|---|---|---|---|---|",
            self.every.as_secs_f64()
        )
        .unwrap();
        let mut is_flat = true;
        for series in &self.series {
            let judged = series.judge();
            is_flat &= judged.as_ref().is_some_and(|judged| judged.is_flat);
            let Some(it) = judged else {
                writeln!(report, "| {} | too few values |", series.name).unwrap();
                continue;
            };
            let verdict = if it.is_flat { "flat" } else { "NOT FLAT" };
            writeln!(
                report,
                "| {} | {:.1} | {:.1} | {:+.1} | {:.1} | {:+.1} | {verdict} |",
                series.name, it.median, it.largest, it.growth, it.allowed, it.per_hour
            )
            .unwrap();
        }
        writeln!(
            report,
            "\nverdict: {}",
            if is_flat { "flat" } else { "NOT FLAT" }
        )
        .unwrap();
        is_flat
    }
}

/// A thread that samples. Ended with its value.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Samples>>,
}

impl Sampler {
    pub fn begin(world: &World, size: &Size) -> Self {
        let kept = (0..size.kept).filter_map(|place| world.fleet.at(place));
        let processes: Vec<u32> = kept.map(|(process, _)| process).collect();
        let addresses = [0, 1].map(|shard| world.pond.address(shard));
        let every = (size.time.end / 60).clamp(Duration::from_secs(1), Duration::from_secs(10));
        let stop = Arc::new(AtomicBool::new(false));
        let over = stop.clone();
        let thread = std::thread::Builder::new().name("sampler".to_owned());
        let sample = move || sample(&processes, &addresses, every, &over);
        Self {
            stop,
            thread: Some(thread.spawn(sample).unwrap()),
        }
    }

    pub fn end(mut self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("it goes on")
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn entries(directory: &str) -> Option<f64> {
    let count = std::fs::read_dir(directory).ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

/// Connections of the members to all shards; `None` while one doesn't tell.
fn connections(addresses: &[String; 2]) -> Option<f64> {
    let query = "SELECT count(*)::float8 FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name LIKE 'millpond%'";
    let of = |address: &String| -> Option<f64> {
        let row = Client::connect(address, NoTls).ok()?.query_one(query, &[]);
        Some(row.ok()?.get(0))
    };
    Some(of(&addresses[0])? + of(&addresses[1])?)
}

fn sample(
    processes: &[u32],
    addresses: &[String; 2],
    every: Duration,
    over: &AtomicBool,
) -> Samples {
    let mut series: Vec<Series> = (1..=processes.len())
        .flat_map(|number| {
            [
                ("resident, MiB", 16.0),
                ("open files", 4.0),
                ("threads", 4.0),
            ]
            .map(|(figure, slack)| Series::new(format!("consumer {number}: {figure}"), slack))
        })
        .collect();
    series.push(Series::new("connections of all".to_owned(), 4.0));
    let began = Instant::now();
    let mut due = began;
    while !over.load(Ordering::Relaxed) {
        if Instant::now() < due {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        due = Instant::now() + every;
        let of_processes = processes.iter().flat_map(|process| {
            [
                resident_bytes(*process).map(|bytes| bytes / MIB),
                entries(&format!("/proc/{process}/fd")),
                entries(&format!("/proc/{process}/task")),
            ]
        });
        let figures: Vec<Option<f64>> = of_processes.chain([connections(addresses)]).collect();
        let at = began.elapsed().as_secs_f64();
        for (series, figure) in series.iter_mut().zip(figures) {
            series.points.extend(figure.map(|figure| (at, figure)));
        }
    }
    Samples { every, series }
}

#[test]
fn the_rule_of_what_is_flat_tells_a_leak_from_noise() {
    let judged = |value: &dyn Fn(f64) -> f64| {
        let mut series = Series::new(String::new(), 4.0);
        series.points = (0..400)
            .map(|at| (f64::from(at), value(f64::from(at))))
            .collect();
        series.judge().expect("enough values")
    };
    // Up and down all the time, and one value that is far off.
    assert!(judged(&|at| 100.0 + (at * 7.0) % 30.0).is_flat);
    assert!(judged(&|at| if at == 390.0 { 9000.0 } else { 100.0 }).is_flat);
    // It grows to what it needs, and stays there.
    assert!(judged(&|at| 40.0 + at.min(90.0)).is_flat);
    assert!(judged(&|at| 200.0 - at / 10.0).is_flat);
    // A leak, and one that is small but never stops.
    assert!(!judged(&|at| 100.0 + at / 10.0 + (at * 7.0) % 30.0).is_flat);
    let small = judged(&|at| 100.0 + at / 40.0);
    assert!(small.growth < small.allowed && !small.is_flat, "{small:?}");
    assert!(Series::new(String::new(), 4.0).judge().is_none());
}
