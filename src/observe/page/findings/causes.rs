//! Why a shard is behind, as far as the figures show it. Causes are tried in order, the surest first: a shard that is down
//! explains all, and that all its connections work explains something only where nothing else does.

use super::words::{count, counted, duration, percent, rate};
use crate::observe::page::document::{Document, HotItem, Shard, Step};

/// Of a bound, from which share on it is what holds the shard back. The steady pace is ten elevenths of it.
const BOUND_REACHED: f64 = 0.85;
/// Workers that wait for the write rate for so much of their time are held back by it.
const HELD_BACK: f64 = 0.25;
/// As the alert for the incident has it.
const IDLE: f64 = 0.8;
/// CPU is low if it is so far below its mean. Less happens by chance.
const CPU_LOW: f64 = 0.9;
/// Fewer samples than these make no mean, and no minute.
const SAMPLES_MIN: usize = 24;
const MINUTE_SAMPLES: usize = 12;
/// With so few idle connections Postgres sets the pace.
const BUSY: f64 = 0.15;
/// Such a share of a shard's waiting messages in one lane is no chance, once this many wait.
const ONE_LANE: f64 = 0.8;
const WAITING_MIN: i64 = 100;
/// A lag that changes by less a second stays as it is.
const TREND_MIN: f64 = 1.0;

/// Waiting is no advice for longer.
const PATIENCE_S: f64 = 3600.0;

/// A process so young has not yet shown where its lag goes.
const YOUNG_S: u64 = 60;

/// Finds the transaction that is in the way.
const WHO_LOCKS: &str = "SELECT pid, xact_start, state, left(query, 80) FROM pg_stat_activity WHERE xact_start IS NOT NULL \
                         ORDER BY xact_start LIMIT 5;";

/// What explains it, and what to do.
#[derive(Debug, Default)]
pub(super) struct Cause {
    pub why: String,
    pub steps: Vec<Step>,
    /// Whom a rule would skip.
    pub rule: Option<(String, String)>,
    /// Whether it goes away by itself.
    pub passes: bool,
}

type Explain = fn(&Document, usize) -> Option<Cause>;

const IN_ORDER: [Explain; 10] = [
    down,
    disconnected,
    locked,
    incident,
    bound,
    stuck,
    hot,
    catching_up,
    busy,
    young,
];

/// The first that the figures show.
pub(super) fn cause(document: &Document, shard: usize) -> Cause {
    let mut causes = IN_ORDER
        .iter()
        .filter_map(|explain| explain(document, shard));
    causes.next().unwrap_or_else(|| Cause {
        why: "the figures here show no cause".to_owned(),
        steps: vec![
            step(
                "See what the stream holds for them",
                "millpond inspect --group-by app -o stored",
            ),
            step("Read the log's warnings", ""),
        ],
        ..Cause::default()
    })
}

/// A step in words, with its command where there is one.
pub(super) fn step(say: impl Into<String>, run: impl Into<String>) -> Step {
    Step {
        say: say.into(),
        run: run.into(),
    }
}

/// How many messages wait, and where that goes.
pub(super) fn trend(shard: &Shard) -> String {
    let waiting = counted(shard.lag, "message waits", "messages wait");
    let growth = shard.lag_per_s;
    if growth >= TREND_MIN {
        format!("{waiting}, growing by {}", rate(growth, ""))
    } else if growth <= -TREND_MIN && shard.lag > 0 {
        let left = duration(shard.lag as f64 / -growth);
        format!(
            "{waiting}, falling by {}: caught up in about {left}",
            rate(-growth, "")
        )
    } else {
        waiting
    }
}

/// Whether its lag is gone within the hour if it goes on so.
fn falls_soon(shard: &Shard) -> bool {
    let falls = -shard.lag_per_s;
    falls >= TREND_MIN && shard.lag as f64 / falls <= PATIENCE_S
}

/// What a shard's own words say, or that it has none.
pub(super) fn words_of(shard: &Shard) -> &str {
    match shard.why.as_str() {
        "" => "it gave no reason; the log may have one",
        why => why,
    }
}

fn down(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    (!shard.up).then(|| Cause {
        why: format!(
            "shard {} refuses to be written to: {}",
            shard.name,
            words_of(shard)
        ),
        steps: vec![step(
            "Mend in that database what it says; Millpond looks again by itself and goes on",
            "millpond config check --connect",
        )],
        ..Cause::default()
    })
}

fn disconnected(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    let [idle, busy, down] = shard.connections;
    (down > 0 && idle + busy == 0).then(|| Cause {
        why: format!(
            "shard {} has no connection: {}",
            shard.name,
            words_of(shard)
        ),
        steps: vec![step(
            "Bring that Postgres back, or the way to it; Millpond tries again for ever",
            "millpond config check --connect",
        )],
        ..Cause::default()
    })
}

fn locked(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    (shard.parked > 0).then(|| Cause {
        why: format!(
            "{} for rows of shard {} that somebody else holds locked",
            counted(shard.parked, "update waits", "updates wait"),
            shard.name
        ),
        steps: vec![step(
            "Find the oldest transaction there, and end it (pg_terminate_backend) if it may go",
            WHO_LOCKS,
        )],
        ..Cause::default()
    })
}

/// Lag grows, and yet nobody works: few lanes have all of it.
fn incident(document: &Document, shard: usize) -> Option<Cause> {
    let shown = signature(document).filter(|_| document.shards[shard].lag_per_s >= TREND_MIN)?;
    let lane = one_lane(document, shard);
    let row = hottest(document, shard, &document.hot.rows);
    let mut why = vec![shown];
    why.extend(lane);
    why.extend(row.map(hot_words));
    let mut steps = Vec::new();
    match row {
        Some(row) => steps.push(skip(row)),
        None => steps.push(step(
            "See which row or app has most of what waits",
            "millpond inspect --group-by subscription -o stored",
        )),
    }
    Some(Cause {
        why: why.join("; "),
        steps,
        rule: row.map(target),
        passes: false,
    })
}

/// Connections idle and CPU below its mean, in words; `None`: it is not so. Only asked while lag grows.
pub(super) fn signature(document: &Document) -> Option<String> {
    let history = &document.history;
    let begin = history.idle.len().checked_sub(MINUTE_SAMPLES)?;
    let idle = mean(&history.idle[begin..]);
    let cpu = mean(&history.cpu[begin..]);
    if idle < IDLE {
        return None;
    }
    let connections: usize = document
        .shards
        .iter()
        .map(|of| of.connections.iter().sum::<usize>())
        .sum();
    let all = count(i64::try_from(connections).unwrap_or(i64::MAX));
    let idle = format!(
        "lag grows while {} of {all} connections are idle",
        percent(idle)
    );
    if begin < SAMPLES_MIN {
        return Some(idle);
    }
    let before = mean(&history.cpu[..begin]);
    (cpu < before * CPU_LOW)
        .then(|| format!("{idle} and CPU is at {cpu:.2} cores, below its mean of {before:.2}"))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The lane that has nearly all messages that wait.
fn one_lane(document: &Document, shard: usize) -> Option<String> {
    let lanes = &document.shards[shard].lanes;
    let all: i64 = lanes.iter().map(|lane| lane[2]).sum();
    let deepest = lanes.iter().max_by_key(|lane| lane[2])?;
    // Far below 2^53.
    let share = deepest[2] as f64 / all.max(1) as f64;
    (lanes.len() > 1 && all >= WAITING_MIN && share >= ONE_LANE).then(|| {
        format!(
            "lane {} of core group {} has {} of the messages in the lanes",
            deepest[1],
            deepest[0],
            percent(share)
        )
    })
}

fn bound(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    let is_reached = shard.rows_per_s >= BOUND_REACHED * shard.bound_here
        || shard.held_back >= HELD_BACK
        || shard.longest.contains("write_rate_max");
    (shard.bound > 0 && shard.here > 0 && is_reached).then(|| {
        let (name, pid) = (&shard.name, document.process.pid);
        Cause {
            why: format!(
                "shard {name} is written at its bound: {}, of {} that this process may write",
                rate(shard.rows_per_s, "rows"),
                rate(shard.bound_here, "")
            ),
            steps: vec![step(
                format!(
                    "If that Postgres can bear more, raise write_rate_max of shard {name} (now {}, over the whole group) in the \
                     configuration of every process and have it read again",
                    count(shard.bound.into())
                ),
                format!("kill -HUP {pid}"),
            )],
            ..Cause::default()
        }
    })
}

fn stuck(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    (!shard.longest.is_empty()).then(|| Cause {
        why: shard.longest.clone(),
        steps: vec![step(
            format!("Look in shard {} for the oldest transaction; end it (pg_terminate_backend) if it is in the way", shard.name),
            WHO_LOCKS,
        )],
        ..Cause::default()
    })
}

fn hot(document: &Document, shard: usize) -> Option<Cause> {
    let row = hottest(document, shard, &document.hot.rows);
    let app = hottest(document, shard, &document.hot.apps);
    let item = row.or(app)?;
    Some(Cause {
        why: hot_words(item),
        steps: vec![skip(item)],
        rule: Some(target(item)),
        passes: falls_soon(&document.shards[shard]),
    })
}

fn catching_up(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    falls_soon(shard).then(|| Cause {
        why: "it is catching up with what came before".to_owned(),
        steps: vec![step("Wait", "")],
        passes: true,
        ..Cause::default()
    })
}

fn busy(document: &Document, shard: usize) -> Option<Cause> {
    let shard = &document.shards[shard];
    let all: usize = shard.connections.iter().sum();
    // A handful of connections.
    let idle = shard.connections[0] as f64 / all.max(1) as f64;
    (all > 0 && idle <= BUSY && shard.lanes.iter().any(|lane| lane[2] > 0)).then(|| {
        let more = (shard.workers * 2).clamp(1, 64);
        Cause {
            why: format!(
                "all connections of shard {} are busy: it takes {}, and more than that comes",
                shard.name,
                rate(shard.rows_per_s, "rows")
            ),
            steps: vec![
                step(
                    "If that Postgres has CPU and disk to spare, give it more workers (in each core group)",
                    format!("millpond workers set {more} --shard {}", shard.name),
                ),
                step("Else it needs a larger machine, or its apps another shard", ""),
            ],
            ..Cause::default()
        }
    })
}

/// Trends take a minute to show.
fn young(document: &Document, _: usize) -> Option<Cause> {
    let uptime_s = document.process.uptime_s;
    (uptime_s < YOUNG_S).then(|| Cause {
        why: format!("the process began {uptime_s} s ago, and catches up with what came before"),
        steps: vec![step("Wait", "")],
        passes: true,
        ..Cause::default()
    })
}

/// The shard's heaviest, if it has as much as is warned of.
pub(super) fn hottest<'d>(
    document: &'d Document,
    shard: usize,
    items: &'d [HotItem],
) -> Option<&'d HotItem> {
    let is_hot = |item: &&HotItem| {
        let limit = match item.subscription.is_empty() {
            true => document.hot.app_share,
            false => document.hot.row_share,
        };
        item.shard == shard && limit > 0.0 && item.share > limit
    };
    let hot = items.iter().filter(is_hot);
    hot.max_by(|one, other| one.share.total_cmp(&other.share))
}

/// `one row has 46 % of the shard's messages: …`.
pub(super) fn hot_words(item: &HotItem) -> String {
    let share = percent(item.share);
    let rate = rate(item.messages_per_s, "");
    match item.subscription.as_str() {
        "" => format!(
            "one app has {share} of its shard's messages ({rate}): app {}",
            item.app
        ),
        row => format!(
            "one row has {share} of its shard's messages ({rate}): subscription {row} of app {}",
            item.app
        ),
    }
}

/// The rule that would skip it.
pub(super) fn skip(item: &HotItem) -> Step {
    step(
        "Ask its owner; if its updates may be left out for good, skip them (what is skipped stays skipped)",
        &*item.rule,
    )
}

/// Whom that rule is for.
pub(super) fn target(item: &HotItem) -> (String, String) {
    (item.app.clone(), item.subscription.clone())
}
