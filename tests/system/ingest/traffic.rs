//! Clients who ask on and on and remember what they were told. Every request is of rows of its own, so that each message
//! of the topic is known by its key.

use super::edge::{APP, contents, player};
use super::http::{Answer, Client, Gone, put};
use crate::pond::Pond;
use millpond::ids::{AppId, SubscriptionId};
use rand::Rng;
use serde_json::json;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Before the edge is tried again that isn't there, or has no time.
const AGAIN: Duration = Duration::from_millis(20);

/// A request and what came of it.
pub struct Sent {
    /// The keys of its messages.
    rows: Vec<String>,
    pub took: Duration,
    pub outcome: Result<Answer, Gone>,
}

/// Running clients.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Sent>>>,
}

/// What all of them were told.
pub struct History(pub Vec<Sent>);

impl Traffic {
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let client = |_| {
            let (stop, good) = (Arc::clone(&stop), Arc::clone(&good));
            std::thread::spawn(move || ask_on(address, &stop, &good))
        };
        let clients = (0..clients).map(client).collect();
        Self {
            stop,
            good,
            clients,
        }
    }

    /// Waits until so many more are answered 200.
    pub fn wait_for(&self, pond: &Pond, more: u64, within: Duration) {
        let enough = self.good.load(Ordering::Relaxed) + more;
        pond.wait_for("requests are answered 200", within, |_| {
            self.good.load(Ordering::Relaxed) >= enough
        });
    }

    /// Each client takes its last answer.
    pub fn end(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients).into_iter();
        History(clients.flat_map(|client| client.join().unwrap()).collect())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask_on(address: SocketAddr, stop: &AtomicBool, good: &AtomicU64) -> Vec<Sent> {
    let mut history = Vec::new();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let connected = connection
            .take()
            .map_or_else(|| Client::connect(address), Ok);
        let Ok(mut client) = connected else {
            std::thread::sleep(AGAIN);
            continue;
        };
        let (request, rows) = next_request(history.len());
        let asked = Instant::now();
        let outcome = client.ask(&request);
        let took = asked.elapsed();
        match &outcome {
            Ok(answer) if answer.status == 200 => {
                good.fetch_add(1, Ordering::Relaxed);
            }
            _ => std::thread::sleep(AGAIN),
        }
        let goes_on = |answer: &Answer| answer.header("connection") != Some("close");
        if outcome.as_ref().is_ok_and(goes_on) {
            connection = Some(client);
        }
        history.push(Sent {
            rows,
            took,
            outcome,
        });
    }
    history
}

/// Of all kinds, and the keys of its messages.
fn next_request(number: usize) -> (Vec<u8>, Vec<String>) {
    let row = new_row();
    let path = player(&row);
    let tags = json!({"n": number, "text": "x".repeat(number % 300)});
    match number % 4 {
        0 => {
            let address = format!("{}@Example.com", new_row());
            let app = AppId::parse(APP.as_bytes()).unwrap();
            let parent = SubscriptionId::of_email(app, &address).to_string();
            let body = json!({"app_id": APP, "email": address});
            (
                put(&(path + "/email"), &body.to_string()),
                vec![parent, row],
            )
        }
        1 => {
            let other = new_row();
            let body = json!({"app_id": APP, "tags": tags, "mirror_to": other});
            (put(&path, &body.to_string()), vec![row, other])
        }
        _ => {
            let body = json!({"app_id": APP, "tags": tags, "counts": {"n": 1}});
            (put(&path, &body.to_string()), vec![row])
        }
    }
}

fn new_row() -> String {
    SubscriptionId(rand::rng().random()).to_string()
}

impl History {
    /// How many were answered so.
    pub fn count(&self, status: u16) -> usize {
        let answers = self.0.iter().filter_map(|sent| sent.outcome.as_ref().ok());
        answers.filter(|answer| answer.status == status).count()
    }

    /// How many had no answer.
    pub fn unanswered(&self) -> usize {
        self.0.iter().filter(|sent| sent.outcome.is_err()).count()
    }

    /// Panics unless the topic holds what was answered 200 once, what has an unknown outcome once at most, and nothing else.
    pub fn audit(&self, pond: &Pond, what: &str) {
        let mut found: HashMap<String, usize> = HashMap::new();
        for (key, _) in contents(pond) {
            *found.entry(key).or_default() += 1;
        }
        let mut unpromised = 0;
        for sent in &self.0 {
            let times = sent.rows.iter().map(|row| found.remove(row).unwrap_or(0));
            let times: Vec<usize> = times.collect();
            let allowed = match &sent.outcome {
                Ok(answer) if answer.status == 200 => times.iter().all(|times| *times == 1),
                Err(_) => times.iter().all(|times| *times <= 1),
                Ok(answer) if answer.status == 504 => {
                    assert_eq!(answer.reason(), "outcome-unknown");
                    times.iter().all(|times| *times <= 1)
                }
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    assert!(answer.header("retry-after").is_some(), "{answer:?}");
                    times.iter().all(|times| *times == 0)
                }
            };
            assert!(
                allowed,
                "{:?} is {times:?} times there: {:?}",
                sent.rows, sent.outcome
            );
            if !matches!(&sent.outcome, Ok(answer) if answer.status == 200) {
                unpromised += times.iter().sum::<usize>();
            }
        }
        assert!(found.is_empty(), "nobody sent {found:?}");
        println!(
            "{what}: {} requests, {} answered 200, {} 503, {} 504, {} not answered; all 200 are there, \
             of the others {unpromised} messages; the slowest answer took {:.1?}",
            self.0.len(),
            self.count(200),
            self.count(503),
            self.count(504),
            self.unanswered(),
            self.0.iter().map(|sent| sent.took).max().unwrap(),
        );
    }

    /// Panics if a connection ended in the middle of an answer.
    pub fn assert_whole(&self) {
        for sent in &self.0 {
            assert_ne!(sent.outcome.as_ref().err(), Some(&Gone::Torn));
            assert_ne!(sent.outcome.as_ref().err(), Some(&Gone::Silent));
        }
    }
}
