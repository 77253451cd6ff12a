//! A table of situations with what is to be said of each. All begin with a consumer that is well.

use super::super::document::{Document, Finding, HotItem, Level, Now, Poller, Shard};
use super::findings;

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "11111111-2222-3333-4444-555555555555";

/// Two shards of 360 partitions, eight connections each, 20,000 messages a second, nothing behind.
fn well() -> Document {
    let shard = |name: &str, apps: &str, first| Shard {
        name: name.to_owned(),
        apps: apps.to_owned(),
        up: true,
        partitions: (first, 360),
        here: 360,
        lag: 500,
        time_lag_s: 0.4,
        messages_per_s: 10_000.0,
        rows_per_s: 9_000.0,
        connections: [4, 4, 0],
        workers: 8,
        lanes: (0..8).map(|lane| [0, lane, 10, 1, 0, 5]).collect(),
        ..Shard::default()
    };
    let mut document = Document {
        shards: vec![shard("a", "00–7f", 0), shard("b", "80–ff", 360)],
        pollers: vec![Poller {
            silent_ms: 20,
            partitions: 720,
            rebalances: 1,
        }],
        now: Now {
            messages_per_s: 20_000.0,
            lag: 1000,
            time_lag_s: 0.4,
            assigned: 720,
            ..Now::default()
        },
        ..Document::default()
    };
    document.process.uptime_s = 3600;
    document.process.pid = 4711;
    document.hot.row_share = 0.25;
    document.hot.app_share = 0.5;
    document.partitions.number = (0..720).collect();
    document.partitions.lag = vec![1; 720];
    document.partitions.time_lag_ms = vec![400; 720];
    document.partitions.alarm = vec![0; 720];
    document.history.cpu = vec![1.0; 60];
    document.history.idle = vec![0.5; 60];
    document
}

/// Shard b is twelve minutes behind, and its lag grows.
fn behind() -> Document {
    let mut document = well();
    let shard = &mut document.shards[1];
    (shard.lag, shard.time_lag_s, shard.lag_per_s) = (3_200_000, 720.0, 4000.0);
    (shard.behind, shard.oldest_partition) = (360, 400);
    document
}

fn hot_row(share: f64) -> HotItem {
    HotItem {
        shard: 1,
        app: APP.to_owned(),
        subscription: ROW.to_owned(),
        share,
        messages_per_s: share * 10_000.0,
        rule: format!("millpond rules add --app {APP} --subscription {ROW} --reason \"…\""),
        ..HotItem::default()
    }
}

fn said(change: impl FnOnce(&mut Document), mut document: Document) -> Vec<Finding> {
    change(&mut document);
    findings(&document)
}

/// The first finding after a change: level, what, why, the first command.
fn first(
    document: Document,
    change: impl FnOnce(&mut Document),
) -> (Level, String, String, String) {
    let first = said(change, document).swap_remove(0);
    let run = first.steps.first().map(|step| step.run.clone());
    (first.level, first.what, first.why, run.unwrap_or_default())
}

#[test]
fn a_consumer_that_is_well_says_so_and_nothing_else() {
    let all = said(|_| {}, well());
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        (all[0].level, all[0].what.as_str()),
        (Level::Good, "All is well")
    );
    assert_eq!(
        all[0].why,
        "the oldest of 1,000 that wait is 0.4 s old; 20,000 messages/s are applied"
    );
    let none = said(|document| document.now.lag = 0, well());
    assert!(none[0].why.starts_with("every message is applied; "));
}

/// A name, what else is the case, how the cause begins, and the command.
type Case = (&'static str, fn(&mut Document), &'static str, &'static str);

const CASES: [Case; 11] = [
    (
        "down",
        |of| {
            of.shards[1].up = false;
            of.shards[1].why = "column \"tags\" does not exist (42703)".to_owned();
        },
        "shard b refuses to be written to: column \"tags\" does not exist (42703).",
        "millpond config check --connect",
    ),
    (
        "disconnected",
        |of| {
            of.shards[1].connections = [0, 0, 8];
            of.shards[1].why = "connection refused".to_owned();
        },
        "shard b has no connection: connection refused.",
        "millpond config check --connect",
    ),
    (
        "locked",
        |of| of.shards[1].parked = 12,
        "12 updates wait for rows of shard b that somebody else holds locked.",
        "SELECT pid",
    ),
    (
        "bound reached",
        |of| {
            (of.shards[1].bound, of.shards[1].bound_here) = (10_000, 5_000.0);
            of.shards[1].rows_per_s = 4_900.0;
        },
        "shard b is written at its bound: 4,900 rows/s, of 5,000/s that this process may write.",
        "kill -HUP 4711",
    ),
    (
        "held back",
        |of| {
            (of.shards[1].bound, of.shards[1].bound_here) = (10_000, 10_000.0);
            (of.shards[1].rows_per_s, of.shards[1].held_back) = (8_000.0, 0.9);
        },
        "shard b is written at its bound: 8,000 rows/s, of 10,000/s",
        "kill -HUP 4711",
    ),
    (
        "stuck",
        |of| {
            of.shards[1].longest = "lane 3 of core group 0 has been at one batch for 12.0 s; its statement has not returned".to_owned()
        },
        "lane 3 of core group 0 has been at one batch for 12.0 s; its statement has not returned.",
        "SELECT pid",
    ),
    (
        "a hot row",
        |of| of.hot.rows = vec![hot_row(0.46)],
        "one row has 46 % of its shard's messages (4,600/s): subscription 11111111-2222-3333-4444-555555555555 of app 5eb5a37e",
        "millpond rules add --app 5eb5a37e-b458-11e3-ac11-000c2940e62c --subscription 11111111",
    ),
    (
        "a hot app",
        |of| {
            let app = HotItem {
                subscription: String::new(),
                rule: format!("millpond rules add --app {APP}"),
                ..hot_row(0.7)
            };
            of.hot.apps = vec![app];
        },
        "one app has 70 % of its shard's messages (7,000/s): app 5eb5a37e-b458-11e3-ac11-000c2940e62c.",
        "millpond rules add --app 5eb5a37e",
    ),
    (
        "another shard's hot row explains nothing",
        |of| {
            of.hot.rows = vec![HotItem {
                shard: 0,
                ..hot_row(0.9)
            }]
        },
        "the figures here show no cause.",
        "millpond inspect",
    ),
    (
        "all busy",
        |of| of.shards[1].connections = [0, 8, 0],
        "all connections of shard b are busy: it takes 9,000 rows/s, and more than that comes.",
        "millpond workers set 16 --shard b",
    ),
    (
        "unknown",
        |_| {},
        "the figures here show no cause.",
        "millpond inspect",
    ),
];

#[test]
fn who_is_behind_is_named_with_the_cause_that_the_figures_show() {
    for (name, change, expected, command) in CASES {
        let (level, what, why, run) = first(behind(), change);
        assert_eq!(
            (level, what.as_str()),
            (Level::Bad, "Apps 80–ff are 12 min behind"),
            "{name}"
        );
        assert!(why.starts_with(expected), "{name}: {why}");
        assert!(
            why.ends_with(" 3,200,000 messages wait, growing by 4,000/s"),
            "{name}: {why}"
        );
        assert!(run.starts_with(command), "{name}: {run}");
    }
}

/// Lag grows, connections are idle, CPU is down, one lane has everything.
fn incident() -> Document {
    let mut document = behind();
    document.history.idle.splice(48.., [0.95; 12]);
    document.history.cpu.splice(48.., [0.3; 12]);
    document.shards[1].lanes = (0..8)
        .map(|lane| [0, lane, if lane == 3 { 9_900 } else { 0 }, 0, 0, 0])
        .collect();
    document
}

#[test]
fn the_signature_of_the_incident_is_recognised_with_its_lane_and_row() {
    let (level, _, why, _) = first(incident(), |of| of.hot.rows = vec![hot_row(0.46)]);
    assert_eq!(level, Level::Bad);
    assert!(
        why.starts_with(
            "lag grows while 95 % of 16 connections are idle and CPU is at 0.30 cores, below its mean of 1.00; \
             lane 3 of core group 0 has 100 % of the messages in the lanes; one row has 46 % of"
        ),
        "{why}"
    );
    let with_rule = said(|of| of.hot.rows = vec![hot_row(0.46)], incident());
    assert_eq!(with_rule[0].rule, Some((APP.to_owned(), ROW.to_owned())));
    let no_row = first(incident(), |_| {});
    assert!(
        no_row
            .3
            .starts_with("millpond inspect --group-by subscription")
    );
}

#[test]
fn it_is_no_incident_while_cpu_is_up_lag_falls_or_connections_work() {
    let why = |change: fn(&mut Document)| first(incident(), change).2;
    assert!(!why(|of| of.history.cpu.fill(1.0)).contains("lag grows while"));
    assert!(!why(|of| of.history.idle.fill(0.5)).contains("lag grows while"));
    assert!(!why(|of| of.shards[1].lag_per_s = -10.0).contains("lag grows while"));
    // A young process has no mean to compare with.
    let young = why(|of| {
        of.history.cpu.drain(..40);
        of.history.idle.drain(..40);
    });
    assert!(
        young.starts_with("lag grows while 95 % of 16 connections are idle; lane 3"),
        "{young}"
    );
}

#[test]
fn a_lag_that_falls_is_a_warning_with_the_time_that_is_left() {
    let (level, what, why, _) = first(behind(), |of| of.shards[1].lag_per_s = -40_000.0);
    assert_eq!(
        (level, what.as_str()),
        (Level::Warn, "Apps 80–ff are 12 min behind")
    );
    assert_eq!(
        why,
        "it is catching up with what came before. 3,200,000 messages wait, falling by 40,000/s: caught up in about 80 s"
    );
    let slowly = first(behind(), |of| of.shards[1].lag_per_s = -10.0);
    assert_eq!(slowly.0, Level::Bad, "waiting is no advice");
    assert!(
        slowly.2.ends_with("caught up in about 3 d 16 h"),
        "{}",
        slowly.2
    );
}

#[test]
fn a_few_partitions_are_named_instead_of_their_shard() {
    let (_, what, ..) = first(behind(), |of| {
        of.shards[1].behind = 1;
        of.partitions.time_lag_ms[400] = 720_000;
    });
    assert_eq!(
        what,
        "Partition 400 of shard b (apps 80–ff) is 12 min behind"
    );
    let (_, what, ..) = first(behind(), |of| of.shards[1].here = 180);
    assert_eq!(
        what,
        "Apps 80–ff are 12 min behind (180 of their 360 partitions are here)"
    );
}

#[test]
fn partitions_that_stand_still_are_an_alarm() {
    let (level, what, why, _) = first(well(), |of| of.partitions.alarm[5] = 1);
    assert_eq!(
        (level, what.as_str()),
        (
            Level::Bad,
            "Partition 5 of shard a (apps 00–7f) stands still"
        )
    );
    assert!(why.contains("gone from Kafka"), "{why}");
    let (_, what, why, _) = first(well(), |of| of.partitions.alarm[400..410].fill(2));
    assert_eq!(
        what,
        "Partitions 400, 401, 402, 403, 404 and 5 more of shard b (apps 80–ff) stand still"
    );
    assert!(why.contains("checksum"), "{why}");
}

#[test]
fn a_shard_that_is_away_is_said_before_anything_is_behind() {
    let away = |of: &mut Document| {
        of.shards[0].connections = [0, 0, 8];
        of.shards[0].why = "server closed the connection".to_owned();
    };
    let (level, what, why, _) = first(well(), away);
    assert_eq!(level, Level::Bad);
    assert_eq!(
        what,
        "Shard a can't be written to; updates of apps 00–7f wait in Kafka"
    );
    assert_eq!(
        why,
        "shard a has no connection: server closed the connection"
    );
    let (level, what, ..) = first(well(), |of| of.shards[0].connections = [3, 3, 2]);
    assert_eq!(
        (level, what.as_str()),
        (Level::Warn, "2 of 8 connections to shard a are down")
    );
    let young = first(well(), |of| {
        of.process.uptime_s = 2;
        of.shards[0].connections = [0, 0, 8];
    });
    assert_eq!(young.0, Level::Good, "connections take a moment");
}

#[test]
fn a_start_says_what_it_waits_for_and_warns_when_it_takes_long() {
    let start = |of: &mut Document| {
        of.pollers[0] = Poller::default();
        of.now.assigned = 0;
        of.process.uptime_s = 3;
        of.readiness.why = "Kafka at k1:9092 does not answer".to_owned();
    };
    let (level, what, why, run) = first(well(), start);
    assert_eq!(
        (level, what.as_str()),
        (Level::Info, "Starting: nothing is read from Kafka yet")
    );
    assert_eq!(
        (why.as_str(), run.as_str()),
        ("Kafka at k1:9092 does not answer", "")
    );
    let long = first(well(), |of| {
        start(of);
        of.process.uptime_s = 31;
    });
    assert_eq!(
        (long.0, long.3.as_str()),
        (Level::Warn, "millpond config check --connect")
    );
    let (level, what, ..) = first(well(), |of| of.now.assigned = 0);
    assert_eq!(
        (level, what.as_str()),
        (Level::Info, "This process has no partition")
    );
}

#[test]
fn what_else_is_good_to_know_is_said_with_its_command() {
    let silent = first(well(), |of| of.pollers[0].silent_ms = 31_000);
    assert_eq!(
        (silent.0, silent.1.as_str()),
        (
            Level::Bad,
            "Core group 0 has not asked Kafka for 31 s; its 720 partitions stand still"
        )
    );
    let dead = first(well(), |of| {
        of.now.dead_per_s = 12.0;
        of.now.dead_reason = "bad-tags: 300".to_owned();
    });
    assert_eq!(
        (dead.0, dead.1.as_str(), dead.3.as_str()),
        (
            Level::Warn,
            "12 messages/s become dead letters",
            "millpond dead list"
        )
    );
    let kafka = first(well(), |of| {
        (of.now.kafka_errors, of.now.commit_failures) = (1, 3)
    });
    assert_eq!(
        kafka.1,
        "1 error of the Kafka client and 3 failed offset commits in the last minute"
    );
    let rules = first(well(), |of| of.rules.active = 2);
    assert_eq!(
        (rules.0, rules.1.as_str()),
        (Level::Info, "2 skip rules are active")
    );
    let hot = said(|of| of.hot.rows = vec![hot_row(0.46)], well());
    assert_eq!(hot[0].level, Level::Info);
    assert!(
        hot[0].what.starts_with("Shard b: one row has 46 %"),
        "{hot:?}"
    );
    assert_eq!(hot[1].what, "Nothing is behind");
    assert_eq!(
        said(|of| of.hot.rows = vec![hot_row(0.2)], well())[0].what,
        "All is well"
    );
}

#[test]
fn the_worst_comes_first_and_there_are_never_too_many() {
    let all = said(
        |of| {
            of.rules.active = 1;
            of.now.dead_per_s = 1.0;
            let shard = of.shards[1].clone();
            for number in 0..60 {
                of.shards.push(Shard {
                    name: number.to_string(),
                    ..shard.clone()
                });
            }
        },
        behind(),
    );
    assert_eq!(all.len(), super::FINDINGS_MAX);
    assert_eq!(all[0].level, Level::Bad);
    assert!(all.is_sorted_by_key(|of| of.level));
}
