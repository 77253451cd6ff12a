//! Dead letters are listed, sent again and dropped.

use crate::pond::{Letter, Pond, Sent, Shape};
use millpond::kafka::admin::Admin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW_A: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
const ROW_B: &str = "00000000-58cc-4372-a567-0e02b2c3d479";

fn pond(name: &str) -> Pond {
    Pond::new(
        name,
        &Shape {
            partitions: 4,
            ..Shape::default()
        },
    )
}

/// `dead list` with these filters, as JSON.
fn list(pond: &Pond, filters: &[&str]) -> Vec<Value> {
    let ended = pond.good(&[&["dead", "list", "--json"], filters].concat());
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn place(letter: &Value) -> String {
    format!("{}:{}", letter["partition"], letter["offset"])
}

fn places(letters: &[Value]) -> Vec<String> {
    letters.iter().map(place).collect()
}

/// `dead replay` with these arguments: each letter's line by its place, and the totals.
fn replay(pond: &Pond, arguments: &[&str]) -> (BTreeMap<String, String>, String) {
    let ended = pond.good(&[&["dead", "replay"], arguments].concat());
    let lines = ended.stdout.lines().skip(1).map(|line| {
        let place = line.split_whitespace().next().unwrap();
        (place.to_owned(), line.to_owned())
    });
    (lines.collect(), ended.stderr)
}

fn update(row: &str, fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{row}",{fields}}}"#)
}

/// Produces updates of these rows, one after the other, on the app's own partition.
fn produce(pond: &Pond, updates: &[(&str, &str)]) {
    let partition = pond.partition_of(APP);
    for (row, value) in updates {
        pond.produce(&[Sent {
            partition,
            key: Some(row),
            value: Some(value),
            headers: &[("traceparent", "00-1-2-01")],
        }]);
    }
}

const POISON: &str = r#""tags":{"poison":1},"counts":{"n":5}"#;

/// Makes the shard of [`APP`] refuse the tag "poison".
fn refuse_poison(pond: &Pond) {
    pond.shard(0)
        .batch_execute("ALTER TABLE subscription ADD CONSTRAINT poison CHECK (NOT tags ? 'poison')")
        .unwrap();
}

/// Tags and counts of a row.
fn row(pond: &Pond, row: &str) -> (Value, Value) {
    let sql = format!(
        "SELECT tags::text, counts::text FROM subscription WHERE subscription_id = '{row}'"
    );
    let found = pond.shard(0).query_one(&sql, &[]).unwrap();
    let json = |column| serde_json::from_str(found.get(column)).unwrap();
    (json(0), json(1))
}

fn end_offsets(pond: &Pond) -> Vec<i64> {
    let kafka = pond.configuration().kafka;
    let admin = Admin::connect(&kafka).unwrap();
    admin.end_offsets(&kafka.topic, SOON).unwrap()
}

#[test]
fn letters_are_listed_filtered_and_shown() {
    let pond = pond("letters-list");
    let none = pond.good(&["dead", "list"]);
    assert_eq!(none.stdout, "");
    assert!(none.stderr.contains("no dead letters"), "{}", none.stderr);

    pond.load(&["--messages", "1000", "--rows", "100", "--broken", "33"]);
    pond.catch_up();
    let all = list(&pond, &[]);
    assert_eq!(all.len(), 33);
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in &all {
        *by_reason
            .entry(letter["reason"].as_str().unwrap())
            .or_default() += 1;
        assert_eq!(letter["source_topic"], pond.topic.as_str());
    }
    assert_eq!(by_reason.len(), 11, "{by_reason:?}");
    for (reason, count) in &by_reason {
        assert_eq!(list(&pond, &["--reason", reason]).len(), *count, "{reason}");
    }
    let bad_tags = &list(&pond, &["--reason", "bad-tags"])[0];
    let app = bad_tags["app_id"].as_str().unwrap();
    let of_app = all.iter().filter(|letter| letter["app_id"] == app).count();
    assert_eq!(list(&pond, &["--app", app]).len(), of_app);
    let of_partition = all.iter().filter(|letter| letter["source_partition"] == 2);
    assert_eq!(
        list(&pond, &["--partition", "2"]).len(),
        of_partition.count()
    );
    assert_eq!(list(&pond, &["--since", "-1h"]).len(), 33);
    assert_eq!(list(&pond, &["--since", "2100-01-01T00:00:00Z"]).len(), 0);

    let newest = pond.good(&["dead", "list", "--limit", "5"]);
    assert_eq!(newest.stdout.lines().count(), 6, "{}", newest.stdout);
    assert!(newest.stdout.starts_with("LETTER"), "{}", newest.stdout);
    assert!(
        newest.stderr.contains("newest 5 of 33"),
        "{}",
        newest.stderr
    );
}

#[test]
fn a_letter_is_shown_in_full_and_a_wrong_place_is_named() {
    let pond = pond("letters-show");
    pond.load(&["--messages", "500", "--rows", "100", "--broken", "11"]);
    pond.catch_up();
    let bad_tags = &list(&pond, &["--reason", "bad-tags"])[0];
    let shown = pond.good(&["dead", "show", &place(bad_tags)]).stdout;
    for part in [
        r#""tags":{"address":{"city":"Oslo"}}"#,
        "__dlq.errors.reason: bad-tags",
        bad_tags["subscription_id"].as_str().unwrap(),
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    let (partition, offset) = (
        bad_tags["partition"].to_string(),
        bad_tags["offset"].to_string(),
    );
    assert_eq!(
        pond.good(&["dead", "show", &partition, &offset]).stdout,
        shown
    );
    for (arguments, code, words) in [
        (
            &["dead", "show", "0:4000"][..],
            1,
            "there is no letter at 0:4000",
        ),
        (&["dead", "show", "4", "0"], 1, "there is no partition 4"),
        (&["dead", "show", "first"], 2, "write PARTITION:OFFSET"),
        (&["dead", "list", "--reason", "rain"], 2, "bad-tags"),
    ] {
        let ended = pond.command(arguments);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}");
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

/// Leaves three letters, by their places: of a row that was refused last, of one that has had a newer update since, and one
/// that is no JSON.
fn three_letters(pond: &Pond) -> [String; 3] {
    refuse_poison(pond);
    let poison = |row| update(row, POISON);
    let newer = update(ROW_B, r#""tags":{"newer":true}"#);
    produce(
        pond,
        &[
            (ROW_A, &update(ROW_A, r#""tags":{"first":1}"#)),
            (ROW_A, &poison(ROW_A)),
            (ROW_B, &poison(ROW_B)),
            (ROW_B, &newer),
            (ROW_A, "{"),
        ],
    );
    pond.catch_up();
    let letters = list(pond, &[]);
    [
        (ROW_A, "database"),
        (ROW_B, "database"),
        (ROW_A, "not-json"),
    ]
    .map(|(row, reason)| {
        let is_it =
            |letter: &&Value| letter["subscription_id"] == row && letter["reason"] == reason;
        place(letters.iter().find(is_it).unwrap())
    })
}

/// A constraint refuses two updates. When it is gone they are sent again: the one whose row is as it was at once, the other,
/// whose row has had a newer update, only when that is asked for. Running it twice applies nothing twice.
#[test]
fn letters_whose_cause_is_repaired_are_applied() {
    let pond = pond("letters-repaired");
    let [a, b, broken] = three_letters(&pond);
    pond.shard(0)
        .batch_execute("ALTER TABLE subscription DROP CONSTRAINT poison")
        .unwrap();

    let ends = end_offsets(&pond);
    let (planned, totals) = replay(&pond, &[]);
    assert_eq!(planned.len(), 3);
    assert!(planned[&a].contains("send to partition"), "{}", planned[&a]);
    assert!(planned[&b].contains("held back"), "{}", planned[&b]);
    assert!(
        planned[&broken].contains("not-json"),
        "{}",
        planned[&broken]
    );
    assert!(totals.contains("nothing was sent"), "{totals}");
    assert_eq!(end_offsets(&pond), ends, "a dry run sends nothing");

    let (first, _) = replay(&pond, &["--overwrite-newer", "--limit", "1"]);
    assert_eq!(first.keys().collect::<Vec<_>>(), [&a], "the oldest one");

    let (sent, totals) = replay(&pond, &["--apply"]);
    assert!(sent[&a].contains("sent to partition"), "{}", sent[&a]);
    assert!(
        totals.contains("1 held back, 1 sent, 1 skipped"),
        "{totals}"
    );
    assert_eq!(pond.catch_up()["dead_lettered"], 0);
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(row(&pond, ROW_A).0, json(r#"{"first":1,"poison":1}"#));
    pond.assert_exact();

    let (again, totals) = replay(&pond, &["--apply"]);
    assert!(again[&a].contains("held back"), "{}", again[&a]);
    assert!(totals.contains("2 held back, 1 skipped"), "{totals}");

    let (sent, _) = replay(&pond, &[&b, "--apply", "--overwrite-newer"]);
    assert_eq!(sent.len(), 1, "only the letter that was named");
    assert!(sent[&b].contains("sent to partition"), "{}", sent[&b]);
    pond.catch_up();
    assert_eq!(
        row(&pond, ROW_B),
        (json(r#"{"newer":true,"poison":1}"#), json(r#"{"n":5}"#))
    );
    assert_eq!(row(&pond, ROW_A).1, json(r#"{"n":5}"#), "once");
    pond.assert_exact();
}

/// Of two letters of one row the first is held back, since its row stands at the second. That is said before it is too late:
/// sent together they take effect in their order.
#[test]
fn letters_of_one_row_are_sent_in_their_order() {
    let pond = pond("letters-order");
    refuse_poison(&pond);
    let second = update(ROW_A, r#""tags":{"poison":2},"counts":{"n":5}"#);
    produce(&pond, &[(ROW_A, &update(ROW_A, POISON)), (ROW_A, &second)]);
    assert_eq!(pond.catch_up()["dead_lettered"], 2);
    pond.shard(0)
        .batch_execute("ALTER TABLE subscription DROP CONSTRAINT poison")
        .unwrap();
    let (_, totals) = replay(&pond, &[]);
    assert!(totals.contains("1 letters are held back"), "{totals}");
    assert!(totals.contains("1 held back, 1 to send"), "{totals}");
    let (_, totals) = replay(&pond, &["--apply", "--overwrite-newer"]);
    assert!(totals.contains("2 sent"), "{totals}");
    pond.catch_up();
    let (tags, counts) = row(&pond, ROW_A);
    assert_eq!((&tags["poison"], &counts["n"]), (&2.into(), &10.into()));
    pond.assert_exact();
}

/// The cause is not repaired: each replay comes back as a letter that counts one attempt more, until the cap.
#[test]
fn a_letter_that_is_refused_every_time_does_not_circle() {
    let pond = pond("letters-attempts");
    refuse_poison(&pond);
    produce(&pond, &[(ROW_A, &update(ROW_A, POISON))]);
    pond.catch_up();
    for attempt in 1..=2 {
        let (_, totals) = replay(&pond, &["--apply", "--attempts-max", "2"]);
        assert!(totals.contains("1 sent"), "attempt {attempt}: {totals}");
        assert_eq!(pond.catch_up()["dead_lettered"], 1, "attempt {attempt}");
    }
    let letters = pond.dead_letters();
    let attempts: Vec<&str> = letters
        .iter()
        .map(|letter: &Letter| letter.header("__dlq.errors.attempts"))
        .collect();
    assert_eq!(attempts, ["0", "1", "2"]);
    for letter in &letters {
        assert_eq!(letter.header("traceparent"), "00-1-2-01");
    }
    let (planned, totals) = replay(&pond, &["--apply", "--attempts-max", "2"]);
    assert!(totals.contains("2 held back, 1 skipped"), "{totals}");
    let capped = planned
        .values()
        .filter(|line| line.contains("replayed 2 times already"));
    assert_eq!(capped.count(), 1, "{planned:?}");
    pond.assert_exact();

    // What can't succeed goes only by force, and comes back too.
    produce(&pond, &[(ROW_A, "{")]);
    pond.catch_up();
    let (_, totals) = replay(&pond, &["--apply", "--reason", "not-json", "--force"]);
    assert!(totals.contains("1 sent"), "{totals}");
    assert_eq!(pond.catch_up()["dead_lettered"], 1);
    let attempts: Vec<Value> = list(&pond, &["--reason", "not-json"])
        .iter()
        .map(|letter| letter["attempts"].clone())
        .collect();
    assert_eq!(attempts, [0, 1]);
    pond.assert_exact();

    // Read again, each gets a second letter, of which only the first counts.
    pond.good(&["rewind", "--to", "-1h", "--apply"]);
    pond.catch_up();
    let (_, totals) = replay(&pond, &["--reason", "not-json", "--force"]);
    assert!(totals.contains("2 skipped, 2 to send"), "{totals}");
}

/// An update on a wrong partition is sent to the right one, where it takes effect.
#[test]
fn a_letter_of_a_wrong_partition_goes_home() {
    let pond = pond("letters-home");
    let home = pond.partition_of(APP);
    pond.produce(&[Sent {
        partition: (home + 1) % 4,
        key: Some(ROW_A),
        value: Some(&update(ROW_A, r#""tags":{"lost":true}"#)),
        headers: &[],
    }]);
    assert_eq!(pond.catch_up()["dead_lettered"], 1);
    let (sent, _) = replay(&pond, &["--apply"]);
    let line = sent.values().next().unwrap();
    assert!(
        line.contains(&format!("sent to partition {home}")),
        "{line}"
    );
    assert_eq!(pond.catch_up()["dead_lettered"], 0);
    assert_eq!(row(&pond, ROW_A).0["lost"], true);
    pond.assert_exact();
}

#[test]
fn letters_are_dropped_from_the_beginning_and_only_when_told_which() {
    let pond = pond("letters-drop");
    for seed in ["1", "2"] {
        pond.load(&[
            "--messages",
            "400",
            "--rows",
            "50",
            "--broken",
            "22",
            "--seed",
            seed,
        ]);
    }
    pond.catch_up();
    let all = list(&pond, &[]);
    assert_eq!(all.len(), 44);
    let refused = pond.command(&["dead", "drop", "--apply"]);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let both = pond.command(&["dead", "drop", "--all", "--before", "-1h"]);
    assert_eq!(both.status.code(), Some(2), "{}", both.stderr);
    let dry = pond.good(&["dead", "drop", "--all"]);
    assert!(dry.stderr.contains("nothing was deleted"), "{}", dry.stderr);
    assert_eq!(places(&list(&pond, &[])), places(&all));

    let named = all
        .iter()
        .find(|letter| letter["partition"] == 1 && letter["offset"] == 1);
    pond.good(&["dead", "drop", &place(named.unwrap()), "--apply"]);
    let gone = |letter: &Value| letter["partition"] == 1 && letter["offset"].as_i64() <= Some(1);
    let mut left: Vec<Value> = all.iter().filter(|letter| !gone(letter)).cloned().collect();
    assert_eq!(places(&list(&pond, &[])), places(&left));
    assert_eq!(left.len(), 42);

    let mut times: Vec<i64> = left
        .iter()
        .map(|letter| letter["timestamp_ms"].as_i64().unwrap())
        .collect();
    times.sort_unstable();
    let middle = times[times.len() / 2];
    let before = jiff::Timestamp::from_millisecond(middle)
        .unwrap()
        .to_string();
    pond.good(&["dead", "drop", "--before", &before, "--apply"]);
    // Of each partition, what lies below the first letter of that time.
    let mut open = [false; 4];
    left.retain(|letter| {
        let partition = usize::try_from(letter["partition"].as_u64().unwrap()).unwrap();
        open[partition] |= letter["timestamp_ms"].as_i64() >= Some(middle);
        open[partition]
    });
    assert!(
        (1..42).contains(&left.len()),
        "{} letters are left",
        left.len()
    );
    assert_eq!(places(&list(&pond, &[])), places(&left));

    pond.good(&["dead", "drop", "--all", "--apply"]);
    let none = pond.good(&["dead", "list"]);
    assert!(none.stderr.contains("no dead letters"), "{}", none.stderr);
    // As its help says.
    assert_eq!(pond.verify()["dead_letters_missing"], 44);
    let again = pond.good(&["dead", "drop", "--all", "--apply"]);
    assert!(again.stderr.contains("no dead letters"), "{}", again.stderr);
}
