//! The group's other processes, named by `admin.peers`: the page may speak with the process that it came from only, so that one
//! asks the others. The thread `mp-peers` does, once a second, each peer within [`TIMEOUT`]; it is started when somebody looks
//! at the page and ends when nobody has for [`LOOKED_WITHIN`]. Each question has a thread `mp-peer` of its own, [`ASKED_AT_ONCE`]
//! at a time. Answers are kept in one slot a peer.

use super::document::{Document, Finding, Level, Peer, Process, Step};
use super::findings::FINDINGS_MAX;
use crate::clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// What a peer is asked with, so that it doesn't ask its own peers.
pub const ALONE: &str = "alone";

/// A peer in the same place answers in milliseconds; one that does not must not hold up the others for long.
const TIMEOUT: Duration = Duration::from_millis(1000);
/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pages ask each second.
const LOOKED_WITHIN: Duration = Duration::from_secs(10);
/// A document has some 40 kB at 720 partitions, and a few MB at 100,000. Keeps a stranger at a peer's address from filling memory.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Peers that are asked at the same time.
const ASKED_AT_ONCE: usize = 8;

type Answer = Result<Arc<Document>, String>;

/// Asks them while somebody looks.
pub struct Peers(Option<Arc<Asking>>);

struct Asking {
    addresses: Vec<String>,
    state: Mutex<State>,
}

struct State {
    looked_at: Instant,
    answers: Vec<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Peers {
    /// Nobody is asked yet; no peers, never.
    pub fn new(addresses: &[String]) -> Self {
        let asking = || Asking {
            addresses: addresses.to_vec(),
            state: Mutex::new(State {
                looked_at: clock::now(),
                answers: vec![Err("not asked yet".to_owned()); addresses.len()],
                thread: None,
            }),
        };
        Self((!addresses.is_empty()).then(|| Arc::new(asking())))
    }

    /// Adds to a process' own document what its peers said last.
    pub fn join(&self, document: &mut Document) {
        let Some(asking) = &self.0 else { return };
        let answers = asking.look();
        join(document, &asking.addresses, &answers);
    }
}

impl Asking {
    /// Somebody looks: what was answered last. Starts the thread if it has ended, or never began.
    fn look(self: &Arc<Self>) -> Vec<Answer> {
        let mut state = self.state.lock();
        state.looked_at = clock::now();
        if state.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let asking = self.clone();
            let thread = Builder::new().name("mp-peers".to_owned());
            state.thread = thread.spawn(move || asking.ask_while_looked_at()).ok();
        }
        state.answers.clone()
    }

    fn ask_while_looked_at(&self) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build()
            .into();
        while self.state.lock().looked_at.elapsed() < LOOKED_WITHIN {
            let numbers: Vec<usize> = (0..self.addresses.len()).collect();
            for some in numbers.chunks(ASKED_AT_ONCE) {
                std::thread::scope(|scope| {
                    for number in some {
                        let agent = &agent;
                        let ask = move || {
                            let answer = ask(agent, &self.addresses[*number]);
                            self.state.lock().answers[*number] = answer.map(Arc::new);
                        };
                        // One that can't be started is asked in the next round.
                        let _ = Builder::new()
                            .name("mp-peer".to_owned())
                            .spawn_scoped(scope, ask);
                    }
                });
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

fn ask(agent: &ureq::Agent, address: &str) -> Result<Document, String> {
    let answer = agent
        .get(format!("http://{address}/api/status?{ALONE}"))
        .call();
    let words = |error: ureq::Error| error.to_string().trim_start_matches("io: ").to_owned();
    let mut answer = answer.map_err(words)?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
    let text = body.read_to_string().map_err(words)?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status()));
    }
    serde_json::from_str(&text)
        .map_err(|error| format!("it is no millpond of this version: {error}"))
}

/// One document of all.
fn join(document: &mut Document, addresses: &[String], answers: &[Answer]) {
    document.processes = vec![peer(String::new(), document)];
    document.partitions.process = vec![0; document.partitions.number.len()];
    for (address, answer) in addresses.iter().zip(answers) {
        match answer {
            Ok(theirs) if is_same(&theirs.process, &document.process) => {}
            Ok(theirs) if theirs.topic != document.topic || theirs.group != document.group => {
                let why = format!("it reads {} as group {}", theirs.topic, theirs.group);
                add_unreachable(document, address, &why);
            }
            Ok(theirs) => add(document, address, theirs),
            Err(why) => add_unreachable(document, address, why),
        }
    }
    document.findings.sort_by_key(|finding| finding.level);
    if document
        .findings
        .iter()
        .any(|finding| finding.level <= Level::Warn)
    {
        document
            .findings
            .retain(|finding| finding.level < Level::Good);
    }
    document.findings.truncate(FINDINGS_MAX);
}

/// Peers may be named alike in all processes, each itself among them.
fn is_same(one: &Process, other: &Process) -> bool {
    (one.pid, &one.host) == (other.pid, &other.host)
}

fn peer(address: String, of: &Document) -> Peer {
    Peer {
        address,
        error: String::new(),
        process: of.process.clone(),
        now: of.now.clone(),
        level: of
            .findings
            .iter()
            .map(|finding| finding.level)
            .min()
            .unwrap_or_default(),
    }
}

fn add(document: &mut Document, address: &str, theirs: &Document) {
    let number = document.processes.len();
    document.processes.push(peer(address.to_owned(), theirs));
    let (all, own) = (&mut document.partitions, &theirs.partitions);
    all.number.extend(&own.number);
    all.lag.extend(&own.lag);
    all.time_lag_ms.extend(&own.time_lag_ms);
    all.oldest_ms.extend(&own.oldest_ms);
    all.in_memory.extend(&own.in_memory);
    all.alarm.extend(&own.alarm);
    all.process.resize(all.number.len(), number);
    let findings = theirs
        .findings
        .iter()
        .filter(|finding| finding.level < Level::Good);
    let said = findings.map(|finding| Finding {
        id: format!("{address} {}", finding.id),
        what: format!("{address}: {}", finding.what),
        ..finding.clone()
    });
    document.findings.extend(said);
}

fn add_unreachable(document: &mut Document, address: &str, why: &str) {
    document.processes.push(Peer {
        address: address.to_owned(),
        error: why.to_owned(),
        level: Level::Warn,
        ..Peer::default()
    });
    document.findings.push(Finding {
        id: format!("{address} peer"),
        level: Level::Warn,
        what: format!("The process at {address} can't be shown"),
        why: why.to_owned(),
        steps: vec![Step {
            say: "See whether it runs; if it is gone for good, take it out of admin.peers"
                .to_owned(),
            run: String::new(),
        }],
        ..Finding::default()
    });
}
