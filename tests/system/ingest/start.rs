//! Something is missing, taken or away when the edge starts: it says what, or waits.

use super::edge::{APP, Edge, ROW, SOON, contents, launch, player, pond};
use super::http::put;
use crate::pond::{Pond, Shape};
use crate::services::{Harm, Trouble};
use serde_json::json;
use std::net::TcpListener;
use std::time::Duration;

/// It ends with 1 and says these words.
fn assert_refuses(pond: &Pond, settings: &[&str], words: &[&str]) {
    let ended = launch(pond, settings).wait(SOON);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?}: {}", ended.stderr);
    }
}

#[test]
fn a_missing_topic_and_other_partitions_are_named() {
    let shape = Shape {
        partitions: 4,
        ..Shape::default()
    };
    let pond = Pond::without_init("edge-no-topic", &shape);
    assert_refuses(&pond, &[], &["topic", "millpond init"]);
    pond.good(&["init"]);
    pond.reconfigure("partitions = 4", "partitions = 8");
    assert_refuses(&pond, &[], &["has 4 partitions", "kafka.partitions is 8"]);
}

#[test]
fn an_address_in_use_is_named() {
    let pond = pond("in-use");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["ingest.listen", "ingest.admin_listen"] {
        assert_refuses(&pond, &[&format!("{key}={address}")], &[key, &address]);
    }
}

#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for_unless_the_edge_is_told_to_stop() {
    let pond = pond("away");
    let away = Trouble::begin("kafka", Harm::Killed);
    let edge = Edge::listening(launch(&pond, &[]));
    assert_eq!(edge.page("/livez").0, 200);
    let (status, why) = edge.page("/readyz");
    assert_eq!(status, 503, "{why}");
    let request = put(&player(ROW), &json!({"app_id": APP}).to_string());
    let answer = edge.ask(&request);
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "broker-away")
    );
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let other = Edge::listening(launch(&pond, &[]));
    std::thread::sleep(Duration::from_secs(1));
    other.stop();
    away.end();
    pond.wait_for("it is ready", SOON, |_| edge.is_ready());
    assert_eq!(edge.ask(&request).status, 200);
    edge.stop();
    assert_eq!(contents(&pond).len(), 1);
}
