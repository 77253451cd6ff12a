//! The load: runs of `millpond load`, one after the other, until it is enough.

use super::Size;
use crate::child::Process;
use crate::pond::Pond;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a run is, if nothing holds it up, and how long it may be held up.
const RUN_SECONDS: u32 = 10;
const HELD_UP: Duration = Duration::from_secs(300);
/// Many more than there are brokers' deaths at a bad moment.
const FAILURES: u64 = 50;
/// A seed has rows and messages of its own. So many take turns, so that rows are written to again.
const SEEDS: u64 = 4;

/// A thread that keeps the load going. Ended with its value.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    pub fn begin(pond: &Pond, size: &Size, seed: u64) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let messages = u64::from(size.rate * RUN_SECONDS);
        let figures = [messages, size.rate.into(), u64::from(size.rows) / SEEDS, 50]
            .map(|figure| figure.to_string());
        let (config, over, count) = (pond.config.clone(), stop.clone(), sent.clone());
        let keep_going = move || {
            let mut failures = 0;
            let [messages_asked, rate, rows, apps] = &figures;
            let mut run = 0;
            while !over.load(Ordering::Relaxed) {
                let seed = seed.wrapping_add(run % SEEDS).to_string();
                let arguments = [
                    "load",
                    "--messages",
                    messages_asked,
                    "--rate",
                    rate,
                    "--rows",
                    rows,
                    "--apps",
                    apps,
                    "--seed",
                    &seed,
                ];
                let ended = Process::start(&config, &arguments, &[]).wait(HELD_UP);
                run += 1;
                // A run that finds no broker at its start gives up; the next one may find it. What `sent` lacks then is in the
                // log or was never there, and the log decides.
                if ended.status.success() {
                    count.fetch_add(messages, Ordering::Relaxed);
                } else {
                    failures += 1;
                }
                assert!(failures < FAILURES, "the load fails: {}", ended.stderr);
            }
        };
        let thread = std::thread::Builder::new().name("traffic".to_owned());
        Self {
            stop,
            sent,
            thread: Some(thread.spawn(keep_going).unwrap()),
        }
    }

    /// Messages that Kafka has acknowledged.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether it came to an end that nobody asked for.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The last run is waited for; how many messages there were.
    pub fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load goes on");
        }
        self.sent()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
