//! A steady load on two shards, and what every fault is judged by: who goes on meanwhile, and how long it takes until
//! everything is applied once the fault is gone.

use crate::child::{Ended, Process};
use crate::pond::{Pond, SHARDS, Shape};
use crate::reading::Reading;
use millpond::kafka::admin::Admin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages a second over both shards: far below what two shared cores can do.
pub const RATE: u32 = 3000;
/// What is waited for happens within this time, or never.
pub const SOON: Duration = Duration::from_secs(30);
/// How often the metrics are read: what bounds how exactly a pause is known.
const LOOK: Duration = Duration::from_millis(50);
/// Each question to the broker ends by then.
const ANSWER: Duration = Duration::from_secs(5);

/// A pond under load.
pub struct Trial {
    // Ended before the pond, whose databases they use.
    pauses: Pauses,
    load: Option<Process>,
    pub pond: Pond,
    messages: u64,
}

/// How a trial differs from the usual.
pub struct Load {
    pub seconds: u32,
    /// Few are updated over and over; many are mostly made.
    pub rows: u32,
    pub broken: u32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            seconds: 7,
            rows: 2000,
            broken: 0,
        }
    }
}

/// From the end of the fault.
pub struct Recovery {
    /// Until everything is applied and committed.
    all: Duration,
    /// Until the last message of the load was in Kafka, before which the lag can't be 0.
    load: Duration,
}

/// A pond of two shards.
pub fn pond(name: &str, consumer: &'static str) -> Pond {
    let shape = Shape {
        consumer,
        ..Shape::default()
    };
    Pond::new(name, &shape)
}

impl Trial {
    /// Starts the load.
    pub fn begin(pond: Pond, load: &Load) -> Self {
        let messages = u64::from(RATE * load.seconds);
        let arguments = [
            ("--messages", messages.to_string()),
            ("--rate", RATE.to_string()),
            ("--rows", load.rows.to_string()),
            ("--broken", load.broken.to_string()),
        ];
        let arguments = arguments.iter().flat_map(|(flag, value)| [*flag, value]);
        let arguments: Vec<&str> = ["load"].into_iter().chain(arguments).collect();
        Self {
            pauses: Pauses::watch(pond.admin_port),
            load: Some(pond.start(&arguments, &[])),
            messages,
            pond,
        }
    }

    /// Starts a consumer and the load, and waits until both shards are applied to.
    pub fn running(pond: Pond, load: &Load) -> (Self, Process) {
        Self::running_in(pond, load, &[])
    }

    /// The same with more of an environment for the consumer.
    pub fn running_in(pond: Pond, load: &Load, environment: &[(&str, &str)]) -> (Self, Process) {
        let consumer = pond.start(&["run"], environment);
        Self::with(pond, load, consumer)
    }

    /// The same with a consumer that was started already, in a way of its own.
    pub fn with(pond: Pond, load: &Load, consumer: Process) -> (Self, Process) {
        let trial = Self::begin(pond, load);
        trial.wait_for("both shards are applied to", |now| {
            SHARDS
                .iter()
                .all(|shard| applied(now, shard) > f64::from(RATE) / 3.0)
        });
        (trial, consumer)
    }

    /// The metrics now.
    pub fn reading(&self) -> Reading {
        Reading::take(self.pond.admin_port).expect("the consumer is up")
    }

    /// Waits until the metrics are so.
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut(&Reading) -> bool) {
        self.pond.wait_for(what, SOON, |pond| {
            Reading::take(pond.admin_port).is_some_and(|now| condition(&now))
        });
    }

    /// How many messages a shard applied in that time, beginning now.
    pub fn applied_within(&self, shard: &str, time: Duration) -> f64 {
        let before = applied(&self.reading(), shard);
        std::thread::sleep(time);
        applied(&self.reading(), shard) - before
    }

    /// Panics unless a shard that nothing was done to goes on for that time.
    pub fn assert_goes_on(&self, shard: &str, time: Duration) {
        let applied = self.applied_within(shard, time);
        // Its share of the load is a half. That it comes at all is what is asserted; the rate is printed elsewhere.
        let least = f64::from(RATE) / 2.0 * time.as_secs_f64() / 4.0;
        assert!(applied > least, "{shard} applied {applied} in {time:?}");
    }

    /// To be called when the fault is gone: waits until all of the load is in Kafka, applied and committed.
    pub fn recover(&mut self) -> Recovery {
        let gone = Instant::now();
        let load = self.load.take().expect("a trial recovers once");
        let sent = load.wait(SOON).json();
        let load = gone.elapsed();
        assert_eq!(sent["messages"], self.messages, "{sent}");
        let kafka = self.pond.configuration().kafka;
        let admin = Admin::connect(&kafka).unwrap();
        self.pond.wait_for("everything is committed", SOON, |pond| {
            let ends = admin.end_offsets(&pond.topic, ANSWER);
            let committed = admin.committed_offsets(&kafka.group, &pond.topic, ANSWER);
            let (Ok(ends), Ok(committed)) = (ends, committed) else {
                return false;
            };
            // A partition that nothing was sent to needs no commit.
            let committed = committed.into_iter().map(|offset| offset.unwrap_or(0));
            ends.into_iter().eq(committed)
        });
        let all = gone.elapsed();
        Recovery { all, load }
    }

    /// The consumer is told to stop, every row is compared, and the figures are printed. What the consumer said.
    pub fn conclude(
        self,
        fault: &str,
        observed: &str,
        recovery: Recovery,
        consumer: Process,
    ) -> Ended {
        let ended = consumer.terminate(SOON);
        assert!(ended.status.success(), "{}", ended.stderr);
        self.assert_exact();
        let pauses = self.pauses.longest();
        println!(
            "{fault}: {} messages; {observed}; longest pause s0 {:.2} s, s1 {:.2} s; recovery {:.2} s, of which the load went on for {:.2} s",
            self.messages,
            pauses[0].as_secs_f64(),
            pauses[1].as_secs_f64(),
            recovery.all.as_secs_f64(),
            recovery.load.as_secs_f64(),
        );
        ended
    }

    /// Panics if something below the committed offsets is not applied. The group must be left or dead.
    pub fn assert_committed_is_applied(&self) {
        self.pond.assert_exact();
    }

    /// Panics unless all of the load was read back and every row is right: nothing lost, nothing twice.
    pub fn assert_exact(&self) {
        let verdict = self.pond.assert_exact();
        let read = verdict["messages_read"].as_u64().unwrap();
        assert!(read >= self.messages, "{verdict}");
        assert_eq!(verdict["unverifiable"], 0, "{verdict}");
    }
}

/// Messages of a shard that are finished.
pub fn applied(reading: &Reading, shard: &str) -> f64 {
    reading.sum_of("millpond_messages_total", &[("shard", shard)])
}

/// Connections of a shard's workers that are down.
pub fn down(reading: &Reading, shard: &str) -> f64 {
    let labels = [("shard", shard), ("state", "down")];
    reading.sum_of("millpond_connections", &labels)
}

/// A thread that measures the longest time in which nothing was finished, for each shard. The time after the last message
/// is no pause.
struct Pauses {
    longest: Arc<Mutex<[Duration; 2]>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pauses {
    fn watch(port: u16) -> Self {
        let (longest, stop) = (Arc::<Mutex<_>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (longest, stop) = (longest.clone(), stop.clone());
            move || look(port, &longest, &stop)
        });
        Self {
            longest,
            stop,
            thread: Some(thread),
        }
    }

    fn longest(&self) -> [Duration; 2] {
        *self.longest.lock().unwrap()
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(port: u16, longest: &Mutex<[Duration; 2]>, stop: &AtomicBool) {
    let mut last: [Option<(f64, Instant)>; 2] = [None; 2];
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        let Some(reading) = Reading::take(port) else {
            continue;
        };
        for (at, shard) in SHARDS.iter().enumerate() {
            // Another life counts from 0, and what it finishes is progress too.
            let (now, finished) = (Instant::now(), applied(&reading, shard));
            match last[at] {
                Some((before, _)) if before == finished => continue,
                Some((_, since)) if finished > 0.0 => {
                    let mut longest = longest.lock().unwrap();
                    longest[at] = longest[at].max(now - since);
                }
                _ => {}
            }
            if finished > 0.0 {
                last[at] = Some((finished, now));
            }
        }
    }
}
