//! The admin address of a running consumer: each path and method that changes something asks for the token, and whatever is sent
//! there, the consumer goes on and nothing changes but by a good request.

use crate::child::Process;
use crate::fuzz;
use crate::pond::{Pond, Shape};
use crate::reading;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// A change of workers may wait for the one before it, and a rule for its partitions.
const ANSWER: Duration = Duration::from_secs(60);
const TOKEN: &str = "sturgeon-41";
const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const INPUTS: u64 = 5000;
const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r\n\r\n",
    "GET",
    "PUT",
    "POST",
    "DELETE",
    "/api/rules",
    "/api/workers",
    "/api/log",
    "HTTP/1.0",
    "HTTP/2.0",
    " ",
    ":",
    "content-length: 5\r\n",
    "transfer-encoding: chunked\r\n",
    "authorization: Bearer x\r\n",
    "Bearer",
    "sturgeon-41",
    "expect: 100-continue\r\n",
    "connection: close\r\n",
    "?id=",
    "&author=a",
    "%00",
    "\0",
    "{",
    "}",
    "\"",
    ",",
    "null",
    "-1",
    "0",
    "1",
    "4",
    "1e3",
    "\"workers\"",
    "\"shard\"",
    "\"s1\"",
    "\"app_id\"",
    "\"author\":\"a\"",
    "\\ud800",
    "é",
    "5eb5a37e-b458-11e3-ac11-000c2940e62c",
    "2999-01-01T00:00:00Z",
];

/// A consumer with a token, which has something to do.
fn consumer(name: &str) -> (Pond, Process) {
    let pond = Pond::new(name, &Shape::default());
    let listen = format!("[admin]\nlisten = \"127.0.0.1:{}\"", pond.admin_port);
    pond.reconfigure(&listen, &format!("{listen}\ntoken = \"{TOKEN}\""));
    pond.load(&["--messages", "2000", "--rows", "200"]);
    let process = pond.start(&["run"], &[]);
    pond.wait_for("all is applied", SOON, |pond| {
        pond.metric("millpond_messages_total") == Some(2000.0)
    });
    (pond, process)
}

/// Sends bytes over a connection of their own; all that comes back.
fn send(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    // It may have been refused, and closed, before all was sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => answer.extend(&buffer[..count]),
            Ok(_) => return String::from_utf8_lossy(&answer).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return String::from_utf8_lossy(&answer).into_owned();
            }
            Err(error) => panic!("{error} after {answer:?}"),
        }
    }
}

/// Asks with these headers; status and whole answer.
fn ask(port: u16, line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut text = format!("{line} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    let answer = send(port, text.as_bytes());
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("{line}: {answer:?}")),
        answer,
    )
}

/// All that a request can change, as the consumer itself says it.
fn state(port: u16) -> Value {
    let read = |path: &str| -> Value {
        let (status, body) = reading::ask(port, path).expect("it answers");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    let list = |value: Value, keys: &[&str]| -> Vec<Vec<Value>> {
        let all = value.as_array().unwrap().iter();
        all.map(|one| keys.iter().map(|key| one[key].clone()).collect())
            .collect()
    };
    let (rules, log, workers) = (read("/api/rules"), read("/api/log"), read("/api/workers"));
    // Not what goes on by itself: where a rule is decided, how much was skipped or logged.
    serde_json::json!({
        "rules": list(rules, &["id", "app_id", "reason", "state", "removed_by"]),
        "watched": list(log["watched"].clone(), &["app_id", "subscription_id"]),
        "workers": list(workers["shards"].clone(), &["shard", "workers"]),
    })
}

/// Asks until it is done: a change of workers may find one that is busy, a rule takes a while in all partitions.
fn ask_until_done(port: u16, line: &str, headers: &[&str], body: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let (status, answer) = ask(port, line, headers, body);
        if status == 200 || status == 202 {
            return;
        }
        assert!([409, 503].contains(&status), "{line}: {answer}");
        assert!(Instant::now() < deadline, "{line}: {answer}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Every path and method but GET and HEAD, as the address itself tells: it lists its paths to who asks for none of them, and a
/// path's methods to who asks with another.
fn changing(port: u16) -> Vec<(String, String)> {
    let (_, listed) = ask(port, "GET /none-of-these", &[], "");
    let (_, paths) = listed.trim_end().split_once("there is ").unwrap();
    let mut found = Vec::new();
    for path in paths.split(' ') {
        let (status, answer) = ask(port, &format!("PATCH {path}"), &[], "");
        assert_eq!(status, 405, "{answer}");
        let (_, allowed) = answer.split_once("allow: ").unwrap();
        let (allowed, _) = allowed.split_once("\r\n").unwrap();
        let changes = allowed
            .split(", ")
            .filter(|method| !["GET", "HEAD"].contains(method));
        found.extend(changes.map(|method| (method.to_owned(), path.to_owned())));
    }
    found
}

const OTHER_APP: &str = "00000000-0000-4000-8000-000000000007";

fn rule(app: &str) -> String {
    format!(r#"{{"app_id":"{app}","reason":"r","author":"a"}}"#)
}

fn watch(app: &str) -> String {
    format!(r#"{{"app_id":"{app}"}}"#)
}

/// A good request for each method and path that changes something, which does: its query and its body. There is a rule `id`, and
/// [`APP`] is watched.
fn good_requests(id: &str) -> BTreeMap<&'static str, (String, String)> {
    let (of_rule, of_app) = (format!("?id={id}&author=a"), format!("?app_id={APP}"));
    let workers = r#"{"workers":3}"#.to_owned();
    BTreeMap::from([
        ("POST /api/rules", (String::new(), rule(OTHER_APP))),
        ("DELETE /api/rules", (of_rule, String::new())),
        ("PUT /api/log", (String::new(), watch(OTHER_APP))),
        ("DELETE /api/log", (of_app, String::new())),
        ("PUT /api/workers", (String::new(), workers)),
    ])
}

#[test]
fn each_path_that_changes_something_asks_for_the_token() {
    let (pond, process) = consumer("token");
    let port = pond.admin_port;
    let token = format!("authorization: Bearer {TOKEN}");
    // So that there is something to remove.
    ask_until_done(port, "POST /api/rules", &[&token], &rule(APP));
    ask_until_done(port, "PUT /api/log", &[&token], &watch(APP));
    let before = state(port);
    let good = good_requests(before["rules"][0][0].as_str().unwrap());
    let mut found: Vec<String> = changing(port)
        .iter()
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    found.sort();
    assert_eq!(
        found,
        good.keys().copied().collect::<Vec<_>>(),
        "give each a good request here"
    );
    let site = "origin: http://evil.example";
    for (line, (query, body)) in &good {
        let line = format!("{line}{query}");
        for (headers, expected) in [
            (vec![], 401),
            (vec!["authorization: Bearer sturgeon-4"], 401),
            (vec!["authorization: Bearer sturgeon-411"], 401),
            (vec!["authorization: Bearer "], 401),
            (vec!["authorization: Basic sturgeon-41"], 401),
            (vec!["x-authorization: Bearer sturgeon-41"], 401),
            (vec![site], 403),
            (vec![site, token.as_str()], 403),
        ] {
            let (status, answer) = ask(port, &line, &headers, body);
            assert_eq!(status, expected, "{line} {headers:?}: {answer}");
            assert!(!answer.contains(TOKEN), "{answer}");
        }
        assert_eq!(state(port), before, "{line}");
    }
    // With it each of them changes something.
    for (line, (query, body)) in &good {
        let before = state(port);
        ask_until_done(port, &format!("{line}{query}"), &[&token], body);
        assert_ne!(state(port), before, "{line}");
    }
    let ended = process.terminate(SOON);
    assert!(
        ended.status.success() && !ended.stderr.contains(TOKEN),
        "{}",
        ended.stderr
    );
}

/// As HTTP has it: what the corpus keeps is a line, headers, an empty line and a body.
fn on_the_wire(input: &[u8]) -> Vec<u8> {
    let head_end = input.windows(2).position(|at| at == b"\n\n");
    let (head, body) = match head_end {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    let head = String::from_utf8_lossy(head)
        .replacen('\n', " HTTP/1.1\r\nhost: x\r\n", 1)
        .replace("\n", "\r\n");
    let head = if head.contains("HTTP/") {
        head
    } else {
        head + " HTTP/1.1\r\nhost: x"
    };
    let length = format!("\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), length.as_bytes(), body].concat()
}

#[test]
fn whatever_is_sent_to_the_admin_address_the_consumer_goes_on() {
    let (pond, mut process) = consumer("admin-fuzz");
    let port = pond.admin_port;
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    fuzz::each("admin", TOKENS, INPUTS, |_, input| {
        let answer = send(port, &on_the_wire(input));
        for line in answer.lines().filter(|line| line.starts_with("HTTP/1.")) {
            let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let server_error = status.starts_with('5') && status != "503";
            assert!(!server_error, "{line}");
            *answers.entry(status).or_default() += 1;
        }
    });
    println!("{answers:?}");
    for status in ["200", "400", "401", "404", "405"] {
        assert!(answers.contains_key(status), "{answers:?}");
    }
    // What it says of itself is whole, and it still does its work.
    let state = state(port);
    for workers in state["workers"].as_array().unwrap() {
        let workers = workers[1].as_u64().unwrap();
        assert!((1..=64).contains(&workers), "{state}");
    }
    for rule in state["rules"].as_array().unwrap() {
        let known = ["active", "removed", "over"].contains(&rule[3].as_str().unwrap());
        assert!(known, "{rule}");
    }
    assert!(
        process.is_running() && !process.has_said("panicked"),
        "{}",
        process.said()
    );
    pond.load(&["--messages", "2000", "--rows", "200"]);
    let done = |pond: &Pond| {
        let [messages, lag] =
            ["millpond_messages_total", "millpond_lag_messages"].map(|name| pond.metric(name));
        messages == Some(4000.0) && lag == Some(0.0)
    };
    pond.wait_for("it goes on", SOON, done);
    let ended = process.terminate(SOON);
    assert!(
        ended.status.success() && !ended.stderr.contains("panicked"),
        "{}",
        ended.stderr
    );
    pond.assert_exact();
}
