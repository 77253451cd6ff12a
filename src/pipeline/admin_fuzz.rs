//! Whatever is asked at the admin address of a consumer: an answer that says what is wrong, and no change without the token and a good
//! request. The consumer is not there, its rules topic is a thread: `tests/system/admin.rs` asks a real one.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests say what they saw"
)]

use super::control::Control;
use super::rules::api;
use super::workers_api::with_workers;
use crate::config::checked::Secret;
use crate::fuzz;
use crate::http::{Method, Request, Response, Routes};
use crate::ids::ShardIndex;
use crate::observe::Registry;
use crate::observe::admin::consumer_routes;
use crate::observe::gate::Gate;
use crate::observe::log::api::with_log;
use crate::observe::log::applied::{Target, WATCHED_MAX};
use crate::observe::page::with_page;
use crate::rules::record::RuleId;
use crate::rules::shared::Order;
use crate::rules::shown::Shown;
use crate::rules::table::{Entry, Table};
use crate::rules::{ACTIVE_MAX, Rules};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

const TOKEN: &str = "sturgeon-41";
const INPUTS: u64 = 100_000;
/// With more rules than that each answer takes long, and says nothing new.
const RULES_MAX: usize = 40;

const TOKENS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "/api/rules",
    "/api/workers",
    "/api/log",
    "/api/status",
    "/metrics",
    "/",
    "//",
    "?",
    "&",
    "=",
    "id=",
    "author=",
    "app_id=",
    "%",
    "%00",
    "%zz",
    "+",
    "%C3%B6",
    "\n",
    "\n\n",
    ":",
    "authorization",
    "Bearer",
    "bearer",
    "sturgeon-41",
    "sturgeon-4",
    "origin: http://evil.example\n",
    "origin: null\n",
    "host: 127.0.0.1\n",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "1e3",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\\n",
    "\0",
    "\u{feff}",
    "é",
    "😀",
    "\u{202e}",
    "\"app_id\"",
    "\"subscription_id\"",
    "\"parent_id\"",
    "\"reason\"",
    "\"author\"",
    "\"until\"",
    "\"workers\"",
    "\"shard\"",
    "\"for_s\"",
    "\"s0\"",
    "\"x\":1",
    "2999-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "-9999-01-01",
    "5eb5a37e-b458-11e3-ac11-000c2940e62c",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
];

struct World {
    routes: Routes,
    rules: Arc<Rules>,
    registry: Arc<Registry>,
    control: Arc<Control>,
}

/// What a request can change.
#[derive(Debug, PartialEq)]
struct State {
    rules: u64,
    watched: Vec<(Target, Instant)>,
    workers: String,
}

impl World {
    fn new() -> Self {
        let names = vec!["s0".to_owned(), "s1".to_owned()];
        let registry = Arc::new(Registry::new(1, vec![ShardIndex(0), ShardIndex(1)], names));
        let control = Arc::new(Control::new(&registry, Vec::new()));
        let rules = Arc::new(Rules::new(true));
        keep(&rules);
        let gate = Gate::new(Some(Secret(TOKEN.to_owned())));
        let routes = with_workers(consumer_routes(&registry), &control, &gate);
        let routes = api::routes(routes, &gate, &rules);
        let routes = with_log(routes, &registry, &gate);
        let routes = with_page(routes, &registry, &rules, &gate);
        Self {
            routes,
            rules,
            registry,
            control,
        }
    }

    fn state(&self) -> State {
        let watched = self.registry.telemetry.applied.watched();
        assert!(watched.len() <= WATCHED_MAX);
        let watched = watched.iter().map(|one| (one.target, one.until));
        State {
            rules: self.rules.version(),
            watched: watched.collect(),
            workers: format!("{:?}", self.control.workers()),
        }
    }

    fn answer(&self, request: &Request) -> Response {
        let mut before = self.state();
        let response = self.routes.answer(request);
        let (status, mut after) = (response.status().as_u16(), self.state());
        // What came to its end meanwhile was changed by nobody.
        let now = crate::clock::now();
        before.watched.retain(|(_, until)| *until > now);
        after.watched.retain(|(_, until)| *until > now);
        let known = [200, 202, 302, 400, 401, 403, 404, 405, 409, 503];
        assert!(known.contains(&status), "{status}");
        if after != before {
            let changes = [Method::POST, Method::PUT, Method::DELETE].contains(request.method());
            let token = request.headers().get("authorization");
            let has_token = token.is_some_and(|token| token.as_bytes().ends_with(TOKEN.as_bytes()));
            assert!(
                changes && has_token && status < 300,
                "{status} {before:?} {after:?}"
            );
        }
        response
    }

    /// Everything that there is can be asked for, and is what could be asked for.
    fn assert_sound(&self) {
        let table = self.rules.table();
        assert!(table.entries.len() <= ACTIVE_MAX);
        for entry in &table.entries {
            let shown = Shown::of(entry, crate::clock::timestamp());
            let texts = [&shown.reason, &shown.author];
            assert!(
                texts.iter().all(|text| !text.trim().is_empty()),
                "{shown:?}"
            );
            let json = serde_json::to_string(&shown).unwrap();
            let read: Shown = serde_json::from_str(&json).unwrap();
            assert!(RuleId::parse(&read.id).is_some(), "{json}");
            if let Some(until) = read.until {
                until.parse::<jiff::Timestamp>().unwrap();
            }
        }
    }
}

/// What the rules topic does, until nobody holds the rules any more.
fn keep(rules: &Arc<Rules>) {
    let (ordered, rules) = (rules.ordered().clone(), Arc::downgrade(rules));
    std::thread::spawn(move || {
        while let Ok(order) = ordered.recv() {
            let (Order::Write(rule, answer), Some(rules)) = (order, rules.upgrade()) else {
                return;
            };
            let mut entries = rules.table().entries.clone();
            entries.retain(|entry| entry.rule.id != rule.id);
            entries.push(Entry {
                rule,
                spans: Default::default(),
                skipped: Arc::default(),
                undecided: Vec::new(),
                effective_at: None,
            });
            rules.publish(Table::new(entries, Default::default()));
            let _ = answer.send(Ok(()));
        }
    });
}

/// A line with method and target, headers, an empty line, the body. `None`: what HTTP would not let through.
fn request(input: &[u8]) -> Option<Request> {
    let head_end = input.windows(2).position(|at| at == b"\n\n")?;
    let (head, body) = (
        std::str::from_utf8(&input[..head_end]).ok()?,
        &input[head_end + 2..],
    );
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let headers: Option<Vec<(&str, &str)>> = lines.map(|line| line.split_once(": ")).collect();
    Request::try_for_tests(method, target, &headers?, body)
}

#[test]
fn whatever_is_asked_at_the_admin_address_only_a_good_request_with_the_token_changes_anything() {
    let mut world = World::new();
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    fuzz::each("admin", TOKENS, INPUTS, |_, input| {
        let Some(request) = request(input) else {
            return;
        };
        let status = world.answer(&request).status().as_u16();
        let (method, path) = (request.method(), request.path());
        if path.starts_with("/api/") && ![404, 405].contains(&status) {
            *answers
                .entry(format!("{method} {path} {status}"))
                .or_default() += 1;
        }
        if world.rules.table().entries.len() > RULES_MAX {
            world.assert_sound();
            world = World::new();
        }
    });
    world.assert_sound();
    println!("{answers:?}");
    for reached in [
        "POST /api/rules 200",
        "POST /api/rules 400",
        "POST /api/rules 401",
        "POST /api/rules 403",
        "DELETE /api/rules 400",
        "PUT /api/log 200",
        "PUT /api/log 400",
        "DELETE /api/log 200",
        "PUT /api/workers 503",
        "PUT /api/workers 400",
        "GET /api/status 200",
    ] {
        assert!(
            answers.contains_key(reached),
            "{reached} was not reached: {answers:?}"
        );
    }
}

#[test]
fn a_rule_that_was_made_is_there_and_one_that_is_removed_says_by_whom() {
    let world = World::new();
    let token = format!("Bearer {TOKEN}");
    let ask = |method: &str, target: &str, body: &str| {
        let headers = [("authorization", token.as_str())];
        let request = Request::for_tests(method, target, &headers, body);
        world.answer(&request).status().as_u16()
    };
    let app = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
    let rule = format!(r#"{{"app_id":"{app}","reason":"flood","author":"ann"}}"#);
    assert_eq!(ask("POST", "/api/rules", &rule), 200);
    let id = world.rules.table().entries[0].rule.id;
    assert_eq!(
        ask("DELETE", &format!("/api/rules?id={id}&author=bob"), ""),
        200
    );
    let removed = world.rules.table().entries[0].rule.removed.clone();
    assert_eq!(removed.unwrap().author, "bob");
    world.assert_sound();
}
