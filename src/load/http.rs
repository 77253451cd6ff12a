//! Sends the messages of a run through the HTTP edge: an open loop over keep-alive connections, all on one thread. Whichever
//! is free takes the next request of the one schedule when its time has come. The delay counts from the intended time, so a
//! server that is slow, or all of whose connections are taken, is charged with the waiting too. Without a rate the loop is
//! closed: each connection sends its next request when it has an answer.
//!
//! No request is sent again: one without an answer may have been taken.

use super::requests::Request;
use super::schedule::{Pace, Schedule};
use super::tally::{Outcome, Tally};
use super::traffic::Traffic;
use crate::clock;
use crate::config::checked::Secret;
use crate::http::client::{Clients, News};
use crate::observe::process;
use crate::observe::recorder::SharedCounter;
use crate::observe::summary::Quantiles;
use serde::Serialize;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long a connection may take, and an answer: longer than the edge waits for its brokers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A run without any connection is given up after so long: nobody is there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How often the caller is asked whether to go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The least time between two looks at the sockets in an open loop: what comes due or is answered meanwhile shares one
/// wake-up. Half of what counts as late.
const TICK: Duration = Duration::from_micros(500);

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

/// A request that is under way.
#[derive(Clone, Copy)]
struct Sent {
    messages: u64,
    /// When it was due; in a closed loop, when it was sent.
    due: Instant,
}

/// A run.
struct Run<'a> {
    target: &'a Target,
    traffic: &'a Traffic,
    schedule: Schedule,
    is_open_loop: bool,
    tally: &'a Tally,
    sent: &'a SharedCounter,
    clients: Clients<Sent>,
    /// The message that the next request begins with.
    next: u64,
    request: Request,
    bytes: Vec<u8>,
}

/// Sends a run over so many connections and waits for all answers. `sent` counts the messages of the requests that are
/// sent; `go_on` is asked now and then, and ends the run early by answering `false`.
pub fn send(
    target: &Target,
    connections: usize,
    traffic: &Traffic,
    pace: Pace,
    (tally, sent): (&Tally, &SharedCounter),
    go_on: impl FnMut() -> bool,
) -> Result<HttpSummary, HttpError> {
    let clients =
        Clients::connect(target.address, connections, ANSWER_TIMEOUT).map_err(|error| {
            HttpError::Away {
                host: target.host.clone(),
                reason: error.to_string(),
            }
        })?;
    let cpu_before = process::cpu();
    let mut run = Run {
        target,
        traffic,
        schedule: Schedule::start(pace),
        is_open_loop: pace != Pace::Free,
        tally,
        sent,
        clients,
        next: 0,
        request: Request::default(),
        bytes: Vec::new(),
    };
    run.drive(go_on);
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
    /// Sends what is due until there is no more, or the caller or the lack of a server ends it; then waits for what is under
    /// way.
    fn drive(&mut self, mut go_on: impl FnMut() -> bool) {
        let mut waiting = self.prepare();
        let (mut looked_at, mut reached_at) = (clock::now(), clock::now());
        while waiting.is_some() || self.clients.busy() > 0 {
            let woken_at = clock::now();
            while let Some(number) = waiting
                && self.clients.has_free()
                && self.is_due(number, clock::now())
            {
                self.begin(number);
                waiting = self.prepare();
            }
            let now = clock::now();
            if now >= looked_at + LOOK_INTERVAL {
                looked_at = now;
                if !go_on() {
                    waiting = None;
                }
            }
            if !self.clients.is_cut_off() {
                reached_at = now;
            } else if now >= reached_at + CONNECT_PATIENCE {
                self.give_up(waiting.take(), now);
            }
            if self.is_open_loop {
                clock::sleep((woken_at + TICK).saturating_duration_since(now));
            }
            self.wait(waiting);
        }
    }

    /// Writes the next request; the number of its message, or `None` behind the last one.
    fn prepare(&mut self) -> Option<u64> {
        while self.next < self.traffic.options().messages {
            let number = self.next;
            self.next += 1;
            if self.traffic.write_request(number, &mut self.request) {
                self.target.write(&self.request, &mut self.bytes);
                return Some(number);
            }
        }
        None
    }

    fn is_due(&self, number: u64, now: Instant) -> bool {
        self.schedule.due_at(number).is_none_or(|due| due <= now)
    }

    /// Sends the request that was prepared.
    fn begin(&mut self, number: u64) {
        let sent_at = clock::now();
        let due = self.schedule.due_at(number).unwrap_or(sent_at);
        self.tally.sent(sent_at.saturating_duration_since(due));
        let messages = self.request.messages;
        self.sent.add(messages);
        if let Err(error) = self.clients.send(&self.bytes, Sent { messages, due }) {
            self.tally.lost(&error);
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self, waiting: Option<u64>) {
        let due = waiting.filter(|_| self.clients.has_free());
        let due = due.and_then(|number| self.schedule.due_at(number));
        let left = due.map_or(LOOK_INTERVAL, |due| {
            due.saturating_duration_since(clock::now())
        });
        // The kernel waits for whole milliseconds and rounds up; ticks take care of the rest.
        let longest = left.min(LOOK_INTERVAL).as_millis();
        let longest = Duration::from_millis(u64::try_from(longest).unwrap_or(u64::MAX));
        let tally = self.tally;
        self.clients.wait(longest, |news| match news {
            News::Answered(Sent { messages, due }, answer) => {
                let delay = clock::now().saturating_duration_since(due);
                tally.answered(answer.status, answer.body, messages, delay);
            }
            News::Lost(_, error) => tally.lost(&error),
            News::NotConnected(error) => tally.not_connected(&error),
        });
    }

    /// Nobody is there: what was due by now was not sent.
    fn give_up(&mut self, mut waiting: Option<u64>, now: Instant) {
        while let Some(number) = waiting
            && self.is_due(number, now)
        {
            self.tally.unsent();
            // Without a rate everything is due; only the one that waited would have been sent.
            waiting = self.is_open_loop.then(|| self.prepare()).flatten();
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
