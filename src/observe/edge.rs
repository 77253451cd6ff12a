//! What the HTTP edge records: its answers by status, and how long clients waited for them.

use super::delays::Delays;
use super::recorder::SharedCounter;
use crate::clock;
use crate::http::StatusCode;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::time::Instant;

/// The statuses that the edge answers with.
pub const STATUSES: [u16; 15] = [
    200, 202, 400, 401, 404, 405, 408, 411, 413, 415, 431, 500, 503, 504, 0,
];

/// Written by the edge's few threads.
#[derive(Debug, Default)]
pub struct EdgeRecorder {
    answers: [SharedCounter; STATUSES.len()],
    answer_delays: Mutex<Delays>,
}

impl EdgeRecorder {
    /// A request got this answer, that long after all of it had come.
    pub fn answered(&self, status: StatusCode, began: Instant) {
        let delay = clock::now().saturating_duration_since(began);
        self.answer_delays.lock().record(delay);
        self.refused(status);
    }

    /// A request got this answer at once.
    pub fn refused(&self, status: StatusCode) {
        let at = STATUSES.iter().position(|known| *known == status.as_u16());
        // The last is for statuses that hyper may learn.
        self.answers[at.unwrap_or(STATUSES.len() - 1)].add(1);
    }

    /// Answers so far, by status.
    pub fn answers(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        STATUSES
            .iter()
            .copied()
            .zip(self.answers.iter().map(SharedCounter::get))
    }

    /// Microseconds from a request's last byte to its answer, of those that Kafka decided about.
    pub fn answer_us(&self) -> Histogram<u64> {
        self.answer_delays.lock().histogram().clone()
    }
}
