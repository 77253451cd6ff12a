//! What requests come to: counted by the threads that send them, read by whoever watches.

use crate::observe::delays::Delays;
use crate::observe::summary::Quantiles;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A request that is sent later than this after its time has missed it.
pub const LATE: Duration = Duration::from_millis(1);

/// Kinds of refusals that are kept apart. Bounds memory whatever a server makes up.
const REASONS_MAX: usize = 100;

/// Shared by the threads that send. Locked once for each answer, which two system calls outweigh by far.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    outcome: Outcome,
    accepted: Delays,
    refused: Delays,
    /// Those of both since it was last asked for.
    lately: Delays,
    messages_lately: u64,
}

/// What the requests of a run came to. Each that was due is in exactly one of `answers`, `lost` and `unsent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whole answers, by status.
    pub answers: BTreeMap<u16, u64>,
    /// Refusals, by the reason that the edge names.
    pub reasons: BTreeMap<String, u64>,
    /// Requests without a whole answer: nobody knows whether they were taken. None was sent again.
    pub lost: u64,
    /// Requests that were not sent, as there was no connection.
    pub unsent: u64,
    /// Connections that could not be made.
    pub connection_errors: u64,
    /// Messages of the requests that were answered with 200 or 202.
    pub messages: u64,
    /// Requests that were sent more than a millisecond after their time; 0 without a rate.
    pub sent_late: u64,
    /// The most that one of these was late, in microseconds.
    pub late_us_max: u64,
    /// What was wrong first.
    pub first_trouble: Option<String>,
}

/// What came since the last look.
#[derive(Clone, Copy, Debug)]
pub struct Lately {
    /// Messages of the requests that were accepted.
    pub messages: u64,
    /// Delays of all answers.
    pub delay_us: Quantiles,
}

#[derive(serde::Deserialize)]
struct Problem {
    reason: Option<String>,
    detail: Option<String>,
}

impl Tally {
    /// A request that is now sent, so long after its time.
    pub fn sent(&self, late: Duration) {
        if late <= LATE {
            return;
        }
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        let outcome = &mut self.0.lock().outcome;
        outcome.late_us_max = outcome.late_us_max.max(late_us);
        outcome.sent_late += 1;
    }

    /// An answer to a request that stands for so many messages, so long after the request's time.
    pub fn answered(&self, status: u16, body: &[u8], messages: u64, delay: Duration) {
        let accepted = matches!(status, 200 | 202);
        let problem = (!accepted).then(|| reason_of(body));
        let mut counts = self.0.lock();
        let counts = &mut *counts;
        *counts.outcome.answers.entry(status).or_default() += 1;
        counts.lately.record(delay);
        let Some((reason, detail)) = problem else {
            counts.outcome.messages += messages;
            counts.messages_lately += messages;
            counts.accepted.record(delay);
            return;
        };
        counts.refused.record(delay);
        let reasons = &mut counts.outcome.reasons;
        if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
            *reasons.entry(reason.clone()).or_default() += 1;
        }
        let trouble = &mut counts.outcome.first_trouble;
        trouble.get_or_insert_with(|| format!("answer {status} {reason}: {detail}"));
    }

    /// A request that was sent and has no answer.
    pub fn lost(&self, why: &dyn std::fmt::Display) {
        let outcome = &mut self.0.lock().outcome;
        outcome.lost += 1;
        outcome.first_trouble.get_or_insert_with(|| why.to_string());
    }

    /// A connection that was not made.
    pub fn not_connected(&self, why: &dyn std::fmt::Display) {
        let outcome = &mut self.0.lock().outcome;
        outcome.connection_errors += 1;
        outcome
            .first_trouble
            .get_or_insert_with(|| format!("no connection: {why}"));
    }

    /// A request that was not sent.
    pub fn unsent(&self) {
        self.0.lock().outcome.unsent += 1;
    }

    /// What came since the last call.
    pub fn lately(&self) -> Lately {
        let mut counts = self.0.lock();
        let lately = Lately {
            messages: std::mem::take(&mut counts.messages_lately),
            delay_us: counts.lately.quantiles(),
        };
        counts.lately.clear();
        lately
    }

    /// Everything so far, with the delays of accepted and of refused requests.
    pub fn outcome(&self) -> (Outcome, Quantiles, Quantiles) {
        let counts = self.0.lock();
        (
            counts.outcome.clone(),
            counts.accepted.quantiles(),
            counts.refused.quantiles(),
        )
    }
}

impl Outcome {
    /// Whole answers.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Answers 200 and 202.
    pub fn accepted(&self) -> u64 {
        [200, 202]
            .iter()
            .filter_map(|status| self.answers.get(status))
            .sum()
    }
}

/// The reason of a problem+json, and what it says of it.
fn reason_of(body: &[u8]) -> (String, String) {
    let problem = serde_json::from_slice(body).unwrap_or(Problem {
        reason: None,
        detail: None,
    });
    (
        problem.reason.unwrap_or_else(|| "unnamed".to_owned()),
        problem.detail.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &[u8] = br#"{"status":503,"reason":"queue-full","detail":"try again"}"#;

    #[test]
    fn every_request_is_counted_once_and_only_accepted_ones_bring_messages() {
        let tally = Tally::default();
        let ms = Duration::from_millis;
        tally.answered(200, b"{}", 2, ms(3));
        tally.answered(202, b"", 1, ms(4));
        tally.answered(503, FULL, 2, ms(900));
        tally.answered(503, FULL, 1, ms(900));
        tally.answered(500, b"<html>", 1, ms(900));
        tally.lost(&"cut");
        tally.not_connected(&"refused");
        tally.unsent();
        let (outcome, accepted, refused) = tally.outcome();
        assert_eq!(
            outcome.answers,
            [(200, 1), (202, 1), (500, 1), (503, 2)].into()
        );
        let reasons = [("queue-full", 2), ("unnamed", 1)];
        let reasons = reasons.map(|(reason, count)| (reason.to_owned(), count));
        assert_eq!(outcome.reasons, reasons.into());
        assert_eq!(
            (outcome.answered(), outcome.accepted(), outcome.messages),
            (5, 2, 3)
        );
        let others = (outcome.lost, outcome.unsent, outcome.connection_errors);
        assert_eq!(others, (1, 1, 1));
        let trouble = outcome.first_trouble.as_deref();
        assert_eq!(trouble, Some("answer 503 queue-full: try again"));
        assert_eq!((accepted.count, refused.count), (2, 3));
        assert!(accepted.max < 5_000 && refused.p50 > 800_000);
    }

    #[test]
    fn a_request_has_missed_its_time_after_more_than_a_millisecond() {
        let tally = Tally::default();
        for late_us in [0, 400, 1_000, 1_001, 7_000] {
            tally.sent(Duration::from_micros(late_us));
        }
        let (outcome, ..) = tally.outcome();
        assert_eq!((outcome.sent_late, outcome.late_us_max), (2, 7_000));
    }

    #[test]
    fn each_look_sees_what_came_since_the_last() {
        let tally = Tally::default();
        tally.answered(200, b"", 2, Duration::from_millis(3));
        let first = tally.lately();
        tally.answered(503, FULL, 1, Duration::from_millis(8));
        let second = tally.lately();
        let third = tally.lately();
        let seen = [first, second, third].map(|lately| (lately.messages, lately.delay_us.count));
        assert_eq!(seen, [(2, 1), (0, 1), (0, 0)]);
        assert!(second.delay_us.p50 > 7_000);
    }
}
