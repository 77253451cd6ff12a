//! A shard is added and the topic made with more partitions, by the steps of src/sink/README.md: nothing is lost or applied
//! twice, and a step that was forgotten is refused before anything is written.

use crate::pond::{Pond, Shape};
use millpond::kafka::admin::Admin;
use std::io::copy;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// Those of apps that the second shard takes.
const MOVED: &str = "app_id >= '80000000-0000-0000-0000-000000000000'";
/// An app that stays, and one that moves.
const APPS: [&str; 2] = [
    "5eb5a37e-b458-11e3-ac11-000c2940e62c",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
];
const PARENT: &str = "ffffffff-0000-4000-8000-000000000000";
/// As the configuration has it.
const LINKS_MAX: u32 = 30;
/// Both loads have the same rows, and other messages.
const FIRST_LOAD: [&str; 8] = load("20000", "zipf", "0");
const SECOND_LOAD: [&str; 8] = load("60000", "uniform", "60");
/// Links of each app; the limit takes the last ones of the second load.
const FIRST_CHILDREN: std::ops::Range<u32> = 0..20;
const LATE_CHILDREN: std::ops::Range<u32> = 0..1;
const SECOND_CHILDREN: std::ops::Range<u32> = 10..50;
const LETTERS: u32 = 60 + 2 * (SECOND_CHILDREN.end - LINKS_MAX);

const fn load(
    messages: &'static str,
    scenario: &'static str,
    broken: &'static str,
) -> [&'static str; 8] {
    [
        "--messages",
        messages,
        "--scenario",
        scenario,
        "--broken",
        broken,
        "--rows",
        "3000",
    ]
}

fn shape(partitions: u32) -> Shape {
    Shape {
        partitions,
        consumer: "[rules]\nlinks_per_parent_max = 30",
        ..Shape::default()
    }
}

fn configure(pond: &Pond, text: &str) {
    std::fs::write(&pond.config, text).unwrap();
}

/// The configuration with the first shard alone, which has all apps.
fn one_shard(both: &str) -> String {
    let (before, rest) = both.split_once("[[shard]]\nname = \"s1\"").unwrap();
    let (_, after) = rest.split_once("[consumer]").unwrap();
    format!("{before}[consumer]{after}").replace("\"00-7f\"", "\"00-ff\"")
}

/// Links children of each app to its one parent.
fn link(pond: &Pond, children: std::ops::Range<u32>) {
    for app in APPS {
        let partition = pond.partition_of(app);
        let updates: Vec<(String, String)> = children
            .clone()
            .map(|number| {
                let id = format!("00000000-0000-4000-8000-{number:012x}");
                let value = format!(
                    r#"{{"app_id":"{app}","subscription_id":"{id}","counts":{{"n":1}},"parent_id":"{PARENT}"}}"#
                );
                (id, value)
            })
            .collect();
        pond.produce_to(partition, &updates);
    }
}

/// Lines of a query on both shards, sorted.
fn on_both(pond: &Pond, sql: &str) -> Vec<String> {
    let mut lines: Vec<String> = (0..2)
        .flat_map(|shard| pond.shard(shard).query(sql, &[]).unwrap())
        .map(|row| row.get(0))
        .collect();
    lines.sort();
    lines
}

/// All rows, but for where they come from and for their parent: which link is over the limit is a matter of who comes first.
fn rows(pond: &Pond) -> Vec<String> {
    on_both(
        pond,
        "SELECT row(app_id, subscription_id, device_type, identifier, tags, counts)::text FROM subscription",
    )
}

fn parents(pond: &Pond) -> Vec<String> {
    on_both(
        pond,
        "SELECT row(app_id, children)::text FROM parent WHERE children > 0",
    )
}

fn count(pond: &Pond, shard: usize, condition: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM subscription WHERE {condition}");
    pond.shard(shard).query_one(&sql, &[]).unwrap().get(0)
}

fn assert_refuses(pond: &Pond, command: &str, words: &[&str]) {
    let ended = pond.start(&[command], &[]).wait(SOON);
    assert_eq!(ended.status.code(), Some(1), "{command}: {}", ended.stderr);
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{word:?} is not in:\n{}",
            ended.stderr
        );
    }
}

/// As `\copy` does.
fn copy_moved(pond: &Pond) {
    let (mut from, mut to) = (pond.shard(0), pond.shard(1));
    for table in ["subscription", "parent"] {
        let out = format!("COPY (SELECT * FROM {table} WHERE {MOVED}) TO STDOUT");
        let mut reader = from.copy_out(&out).unwrap();
        let mut writer = to.copy_in(&format!("COPY {table} FROM STDIN")).unwrap();
        copy(&mut reader, &mut writer).unwrap();
        writer.finish().unwrap();
    }
}

fn delete_moved(pond: &Pond) {
    let sql = format!("DELETE FROM subscription WHERE {MOVED}; DELETE FROM parent WHERE {MOVED}");
    pond.shard(0).batch_execute(&sql).unwrap();
}

/// Applies what is in the topic, with a kill -9 in the middle; how many updates the fences refused.
fn apply_with_a_kill(pond: &Pond) -> f64 {
    let slow = [
        "--set",
        "shard.s0.write_rate_max=2000",
        "--set",
        "shard.s1.write_rate_max=2000",
    ];
    let mut process = pond.start(&[&["run"], &slow[..]].concat(), &[]);
    pond.wait_for("both shards are written", SOON, |pond| {
        (0..2).all(|shard| count(pond, shard, "source_incarnation = 2") > 500)
    });
    assert!(process.is_running(), "it was killed while it worked");
    process.kill();
    let summary = pond.catch_up();
    println!("{summary}");
    summary["replayed"].as_f64().unwrap()
}

/// What the same updates make of two shards that were there from the beginning.
fn as_if_from_the_beginning() -> (Vec<String>, Vec<String>) {
    let whole = Pond::new("repartition-whole", &shape(24));
    whole.load(&FIRST_LOAD);
    link(&whole, FIRST_CHILDREN);
    link(&whole, LATE_CHILDREN);
    whole.load(&SECOND_LOAD);
    link(&whole, SECOND_CHILDREN);
    whole.catch_up();
    let verdict = whole.assert_exact();
    assert_eq!(verdict["dead_letters"], LETTERS, "{verdict}");
    (rows(&whole), parents(&whole))
}

/// A pond on one shard with the first load applied, and the configuration of both shards and a new topic, but for its incarnation.
fn begun() -> (Pond, String) {
    let pond = Pond::without_init("repartition", &shape(12));
    let both = std::fs::read_to_string(&pond.config).unwrap();
    configure(&pond, &one_shard(&both));
    pond.good(&["init"]);
    pond.load(&FIRST_LOAD);
    link(&pond, FIRST_CHILDREN);
    pond.catch_up();
    pond.assert_exact();
    let name = format!("\ntopic = \"{}", pond.topic);
    let new = both
        .replace("partitions = 12", "partitions = 24")
        .replace(&format!("{name}\""), &format!("{name}-2\""));
    (pond, new)
}

fn assert_a_forgotten_incarnation_is_refused(pond: &Pond) {
    assert_refuses(
        pond,
        "init",
        &["taken for replays", "set kafka.incarnation = 2"],
    );
    assert_refuses(pond, "run", &[]);
    assert_eq!(tables_of_the_new_shard(pond), 0, "nothing was made");
}

fn tables_of_the_new_shard(pond: &Pond) -> i64 {
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    pond.shard(1).query_one(tables, &[]).unwrap().get(0)
}

fn assert_forgotten_rows_are_refused(pond: &Pond, moved: i64) {
    assert_refuses(
        pond,
        "run",
        &["shard s0", "outside 00-7f", "copy these rows"],
    );
    let verdict = pond.verify();
    assert_eq!(
        (&verdict["ok"], &verdict["extra"]),
        (&false.into(), &moved.into()),
        "{verdict}"
    );
    assert_eq!(count(pond, 0, "source_incarnation <> 1"), 0);
}

/// An update of each app comes to the old topic after it was believed to be drained.
fn assert_what_was_not_drained_is_refused(pond: &Pond, old: &str) {
    let new = std::fs::read_to_string(&pond.config).unwrap();
    configure(pond, old);
    link(pond, LATE_CHILDREN);
    configure(pond, &new);
    assert_refuses(pond, "init", &[&pond.topic, "holds 2 messages", "Drain it"]);
    assert_eq!(tables_of_the_new_shard(pond), 0, "nothing was made");
    configure(pond, old);
    assert_eq!(pond.catch_up()["messages"], 2);
    configure(pond, &new);
}

#[test]
fn a_shard_is_added_and_every_row_is_what_all_its_updates_make_of_it() {
    let (mut pond, new) = begun();
    let old = std::fs::read_to_string(&pond.config).unwrap();
    let old_topic = pond.topic.clone();
    let moved = count(&pond, 0, MOVED);
    assert!(moved > 1000, "{moved}");

    configure(&pond, &new);
    assert_a_forgotten_incarnation_is_refused(&pond);
    let raised = "partitions = 24\nincarnation = 2";
    pond.reconfigure("partitions = 24", raised);
    assert_what_was_not_drained_is_refused(&pond, &old);
    pond.good(&["init"]);
    assert_forgotten_rows_are_refused(&pond, moved);
    copy_moved(&pond);
    delete_moved(&pond);
    assert_eq!(count(&pond, 1, "source_incarnation = 1"), moved);

    pond.topic = format!("{old_topic}-2");
    pond.load(&SECOND_LOAD);
    link(&pond, SECOND_CHILDREN);
    let replayed = apply_with_a_kill(&pond);
    assert!(replayed > 0.0, "the kill did not bite");
    let verdict = pond.assert_exact();
    println!("{verdict}");
    assert_eq!(verdict["dead_letters"], LETTERS, "{verdict}");
    assert_eq!(count(&pond, 0, MOVED), 0);
    assert_eq!(count(&pond, 1, &format!("NOT {MOVED}")), 0);

    let (whole_rows, whole_parents) = as_if_from_the_beginning();
    assert_eq!(whole_parents.len(), APPS.len());
    assert!(rows(&pond) == whole_rows, "a row differs");
    assert_eq!(parents(&pond), whole_parents);

    // Who still has the old configuration does not write any more.
    configure(&pond, &old);
    assert_refuses(&pond, "run", &[&pond.topic, "old configuration"]);
    forget_topics(&pond, &old_topic);
    configure(&pond, &new);
}

/// Those of the old topic; the others go with the pond.
fn forget_topics(pond: &Pond, topic: &str) {
    let admin = Admin::connect(&pond.configuration().kafka).unwrap();
    for topic in [topic, &format!("{topic}.rules")] {
        admin.delete_topic(topic, SOON).unwrap();
    }
}
