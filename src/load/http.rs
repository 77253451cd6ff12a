//! Sends the messages of a run through the HTTP edge: an open loop over keep-alive connections. Each connection has a thread
//! (`load-http-N`, blocking sockets); whoever is free takes the next request of the one schedule, waits for its time, sends
//! it and waits for the answer. The delay counts from the intended time, so a server that is slow, or all of whose
//! connections are taken, is charged with the waiting too. Without a rate the loop is closed: each connection sends its next
//! request when it has an answer.
//!
//! No request is sent again: one without an answer may have been taken.

use super::requests::Request;
use super::schedule::{Pace, Schedule};
use super::tally::{Outcome, Tally};
use super::traffic::Traffic;
use crate::clock;
use crate::config::checked::Secret;
use crate::http::client::Client;
use crate::observe::process;
use crate::observe::recorder::SharedCounter;
use crate::observe::summary::Quantiles;
use crate::sync::{AtomicU64, Ordering, SignalFlag};
use serde::Serialize;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// How long a connection may take, and an answer: longer than the edge waits for its brokers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A request whose connection is gone and can't be made again is given up after so long, and the run with it: nobody is there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How often the caller is asked whether to go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often a thread that waits for a request's time looks whether the run is over. At a low rate all of them wait, and each
/// look is a wake-up.
const WAIT_STEP: Duration = Duration::from_millis(250);
/// A thread holds one request.
const STACK_BYTES: usize = 256 << 10;

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    host: String,
    token: Option<Secret>,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It is no address of an edge.
    #[error("{url}: {why}; write http://HOST:PORT")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers there.
    #[error("{host} can't be reached: {reason}; is `millpond ingest` there?")]
    Away {
        /// `host:port`.
        host: String,
        /// What the system says.
        reason: String,
    },
}

/// What came of a run. The fields' names are its JSON keys.
#[derive(Clone, Debug, Serialize)]
pub struct HttpSummary {
    /// `open`: each request had its time. `closed`: as fast as the connections allowed.
    #[serde(rename = "loop")]
    pub kind: &'static str,
    /// Keep-alive connections.
    pub connections: usize,
    /// Requests that were due: answered, lost or unsent.
    pub requests: u64,
    /// Those with a whole answer.
    pub answered: u64,
    /// What each came to.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// From the first request's time to the last answer.
    pub seconds: f64,
    /// Answers over those seconds.
    pub answered_per_s: f64,
    /// Delays of requests that were answered with 200 or 202: from the intended time (in a closed loop, from sending).
    pub delay_us: Quantiles,
    /// The same of those with another answer.
    pub refused_delay_us: Quantiles,
    /// Processor time of this process by answers, in microseconds.
    pub cpu_us_per_request: f64,
}

impl Target {
    /// The edge at a URL, `http://HOST:PORT`.
    pub fn new(url: &str, token: Option<Secret>) -> Result<Self, HttpError> {
        let wrong = |why: &str| HttpError::Url {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        if url.starts_with("https://") {
            return Err(wrong("TLS is not spoken here"));
        }
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| wrong("not an http URL"))?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("more than a host and a port"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
        });
        let full = if has_port {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let found = full.to_socket_addrs();
        let address = found.ok().and_then(|mut found| found.next());
        Ok(Self {
            address: address.ok_or_else(|| wrong("no such host or port"))?,
            host: host.to_owned(),
            token,
        })
    }

    fn connect(&self) -> std::io::Result<Client> {
        Client::connect(self.address, ANSWER_TIMEOUT)
    }

    /// Head and body of a request, in place of what was there.
    fn write(&self, request: &Request, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend_from_slice(b"PUT ");
        bytes.extend_from_slice(&request.path);
        bytes.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        bytes.extend_from_slice(self.host.as_bytes());
        if let Some(Secret(token)) = &self.token {
            bytes.extend_from_slice(b"\r\nAuthorization: Bearer ");
            bytes.extend_from_slice(token.as_bytes());
        }
        bytes.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
        bytes.extend_from_slice(request.body.len().to_string().as_bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&request.body);
    }
}

/// What the threads of a run share.
struct Run<'a> {
    target: &'a Target,
    traffic: &'a Traffic,
    schedule: Schedule,
    is_open_loop: bool,
    tally: &'a Tally,
    sent: &'a SharedCounter,
    next: AtomicU64,
    stop: SignalFlag,
}

/// Sends a run over so many connections and waits for all answers. `sent` counts the messages of the requests that are
/// sent; `go_on` is asked now and then, and ends the run early by answering `false`.
pub fn send(
    target: &Target,
    connections: usize,
    traffic: &Traffic,
    pace: Pace,
    (tally, sent): (&Tally, &SharedCounter),
    mut go_on: impl FnMut() -> bool,
) -> Result<HttpSummary, HttpError> {
    let connect = |_| {
        target.connect().map_err(|error| HttpError::Away {
            host: target.host.clone(),
            reason: error.to_string(),
        })
    };
    let clients = (0..connections)
        .map(connect)
        .collect::<Result<Vec<_>, _>>()?;
    let cpu_before = process::cpu();
    let run = Run {
        target,
        traffic,
        schedule: Schedule::start(pace),
        is_open_loop: pace != Pace::Free,
        tally,
        sent,
        next: AtomicU64::new(0),
        stop: SignalFlag::new(false),
    };
    thread::scope(|scope| {
        let spawn = |(number, client)| {
            let thread = thread::Builder::new()
                .name(format!("load-http-{number}"))
                .stack_size(STACK_BYTES);
            let run = &run;
            let spawned = thread.spawn_scoped(scope, move || run.work(client));
            spawned.expect("the system has a thread left")
        };
        let threads: Vec<_> = clients.into_iter().enumerate().map(spawn).collect();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            if !go_on() {
                run.stop.store(true, Ordering::Relaxed);
            }
            clock::sleep(LOOK_INTERVAL);
        }
    });
    let elapsed = clock::now().duration_since(run.schedule.started);
    Ok(summary(
        &run,
        connections,
        elapsed,
        process::cpu() - cpu_before,
    ))
}

fn summary(run: &Run<'_>, connections: usize, elapsed: Duration, cpu: Duration) -> HttpSummary {
    let (outcome, delay_us, refused_delay_us) = run.tally.outcome();
    let answered = outcome.answered();
    let cpu_us = cpu.as_secs_f64() * 1e6;
    HttpSummary {
        kind: if run.is_open_loop { "open" } else { "closed" },
        connections,
        requests: answered + outcome.lost + outcome.unsent,
        answered,
        outcome,
        seconds: elapsed.as_secs_f64(),
        answered_per_s: Duration::from_secs(answered).div_duration_f64(elapsed),
        delay_us,
        refused_delay_us,
        cpu_us_per_request: cpu_us / Duration::from_secs(answered.max(1)).as_secs_f64(),
    }
}

impl Run<'_> {
    /// A thread's life.
    fn work(&self, client: Client) {
        let mut client = Some(client);
        let (mut request, mut bytes) = (Request::default(), Vec::new());
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.traffic.options().messages {
                return;
            }
            if !self.traffic.write_request(number, &mut request) {
                continue;
            }
            self.target.write(&request, &mut bytes);
            if !self.schedule.wait(number, WAIT_STEP, || !self.is_over()) {
                return;
            }
            let due = self.schedule.due_at(number);
            client = self.connected(client);
            let Some(connection) = &mut client else {
                self.tally.unsent();
                continue;
            };
            let sent_at = clock::now();
            let due = due.unwrap_or(sent_at);
            self.tally.sent(sent_at.saturating_duration_since(due));
            self.sent.add(request.messages);
            if !self.exchange(connection, &bytes, request.messages, due) {
                client = None;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the connection is of further use.
    fn exchange(&self, client: &mut Client, bytes: &[u8], messages: u64, due: Instant) -> bool {
        match client.exchange(bytes) {
            Ok(answer) => {
                let delay = clock::now().saturating_duration_since(due);
                self.tally
                    .answered(answer.status, answer.body, messages, delay);
                answer.stays_open
            }
            Err(error) => {
                self.tally.lost(&error);
                false
            }
        }
    }

    /// This connection if it is of use, else another one; `None` ends the run.
    fn connected(&self, client: Option<Client>) -> Option<Client> {
        if client.as_ref().is_some_and(Client::is_open) {
            return client;
        }
        let deadline = clock::now() + CONNECT_PATIENCE;
        loop {
            match self.target.connect() {
                Ok(client) => return Some(client),
                Err(error) => self.tally.not_connected(&error),
            }
            if clock::now() >= deadline {
                self.stop.store(true, Ordering::Relaxed);
            }
            if self.is_over() {
                return None;
            }
            clock::sleep(CONNECT_PAUSE);
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
