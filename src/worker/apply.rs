//! Writing folds to the shard until each of their messages has an outcome.
//!
//! A part of the batch is written by one statement. Rows that it didn't write are made, or asked for their fence: what lies at
//! or below the fence contributes nothing, the rest is sent again. Errors are sorted by [`Verdict`]: data errors and
//! locks are narrowed down to the row, everything else is tried again, for ever, while the epoch lives.

use super::SinkKind;
use super::encode::Encoder;
use super::fold::{Dead, Fold, Folds, Outcome};
use super::links::AwaitedParents;
use super::patience::Patience;
use super::refuse::Refusals;
use super::tunables::Tunables;
use crate::config::checked::OnMissingRow;
use crate::dispatch::Origin;
use crate::fault;
use crate::ids::{Partition, RowKey, ShardIndex};
use crate::observe::recorder::{ConnectionState, WorkerRecorder};
use crate::sink::rate::{Taken, WriteRates, Writer};
use crate::sink::shape::Shape;
use crate::sink::shard::{ShardConnection, ShardSession, SinkError};
use crate::sink::sqlstate::Verdict;
use crate::table::Asked;
use hashbrown::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a part is asked about and sent again before it counts as an error like others. Each round means that another
/// connection moved a row in between, so more than two or three say that something is wrong.
const ROUNDS_MAX: usize = 16;

/// What a worker writes with.
pub struct Applier<S = ShardConnection> {
    pub(super) connection: S,
    pub(super) shard: ShardIndex,
    pub(super) encoder: Encoder,
    pub(super) on_missing_row: OnMissingRow,
    /// Whether the last batches mostly made rows: then rows are made first and updated after.
    pub(super) makes_rows: bool,
    /// Whether the last links found a parent without room: then children are counted before links are decided.
    pub(super) counts_first: bool,
    rates: Arc<WriteRates>,
    pub(super) tunables: Arc<Tunables>,
    /// For each row of the last linking part.
    pub(super) awaited: AwaitedParents,
    /// For each row that was set aside since one of its parents is locked.
    pub(super) awaiting: AwaitedParents,
    writer: Writer,
    pub(super) recorder: Arc<WorkerRecorder>,
    pub(super) patience: Patience,
    pub(super) refusals: Refusals,
}

/// What the workers of a shard share with the rest of the process.
#[derive(Clone)]
pub struct Shared {
    /// Bounds on rows per second.
    pub rates: Arc<WriteRates>,
    /// What is known of all shards.
    pub registry: Arc<crate::observe::Registry>,
    /// Disconnected when the process gives up on what is in flight.
    pub abandon: crossbeam_channel::Receiver<()>,
    /// What may change while running.
    pub tunables: Arc<Tunables>,
}

/// The origin of each message of a batch, by its number.
pub type Origins<'a> = &'a [&'a Arc<Origin>];

impl<S: ShardSession> Applier<S> {
    /// For one worker.
    pub fn new(
        connection: S,
        shape: &'static Shape,
        on_missing_row: OnMissingRow,
        recorder: Arc<WorkerRecorder>,
        shared: &Shared,
    ) -> Self {
        Self {
            connection,
            shard: recorder.shard,
            encoder: Encoder::new(shape),
            on_missing_row,
            makes_rows: false,
            counts_first: false,
            rates: shared.rates.clone(),
            tunables: shared.tunables.clone(),
            awaited: AwaitedParents::new(),
            awaiting: AwaitedParents::new(),
            writer: Writer::new(&shared.rates, recorder.shard),
            patience: Patience::new(shared, &recorder),
            refusals: Refusals::default(),
            recorder,
        }
    }

    /// Tries to connect, and waits after a failure. Whether it is over: there is a connection, or the process gives up.
    pub fn connect(&mut self) -> bool {
        match self.connection.connect() {
            Ok(()) => true,
            Err(error) => {
                self.patience.wait(&error);
                self.patience.has_given_up()
            }
        }
    }

    /// Whether there is a connection as far as is known.
    pub fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// What an idle worker's connection is.
    pub fn connection_state(&self, sink: SinkKind) -> ConnectionState {
        match sink {
            SinkKind::Postgres if !self.is_connected() => ConnectionState::Down,
            _ => ConnectionState::Idle,
        }
    }

    /// Gives every message of the folds an outcome, however long it takes. Returns the rows that are locked by somebody
    /// else; their messages have the outcome [`Outcome::Parked`]. Stops early, with messages left open, when the process
    /// gives up, and when the worker is asked to hand over while it waits.
    pub fn apply(&mut self, folds: &mut Folds<'_>, origins: Origins<'_>) -> Vec<RowKey> {
        let mut parts: Vec<Vec<Fold>> = match folds.has_deletes() {
            // What links takes another path; both have their rows in the order of their keys.
            false => {
                let (linking, plain) = folds.folds.iter().cloned().partition(|fold| fold.links);
                vec![linking, plain]
            }
            // What a row gets behind its delete is written after that: the last of the parts is the first.
            true => {
                let (deleting, others) = folds.by_delete();
                vec![others, deleting]
            }
        };
        let mut parked = Vec::new();
        while !self.patience.is_exhausted()
            && let Some(mut part) = parts.pop()
        {
            self.patience.alive(Duration::ZERO);
            let rest = part.split_off(part.len().min(self.writer.rows_max()));
            parts.extend((!rest.is_empty()).then_some(rest));
            let part = drop_dead_epochs(folds, part, origins);
            let part = keep_behind_parked(folds, part, &parked);
            if part.is_empty() {
                continue;
            }
            match self.write(folds, &part) {
                Ok(()) => self.patience.succeeded(),
                Err(error) => self.answer(folds, part, &error, &mut parts, &mut parked),
            }
        }
        parked
    }

    /// Decides what follows an error: pushes what is to be written next.
    fn answer(
        &mut self,
        folds: &mut Folds<'_>,
        part: Vec<Fold>,
        error: &SinkError,
        parts: &mut Vec<Vec<Fold>>,
        parked: &mut Vec<RowKey>,
    ) {
        self.recorder.retries.add(1);
        // What was found before the error counts for nothing: the turn may end before the part is tried again.
        part.iter()
            .for_each(|fold| folds.note(fold, || Outcome::Open));
        match error.verdict {
            Verdict::Data if part.len() == 1 => {
                let unfolded = folds.unfolded(&part[0]);
                if unfolded.len() > 1 {
                    // In order: the last pushed is the first written.
                    parts.extend(unfolded.into_iter().rev().map(|fold| vec![fold]));
                } else if let Err(error) = self.refuse(folds, &part[0], error) {
                    // No longer about the update itself.
                    self.answer(folds, part, &error, parts, parked);
                }
            }
            Verdict::Data => push_halves(part, parts),
            Verdict::Canceled if part.len() > 1 => push_halves(part, parts),
            Verdict::Locked => {
                let free = self.set_locked_aside(folds, part, error, parked);
                if !free.is_empty() {
                    parts.push(free);
                }
            }
            Verdict::Canceled | Verdict::Again | Verdict::Reconnect | Verdict::ShardDown => {
                self.patience.wait(error);
                parts.push(part);
            }
        }
    }

    /// Writes one part. `Ok`: each of its messages has an outcome, or nothing more may be written in this turn.
    fn write(&mut self, folds: &mut Folds<'_>, part: &[Fold]) -> Result<(), SinkError> {
        self.awaited.clear();
        match part.iter().any(|fold| fold.links) {
            true => self.write_links(folds, part),
            false => self.write_rows(folds, part),
        }
    }

    fn write_rows(&mut self, folds: &mut Folds<'_>, part: &[Fold]) -> Result<(), SinkError> {
        let mut open = part.to_vec();
        let mut rounds = 0;
        let may_be_refused = self.encoder.may_be_refused_when_made();
        while rounds < ROUNDS_MAX {
            let taken = self.hold_back(open.len());
            if self.patience.is_exhausted() {
                // Giving up is no reason to write faster; whoever goes on with it waits himself.
                self.give_back(open.len(), taken.as_ref());
                return Ok(());
            }
            let batch = match self.encoder.encode(folds, &open) {
                Ok(batch) => batch,
                Err(overflow) => {
                    self.give_back(open.len(), taken.as_ref());
                    let alone = open.remove(overflow.index);
                    for fold in folds.unfolded(&alone) {
                        self.write_unfolded(folds, fold)?;
                    }
                    if open.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
            };
            // Only what was sent counts: rows that can't be folded are taken out one by one, however many.
            rounds += 1;
            let rows = batch.rows as u64;
            let mut written = 0;
            let makes_first = self.makes_rows && !(rows == 1 && may_be_refused);
            // Rows are updated or made; each of the two leaves alone what the other is for.
            for makes_rows in [makes_first, !makes_first] {
                if written == rows || (makes_rows && self.on_missing_row == OnMissingRow::Skip) {
                    continue;
                }
                if written > 0 {
                    fault::crash_point("between-statements");
                }
                let count = match makes_rows {
                    true => self.connection.insert(batch)?,
                    false => self.connection.update(batch)?,
                };
                self.recorder.statements.add(1);
                self.recorder.rows_written.add(count);
                written += count;
                if count * 2 > rows {
                    self.makes_rows = makes_rows;
                }
            }
            fault::crash_point("after-write");
            if written == rows {
                open.iter()
                    .for_each(|fold| folds.note(fold, || Outcome::Applied));
                return Ok(());
            }
            let replays = usize::try_from(rows.saturating_sub(written)).unwrap_or(usize::MAX);
            self.give_back(replays, taken.as_ref());
            open = self.ask(folds, &open, written)?;
            if open.is_empty() {
                return Ok(());
            }
        }
        Err(SinkError {
            verdict: Verdict::Again,
            sqlstate: None,
            message: format!("rows were moved by another connection {ROUNDS_MAX} times in a row"),
            sql: String::new(),
        })
    }

    /// Waits until so many rows may be written.
    pub(super) fn hold_back(&mut self, rows: usize) -> Option<Taken> {
        let taken = self.rates.of(self.shard)?.take(rows);
        let waited = self.patience.hold_back(taken.wait);
        self.recorder.rate_wait_ns.add(waited);
        self.recorder.rate_waits.add(u64::from(waited > 0));
        Some(taken)
    }

    /// So many of the rows turned out to be replays, or are not written yet.
    pub(super) fn give_back(&self, rows: usize, taken: Option<&Taken>) {
        if let (Some(rate), Some(taken)) = (self.rates.of(self.shard), taken) {
            rate.give_back(rows as u64, taken);
        }
    }

    /// So many rows were written that nobody waited for; what comes next waits for them.
    pub(super) fn has_also_written(&self, rows: usize) {
        if let Some(rate) = self.rates.of(self.shard) {
            rate.take(rows);
        }
    }

    /// Notes messages that the fence covers. Those that were refused by an earlier life are refused again.
    pub(super) fn note_replays(
        &mut self,
        folds: &mut Folds<'_>,
        messages: &[usize],
    ) -> Result<(), SinkError> {
        note_replayed(folds, messages);
        self.remember_refused(folds, messages)
    }

    /// Writes one update of a fold that had to be taken apart; a data error refuses it here, so that the next can go on.
    pub(super) fn write_unfolded(
        &mut self,
        folds: &mut Folds<'_>,
        fold: Fold,
    ) -> Result<(), SinkError> {
        match self.write(folds, std::slice::from_ref(&fold)) {
            Err(error) if error.verdict == Verdict::Data => self.refuse(folds, &fold, &error),
            other => other,
        }
    }

    /// Asks rows that may not have been written for their fences. Returns what is left to write.
    fn ask(
        &mut self,
        folds: &mut Folds<'_>,
        asked: &[Fold],
        written: u64,
    ) -> Result<Vec<Fold>, SinkError> {
        let rows: Vec<Asked<'_>> = asked.iter().map(|fold| folds.asked(fold)).collect();
        let fences = self.connection.ask(&rows)?;
        let mut left = Vec::new();
        let mut covered = Vec::new();
        let mut replayed = Vec::new();
        for (fold, fence) in asked.iter().zip(fences) {
            match fence {
                None if self.on_missing_row == OnMissingRow::Skip => {
                    folds.note(fold, || Outcome::Skipped)
                }
                None => left.push(fold.clone()),
                Some(fence) => {
                    let (below, above) = folds.cut(fold, fence);
                    if let Some(above) = above {
                        if !below.is_empty() {
                            self.recorder.folds_cut.add(1);
                            note_replayed(folds, &below);
                            replayed.extend(below);
                        }
                        left.push(above);
                    } else {
                        covered.push(below);
                    }
                }
            }
        }
        // A row at its fold's fence was written just now or before; only their numbers tell which.
        let written = usize::try_from(written)
            .unwrap_or(usize::MAX)
            .min(covered.len());
        let replays = covered.len() - written;
        for below in &covered[..replays] {
            note_replayed(folds, below);
            replayed.extend(below);
        }
        for index in covered[replays..].iter().flatten() {
            note(folds, *index, Outcome::Applied);
        }
        if replays > 0 {
            // Any of them may be the ones that were covered before.
            replayed.extend(covered[replays..].iter().flatten());
        }
        self.remember_refused(folds, &replayed)?;
        Ok(left)
    }

    /// Encodes the folds and sends nothing: the null sink.
    pub fn encode_only(&mut self, folds: &mut Folds<'_>) {
        let (deleting, others) = match folds.has_deletes() {
            false => (Vec::new(), folds.folds.clone()),
            true => folds.by_delete(),
        };
        let parts = [deleting, others];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let encoded = self.encoder.encode(folds, &part);
            let rows = encoded.map_or(part.len(), |batch| batch.rows);
            self.recorder.rows_written.add(rows as u64);
            part.iter()
                .for_each(|fold| folds.note(fold, || Outcome::Applied));
        }
    }
}

/// Notes messages of partitions that are no longer ours, and returns the folds that still are.
///
/// A partition that was lost and regained within the batch is left alone: its later messages may be duplicates of the
/// earlier ones and share their fate. Writing what a dead epoch holds is harmless anyway, by the fence.
fn drop_dead_epochs(folds: &mut Folds<'_>, part: Vec<Fold>, origins: Origins<'_>) -> Vec<Fold> {
    if fault::mutant("dead-epochs-not-dropped") || origins.iter().all(|origin| origin.is_live()) {
        return part;
    }
    let alive = origins.iter().filter(|origin| origin.is_live());
    let ours: HashSet<Partition> = alive.map(|origin| origin.partition).collect();
    let (live, dead): (Vec<Fold>, Vec<Fold>) = part
        .into_iter()
        .partition(|fold| ours.contains(&folds.messages[fold.first].partition));
    dead.iter()
        .for_each(|fold| folds.note(fold, || Outcome::DeadEpoch));
    live
}

/// What follows a parked update of its row waits with it.
fn keep_behind_parked(folds: &mut Folds<'_>, part: Vec<Fold>, parked: &[RowKey]) -> Vec<Fold> {
    let (waits, goes): (Vec<Fold>, Vec<Fold>) = part
        .into_iter()
        .partition(|fold| parked.contains(&fold.key));
    waits
        .iter()
        .for_each(|fold| folds.note(fold, || Outcome::Parked));
    goes
}

fn push_halves(part: Vec<Fold>, parts: &mut Vec<Vec<Fold>>) {
    let mut first = part;
    let second = first.split_off(first.len().div_ceil(2));
    if !second.is_empty() {
        parts.push(second);
    }
    parts.push(first);
}

fn note(folds: &mut Folds<'_>, message: usize, outcome: Outcome) {
    let number = folds.messages[message].number;
    folds.outcomes[number] = outcome;
}

fn note_replayed(folds: &mut Folds<'_>, messages: &[usize]) {
    messages
        .iter()
        .for_each(|index| note(folds, *index, Outcome::Replayed));
}

/// Notes a message as one that can't be applied.
pub(super) fn note_dead(folds: &mut Folds<'_>, message: usize, dead: Dead) {
    note(folds, message, Outcome::Dead(Box::new(dead)));
}
