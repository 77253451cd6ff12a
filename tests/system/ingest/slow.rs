//! Clients that take their time, on purpose or not: each has its deadline, and none holds up another.

use super::edge::{APP, Edge, ROW, contents, player, pond};
use super::http::{Answer, Gone, put_with};
use serde_json::json;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// A head's, and a whole request's, from its first byte.
const HEAD: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(15);
/// An answer's, which nobody takes.
const WRITE: Duration = Duration::from_secs(10);
/// A deadline is met no later, and the edge doesn't cut before it.
const LATE: Duration = Duration::from_secs(2);
const EARLY: Duration = Duration::from_millis(500);
/// Between two bytes of one who trickles.
const TRICKLE: Duration = Duration::from_millis(200);
/// Between two bytes that are to be read one by one.
const CRUMB: Duration = Duration::from_millis(1);
/// A client that isn't slow has its answer by then.
const AT_ONCE: Duration = Duration::from_secs(1);

type Came = (Duration, Result<Answer, Gone>);

/// Head and body are long enough to be too slow at that pace.
fn long() -> (Vec<u8>, usize) {
    let body = json!({"app_id": APP}).to_string() + &" ".repeat(200);
    let padding = format!("X-Padding: {}", "x".repeat(200));
    let bytes = put_with(&player(ROW), &[&padding], body.as_bytes());
    let head = bytes.len() - body.len();
    (bytes, head)
}

/// Sends so much at once and then byte after byte, until the edge has had enough.
fn trickle(edge: &Edge, at_once: usize) -> Came {
    let (request, _) = long();
    let mut client = edge.client();
    let began = Instant::now();
    client.send(&request[..at_once]).unwrap();
    for byte in &request[at_once..] {
        match client.answer_within(TRICKLE) {
            Err(Gone::Silent) => {}
            done => return (began.elapsed(), done),
        }
        let _ = client.send(&[*byte]);
    }
    (began.elapsed(), client.answer())
}

/// So many clients who send so much and nothing more; what came for the last.
fn stall(edge: &Edge, clients: usize, at_once: usize) -> Came {
    let (request, _) = long();
    let began = Instant::now();
    let mut clients: Vec<_> = (0..clients).map(|_| edge.client()).collect();
    for client in &mut clients {
        client.send(&request[..at_once]).unwrap();
    }
    let last = clients.iter_mut().map(|client| client.answer()).last();
    (began.elapsed(), last.unwrap())
}

fn assert_timeout(what: &str, deadline: Duration, (took, answer): Came) {
    let answer = answer.unwrap_or_else(|gone| panic!("{what}: {gone:?} after {took:?}"));
    println!("{what}: {} after {took:.1?}", answer.status);
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (408, "timeout"),
        "{what}"
    );
    assert_eq!(answer.header("connection"), Some("close"), "{what}");
    let in_time = took > deadline - EARLY && took < deadline + LATE;
    assert!(in_time, "{what}: after {took:?}");
}

/// Asks on and on and reads no answer, until all buffers are full; from then on the edge has a deadline.
fn assert_cut_if_it_never_reads(edge: &Edge) {
    let mut client = edge.client();
    client.set_write_patience(Duration::from_millis(200));
    let request = b"GET /nothing HTTP/1.1\r\nHost: edge\r\n\r\n".repeat(100);
    while client.send(&request).is_ok() {}
    let full = Instant::now();
    let error = loop {
        assert!(full.elapsed() < WRITE + LATE, "it is still connected");
        match client.send(b"G") {
            Err(error) if error.kind() != ErrorKind::WouldBlock => break error,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    println!("one who never reads: {error} after {:.1?}", full.elapsed());
}

#[test]
fn slow_clients_are_cut_at_their_deadline_and_hold_up_nobody() {
    let pond = pond("slow");
    let edge = Edge::start(&pond, &[]);
    let (_, head) = long();
    let slow: [(&str, Duration, &(dyn Fn() -> Came + Sync)); 6] = [
        ("a first byte", HEAD, &|| stall(&edge, 1, 1)),
        ("a hundred heads that stop", HEAD, &|| {
            stall(&edge, 100, head - 1)
        }),
        ("a head byte by byte", HEAD, &|| trickle(&edge, 20)),
        ("a body that never begins", REQUEST, &|| {
            stall(&edge, 1, head)
        }),
        ("a hundred bodies that stop", REQUEST, &|| {
            stall(&edge, 100, head + 9)
        }),
        ("a body byte by byte", REQUEST, &|| trickle(&edge, head + 1)),
    ];
    let served = std::thread::scope(|scope| {
        let mut threads: Vec<_> = slow
            .iter()
            .map(|(what, deadline, work)| {
                scope.spawn(move || assert_timeout(what, *deadline, work()))
            })
            .collect();
        threads.push(scope.spawn(|| assert_cut_if_it_never_reads(&edge)));
        let (mut served, mut slowest) = (0, Duration::ZERO);
        while !threads.iter().all(|thread| thread.is_finished()) {
            let asked = Instant::now();
            edge.good(ROW, &json!({"app_id": APP}).to_string());
            slowest = slowest.max(asked.elapsed());
            served += 1;
            std::thread::sleep(TRICKLE);
        }
        println!("{served} others meanwhile, the slowest in {slowest:.0?}");
        assert!(slowest < AT_ONCE, "somebody waited for {slowest:?}");
        served
    });
    edge.stop();
    assert_eq!(contents(&pond).len(), served);
}

/// A piece of a body keeps nothing but itself.
#[test]
fn a_body_that_comes_byte_by_byte_takes_no_more_memory_than_its_bytes() {
    let pond = pond("crumbs");
    let edge = Edge::start(&pond, &[]);
    edge.good(ROW, &json!({"app_id": APP}).to_string());
    let memory = edge.memory_kib();
    let body = json!({"app_id": APP}).to_string() + &" ".repeat(4000);
    let request = put_with(&player(ROW), &[], body.as_bytes());
    let head = request.len() - body.len();
    let mut clients: Vec<_> = (0..4).map(|_| edge.client()).collect();
    for client in &mut clients {
        client.send(&request[..head]).unwrap();
    }
    let (last, crumbs) = request[head..].split_last().unwrap();
    for crumb in crumbs {
        for client in &mut clients {
            client.send(&[*crumb]).unwrap();
        }
        std::thread::sleep(CRUMB);
    }
    let grown = edge.memory_kib().saturating_sub(memory);
    for client in &mut clients {
        client.send(&[*last]).unwrap();
        assert_eq!(client.answer().unwrap().status, 200);
    }
    println!("{grown} KiB for four bodies of {} bytes", body.len());
    assert!(grown < 4096, "{grown} KiB");
    edge.stop();
    assert_eq!(contents(&pond).len(), 5);
}
