//! Runs against small servers of which it is known when they answer.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::load::{Scenario, TrafficOptions};
use crate::partitioner::Partitioner;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::thread;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"success\":true}";

fn traffic(scenario: Scenario, messages: u64) -> Traffic {
    let options = TrafficOptions {
        seed: 7,
        scenario,
        messages,
        apps: 5,
        rows: 200,
        linked: None,
        counts_share: 0.2,
        broken: 0,
        broken_reasons: vec![],
        value_bytes_max: 1_000,
        value_bytes_min: 0,
    };
    Traffic::new(options, Partitioner::new(4, 1, [0; 256]))
}

/// Heads and bodies of the requests that a server got.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server; `answer` is told the number of the request and gives what is sent, `None` to close.
fn server(answer: fn(usize) -> Option<&'static str>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let all = seen.clone();
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = all.clone();
            thread::spawn(move || serve(stream.unwrap(), &seen, answer));
        }
    });
    (url, seen)
}

fn serve(stream: TcpStream, seen: &Seen, answer: fn(usize) -> Option<&'static str>) {
    let mut out = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream);
    loop {
        let (mut request, mut length) = (String::new(), 0);
        while !request.ends_with("\r\n\r\n") {
            let begin = request.len();
            if lines.read_line(&mut request).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = request[begin..].strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body).unwrap();
        request.push_str(str::from_utf8(&body).unwrap());
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        match answer(number) {
            Some(answer) => out.write_all(answer.as_bytes()).unwrap(),
            None => return,
        }
    }
}

fn rate(rate: u32) -> Pace {
    Pace::PerSecond(NonZeroU32::new(rate).unwrap())
}

fn run(url: &str, connections: usize, traffic: &Traffic, pace: Pace) -> HttpSummary {
    let target = Target::new(url, Some(Secret("open sesame".to_owned()))).unwrap();
    let (tally, sent) = (Tally::default(), SharedCounter::default());
    send(&target, connections, traffic, pace, (&tally, &sent), || {
        true
    })
    .unwrap()
}

#[test]
fn every_request_is_sent_once_with_its_token_and_its_length() {
    let (url, seen) = server(|_| Some(OK));
    let summary = run(&url, 3, &traffic(Scenario::Uniform, 200), Pace::Free);
    assert_eq!(
        (summary.kind, summary.requests, summary.answered),
        ("closed", 200, 200)
    );
    assert_eq!(summary.outcome.answers, [(200, 200)].into());
    assert_eq!(
        (summary.outcome.messages, summary.delay_us.count),
        (200, 200)
    );
    assert_eq!(summary.outcome.first_trouble, None);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 200);
    let host = url.strip_prefix("http://").unwrap();
    for request in seen.iter() {
        assert!(request.starts_with("PUT /api/v1/players/"), "{request}");
        for line in [
            format!("Host: {host}"),
            "Authorization: Bearer open sesame".to_owned(),
            "Content-Type: application/json".to_owned(),
        ] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
        }
    }
}

#[test]
fn pairs_of_the_incident_are_one_request_and_two_messages() {
    let (url, seen) = server(|_| Some(OK));
    let summary = run(&url, 4, &traffic(Scenario::Clothesly, 400), Pace::Free);
    assert_eq!(summary.outcome.messages, 400);
    let seen = seen.lock().unwrap();
    let twice = seen
        .iter()
        .filter(|request| request.contains("\"mirror_to\":\"") || request.contains("/email HTTP"));
    assert_eq!(seen.len() + twice.count(), 400);
    assert_eq!(summary.requests, u64::try_from(seen.len()).unwrap());
}

/// The story that coordinated omission leaves out: the server stands still for a while, and all that was due meanwhile waits.
#[test]
fn a_pause_of_the_server_is_charged_to_every_request_that_was_due_in_it() {
    let pause = |number: usize| {
        if number == 50 {
            thread::sleep(Duration::from_millis(400));
        }
        Some(OK)
    };
    let (url, _) = server(pause);
    let summary = run(&url, 1, &traffic(Scenario::Uniform, 300), rate(500));
    assert_eq!((summary.kind, summary.answered), ("open", 300));
    // 200 requests were due in the pause; the first waits all of it, the last not at all.
    assert!(summary.outcome.sent_late >= 150, "{summary:?}");
    assert!(summary.delay_us.max >= 390_000, "{summary:?}");
    assert!(summary.delay_us.p50 >= 20_000, "{summary:?}");
    assert!(summary.outcome.late_us_max >= 350_000, "{summary:?}");
}

#[test]
fn requests_are_sent_at_their_times() {
    let (url, seen) = server(|_| Some(OK));
    let began = Instant::now();
    let summary = run(&url, 8, &traffic(Scenario::Uniform, 201), rate(400));
    // The last one is due after half a second.
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert!(
        summary.seconds >= 0.5 && summary.answered_per_s <= 402.0,
        "{summary:?}"
    );
    assert_eq!(seen.lock().unwrap().len(), 201);
}

#[test]
fn what_is_lost_or_refused_is_counted_and_not_sent_again() {
    const FULL: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 45\r\n\r\n{\"reason\":\"queue-full\",\"detail\":\"try again\"} ";
    const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (url, seen) = server(|number| match number {
        10 => None,
        20 => Some(FULL),
        30 => Some("HTTP/1.1 what"),
        40 => Some(LAST),
        _ => Some(OK),
    });
    let traffic = traffic(Scenario::Uniform, 100);
    let target = Target::new(&url, None).unwrap();
    let (tally, sent) = (Tally::default(), SharedCounter::default());
    let summary = send(&target, 1, &traffic, Pace::Free, (&tally, &sent), || true).unwrap();
    let outcome = &summary.outcome;
    assert_eq!(outcome.answers, [(200, 97), (503, 1)].into());
    assert_eq!(outcome.reasons, [("queue-full".to_owned(), 1)].into());
    assert_eq!((outcome.lost, outcome.unsent, outcome.messages), (2, 0, 97));
    assert_eq!((summary.requests, summary.answered), (100, 98));
    let trouble = "the server closed the connection without an answer";
    assert_eq!(outcome.first_trouble.as_deref(), Some(trouble));
    assert_eq!((sent.get(), seen.lock().unwrap().len()), (100, 100));
}

#[test]
fn a_run_that_is_told_to_stop_ends_with_what_it_has() {
    let (url, _) = server(|_| Some(OK));
    let target = Target::new(&url, None).unwrap();
    let (tally, sent) = (Tally::default(), SharedCounter::default());
    let traffic = traffic(Scenario::Uniform, 1_000_000);
    let go_on = || sent.get() < 20;
    let summary = send(&target, 2, &traffic, rate(100), (&tally, &sent), go_on).unwrap();
    assert!((20..60).contains(&summary.answered), "{summary:?}");
    assert_eq!(summary.requests, summary.answered);
}

#[test]
fn nobody_there_is_said_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let target = Target::new(&url, None).unwrap();
    let (tally, sent) = (Tally::default(), SharedCounter::default());
    let traffic = traffic(Scenario::Uniform, 10);
    let sending = send(&target, 2, &traffic, Pace::Free, (&tally, &sent), || true);
    let error = sending.unwrap_err().to_string();
    assert!(error.contains("can't be reached"), "{error}");
}

#[test]
fn urls_are_a_host_and_a_port() {
    for good in [
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/",
        "http://[::1]:8080",
        "http://127.0.0.1",
    ] {
        assert!(Target::new(good, None).is_ok(), "{good}");
    }
    assert_eq!(
        Target::new("http://127.0.0.1", None)
            .unwrap()
            .address
            .port(),
        80
    );
    for bad in [
        "127.0.0.1:8080",
        "https://127.0.0.1:8080",
        "http://",
        "http://127.0.0.1:8080/api",
        "http://user@127.0.0.1:8080",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:8080?x",
    ] {
        assert!(Target::new(bad, None).is_err(), "{bad}");
    }
}
