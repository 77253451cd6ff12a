//! The bound on rows per second that a shard is written with, over the whole group.
//!
//! **Promise.** In any second at most the bound's rows reach the shard, from all processes together, in a rebalance and behind a
//! stall of Postgres too. Rows are whole and each connection may write one, so up to two rows for each connection come on
//! top, which only shows where the bound is small. To have room for a burst, the pace is a little lower than the bound:
//! bound / (1 s + [`BURST`]), so that in any time T at most pace · (T + BURST) rows are written.
//!
//! **Parts.** Processes don't talk about it. Each partition has the same part of its shard's bound, and a process has the parts
//! of its partitions. A partition has one owner at a time, so that all parts together are never more than the bound.
//!
//! **Ahead and in flight.** The burst is spent in two halves, for two different reasons to be ahead of the rate:
//! - Within a process, the generic cell rate algorithm: one number, `paid_off`, is the time at which what was taken so far is
//!   paid for at the process' rate. A statement may be sent [`AHEAD`] before its rows are paid for.
//! - Between sent and written. When Postgres stalls, what was sent before is written behind the stall, together with what the
//!   rate allows then. So a statement has at most the rows of [`IN_FLIGHT`], divided by the writers of the process, and each
//!   writer sends one statement at a time.
//!
//! What is written in a time T was sent in it, rate · (T + AHEAD) rows at most, or was in flight at its beginning, rate ·
//! IN_FLIGHT rows at most. Replays, which Postgres does not write, are given back.
//!
//! **Partitions that move.** A process stops counting a partition when it is told to give it up, before it finishes what is in
//! flight, and counts it from the moment in which it begins to read it. In between nobody counts it. Its former owner may have
//! spent all of the half that is ahead, and its writers may wait for turns that they took at the old rate: the last of
//! these comes IN_FLIGHT later at most, as each writer waits with one statement. So a partition comes with a debt, as if its
//! part had been used AHEAD + IN_FLIGHT ahead of the rate just now; and when it goes, its part of credit or debt goes with it,
//! since both are kept as times.
//!
//! **Outside of the promise.** A process that was frozen and lost its partitions without knowing sends one statement for each
//! writer when it wakes. When Postgres stalls while partitions move, the old owner's statements and the new one's may be in
//! flight together: once more the moved partitions' part of IN_FLIGHT.

use crate::ids::ShardIndex;
use crate::sync::{AtomicBool, Ordering};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far the writes of a shard may be ahead of its pace: a tenth of the rows of a second.
const BURST: Duration = Duration::from_millis(100);
/// The half of it that a process may send ahead of its rate.
const AHEAD: Duration = Duration::from_millis(50);
/// The half of it that may be sent and not yet written.
const IN_FLIGHT: Duration = Duration::from_millis(50);
const _: () = assert!(BURST.as_millis() == AHEAD.as_millis() + IN_FLIGHT.as_millis());

/// The part of one shard's bound that this process has.
#[derive(Debug)]
pub struct WriteRate {
    partitions_of_shard: u32,
    began: Instant,
    is_bound: AtomicBool,
    /// Locked once a statement, and only where there is a bound.
    share: Mutex<Share>,
}

/// Rows that one statement may write.
#[derive(Debug)]
pub struct Taken {
    /// How long it is to wait before it is sent.
    pub wait: Duration,
    /// What the rows were paid with.
    parts_per_second: u64,
}

#[derive(Debug)]
struct Share {
    /// The pace of the whole group, in rows per second; 0 for no bound.
    pace: u32,
    /// Partitions of this shard that this process has.
    assigned: u32,
    /// Connections that write to this shard.
    writers: u32,
    /// Since `began`: when what was taken so far is paid for.
    paid_off: Duration,
}

impl WriteRate {
    fn new(rows_per_second: Option<u32>, partitions_of_shard: u32) -> Self {
        Self {
            partitions_of_shard,
            began: crate::clock::now(),
            is_bound: AtomicBool::new(rows_per_second.is_some()),
            share: Mutex::new(Share {
                pace: pace(rows_per_second),
                assigned: 0,
                writers: 0,
                paid_off: Duration::ZERO,
            }),
        }
    }

    fn now(&self) -> Duration {
        crate::clock::now().duration_since(self.began)
    }

    /// Changes the bound while running; `None` is no bound.
    pub fn set_bound(&self, rows_per_second: Option<u32>) {
        self.share.lock().pace = pace(rows_per_second);
        self.is_bound
            .store(rows_per_second.is_some(), Ordering::Relaxed);
    }

    /// A partition of this shard is ours from now on.
    pub fn partition_comes(&self) {
        self.share.lock().partition_comes(self.now());
    }

    /// A partition of this shard is ours no longer, or soon.
    pub fn partition_goes(&self) {
        let mut share = self.share.lock();
        share.assigned = share.assigned.saturating_sub(1);
    }

    /// Takes the right to write that many rows; they are to be sent after [`Taken::wait`].
    pub fn take(&self, rows: usize) -> Taken {
        let mut share = self.share.lock();
        share.take(rows, self.partitions_of_shard, self.now())
    }

    /// Rows that were taken turned out to be replays, so Postgres wrote nothing.
    pub fn give_back(&self, rows: u64, taken: &Taken) {
        let mut share = self.share.lock();
        share.give_back(rows, taken, self.partitions_of_shard);
    }

    /// The most rows that one statement may have now.
    fn rows_max(&self) -> usize {
        self.share.lock().rows_max(self.partitions_of_shard)
    }
}

impl Share {
    fn partition_comes(&mut self, now: Duration) {
        let debt = self.paid_off.saturating_sub(now);
        let all = debt * self.assigned + AHEAD + IN_FLIGHT;
        self.assigned += 1;
        self.paid_off = now + all / self.assigned;
    }

    /// The rate of this process, times the partitions of the shard. With no partition left, what is still written are remains of
    /// the last ones.
    fn parts_per_second(&self) -> u64 {
        u64::from(self.pace) * u64::from(self.assigned.max(1))
    }

    fn take(&mut self, rows: usize, partitions_of_shard: u32, now: Duration) -> Taken {
        let parts_per_second = self.parts_per_second();
        let mut wait = Duration::ZERO;
        if parts_per_second > 0 {
            let cost = cost(rows as u64, partitions_of_shard, parts_per_second);
            self.paid_off = self.paid_off.max(now) + cost;
            wait = self.paid_off.saturating_sub(now + AHEAD);
        }
        Taken {
            wait,
            parts_per_second,
        }
    }

    fn give_back(&mut self, rows: u64, taken: &Taken, partitions_of_shard: u32) {
        // At the higher rate of the two, so that no more is given back than was taken.
        let parts_per_second = self.parts_per_second().max(taken.parts_per_second);
        if parts_per_second > 0 {
            let cost = cost(rows, partitions_of_shard, parts_per_second);
            self.paid_off = self.paid_off.saturating_sub(cost);
        }
    }

    fn rows_max(&self, partitions_of_shard: u32) -> usize {
        if self.pace == 0 {
            return usize::MAX;
        }
        let parts = u128::from(self.pace) * u128::from(self.assigned);
        let of_all = parts * IN_FLIGHT.as_millis() / (1000 * u128::from(partitions_of_shard));
        let rows = of_all / u128::from(self.writers.max(1));
        usize::try_from(rows.max(1)).unwrap_or(usize::MAX)
    }
}

/// What leaves room for the burst in any second of the bound.
fn pace(rows_per_second: Option<u32>) -> u32 {
    let Some(bound) = rows_per_second else {
        return 0;
    };
    let second = Duration::from_secs(1);
    let pace = u128::from(bound) * second.as_millis() / (second + BURST).as_millis();
    u32::try_from(pace.max(1)).expect("not above the bound")
}

fn cost(rows: u64, partitions_of_shard: u32, parts_per_second: u64) -> Duration {
    let parts = rows.saturating_mul(u64::from(partitions_of_shard));
    Duration::from_nanos(parts.saturating_mul(1_000_000_000) / parts_per_second)
}

/// What this process may write to each shard.
#[derive(Debug)]
pub struct WriteRates(Vec<WriteRate>);

impl WriteRates {
    /// For shards with these bounds, `None` for none, and with that many partitions each.
    pub fn new(bounds: impl Iterator<Item = Option<u32>>, partitions_of_shard: u32) -> Self {
        Self(
            bounds
                .map(|bound| WriteRate::new(bound, partitions_of_shard))
                .collect(),
        )
    }

    /// The shard's, bound or not.
    pub fn share_of(&self, shard: ShardIndex) -> &WriteRate {
        &self.0[shard.0]
    }

    /// The shard's, if it has a bound.
    pub fn of(&self, shard: ShardIndex) -> Option<&WriteRate> {
        Some(self.share_of(shard)).filter(|rate| rate.is_bound.load(Ordering::Relaxed))
    }
}

/// One that writes to a shard, with one statement at a time. It counts while it lives.
#[derive(Debug)]
pub struct Writer {
    rates: Arc<WriteRates>,
    shard: ShardIndex,
}

impl Writer {
    /// One more writer of that shard.
    pub fn new(rates: &Arc<WriteRates>, shard: ShardIndex) -> Self {
        rates.share_of(shard).share.lock().writers += 1;
        Self {
            rates: rates.clone(),
            shard,
        }
    }

    /// The most rows that its next statement may have.
    pub fn rows_max(&self) -> usize {
        self.rates
            .of(self.shard)
            .map_or(usize::MAX, WriteRate::rows_max)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.rates.share_of(self.shard).share.lock().writers -= 1;
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[path = "rate_tests.rs"]
mod tests;
