//! The edge or its broker goes away while clients ask on and on. Whatever happens, what was answered 200 is in the topic
//! once, and what was refused is not.

use super::edge::{APP, Edge, ROW, SOON, player, pond};
use super::http::{Gone, put};
use super::traffic::Traffic;
use crate::pond::{Pond, free_port};
use crate::services::{Harm, Trouble};
use serde_json::json;
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
/// A refusal comes by then, whatever the broker does.
const REFUSED_BY: Duration = Duration::from_secs(2);

fn ask(edge: &Edge) -> (u16, Duration, String) {
    let asked = Instant::now();
    let answer = edge.ask(&put(&player(ROW), &json!({"app_id": APP}).to_string()));
    let reason = match answer.status {
        200 => String::new(),
        _ => answer.reason(),
    };
    (answer.status, asked.elapsed(), reason)
}

fn wait_until_ready(pond: &Pond, edge: &Edge) {
    pond.wait_for("the edge is ready", SOON, |_| edge.is_ready());
}

#[test]
fn what_was_answered_is_in_the_topic_when_the_edge_is_killed() {
    let pond = pond("killed");
    let listen = format!("ingest.listen=127.0.0.1:{}", free_port());
    let edge = Edge::start(&pond, &[&listen]);
    let traffic = Traffic::start(edge.address, CLIENTS);
    traffic.wait_for(&pond, 1000, SOON);
    edge.kill();
    // On the same address, while its clients knock.
    let edge = Edge::start(&pond, &[&listen]);
    traffic.wait_for(&pond, 1000, SOON);
    edge.kill();
    let history = traffic.end();
    assert!(history.unanswered() > 0, "nobody was hit");
    history.audit(&pond, "edge killed twice");
}

#[test]
fn a_broker_that_is_killed_and_comes_back_costs_no_update_and_no_restart() {
    let pond = pond("broker-killed");
    let edge = Edge::start(&pond, &[]);
    let traffic = Traffic::start(edge.address, CLIENTS);
    traffic.wait_for(&pond, 1000, SOON);
    let away = Trouble::begin("kafka", Harm::Killed);
    pond.wait_for("it is not ready", Duration::from_secs(5), |_| {
        !edge.is_ready()
    });
    for _ in 0..10 {
        let (status, took, reason) = ask(&edge);
        assert_eq!((status, reason.as_str()), (503, "broker-away"));
        assert!(took < REFUSED_BY, "after {took:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    away.end();
    let back = Instant::now();
    wait_until_ready(&pond, &edge);
    traffic.wait_for(&pond, 1000, SOON);
    println!(
        "1000 more were answered {:.1?} after the broker was back",
        back.elapsed()
    );
    let history = traffic.end();
    assert!(history.count(503) > 0);
    history.assert_whole();
    edge.stop();
    history.audit(&pond, "broker killed");
}

#[test]
fn a_frozen_broker_keeps_no_client_waiting_beyond_the_delivery_timeout() {
    let pond = pond("broker-frozen");
    let edge = Edge::start(&pond, &["ingest.delivery_timeout_s=4"]);
    let traffic = Traffic::start(edge.address, CLIENTS);
    traffic.wait_for(&pond, 1000, SOON);
    let frozen = Trouble::begin("kafka", Harm::Frozen);
    std::thread::sleep(Duration::from_secs(9));
    frozen.end();
    wait_until_ready(&pond, &edge);
    traffic.wait_for(&pond, 1000, SOON);
    let history = traffic.end();
    assert!(history.count(504) > 0, "nobody was hit");
    let slowest = history.0.iter().map(|sent| sent.took).max().unwrap();
    assert!(slowest < Duration::from_secs(4) + REFUSED_BY, "{slowest:?}");
    history.assert_whole();
    edge.stop();
    history.audit(&pond, "broker frozen");
}

#[test]
fn sigterm_under_load_finishes_what_it_has_taken() {
    let pond = pond("stop");
    let edge = Edge::start(&pond, &[]);
    // Those who only stay do not keep it.
    let mut idle: Vec<_> = (0..20).map(|_| edge.client()).collect();
    for client in &mut idle[..10] {
        let request = put(&player(ROW), "{}");
        assert_eq!(client.ask(&request).unwrap().status, 400);
    }
    let traffic = Traffic::start(edge.address, CLIENTS);
    traffic.wait_for(&pond, 1000, SOON);
    let told = Instant::now();
    edge.stop();
    let took = told.elapsed();
    let history = traffic.end();
    println!("ended {took:.1?} after SIGTERM");
    assert!(took < Duration::from_secs(5), "{took:?}");
    history.assert_whole();
    history.audit(&pond, "SIGTERM");
    for mut client in idle {
        let gone = client.answer().unwrap_err();
        assert!(matches!(gone, Gone::Closed | Gone::Reset), "{gone:?}");
    }
}

#[test]
fn sigterm_while_the_broker_is_frozen_ends_with_an_answer_to_everybody() {
    let pond = pond("stop-frozen");
    let edge = Edge::start(&pond, &["ingest.delivery_timeout_s=3"]);
    let traffic = Traffic::start(edge.address, CLIENTS);
    traffic.wait_for(&pond, 500, SOON);
    let frozen = Trouble::begin("kafka", Harm::Frozen);
    std::thread::sleep(Duration::from_millis(500));
    let told = Instant::now();
    edge.stop();
    let took = told.elapsed();
    let history = traffic.end();
    frozen.end();
    println!("ended {took:.1?} after SIGTERM");
    assert!(took < Duration::from_secs(8), "{took:?}");
    history.assert_whole();
    assert!(history.count(504) > 0, "those who waited were told");
    // What the frozen broker has in its buffers it takes now.
    std::thread::sleep(Duration::from_secs(2));
    history.audit(&pond, "SIGTERM, broker frozen");
}
