//! What is said where the table, the messages and the configuration differ.

use super::{ACCOUNT, produce};
use crate::pond::{Pond, Shape};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_table_of_another_shape_is_refused_with_what_mends_it() {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        consumer: ACCOUNT,
        ..Shape::default()
    };
    let pond = Pond::without_init("shapeless", &shape);
    pond.shard(0)
        .batch_execute(
            "CREATE TABLE account (tenant varchar NOT NULL, number bigint NOT NULL, balance numeric(12,2), \
             newest timestamptz, lowest bigint DEFAULT 0, region text NOT NULL, source_incarnation int NOT NULL, \
             source_leader_epoch int NOT NULL, source_offset bigint, updated_at timestamptz NOT NULL, \
             PRIMARY KEY (number))",
        )
        .unwrap();
    let refused = pond.command(&["init"]);
    assert!(!refused.status.success());
    for expected in [
        "column account.tenant is character varying, and the configuration says text: correct the one or the other",
        "column account.balance is numeric(12,2), and the configuration says numeric(14,2)",
        "column account.bookings is missing (ALTER TABLE \"account\" ADD COLUMN \"bookings\" bigint NOT NULL DEFAULT 0)",
        "column account.region is NOT NULL without a default, and an update may leave it out",
        "there is no unique index on exactly the key columns of account",
        "column account.source_offset may be NULL, which no fence can be compared with",
        "column account.lowest has a default, with which every number would be compared",
    ] {
        assert!(
            refused.stderr.contains(expected),
            "{}\n{expected}",
            refused.stderr
        );
    }
    pond.shard(0)
        .batch_execute(
            "ALTER TABLE account ALTER tenant TYPE text, ALTER balance TYPE numeric(14,2), \
             ADD COLUMN bookings bigint NOT NULL DEFAULT 0, ALTER region SET DEFAULT 'north', \
             ALTER source_offset SET NOT NULL, ALTER lowest DROP DEFAULT; \
             CREATE UNIQUE INDEX ON account (tenant, number)",
        )
        .unwrap();
    pond.good(&["init"]);
    for (command, name) in [
        (&["ingest"][..], "ingest"),
        (&["dead", "replay"], "dead replay"),
    ] {
        let refused = pond.command(command);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
        let expected = format!("`millpond {name}` is for the table subscription only");
        assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    }
}

#[test]
fn paths_that_lead_nowhere_are_found_in_the_newest_messages() {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        consumer: ACCOUNT,
        ..Shape::default()
    };
    let pond = Pond::new("paths", &shape);
    let empty = pond.good(&["config", "check", "--connect"]);
    assert!(
        empty.stdout.contains("messages: none to look at"),
        "{}",
        empty.stdout
    );
    let key = r#"{"tenant":"a","nummer":1}"#.to_owned();
    produce(
        &pond,
        &[(
            0,
            key,
            Some(r#"{"amuont":1,"count":1,"at":"2020-01-01T00:00:00Z"}"#.to_owned()),
        )],
    );
    let misspelled = pond.command(&["config", "check", "--connect"]);
    assert!(!misspelled.status.success());
    let expected = "column number: nothing is at @key.number in any of the 1 newest messages, so all would be dead letters. There \
                    is: @key.nummer, @key.tenant, amuont, at, count; correct table.columns.number.from";
    assert!(
        misspelled.stderr.contains(expected),
        "{}",
        misspelled.stderr
    );
    pond.reconfigure("@key.number", "@key.nummer");
    let warned = pond.good(&["config", "check", "--connect"]);
    assert!(
        warned
            .stdout
            .contains("messages: 1 of the 1 newest name their row"),
        "{}",
        warned.stdout
    );
    let expected = "warning: column balance: nothing is at amount in any of the 1 newest messages";
    assert!(warned.stderr.contains(expected), "{}", warned.stderr);
}

/// Accounts with constraints of their own: no balance below 0, no two that saw the same.
fn constrained() -> Pond {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        workers: 1,
        consumer: ACCOUNT,
        ..Shape::default()
    };
    let pond = Pond::without_init("constrained", &shape);
    pond.shard(0)
        .batch_execute(
            "CREATE TABLE account (tenant text, number bigint, balance numeric(14,2) NOT NULL DEFAULT 0 CHECK (balance >= 0), \
             bookings bigint NOT NULL DEFAULT 0, newest timestamptz, lowest bigint UNIQUE, PRIMARY KEY (tenant, number))",
        )
        .unwrap();
    pond.good(&["init", "--adopt", "--apply"]);
    pond.good(&["init"]);
    pond
}

#[test]
fn constraints_of_the_tables_own_judge_rows_as_they_would_be_and_stop_nobody() {
    let pond = constrained();
    let says = |number: i64, value: &str| {
        let key = format!(r#"{{"tenant":"a","number":{number}}}"#);
        (0, key, Some(value.to_owned()))
    };
    let process = pond.start(&["run"], &[]);
    let applied = |messages: f64| {
        pond.wait_for("they are applied", SOON, |pond| {
            pond.metric("millpond_messages_total") == Some(messages)
        });
    };
    let first: Vec<_> = (0..200)
        .map(|number| says(number, &format!(r#"{{"amount":100,"seen":{number}}}"#)))
        .collect();
    produce(&pond, &first);
    applied(200.0);
    // The worker makes rows now. As a row of its own this one would be against the check.
    produce(&pond, &[says(1, r#"{"amount":-30}"#)]);
    applied(201.0);
    produce(
        &pond,
        &[
            says(2, r#"{"amount":-500}"#),
            says(3, r#"{"seen":1}"#),
            says(4, r#"{"amount":-100}"#),
        ],
    );
    applied(204.0);
    process.terminate(SOON);
    // More rows than a statement is tried again, each with a sum that no account holds on the way.
    let much = (20..60).flat_map(|number| {
        let more = says(number, r#"{"amount":"600000000000.00"}"#);
        [more.clone(), more]
    });
    produce(&pond, &much.collect::<Vec<_>>());
    let summary = pond.catch_up();
    assert_eq!(summary["dead_lettered"], 40, "{summary}");
    let letters = pond.dead_letters();
    let reasons = letters
        .iter()
        .map(|letter| match letter.header("__dlq.errors.reason") {
            "database" => letter.header("__dlq.errors.sqlstate"),
            reason => reason,
        });
    let reasons: BTreeSet<&str> = reasons.collect();
    assert_eq!(reasons, BTreeSet::from(["23505", "23514", "overflow"]));
    let sql = "SELECT balance::text FROM account WHERE number IN (1, 2, 3, 4, 20) ORDER BY number";
    let balances = pond.shard(0).query(sql, &[]).unwrap();
    let balances: Vec<String> = balances.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        balances,
        ["70.00", "100.00", "100.00", "0.00", "600000000100.00"]
    );
    pond.assert_exact();
}

#[test]
fn a_table_that_is_there_is_adopted_and_goes_on_from_what_it_holds() {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        consumer: ACCOUNT,
        ..Shape::default()
    };
    let pond = Pond::without_init("adopted", &shape);
    pond.shard(0)
        .batch_execute(
            "CREATE TABLE account (id serial PRIMARY KEY, tenant text NOT NULL, number bigint NOT NULL, \
             balance numeric(14,2) NOT NULL DEFAULT 0, bookings bigint NOT NULL DEFAULT 0, newest timestamptz, lowest bigint); \
             INSERT INTO account (tenant, number, balance, bookings) VALUES ('a', 1, 100.5, 7), ('a', 2, 1, 1)",
        )
        .unwrap();
    let refused = pond.command(&["init"]);
    assert!(
        refused
            .stderr
            .contains("column account.source_offset is missing"),
        "{}",
        refused.stderr
    );
    let printed = pond.good(&["init", "--adopt"]).stdout;
    assert_eq!(printed.lines().count(), 2, "{printed}");
    let applied = pond.good(&["init", "--adopt", "--apply"]).stdout;
    assert_eq!(applied, printed, "what is printed is what is run");
    assert_eq!(
        pond.good(&["init", "--adopt"]).stdout,
        "",
        "nothing is left"
    );
    pond.good(&["init"]);
    let key = |number: i64| format!(r#"{{"tenant":"a","number":{number}}}"#);
    let booking = Some(r#"{"amount":"0.50","count":1}"#.to_owned());
    produce(&pond, &[(0, key(1), booking.clone()), (0, key(3), booking)]);
    pond.catch_up();
    let rows: Vec<(i64, String, i64)> = pond
        .shard(0)
        .query(
            "SELECT number, balance::text, bookings FROM account ORDER BY number",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let row = |number, balance: &str, bookings| (number, balance.to_owned(), bookings);
    assert_eq!(
        rows,
        [row(1, "101.00", 8), row(2, "1.00", 1), row(3, "0.50", 1)]
    );
    let verdict = pond.assert_exact();
    assert_eq!(
        (&verdict["rows_checked"], &verdict["unverifiable"]),
        (&1.into(), &2.into())
    );
}
