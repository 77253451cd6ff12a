//! Who may come in, how many at a time, and how much may be under way.

use super::edge::{APP, Edge, ROW, SOON, contents, player, pond};
use super::http::{Answer, Client, put, put_with};
use serde_json::json;
use std::time::{Duration, Instant};

/// What can be told at once is told at once.
const AT_ONCE: Duration = Duration::from_secs(1);

fn good() -> Vec<u8> {
    put(&player(ROW), &json!({"app_id": APP}).to_string())
}

/// 503 with this reason, and when to come again.
fn assert_unavailable(answer: &Answer, reason: &str) {
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, reason),
        "{answer:?}"
    );
    let again: u64 = answer
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .unwrap();
    assert!((1..=60).contains(&again), "{again}");
}

#[test]
fn where_tokens_are_set_one_of_them_is_needed() {
    let pond = pond("tokens");
    let edge = Edge::start(
        &pond,
        &["ingest.tokens=[\"first-token\", \"second-token\"]"],
    );
    let body = json!({"app_id": APP}).to_string();
    let ask = |headers: &[&str]| edge.ask(&put_with(&player(ROW), headers, body.as_bytes()));
    let wrong: [&[&str]; 10] = [
        &[],
        &["Authorization: Bearer wrong"],
        &["Authorization: Bearer"],
        &["Authorization: Bearer first-toke"],
        &["Authorization: Bearer first-tokenx"],
        &["Authorization: Bearer FIRST-TOKEN"],
        &["Authorization: Bearer first-token second-token"],
        &["Authorization: Basic first-token"],
        &["Authorization: first-token"],
        &["X-Authorization: Bearer first-token"],
    ];
    for headers in wrong {
        let answer = ask(headers);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (401, "unauthorized"),
            "{headers:?}"
        );
        let asks_for = answer.header("www-authenticate").expect("WWW-Authenticate");
        assert!(asks_for.starts_with("Bearer"), "{asks_for}");
        assert!(!answer.body.contains("token\""), "{answer:?}");
    }
    let right = [
        "Authorization: Bearer first-token",
        "authorization: bearer second-token",
    ];
    for header in right {
        let answer = ask(&[header]);
        assert_eq!(answer.status, 200, "{header}: {answer:?}");
    }
    let ended = edge.stop();
    assert!(!ended.stderr.contains("-token"), "a token is in the log");
    assert_eq!(contents(&pond).len(), right.len());
}

#[test]
fn the_sixth_of_five_connections_is_told_so_and_comes_in_when_one_leaves() {
    let pond = pond("connections-max");
    let edge = Edge::start(&pond, &["ingest.connections_max=5"]);
    let mut inside: Vec<Client> = (0..5).map(|_| edge.client()).collect();
    for client in &mut inside {
        assert_eq!(client.ask(&good()).unwrap().status, 200);
    }
    for _ in 0..20 {
        let asked = Instant::now();
        let answer = edge.ask(&good());
        assert_unavailable(&answer, "too-many-connections");
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    }
    for client in &mut inside {
        assert_eq!(
            client.ask(&good()).unwrap().status,
            200,
            "those inside stay"
        );
    }
    inside.pop();
    pond.wait_for("there is room", SOON, |_| edge.ask(&good()).status == 200);
    drop(inside);
    edge.stop();
    assert_eq!(contents(&pond).len(), 11);
}

#[test]
fn two_messages_are_not_begun_where_one_is_room() {
    let pond = pond("in-flight");
    let edge = Edge::start(&pond, &["ingest.in_flight_max=1"]);
    let other = "00000000-0000-4000-8000-000000000001";
    let mirrored = json!({"app_id": APP, "mirror_to": other}).to_string();
    let email = json!({"app_id": APP, "email": "a@example.com"}).to_string();
    let mut client = edge.client();
    for _ in 0..10 {
        for (path, body) in [(player(ROW), &mirrored), (player(ROW) + "/email", &email)] {
            let asked = Instant::now();
            assert_unavailable(&client.ask(&put(&path, body)).unwrap(), "queue-full");
            assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        }
        let answer = client.ask(&good()).unwrap();
        assert_eq!(answer.status, 200, "one has room: {answer:?}");
    }
    edge.stop();
    assert_eq!(contents(&pond).len(), 10);
}

#[test]
fn a_limit_that_is_set_holds_and_is_told() {
    let pond = pond("set-limits");
    let settings = [
        "ingest.body_max_bytes=1024",
        "ingest.tags_max=2",
        "ingest.name_max_bytes=4",
        "ingest.value_max_bytes=8",
    ];
    let edge = Edge::start(&pond, &settings);
    let cases = [
        (
            json!({"tags": {"a": 1, "b": 1}, "counts": {"a": 1, "b": 2}}),
            None,
        ),
        (json!({"tags": {"abcd": "12345678"}}), None),
        (
            json!({"tags": {"a": 1, "b": 1, "c": 1}}),
            Some((400, "too-many", 2)),
        ),
        (
            json!({"counts": {"a": 1, "b": 1, "c": 1}}),
            Some((400, "too-many", 2)),
        ),
        (json!({"tags": {"abcde": 1}}), Some((400, "too-long", 4))),
        (
            json!({"tags": {"a": "123456789"}}),
            Some((400, "too-long", 8)),
        ),
        (
            json!({"tags": {"a": "x".repeat(1024)}}),
            Some((413, "too-large", 1024)),
        ),
    ];
    for (fields, wanted) in cases {
        let mut body = fields.clone();
        body["app_id"] = APP.into();
        let answer = edge.ask(&put(&player(ROW), &body.to_string()));
        match wanted {
            None => assert_eq!(answer.status, 200, "{fields} {answer:?}"),
            Some((status, reason, limit)) => {
                assert_eq!(
                    (answer.status, answer.reason().as_str()),
                    (status, reason),
                    "{fields}"
                );
                assert_eq!(answer.json()["limit"], limit, "{fields}");
            }
        }
    }
    edge.stop();
    assert_eq!(contents(&pond).len(), 2);
}

#[test]
fn the_admin_address_tells_of_the_edge_and_counts_its_answers() {
    let pond = pond("admin");
    let edge = Edge::start(&pond, &[]);
    let mut client = edge.client();
    for _ in 0..7 {
        assert_eq!(client.ask(&good()).unwrap().status, 200);
    }
    for _ in 0..3 {
        assert_eq!(client.ask(&put(&player(ROW), "{}")).unwrap().status, 400);
    }
    assert_eq!(edge.page("/livez").0, 200);
    assert_eq!(edge.page("/readyz").0, 200);
    let metrics = edge.metrics();
    let answered = |status| metrics.sum_of("millpond_ingest_requests_total", &[("status", status)]);
    assert_eq!((answered("200"), answered("400")), (7.0, 3.0));
    // The edge itself has none of these pages, and its clients no place there.
    assert_eq!(edge.page("/api/v1/players/x").0, 404);
    let (_, page) = edge.page("/metrics");
    assert!(
        !page.contains(APP) && !page.contains(ROW),
        "no label holds an app or a row"
    );
    edge.stop();
}
