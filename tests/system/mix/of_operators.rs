//! What operators do, and what senders send.

use super::{Harm, World, pause, within};
use crate::child::Process;
use crate::pond::Sent;
use crate::reading::Reading;
use millpond::ids::AppId;
use millpond::kafka::admin::Admin;
use postgres::{Config, NoTls};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::time::Duration;

/// How long a command or its effect may take while other things are in trouble.
const DONE: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(5);
const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

/// A command's line of JSON, if it succeeded in time.
fn command(world: &World, arguments: &[&str]) -> Option<String> {
    let mut process: Process = world.pond.start(arguments, &[]);
    if !process.ends_within(DONE) {
        process.kill();
        return None;
    }
    let ended = process.wait(DONE);
    ended.status.success().then_some(ended.stdout)
}

/// Another number for a while, then the configured one again.
pub fn workers(world: &World, place: usize, random: &mut SmallRng) -> Option<String> {
    let (_, port) = world.fleet.at(place)?;
    let address = format!("127.0.0.1:{port}");
    let set = |workers: u32| {
        let number = workers.to_string();
        let done = command(world, &["workers", "set", &number, "--admin", &address]);
        let of_both = Some(f64::from(2 * workers));
        let is_so =
            || Reading::take(port).is_some_and(|now| now.sum("millpond_workers") == of_both);
        done.is_some() && within(DONE, is_so)
    };
    let workers = random.random_range(3..=6);
    let seen = set(workers);
    pause(random, 0..2000);
    let back = set(2);
    seen.then(|| format!("{workers} of each shard; back: {back}"))
}

/// An app that is written to now.
fn some_app(world: &World, shard: usize) -> Option<String> {
    let mut config: Config = world.pond.address(shard).parse().unwrap();
    config
        .connect_timeout(ANSWER)
        .options("-c statement_timeout=5s");
    let mut client = config.connect(NoTls).ok()?;
    let query = "SELECT app_id::text FROM subscription TABLESAMPLE SYSTEM (10) ORDER BY updated_at DESC LIMIT 1";
    client.query_opt(query, &[]).ok()?.map(|row| row.get(0))
}

pub fn rule(world: &World, random: &mut SmallRng, harm: &Harm<'_>) -> Option<String> {
    let app = some_app(world, random.random_range(0..2))?;
    world.checker.spare(AppId::parse(app.as_bytes())?);
    let mut asked = |arguments: &[&str]| {
        let port = *world.fleet.ports().choose(random)?;
        let address = format!("127.0.0.1:{port}");
        let common = ["--author", "mix", "--format", "json", "--admin", &address];
        command(world, &[&["rules"], arguments, &common[..]].concat())
    };
    let rule = asked(&["add", "--app", &app, "--reason", "mix"])?;
    let rule: Value = serde_json::from_str(rule.trim()).ok()?;
    let skipped = |world: &World| world.sum("millpond_skipped_total", &[]);
    let mut before = skipped(world);
    let seen = within(DONE, || {
        let now = skipped(world);
        let has_risen = now > before;
        before = now;
        has_risen
    });
    harm.over();
    let id = rule["id"].as_str()?;
    let removed = (0..3).any(|_| asked(&["remove", id]).is_some());
    seen.then(|| format!("updates skipped; removed: {removed}"))
}

/// Messages that no row can come of, and one that the database refuses.
pub fn poison(world: &World, harm: &Harm<'_>) -> Option<String> {
    let kafka = world.pond.configuration().kafka;
    let letters = || {
        let admin = Admin::connect(&kafka).ok()?;
        let ends = admin.end_offsets(&kafka.dead_letter_topic, ANSWER).ok()?;
        Some(ends.iter().sum::<i64>())
    };
    let before = letters()?;
    let update =
        |tags: &str| format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}","tags":{tags}}}"#);
    let [refused, nul] = [r#"{"poison":1}"#, "{\"a\":\"\\u0000\"}"].map(update);
    let values = [Some("{"), None, Some(&refused), Some(&nul)];
    let messages = values.map(|value| Sent {
        partition: world.pond.partition_of(APP),
        key: Some(ROW),
        value,
        headers: &[],
    });
    world.pond.try_produce(&messages).ok()?;
    harm.over();
    let mut now = before;
    let seen = within(DONE, || {
        now = letters().unwrap_or(before);
        now >= before + 4
    });
    seen.then(|| format!("{} dead letters", now - before))
}
