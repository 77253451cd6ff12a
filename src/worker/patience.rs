//! Waiting: with jittered backoff after an error, and for the write rate. Ends at once when the process gives up on what is
//! in flight. Says, not too often, what is waited for.

use super::apply::Shared;
use crate::ids::ShardIndex;
use crate::lanes::Question;
use crate::observe::Registry;
use crate::observe::recorder::{ConnectionState, WorkerRecorder};
use crate::sink::shard::SinkError;
use crate::sink::sqlstate::Verdict;
use crate::sync::Ordering;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first wait. Short: most errors of the kind are gone by then.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest wait: a shard that comes back is written to again within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A wait is cut into pieces of this length, between which it is looked whether the worker is to hand over.
const LISTEN: Duration = Duration::from_millis(20);
/// One line per worker and this time, however often it tries.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How a worker waits.
pub struct Patience {
    abandon: Receiver<()>,
    registry: Arc<Registry>,
    recorder: Arc<WorkerRecorder>,
    backoff: Duration,
    /// The process gives up.
    exhausted: bool,
    paused: Duration,
    /// Whether the worker is asked to hand over.
    question: Question,
    /// Messages are in hand, which may be left open for whoever gets them.
    in_turn: bool,
    /// It was asked while it waited. Holds until the turn ends, even if the question is taken back: what came first of a row was
    /// left open, so nothing that follows may be written.
    interrupted: bool,
    /// When the wait that was interrupted would have ended: nothing is tried before. Otherwise each change of lanes that is
    /// refused would have a broken shard tried at once, and workers whose waits and statements alternate would never stand
    /// still together.
    again_at: Option<Instant>,
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl Patience {
    /// For one worker.
    pub fn new(shared: &Shared, recorder: &Arc<WorkerRecorder>) -> Self {
        Self {
            abandon: shared.abandon.clone(),
            registry: shared.registry.clone(),
            recorder: recorder.clone(),
            backoff: BACKOFF_FIRST,
            exhausted: false,
            paused: Duration::ZERO,
            question: Question::default(),
            in_turn: false,
            interrupted: false,
            again_at: None,
            logged_at: None,
            suppressed: 0,
        }
    }

    /// The shard's name.
    pub fn shard(&self) -> &str {
        let ShardIndex(index) = self.recorder.shard;
        &self.registry.shard_names[index]
    }

    /// What is known of all shards.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Microseconds since the process began to work.
    pub fn elapsed_us(&self) -> i64 {
        self.registry.elapsed_us()
    }

    /// Whether the process has given up on what is in flight.
    pub fn has_given_up(&self) -> bool {
        self.exhausted
    }

    /// Whether nothing more may be written in this turn: the process has given up, or the worker was asked to hand over while
    /// it waited. What is open stays open.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted || self.interrupted
    }

    /// Where the worker is asked to hand over.
    pub fn listen_to(&mut self, question: Question) {
        self.question = question;
    }

    /// From now on a wait ends when the worker is asked to hand over. What is left of one that ended so is waited for first.
    pub fn turn_begins(&mut self) {
        self.in_turn = true;
        if let Some(again_at) = self.again_at {
            self.wait_until(again_at);
        }
    }

    /// Everything has its outcome, or is left open.
    pub fn turn_ends(&mut self) {
        (self.in_turn, self.interrupted) = (false, false);
    }

    /// Something worked: the next wait is a short one.
    pub fn succeeded(&mut self) {
        if self.backoff > BACKOFF_FIRST {
            self.backoff = BACKOFF_FIRST;
            self.recorder.waits_for.lock().clear();
        }
        self.recorder.set_connection_state(ConnectionState::Busy);
        let shard = &self.registry.shards[self.recorder.shard.0];
        if shard.down.load(Ordering::Relaxed) && shard.down.swap(false, Ordering::Relaxed) {
            shard.why.lock().clear();
            tracing::info!(shard = self.shard(), "the shard can be written to again");
        }
    }

    /// Waits after an error; longer each time.
    pub fn wait(&mut self, error: &SinkError) {
        match error.verdict {
            Verdict::ShardDown => self.shard_is_down(&error.to_string()),
            Verdict::Reconnect => {
                self.recorder.set_connection_state(ConnectionState::Down);
                self.say_why(&error.to_string());
            }
            _ => {}
        }
        self.log(error);
        *self.recorder.waits_for.lock() = format!("it tries again after this: {}", because(error));
        let backoff = self.backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        self.wait_until(crate::clock::now() + backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    fn wait_until(&mut self, again_at: Instant) {
        self.pause(again_at.saturating_duration_since(crate::clock::now()));
        self.again_at = self.interrupted.then_some(again_at);
    }

    /// Marks the shard as one that can't be written to until somebody acts.
    pub fn shard_is_down(&self, why: &str) {
        self.say_why(why);
        let shard = &self.registry.shards[self.recorder.shard.0];
        shard.down.store(true, Ordering::Relaxed);
    }

    /// Leaves for the admin address what is wrong with the shard.
    fn say_why(&self, why: &str) {
        let shard = &self.registry.shards[self.recorder.shard.0];
        why.clone_into(&mut shard.why.lock());
    }

    /// Waits, with nothing to do.
    pub fn rest(&mut self, duration: Duration) {
        self.pause(duration);
    }

    /// Waits for the write rate; the nanoseconds that it took.
    pub fn hold_back(&mut self, duration: Duration) -> u64 {
        if !duration.is_zero() {
            "write_rate_max holds it back".clone_into(&mut self.recorder.waits_for.lock());
            self.pause(duration);
            self.recorder.waits_for.lock().clear();
        }
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long all waits together took.
    pub fn paused(&self) -> Duration {
        self.paused
    }

    /// Says that the worker is alive, and will be silent for so long on purpose.
    pub fn alive(&self, silent_for: Duration) {
        let silent_for = i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX);
        self.recorder
            .alive_at_ms
            .set(crate::clock::running_ms().saturating_add(silent_for));
    }

    fn pause(&mut self, duration: Duration) {
        self.alive(duration);
        let begun = crate::clock::now();
        self.pause_or_be_asked(duration);
        self.paused += crate::clock::now().saturating_duration_since(begun);
    }

    fn pause_or_be_asked(&mut self, duration: Duration) {
        let mut left = duration;
        loop {
            self.interrupted |= self.in_turn && self.question.is_open();
            if self.is_exhausted() {
                return;
            }
            let now = left.min(LISTEN);
            match crate::clock::receive_within(&self.abandon, now) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => self.exhausted = true,
            }
            left -= now;
            if left.is_zero() {
                return;
            }
        }
    }

    fn log(&mut self, error: &SinkError) {
        let now = crate::clock::now();
        if self
            .logged_at
            .is_some_and(|at| now.duration_since(at) < LOG_INTERVAL)
        {
            self.suppressed += 1;
            return;
        }
        tracing::warn!(
            shard = self.shard(),
            lane = self.recorder.lane,
            sqlstate = error.sqlstate.as_deref().unwrap_or(""),
            sql = error.sql,
            error = %error,
            suppressed = self.suppressed,
            "a write failed and is tried again"
        );
        self.logged_at = Some(now);
        self.suppressed = 0;
    }
}

/// The error with its code, for people.
fn because(error: &SinkError) -> String {
    match &error.sqlstate {
        Some(sqlstate) => format!("{error} (SQLSTATE {sqlstate})"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::rate::WriteRates;

    /// And what must be kept for its waits not to end.
    fn patience() -> (Patience, crossbeam_channel::Sender<()>) {
        let registry = Registry::new(1, vec![ShardIndex(0)], vec!["a".to_owned()]);
        let (going_on, abandon) = crossbeam_channel::bounded(0);
        let shared = Shared {
            rates: Arc::new(WriteRates::new([None].into_iter(), 1)),
            tunables: Arc::default(),
            registry: Arc::new(registry),
            abandon,
        };
        let recorder = Arc::new(WorkerRecorder::new(0, ShardIndex(0), 0));
        (Patience::new(&shared, &recorder), going_on)
    }

    fn again() -> SinkError {
        SinkError {
            verdict: Verdict::Again,
            sqlstate: None,
            message: "somebody else was there".to_owned(),
            sql: String::new(),
        }
    }

    #[test]
    fn a_wait_that_was_interrupted_goes_on_with_the_next_turn() {
        let (mut patience, _going_on) = patience();
        let begun = crate::clock::now();
        patience.turn_begins();
        patience.listen_to(Question::open());
        patience.wait(&again());
        assert!(patience.is_exhausted() && patience.paused() < BACKOFF_FIRST / 2);
        patience.turn_ends();
        patience.listen_to(Question::default());
        patience.turn_begins();
        assert!(!patience.is_exhausted());
        assert!(begun.elapsed() >= BACKOFF_FIRST / 2);
        let paused = patience.paused();
        patience.turn_ends();
        patience.turn_begins();
        assert_eq!(patience.paused(), paused, "once is enough");
    }

    #[test]
    fn waits_are_summed_up_whatever_they_were_for() {
        let (mut patience, _going_on) = patience();
        let begun = crate::clock::now();
        patience.hold_back(Duration::from_millis(20));
        patience.rest(Duration::from_millis(10));
        patience.wait(&again());
        let least = Duration::from_millis(30) + BACKOFF_FIRST / 2;
        assert!(patience.paused() >= least, "{:?}", patience.paused());
        assert!(patience.paused() <= begun.elapsed());
    }
}
