//! How far a connection is with its request, and when that must be over. Deadlines are points in time, not waits per
//! read, so a client that sends a byte now and then is cut all the same.
//!
//! `Handshake → Idle → Head → Body → Answer → Idle`; a request whose head came with the one before goes from `Answer` to `Body`. Where
//! answers come later, `Handling` lies between `Body` and `Answer`.

use super::server::Limits;
use crate::clock;
use std::io;
use std::time::{Duration, Instant};

/// Far beyond the deadlines of whoever answers later.
const HANDLING: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In TLS, before anything can be read.
    Handshake,
    /// Between requests: nothing of the next one has been read.
    Idle,
    /// A part of the head has been read.
    Head,
    /// The head has been read, the body is being read or handled.
    Body,
    /// The body has been read, the answer comes later.
    Handling,
    /// The handler has answered; the answer is being written.
    Answer,
}

/// Owned by a connection, behind its lock: its thread moves it on, the stopping thread reads it.
pub(super) struct Progress {
    phase: Phase,
    /// When the phase must be over.
    deadline: Instant,
    /// When the request must have been read.
    request_deadline: Instant,
    /// No further request is taken.
    stopping: bool,
}

impl Progress {
    /// Of a new connection.
    pub(super) fn new(limits: &Limits) -> Self {
        let deadline = clock::now() + limits.idle_deadline;
        Self {
            phase: Phase::Idle,
            deadline,
            request_deadline: deadline,
            stopping: false,
        }
    }

    /// Of a new connection in TLS: the handshake has a head's time.
    pub(super) fn shaking_hands(limits: &Limits) -> Self {
        Self {
            phase: Phase::Handshake,
            deadline: clock::now() + limits.head_deadline,
            ..Self::new(limits)
        }
    }

    /// Nothing happens after the first time.
    pub(super) fn hands_are_shaken(&mut self, limits: &Limits) {
        if self.phase == Phase::Handshake {
            self.phase = Phase::Idle;
            self.deadline = clock::now() + limits.idle_deadline;
        }
    }

    /// Whether no request is under way.
    fn is_between(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Idle)
    }

    /// The thread wants to read. Returns whether it may: not where that would begin another request while stopping.
    pub(super) fn read_begins(&mut self, limits: &Limits) -> bool {
        if self.phase == Phase::Answer {
            self.phase = Phase::Idle;
            self.deadline = clock::now() + limits.idle_deadline;
        }
        !(self.stopping && self.is_between())
    }

    /// The thread has read some bytes.
    pub(super) fn bytes_came(&mut self, limits: &Limits) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Head;
            self.deadline = clock::now() + limits.head_deadline;
            self.request_deadline = clock::now() + limits.request_deadline;
        }
    }

    /// The head is complete.
    pub(super) fn body_begins(&mut self, limits: &Limits) {
        // A pipelined request came with the bytes of the one before, so its time begins now.
        if self.phase != Phase::Head {
            self.request_deadline = clock::now() + limits.request_deadline;
        }
        self.phase = Phase::Body;
        self.deadline = self.request_deadline;
    }

    /// The request is whole; whoever answers it later has his own deadlines.
    pub(super) fn handling_begins(&mut self) {
        self.phase = Phase::Handling;
        self.deadline = clock::now() + HANDLING;
    }

    /// There is an answer. Returns whether it is the connection's last.
    pub(super) fn answer_begins(&mut self, limits: &Limits) -> bool {
        self.phase = Phase::Answer;
        self.deadline = clock::now() + limits.write_deadline;
        self.stopping
    }

    /// From now on no request is begun. Returns whether none is under way.
    pub(super) fn stop(&mut self) -> bool {
        self.stopping = true;
        self.is_between()
    }

    /// What is left of the phase's time, above zero.
    ///
    /// # Errors
    /// `TimedOut`: nothing is.
    pub(super) fn time_left(&self) -> io::Result<Duration> {
        let time_left = self.deadline.saturating_duration_since(clock::now());
        if time_left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(time_left)
    }

    /// Whether the phase's time is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// Whether it is this phase that took too long.
    pub(super) fn is_late(&self, phase: Phase) -> bool {
        self.phase == phase && self.time_left().is_err()
    }
}
