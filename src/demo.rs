//! A whole life of the system in one process: the consumer, a reader that verifies as it goes, and traffic that both keep
//! up with. Where the traffic comes from and goes to is the configuration's; nothing here knows what is private.
//!
//! Threads: `demo-consumer` runs [`pipeline::run`], `demo-verify` the [`Follower`]; the caller's sends the traffic.

use crate::clock;
use crate::config::Config;
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::load::{self, LoadError, Pace, Traffic};
use crate::observe::{Registry, summary::Summary};
use crate::pipeline::control::Control;
use crate::pipeline::{self, RunError, RunOptions};
use crate::rules::Rules;
use crate::sync::{AtomicU64, Ordering, SignalFlag};
use crate::verify::{Follower, Report, VerifyError};
use crate::worker::SinkKind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const CONSUMER_THREAD: &str = "demo-consumer";
const VERIFY_THREAD: &str = "demo-verify";

/// Each question to the brokers ends by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a wait looks whether it is over; a sender that is held back must not miss much of what it could send.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How often the brokers are asked whether everything is committed.
const COMMITTED_INTERVAL: Duration = Duration::from_millis(100);
/// Nothing moved for so long, though there was something to do: it will not move any more.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The follower looks up from its reading after so long without a message, and after so many messages.
const FOLLOW_QUIET: Duration = Duration::from_millis(50);
const FOLLOW_ROUND: u64 = 1000;

/// Why a demonstration has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The consumer ended.
    #[error("the consumer: {0}")]
    Run(#[from] RunError),
    /// The traffic did not get into Kafka.
    #[error("the traffic: {0}")]
    Load(#[from] LoadError),
    /// What was sent could not be followed, or not be compared.
    #[error("the verification: {0}")]
    Verify(#[from] VerifyError),
    /// The brokers do not answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Somebody waits for nothing.
    #[error(
        "nothing moved for {STALL_MAX:?}: {0}. The log above tells why, or RUST_LOG=debug does"
    )]
    Stalled(Progress),
    /// A thread died.
    #[error("the thread {0} panicked, see above; that is a fault of millpond")]
    Panicked(&'static str),
}

/// How far everybody is, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Handed over to the producer.
    pub sent: u64,
    /// Applied, or in the dead letter topic.
    pub applied: u64,
    /// Read by the verification.
    pub followed: u64,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            sent,
            applied,
            followed,
        } = self;
        write!(
            f,
            "{sent} messages sent, {applied} applied, {followed} read for the verification"
        )
    }
}

/// A consumer and a follower at work.
pub struct Demo {
    config: Arc<Config>,
    registry: Arc<Registry>,
    stop_consuming: Arc<SignalFlag>,
    stop_following: Arc<SignalFlag>,
    followed: Arc<AtomicU64>,
    sent: u64,
    consumer: Option<JoinHandle<Result<Summary, RunError>>>,
    follower: Option<JoinHandle<Result<Follower, VerifyError>>>,
}

impl Demo {
    /// Starts both. Topic and tables must be there, and new.
    pub fn start(
        config: &Arc<Config>,
        registry: &Arc<Registry>,
        rules: &Arc<Rules>,
    ) -> Result<Self, DemoError> {
        let (stop_consuming, stop_following) = Default::default();
        let followed = Arc::new(AtomicU64::new(0));
        let follower = Follower::begin(config)?;
        let follow = {
            let (stop, followed) = (Arc::clone(&stop_following), followed.clone());
            move || follow(follower, &stop, &followed)
        };
        let consume = {
            let (config, registry, rules) = (config.clone(), registry.clone(), rules.clone());
            let stop = Arc::clone(&stop_consuming);
            let options = RunOptions {
                sink: SinkKind::Postgres,
                baseline: None,
                until_caught_up: false,
                writer: None,
            };
            let control = Control::new(&registry, Vec::new());
            move || pipeline::run(&config, options, (&registry, &control, &rules), &stop)
        };
        Ok(Self {
            config: config.clone(),
            registry: registry.clone(),
            stop_consuming,
            stop_following,
            followed,
            sent: 0,
            follower: Some(spawn(VERIFY_THREAD, follow)),
            consumer: Some(spawn(CONSUMER_THREAD, consume)),
        })
    }

    /// How far everybody is.
    pub fn progress(&self) -> Progress {
        let watermarks = self.registry.partitions.iter();
        let applied = watermarks.map(|partition| partition.watermark.get().max(0).unsigned_abs());
        Progress {
            sent: self.sent,
            applied: applied.sum(),
            followed: self.followed.load(Ordering::Relaxed),
        }
    }

    /// Sends the traffic, at most `lag_max` messages ahead of either reader, until all is sent or `go_on` answers `false`.
    pub fn load(
        &mut self,
        traffic: &Traffic,
        lag_max: u64,
        mut go_on: impl FnMut(Progress) -> bool,
    ) -> Result<load::Summary, DemoError> {
        let config = self.config.clone();
        let mut stall = Stall::new();
        let mut failure = None;
        let done = load::send(&config.kafka, traffic, Pace::Free, |sent| {
            self.sent = sent;
            loop {
                let progress = self.progress();
                if !go_on(progress) {
                    return false;
                }
                let slowest = progress.applied.min(progress.followed);
                if sent <= slowest.saturating_add(lag_max) {
                    return true;
                }
                if let Err(error) = self.check(&mut stall) {
                    failure = Some(error);
                    return false;
                }
                thread::sleep(LOOK_INTERVAL);
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let done = done?;
        self.sent = done.messages;
        Ok(done)
    }

    /// Waits until everything in the topic is applied, committed and followed.
    pub fn catch_up(&mut self, mut look: impl FnMut(Progress)) -> Result<(), DemoError> {
        let config = self.config.clone();
        let kafka = &config.kafka;
        let admin = Admin::connect(kafka)?;
        let ends = admin.end_offsets(&kafka.topic, ANSWER_TIMEOUT)?;
        let end = ends.iter().map(|end| end.unsigned_abs()).sum();
        let mut stall = Stall::new();
        loop {
            let progress = self.progress();
            look(progress);
            if progress.applied >= end && progress.followed >= end {
                let committed =
                    admin.committed_offsets(&kafka.group, &kafka.topic, ANSWER_TIMEOUT)?;
                let mut committed = committed.iter().zip(&ends);
                if committed.all(|(committed, end)| committed.unwrap_or(0) >= *end) {
                    return Ok(());
                }
                thread::sleep(COMMITTED_INTERVAL);
            }
            self.check(&mut stall)?;
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Ends the reading along and compares everything with it. Rows must stand still meanwhile.
    pub fn verdict(&mut self) -> Result<Report, DemoError> {
        self.stop_following.store(true, Ordering::Release);
        let follower = join(&mut self.follower, VERIFY_THREAD)??;
        Ok(follower.verdict()?)
    }

    /// Ends the consumer as a signal does.
    pub fn stop_consumer(&mut self) -> Result<Summary, DemoError> {
        self.stop_consuming.store(true, Ordering::Release);
        Ok(join(&mut self.consumer, CONSUMER_THREAD)??)
    }

    /// Fails if a thread has ended, or if nothing moves any more.
    fn check(&mut self, stall: &mut Stall) -> Result<(), DemoError> {
        if self.consumer.as_ref().is_some_and(JoinHandle::is_finished) {
            join(&mut self.consumer, CONSUMER_THREAD)??;
            return Err(RunError("ended by itself".to_owned()).into());
        }
        if self.follower.as_ref().is_some_and(JoinHandle::is_finished) {
            join(&mut self.follower, VERIFY_THREAD)??;
        }
        stall.check(self.progress())
    }
}

/// However a demonstration ends, its threads end before what they work on does.
impl Drop for Demo {
    fn drop(&mut self) {
        for stop in [&self.stop_consuming, &self.stop_following] {
            stop.store(true, Ordering::Release);
        }
        // What they have to say comes after an error that was told.
        let _ = self.consumer.take().map(JoinHandle::join);
        let _ = self.follower.take().map(JoinHandle::join);
    }
}

/// Notices that nobody has moved for [`STALL_MAX`].
struct Stall {
    last: Progress,
    since: Instant,
}

impl Stall {
    fn new() -> Self {
        Self {
            last: Progress::default(),
            since: clock::now(),
        }
    }

    fn check(&mut self, progress: Progress) -> Result<(), DemoError> {
        if progress != self.last {
            *self = Self {
                last: progress,
                since: clock::now(),
            };
        }
        if clock::now().duration_since(self.since) > STALL_MAX {
            return Err(DemoError::Stalled(progress));
        }
        Ok(())
    }
}

fn follow(
    mut follower: Follower,
    stop: &SignalFlag,
    followed: &AtomicU64,
) -> Result<Follower, VerifyError> {
    while !stop.load(Ordering::Acquire) {
        let messages = follower.read_on(FOLLOW_QUIET, FOLLOW_ROUND)?;
        followed.store(messages, Ordering::Relaxed);
    }
    Ok(follower)
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .expect("the system has a thread left")
}

/// What the thread came to; only the first call for a thread finds it.
fn join<T>(thread: &mut Option<JoinHandle<T>>, name: &'static str) -> Result<T, DemoError> {
    let thread = thread.take().expect("joined once");
    thread.join().map_err(|_| DemoError::Panicked(name))
}
