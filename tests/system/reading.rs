//! One reading of a running consumer's `/metrics`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A process that is stopped accepts and never answers.
const ANSWER: Duration = Duration::from_secs(5);

/// The answer of an admin address: status and body. `None`: nobody answers.
pub fn ask(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: millpond\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, body))
}

/// All metrics at one moment.
#[derive(Clone)]
pub struct Reading(String);

impl Reading {
    /// Reads them now. `None`: the consumer isn't up.
    pub fn take(port: u16) -> Option<Self> {
        ask(port, "/metrics").map(|(_, page)| Self(page))
    }

    /// A metric summed over its series; `None` without any.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.series(name, &[])
            .map(|(_, value)| value)
            .reduce(|sum, value| sum + value)
    }

    /// The same over the series that have these labels, 0 without any: `[("shard", "s0")]`.
    pub fn sum_of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).map(|(_, value)| value).sum()
    }

    /// The largest of a metric's series; `None` without any.
    pub fn most(&self, name: &str) -> Option<f64> {
        self.series(name, &[])
            .map(|(_, value)| value)
            .reduce(f64::max)
    }

    /// The smallest number of all metrics that are times, and the line that has it.
    pub fn shortest_time(&self) -> Option<(&str, f64)> {
        let lines = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_time = series.split('{').next()?.contains("_seconds");
            is_time.then_some((series, value.parse().ok()?))
        });
        lines.min_by(|one: &(&str, f64), other| one.1.total_cmp(&other.1))
    }

    /// The upper bound, in seconds, of the bucket in which that share of the values lies that came to a histogram since
    /// `earlier`; `None` where none came.
    pub fn quantile_since(&self, earlier: &Self, histogram: &str, share: f64) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let counts = |reading: &Self| -> Vec<(f64, f64)> {
            let bound = |labels: &str| labels.split('"').nth(1).map(str::parse);
            reading
                .series(&name, &[])
                .filter_map(|(labels, count)| Some((bound(labels)?.ok()?, count)))
                .collect()
        };
        let (now, before) = (counts(self), counts(earlier));
        let new: Vec<(f64, f64)> = now
            .iter()
            .zip(before)
            .map(|(now, before)| (now.0, now.1 - before.1))
            .collect();
        let all = new
            .last()
            .map(|(_, count)| *count)
            .filter(|all| *all > 0.0)?;
        let found = new.iter().find(|(_, count)| *count >= all * share);
        found.map(|(bound, _)| *bound)
    }

    /// Labels and value of each series of a metric that has these labels.
    fn series<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, shown) = series.split_once('{').unwrap_or((series, ""));
            let has =
                |(label, value): &(&str, &str)| shown.contains(&format!("{label}=\"{value}\""));
            (own == name && labels.iter().all(has)).then_some(())?;
            Some((shown, value.parse().ok()?))
        })
    }
}
