//! The incident, on its own kind of consumer, found three times: by the log alone, by `inspect` alone, by the status page alone.
//! README.md, "Lag is growing. What now?", has these steps.

use crate::browser::Browser;
use crate::child::{Process, log_lines};
use crate::hot::{logged, rule};
use crate::page::{prepared_rule, send_rule};
use crate::pond::{Pond, Shape};
use millpond::ids::{AppId, RowKey, SubscriptionId};
use millpond::load::clothesly::EMAIL;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// The page compares with the minute before; the machine may be slow.
const MINUTES: Duration = Duration::from_secs(150);

/// A commit takes long, as over a network, so that one connection writes the hot row more slowly than its updates come, and the
/// others have little to do.
fn slow_commits(pond: &Pond) {
    let mut shard = pond.shard(0);
    let name: String = shard
        .query_one("SELECT current_database()", &[])
        .unwrap()
        .get(0);
    for setting in ["commit_delay = 7000", "commit_siblings = 0"] {
        shard
            .batch_execute(&format!("ALTER DATABASE {name} SET {setting}"))
            .unwrap();
    }
}

/// Which row it is, as the traffic's definition has it; the customer is whoever has most messages.
fn row_of(app: &str) -> RowKey {
    let app = AppId::parse(app.as_bytes()).unwrap();
    RowKey {
        app,
        subscription: SubscriptionId::of_email(app, EMAIL),
    }
}

/// 1. Which app has most messages of the last minutes? 2. Which of its rows? 3. Who is that?
fn found_by_inspect(pond: &Pond) -> RowKey {
    let counted = |arguments: &[&str]| {
        log_lines(
            &pond
                .good(&[&["inspect", "-e", "-J"], arguments].concat())
                .stdout,
        )
    };
    let app = counted(&["-o", "s@-15m", "--group-by", "app"]).swap_remove(0);
    assert!(app["share"].as_f64().unwrap() > 0.9, "{app}");
    let app = app["app_id"].as_str().unwrap();
    let row = counted(&["--app", app, "--group-by", "subscription"]).swap_remove(0);
    assert!(row["share"].as_f64().unwrap() > 0.4, "{row}");
    let id = row["subscription_id"].as_str().unwrap();
    let of_row = ["--app", app, "--subscription", id];
    let who = counted(&[&of_row[..], &["--group-by", "identifier"]].concat());
    assert!(
        who.iter().any(|line| line["identifier"] == EMAIL),
        "{who:?}"
    );
    let minutes = counted(&[&of_row[..], &["--every", "1m"]].concat());
    assert!(
        !minutes.is_empty() && minutes.iter().all(|line| line["ts"].is_i64()),
        "{minutes:?}"
    );
    assert_eq!(id, row_of(app).subscription.to_string());
    row_of(app)
}

/// 1. Does the lag of the `status` lines grow? 2. Which row do they name? 3. The warning about it has the rule.
fn found_by_log(consumer: &Process) -> RowKey {
    let said = consumer.said();
    let mut status = log_lines(&said);
    status.retain(|line| line["msg"] == "status");
    let lags = status
        .iter()
        .map(|line| line["lag_messages"].as_u64().unwrap());
    let lags: Vec<u64> = lags.collect();
    assert!(
        lags.len() > 4 && lags.last() > lags.get(lags.len() / 2),
        "{lags:?}"
    );
    let warning = logged(&said, "one row has", "");
    let row = row_of(warning["app_id"].as_str().unwrap());
    assert_eq!(warning["rule"], rule(&row));
    let RowKey { app, subscription } = row;
    let last = status.last().unwrap().to_string();
    assert!(
        last.contains(&format!("s0: row {app}/{subscription}")),
        "{last}"
    );
    row
}

/// Read the first finding: what it says, and the row that its button is about.
fn found_by_page(browser: &mut Browser) -> (String, RowKey) {
    let why = "document.querySelector('.finding .why')?.textContent ?? ''";
    browser.wait_for(
        &format!("({why}).includes('connections are idle')"),
        MINUTES,
    );
    let words = browser.text(".finding .what") + ": " + &browser.text(".finding .why");
    browser.click(".finding .steps button:not([aria-label])");
    let ids = prepared_rule(browser);
    let row = row_of(ids[0].as_str().unwrap());
    assert_eq!(ids[1], row.subscription.to_string());
    (words, row)
}

/// The rule that the button prepared is sent.
fn ended_by_page(pond: &Pond, browser: &mut Browser) {
    let reason = "a shop's own address, given for every visitor";
    send_rule(browser, &[("reason", reason), ("author", "ann")]);
    let said = browser.text("#rule-said");
    assert!(said.ends_with(" holds."), "{said}");
    pond.wait_for("what waited is skipped or applied", SOON, |pond| {
        pond.metric("millpond_lag_messages") < Some(500.0)
    });
    browser.wait_for(
        "!document.querySelector('.finding').matches('.bad, .warn')",
        SOON,
    );
}

#[test]
fn the_incident_is_found_by_the_log_by_inspect_and_by_the_page_alone() {
    let shape = Shape {
        shards: 1,
        workers: 16,
        consumer: "[rules]\nlinks_per_parent_max = 0\n",
        ..Shape::default()
    };
    let pond = Pond::new("found", &shape);
    slow_commits(&pond);
    let consumer = pond.start(&["run", "--baseline"], &[]);
    pond.wait_for("the consumer is ready", SOON, |pond| {
        pond.admin("/readyz")
            .is_some_and(|(status, _)| status == 200)
    });
    let load = [
        "load",
        "--scenario",
        "clothesly",
        "--rows",
        "20000",
        "--rate",
        "400",
        "--messages",
        "200000",
    ];
    let load = pond.start(&load, &[]);
    let mut browser = Browser::open(&format!("http://127.0.0.1:{}/", pond.admin_port));
    pond.wait_for("the log warns", MINUTES, |_| {
        consumer.has_said("one row has")
    });
    let (words, row) = found_by_page(&mut browser);
    println!("{words}");
    assert_eq!(found_by_log(&consumer), row);
    assert_eq!(found_by_inspect(&pond), row);
    ended_by_page(&pond, &mut browser);
    load.kill();
    assert!(consumer.terminate(SOON).status.success());
    assert_eq!(
        browser.complaints,
        [] as [Value; 0],
        "nothing on the console"
    );
}
