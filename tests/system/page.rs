//! The status page as somebody with a browser has it: what it shows, that it lives, and what can be changed with it.

use crate::browser::Browser;
use crate::pond::{Pond, Shape};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: u32 = 96;

fn count(browser: &mut Browser, selector: &str) -> u64 {
    let selector = json!(selector);
    let count = browser.value(&format!("document.querySelectorAll({selector}).length"));
    count.as_u64().unwrap()
}

fn rules(pond: &Pond) -> Vec<Value> {
    let (_, body) = pond.admin("/api/rules").unwrap();
    serde_json::from_str(&body).unwrap()
}

/// App and row in the form for a rule.
pub fn prepared_rule(browser: &mut Browser) -> Value {
    browser.value("['app_id', 'subscription_id'].map(name => document.querySelector('#rule-form').elements[name].value)")
}

/// Types into fields of the form for a rule, and sends it.
pub fn send_rule(browser: &mut Browser, fields: &[(&str, &str)]) {
    for (name, text) in fields {
        let (name, text) = (json!(name), json!(text));
        browser.value(&format!(
            "document.querySelector('#rule-form').elements[{name}].value = {text}"
        ));
    }
    browser.click("#rule-form button");
    browser.wait_for(
        "document.querySelector('#rule-said').matches('.good, .bad')",
        SOON,
    );
}

fn assert_all_is_shown(browser: &mut Browser) {
    browser.wait_for(
        "document.querySelectorAll('#hot-rows button').length > 3",
        SOON,
    );
    browser.wait_for(
        "document.querySelectorAll('.tiles .curve').length === 5",
        SOON,
    );
    browser.wait_for(
        "document.querySelectorAll('#latency .curve').length === 4",
        SOON,
    );
    assert_eq!(count(browser, "#heat .cell"), u64::from(PARTITIONS));
    assert_eq!(count(browser, "#heat .cell.none"), 0, "all are here");
    assert_eq!(count(browser, "#shards tr"), 2);
    assert!(browser.text("#shards tr").contains("apps 00–7f"));
    assert!(count(browser, ".finding .what") >= 1);
    let headings = "[...document.querySelectorAll('h2')].map(of => of.textContent).join()";
    assert_eq!(
        browser.value(headings),
        "Findings,Now, and the last 15 minutes,Partitions,Shards,Latency,Most messages,Skip rules,Processes of the group"
    );
    // Nobody is left without a name: not for the eye, not for the ear.
    let nameless = "[...document.querySelectorAll('input')].filter(of => !of.labels.length && !of.ariaLabel).length";
    assert_eq!(browser.value(nameless), 0);
}

fn assert_it_lives(browser: &mut Browser) {
    let figures = "document.querySelector('.tiles').textContent + document.querySelector('#about').textContent";
    let before = browser.value(figures);
    let before = json!(before);
    browser.wait_for(&format!("{figures} !== {before}"), Duration::from_secs(10));
}

fn assert_the_keyboard_moves(browser: &mut Browser) {
    browser.value("document.querySelector('#heat .cell').focus()");
    browser.press("ArrowRight");
    assert_eq!(browser.value("document.activeElement.dataset.number"), "1");
    let said = browser.text("#heat-said");
    assert!(said.starts_with("Partition 1 of shard s0: lag "), "{said}");
    browser.value("document.querySelector('#heat-by button').focus()");
    browser.press("ArrowRight");
    assert_eq!(browser.text("#heat-by [aria-checked=true]"), "Lag");
}

/// From the hottest row's button to a rule that the consumer has, and back.
fn assert_a_rule_comes_and_goes(browser: &mut Browser, pond: &Pond) {
    browser.click("#hot-rows button");
    let filled = prepared_rule(browser);
    send_rule(
        browser,
        &[("reason", "a test <b>of</b> it"), ("author", "ann")],
    );
    let said = browser.text("#rule-said");
    assert!(said.ends_with(" holds."), "{said}");
    let rule = rules(pond).swap_remove(0);
    assert_eq!(rule["app_id"], filled[0]);
    assert_eq!(rule["subscription_id"], filled[1]);
    assert_eq!(
        (&rule["reason"], &rule["state"]),
        (&json!("a test <b>of</b> it"), &json!("active"))
    );
    pond.wait_for("the rule skips", SOON, |pond| {
        rules(pond)[0]["skipped"].as_u64() > Some(0)
    });
    browser.wait_for(
        "document.querySelector('#rules').textContent.includes('a test <b>of</b> it')",
        SOON,
    );
    browser.click("#rules button");
    browser.wait_for(
        "document.querySelector('#rule-said').textContent.includes('is taken back')",
        SOON,
    );
    assert_eq!(rules(pond)[0]["state"], "removed");
    browser.wait_for(
        "document.querySelector('#rules').textContent === 'No rule is active.'",
        SOON,
    );
}

fn assert_workers_change(browser: &mut Browser, pond: &Pond) {
    browser.value("document.querySelector('#shards input').value = 3");
    browser.click("#shards form button");
    browser.wait_for(
        "document.querySelector('#workers-said').matches('.good, .bad')",
        SOON,
    );
    let said = browser.text("#workers-said");
    assert!(
        said.starts_with("Shard s0, core group 0: 2 → 3 workers"),
        "{said}"
    );
    let (_, body) = pond.admin("/api/workers").unwrap();
    let workers: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(workers["shards"][0]["workers"], 3);
}

fn assert_dark_and_narrow(browser: &mut Browser) {
    let back = "getComputedStyle(document.body).backgroundColor";
    let light = browser.value(back);
    browser.prefer("dark");
    let light = json!(light);
    browser.wait_for(&format!("{back} !== {light}"), SOON);
    browser.click("#theme");
    assert_eq!(browser.value(back), light, "the button goes the other way");
    browser.size(375, 800);
    let wide = browser.value("document.documentElement.scrollWidth");
    assert!(wide.as_u64() <= Some(375), "{wide}");
}

#[test]
fn the_status_page_shows_lives_and_changes_what_it_says() {
    let shape = Shape {
        partitions: PARTITIONS,
        ..Shape::default()
    };
    let pond = Pond::new("page", &shape);
    let process = pond.start(&["run"], &[]);
    let load = [
        "load",
        "--scenario",
        "hot",
        "--apps",
        "40",
        "--rows",
        "2000",
        "--messages",
        "1000000",
        "--rate",
        "2000",
    ];
    let load = pond.start(&load, &[]);
    pond.wait_for("it answers", SOON, |pond| {
        pond.admin("/api/status").is_some()
    });
    let begun = Instant::now();
    let mut browser = Browser::open(&format!("http://127.0.0.1:{}/", pond.admin_port));
    browser.wait_for(
        "document.querySelector('#live')?.textContent === 'live'",
        SOON,
    );
    println!("the page lives after {:?}", begun.elapsed());
    assert_all_is_shown(&mut browser);
    assert_it_lives(&mut browser);
    assert_the_keyboard_moves(&mut browser);
    assert_a_rule_comes_and_goes(&mut browser, &pond);
    assert_workers_change(&mut browser, &pond);
    assert_dark_and_narrow(&mut browser);
    assert_eq!(
        browser.complaints,
        [] as [Value; 0],
        "nothing on the console"
    );
    // A refusal is shown as the server writes it; the browser notes it, too.
    send_rule(&mut browser, &[("app_id", "no-id"), ("reason", "r")]);
    let said = browser.text("#rule-said");
    assert!(said.contains("app_id") && said.contains("no-id"), "{said}");
    load.kill();
    assert!(process.terminate(SOON).status.success());
    browser.wait_for("document.querySelector('#away').textContent.startsWith('No answer from the server since ')", SOON);
    let process = pond.start(&["run"], &[]);
    browser.wait_for("document.querySelector('#away').hidden && document.querySelector('#live').textContent === 'live'", SOON);
    let is_network = |complaint: &Value| complaint["entry"]["source"] == "network";
    assert!(
        browser.complaints.iter().all(is_network),
        "{:?}",
        browser.complaints
    );
    println!("all of it took {:?}", begun.elapsed());
    assert!(process.terminate(SOON).status.success());
}
