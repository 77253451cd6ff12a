//! What a running consumer says of itself at one moment: its metrics, its hottest rows and apps, its rules.

use crate::cli::admin_client::AdminClient;
use crate::clock;
use crate::rules::shown::Shown as Rule;
use serde::Deserialize;
use std::time::Instant;

/// One moment.
#[derive(Debug)]
pub struct Reading {
    pub at: Instant,
    pub wall_ms: i64,
    /// `None`: ready; else why not.
    pub not_ready: Option<String>,
    pub metrics: Metrics,
    pub hot: Hot,
    pub rules: Vec<Rule>,
}

impl Reading {
    /// Asks for all of it.
    pub fn take(client: &AdminClient) -> anyhow::Result<Self> {
        let (is_page, metrics) = client.get_text("/metrics")?;
        anyhow::ensure!(is_page, "{} has no /metrics: {metrics}", client.address());
        let (at, wall_ms) = (clock::now(), clock::wall_ms());
        let (is_ready, why_not) = client.get_text("/readyz")?;
        Ok(Self {
            at,
            wall_ms,
            not_ready: (!is_ready).then(|| why_not.trim().to_owned()),
            metrics: Metrics::parse(&metrics),
            hot: client.get("/api/hot")?,
            rules: client.get("/api/rules")?,
        })
    }
}

/// Every series of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Series>);

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    name: String,
    labels: Vec<(String, String)>,
    /// What it says.
    pub value: f64,
}

impl Metrics {
    /// Reads OpenMetrics text; lines that say no value are passed over.
    pub fn parse(page: &str) -> Self {
        Self(page.lines().filter_map(Series::parse).collect())
    }

    /// The series of a name.
    pub fn each<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m Series> {
        self.0.iter().filter(move |series| series.name == name)
    }

    /// Their sum; `None` without any.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values = self.each(name).map(|series| series.value);
        values.reduce(|sum, value| sum + value)
    }

    /// The sum of those with a label; `None` without any.
    pub fn sum_of(&self, name: &str, label: &str, is: &str) -> Option<f64> {
        let with = self
            .each(name)
            .filter(|series| series.label(label) == Some(is));
        let values = with.map(|series| series.value);
        values.reduce(|sum, value| sum + value)
    }
}

impl Series {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (name, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, rest) = labels(rest)?;
                (name, labels, rest)
            }
            None => {
                let (name, rest) = line.split_once(' ')?;
                (name, Vec::new(), rest)
            }
        };
        // A time or an exemplar may follow.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Labels up to the closing brace, and what follows it. Their values may hold anything, with escapes.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
    }
}

/// `/api/hot`, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
pub struct Hot {
    pub shards: Vec<HotShard>,
}

#[derive(Debug, Deserialize)]
pub struct HotShard {
    pub shard: String,
    pub rows: Vec<HotItem>,
    pub apps: Vec<HotItem>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct HotItem {
    pub app_id: String,
    /// `None` of an app.
    pub subscription_id: Option<String>,
    pub by_messages: HotPart,
    pub by_database_time: HotPart,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct HotPart {
    pub share: f64,
    pub per_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_labels_escapes_times_and_exemplars() {
        let page = "# HELP a b\n# TYPE a counter\n\
                    a_total{shard=\"s \\\"1\\\"\",lane=\"2\"} 3\n\
                    a_total{shard=\"}\"} 1.5 1700000000\n\
                    b_bucket{le=\"0.1\"} 7 # {trace_id=\"x\"} 0.05\n\
                    c -4\n# EOF\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.sum("a_total"), Some(4.5));
        assert_eq!(metrics.sum_of("a_total", "shard", "s \"1\""), Some(3.0));
        assert_eq!(metrics.sum_of("a_total", "shard", "}"), Some(1.5));
        assert_eq!(metrics.sum("b_bucket"), Some(7.0));
        assert_eq!(metrics.sum("c"), Some(-4.0));
        assert_eq!(metrics.sum("d"), None);
    }
}
