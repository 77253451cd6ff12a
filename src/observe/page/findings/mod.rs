//! The plain sentences that who is woken at night reads first: what is wrong, why as far as the figures show it, and what to do.
//! Made from the document alone, so that each can be checked against the figures beside it.
//!
//! - [`causes`]: why a shard is behind
//! - [`words`]: figures as people say them

mod causes;
#[cfg(test)]
mod tests;
mod words;

use super::document::{Document, Finding, HotItem, Level, Shard};
use crate::hot::warnings::MESSAGES_PER_S_MIN;
use causes::{Cause, cause, hot_words, hottest, skip, step, target, trend, words_of};
use words::{count, counted, duration, rate};

/// An update that is not applied after so long is behind. A loaded consumer is some seconds behind at times.
pub const BEHIND_S: f64 = 10.0;
/// After so long somebody has to look.
const BAD_S: f64 = 60.0;
/// A poller asks Kafka ten times a second. As `/livez`, but said before it is restarted for it.
const SILENT_MS: i64 = 10_000;
/// A start takes seconds.
const START_S: u64 = 30;
/// With that few partitions behind, and fewer than half, it is theirs and not the shard's.
const PARTITIONS_NAMED: usize = 5;
/// More are never read.
pub const FINDINGS_MAX: usize = 50;

/// All of them, the worst first.
pub fn findings(document: &Document) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(starting(document));
    found.extend(silent(document));
    for index in 0..document.shards.len() {
        found.extend(stands_still(document, index));
        found.extend(of_shard(document, index));
        found.extend(hot(document, index));
    }
    found.extend(kafka(document));
    found.extend(dead_letters(document));
    found.extend(skipping(document));
    if !found.iter().any(|of| of.level <= Level::Warn) {
        found.extend(fine(document, found.is_empty()));
    }
    found.sort_by_key(|of| of.level);
    found.truncate(FINDINGS_MAX);
    found
}

fn finding(id: impl Into<String>, level: Level, what: impl Into<String>) -> Finding {
    Finding {
        id: id.into(),
        level,
        what: what.into(),
        ..Finding::default()
    }
}

/// Nothing is read yet, or nothing is to be read.
fn starting(document: &Document) -> Option<Finding> {
    let has_begun = document
        .pollers
        .iter()
        .any(|poller| poller.silent_ms > 0 || poller.partitions > 0);
    let takes_long = document.process.uptime_s >= START_S;
    if has_begun && document.now.assigned > 0 {
        return None;
    }
    let mut said = match has_begun {
        false => finding(
            "starting",
            Level::Info,
            "Starting: nothing is read from Kafka yet",
        ),
        true => finding("unassigned", Level::Info, "This process has no partition"),
    };
    said.why = match (has_begun, document.readiness.why.as_str()) {
        (true, _) => "the group is handing them out, or its other members have them all".to_owned(),
        (false, "") => "topic, tables and shards are looked at first".to_owned(),
        (false, why) => why.to_owned(),
    };
    if takes_long {
        said.level = if has_begun { Level::Info } else { Level::Warn };
        said.steps.push(match has_begun {
            false => step(
                "It waits for what is named here, for ever; try it yourself",
                "millpond config check --connect",
            ),
            true => step(
                "See who has which, and how far the group is",
                "millpond lag",
            ),
        });
    }
    Some(said)
}

/// A poller that no longer polls loses its partitions, and nobody else says so.
fn silent(document: &Document) -> Vec<Finding> {
    let pollers = document.pollers.iter().enumerate();
    let silent = pollers.filter(|(_, poller)| poller.silent_ms >= SILENT_MS);
    let said = silent.map(|(group, poller)| Finding {
        why: "its thread hangs, or the machine has no time for it".to_owned(),
        steps: vec![step(
            "Restart the process: nothing is lost, what was in flight is read again",
            "",
        )],
        ..finding(
            format!("silent:{group}"),
            Level::Bad,
            format!(
                "Core group {group} has not asked Kafka for {}; its {} stand still",
                duration(seconds(poller.silent_ms)),
                counted(poller.partitions, "partition", "partitions")
            ),
        )
    });
    said.collect()
}

/// Partitions with an alarm.
fn stands_still(document: &Document, index: usize) -> Vec<Finding> {
    let shard = &document.shards[index];
    let columns = &document.partitions;
    let (first, all) = shard.partitions;
    let with = |alarm: i64| -> Vec<usize> {
        let numbers = columns.number.iter().zip(&columns.alarm);
        let alarmed =
            numbers.filter(|(number, own)| (first..first + all).contains(number) && **own == alarm);
        alarmed.map(|(number, _)| *number).collect()
    };
    let kinds = [
        (
            1,
            "lost",
            "records that were not applied yet are gone from Kafka (retention, or a broker that lost them)",
            [
                step(
                    "Bring the records back if there is a copy: the partition goes on by itself",
                    "",
                ),
                step(
                    "Or give them up: set consumer.on_lost_records = \"skip\" and restart; it goes on behind them",
                    "",
                ),
            ],
        ),
        (
            2,
            "unreadable",
            "a record can't be read: its checksum or compression is broken",
            [
                step(
                    "If another replica has it whole, let that one lead the partition: it goes on by itself",
                    "",
                ),
                step(
                    "Or give the batch up: stop the group, move its offset behind the one that the log names, and start it",
                    "",
                ),
            ],
        ),
    ];
    let said = kinds.into_iter().filter_map(|(alarm, id, why, steps)| {
        let numbers = with(alarm);
        let stand = if numbers.len() == 1 {
            "stands"
        } else {
            "stand"
        };
        (!numbers.is_empty()).then(|| Finding {
            why: why.to_owned(),
            steps: steps.into(),
            ..finding(
                format!("{id}:{}", shard.name),
                Level::Bad,
                format!(
                    "{} of shard {} (apps {}) {stand} still",
                    named(&numbers),
                    shard.name,
                    shard.apps
                ),
            )
        })
    });
    said.collect()
}

/// `Partition 3`, `Partitions 3, 7 and 12`, `Partitions 3, 7, 12, 13, 14 and 20 more`.
fn named(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers
        .iter()
        .take(PARTITIONS_NAMED)
        .map(ToString::to_string)
        .collect();
    match (shown.as_slice(), numbers.len() - shown.len()) {
        ([one], 0) => format!("Partition {one}"),
        ([others @ .., last], 0) => format!("Partitions {} and {last}", others.join(", ")),
        (shown, more) => format!("Partitions {} and {more} more", shown.join(", ")),
    }
}

/// Behind, or about to be.
fn of_shard(document: &Document, index: usize) -> Option<Finding> {
    let shard = &document.shards[index];
    let [idle, busy, down] = shard.connections;
    let is_away = !shard.up || (down > 0 && idle + busy == 0);
    if shard.time_lag_s >= BEHIND_S {
        return Some(behind(document, index, is_away));
    }
    if is_away && !still_connecting(document, shard) {
        let Cause { why, steps, .. } = cause(document, index);
        let what = format!(
            "Shard {} can't be written to; updates of apps {} wait in Kafka",
            shard.name, shard.apps
        );
        let said = finding(format!("away:{}", shard.name), Level::Bad, what);
        return Some(Finding { why, steps, ..said });
    }
    if down > 0 && idle + busy > 0 {
        let what = format!(
            "{down} of {} connections to shard {} are down",
            idle + busy + down,
            shard.name
        );
        let said = finding(format!("connections:{}", shard.name), Level::Warn, what);
        let steps = vec![step(
            "Compare workers over all processes with that Postgres' max_connections",
            "millpond config check --connect",
        )];
        let why = words_of(shard).to_owned();
        return Some(Finding { why, steps, ..said });
    }
    None
}

/// Connections take a moment at the start.
fn still_connecting(document: &Document, shard: &Shard) -> bool {
    document.process.uptime_s < START_S && shard.up && shard.why.is_empty()
}

fn behind(document: &Document, index: usize, is_away: bool) -> Finding {
    let shard = &document.shards[index];
    let of_partitions = shard.behind <= PARTITIONS_NAMED && shard.behind * 2 < shard.here;
    let who = match of_partitions {
        true => {
            let numbers = behind_of(document, shard);
            let are = if numbers.len() == 1 { "is" } else { "are" };
            format!(
                "{} of shard {} (apps {}) {are}",
                named(&numbers),
                shard.name,
                shard.apps
            )
        }
        false => format!("Apps {} are", shard.apps),
    };
    let mut what = format!("{who} {} behind", duration(shard.time_lag_s));
    if !of_partitions && shard.here < shard.partitions.1 {
        let (here, all) = (shard.here, shard.partitions.1);
        what = format!("{what} ({here} of their {all} partitions are here)");
    }
    let Cause {
        why,
        steps,
        rule,
        passes,
    } = cause(document, index);
    let level = if is_away || (shard.time_lag_s >= BAD_S && !passes) {
        Level::Bad
    } else {
        Level::Warn
    };
    Finding {
        why: format!("{why}. {}", capitalised(&trend(shard))),
        steps,
        rule,
        ..finding(format!("behind:{}", shard.name), level, what)
    }
}

fn behind_of(document: &Document, shard: &Shard) -> Vec<usize> {
    let columns = &document.partitions;
    let (first, all) = shard.partitions;
    let numbers = columns.number.iter().zip(&columns.time_lag_ms);
    let behind = numbers.filter(|(number, time_lag_ms)| {
        (first..first + all).contains(number) && seconds(**time_lag_ms) >= BEHIND_S
    });
    behind.map(|(number, _)| *number).collect()
}

/// A row or app with a large share, while its shard is not behind: good to know before it is.
fn hot(document: &Document, index: usize) -> Option<Finding> {
    let shard = &document.shards[index];
    if shard.time_lag_s >= BEHIND_S || shard.messages_per_s < MESSAGES_PER_S_MIN {
        return None;
    }
    let row = hottest(document, index, &document.hot.rows);
    let item: &HotItem = row.or_else(|| hottest(document, index, &document.hot.apps))?;
    Some(Finding {
        why: "it holds nobody up now: updates of one row and batch are one write".to_owned(),
        steps: vec![skip(item)],
        rule: Some(target(item)),
        ..finding(
            format!("hot:{}", shard.name),
            Level::Info,
            format!("Shard {}: {}", shard.name, hot_words(item)),
        )
    })
}

fn kafka(document: &Document) -> Option<Finding> {
    let now = &document.now;
    let (errors, failures) = (now.kafka_errors, now.commit_failures);
    if errors == 0 && failures == 0 {
        return None;
    }
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(counted(
            number(errors),
            "error of the Kafka client",
            "errors of the Kafka client",
        ));
    }
    if failures > 0 {
        parts.push(counted(
            number(failures),
            "failed offset commit",
            "failed offset commits",
        ));
    }
    Some(Finding {
        why: "a broker is away, slow, or has a new leader; while none answers, lag here is that of before".to_owned(),
        steps: vec![step("See whether the brokers answer, and what the log says of them", "millpond lag -s")],
        ..finding("kafka", Level::Warn, format!("{} in the last minute", parts.join(" and ")))
    })
}

fn dead_letters(document: &Document) -> Option<Finding> {
    let now = &document.now;
    (now.dead_per_s > 0.0).then(|| Finding {
        why: format!("they can't be applied; most so far are {}", now.dead_reason),
        steps: vec![step("See which, and why", "millpond dead list")],
        ..finding(
            "dead",
            Level::Warn,
            format!("{} become dead letters", rate(now.dead_per_s, "messages")),
        )
    })
}

fn skipping(document: &Document) -> Option<Finding> {
    let active = i64::try_from(document.rules.active).unwrap_or(i64::MAX);
    (active > 0).then(|| Finding {
        why: format!(
            "this process skips {}; what is skipped stays skipped",
            rate(document.now.skipped_per_s, "messages")
        ),
        steps: vec![step(
            "Take those back that are needed no longer",
            "millpond rules list",
        )],
        ..finding(
            "rules",
            Level::Info,
            format!(
                "{} active",
                counted(active, "skip rule is", "skip rules are")
            ),
        )
    })
}

/// Nothing is wrong. `is_alone`: and nothing else is said.
fn fine(document: &Document, is_alone: bool) -> Option<Finding> {
    let now = &document.now;
    if now.assigned == 0 {
        return None;
    }
    let unknown = document
        .partitions
        .lag
        .iter()
        .filter(|lag| **lag < 0)
        .count();
    if unknown > 0 {
        let what = format!(
            "The lag of {unknown} of {} partitions is not known yet",
            now.assigned
        );
        let why =
            "Kafka was not asked yet where they begin and end, or their shard has not answered";
        let said = finding("unknown", Level::Info, what);
        return Some(Finding {
            why: why.to_owned(),
            ..said
        });
    }
    let what = match is_alone {
        true => "All is well",
        false => "Nothing is behind",
    };
    let oldest = match now.lag {
        0 => "every message is applied".to_owned(),
        lag => format!(
            "the oldest of {} that wait is {} old",
            count(lag),
            duration(now.time_lag_s)
        ),
    };
    Some(Finding {
        why: format!(
            "{oldest}; {} are applied",
            rate(now.messages_per_s, "messages")
        ),
        ..finding("fine", Level::Good, what)
    })
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

fn seconds(milliseconds: i64) -> f64 {
    // Exact for 285,000 years.
    milliseconds as f64 / 1000.0
}
