//! A running edge beside a pond, on ports of its own.

use super::http::{Answer, Client};
use crate::child::{Ended, Process};
use crate::pond::{Letter, Pond, Shape};
use crate::reading::{self, Reading};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
pub const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

/// What is waited for happens by then, or never.
pub const SOON: Duration = Duration::from_secs(60);

/// An edge that listens.
pub struct Edge {
    process: Process,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// A pond of four partitions over two shards.
pub fn pond(name: &str) -> Pond {
    let shape = Shape {
        partitions: 4,
        ..Shape::default()
    };
    Pond::new(&format!("edge-{name}"), &shape)
}

/// The path of a row.
pub fn player(row: &str) -> String {
    format!("/api/v1/players/{row}")
}

/// Starts an edge, which may end at once. Settings beat those that it has anyway.
pub fn launch(pond: &Pond, settings: &[&str]) -> Process {
    let ports = [
        "ingest.listen=127.0.0.1:0",
        "ingest.admin_listen=127.0.0.1:0",
    ];
    let all = ports.iter().chain(settings);
    let arguments: Vec<&str> = ["ingest"]
        .into_iter()
        .chain(all.flat_map(|setting| ["--set", setting]))
        .collect();
    pond.start(&arguments, &[])
}

/// Where it listens for that; `None` while it doesn't.
pub fn listens(process: &Process, what: &str) -> Option<SocketAddr> {
    let said = process.said();
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut lines = lines.filter(|line: &Value| line["msg"] == "listening");
    let line = lines.find(|line| line["listens"] == what)?;
    Some(line["address"].as_str()?.parse().unwrap())
}

impl Edge {
    /// Starts one and waits until it is ready.
    pub fn start(pond: &Pond, settings: &[&str]) -> Self {
        let edge = Self::listening(launch(pond, settings));
        pond.wait_for("the edge is ready", SOON, |_| edge.is_ready());
        edge
    }

    /// Waits until the process listens.
    pub fn listening(mut process: Process) -> Self {
        let deadline = Instant::now() + SOON;
        loop {
            let found = (listens(&process, "ingest"), listens(&process, "admin"));
            if let (Some(address), Some(admin)) = found {
                return Self {
                    process,
                    address,
                    admin,
                };
            }
            assert!(
                process.is_running() && Instant::now() < deadline,
                "it does not listen: {}",
                process.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// The answer to a request on a connection of its own.
    pub fn ask(&self, request: &[u8]) -> Answer {
        let answer = self.client().ask(request);
        answer.unwrap_or_else(|gone| {
            let shown = String::from_utf8_lossy(&request[..request.len().min(500)]);
            panic!("{gone:?} instead of an answer to {shown:?}")
        })
    }

    /// A PUT to a row that must be taken.
    pub fn good(&self, row: &str, body: &str) {
        let answer = self.ask(&super::http::put(&player(row), body));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Status and body of a page of its admin address.
    pub fn page(&self, path: &str) -> (u16, String) {
        reading::ask(self.admin.port(), path).expect("the admin address answers")
    }

    pub fn is_ready(&self) -> bool {
        self.page("/readyz").0 == 200
    }

    pub fn metrics(&self) -> Reading {
        Reading::take(self.admin.port()).expect("the admin address answers")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// How many files and sockets it holds.
    pub fn open_files(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.process.id()));
        files.map_or(0, Iterator::count)
    }

    /// What it has in memory.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.unwrap().split_whitespace().nth(1);
        number.unwrap().parse().unwrap()
    }

    /// Tells it to stop, and waits for nothing.
    pub fn tell_to_stop(&self) {
        self.process.signal("-TERM");
    }

    /// Waits for a good end.
    pub fn ended(self) -> Ended {
        let ended = self.process.wait(SOON);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        ended
    }

    /// SIGTERM, and a good end.
    pub fn stop(self) -> Ended {
        self.tell_to_stop();
        self.ended()
    }

    /// kill -9.
    pub fn kill(self) -> Ended {
        self.process.kill()
    }
}

/// A message's value.
pub fn value(message: &Letter) -> Value {
    serde_json::from_str(message.value.as_deref().expect("a value")).expect("JSON")
}

/// Key and value of each message, sorted by key.
pub fn contents(pond: &Pond) -> Vec<(String, Value)> {
    let messages = pond.updates();
    let mut contents: Vec<(String, Value)> = messages
        .iter()
        .map(|message| (message.key.clone().expect("a key"), value(message)))
        .collect();
    contents.sort_by(|one, other| one.0.cmp(&other.0));
    contents
}
