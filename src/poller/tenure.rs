//! One epoch's right to dispatch: how far, and whether all rules are decided. The protocol is in src/rules/README.md.
//!
//! Stages: an epoch first copies what the one before it had decided (`Copying`), then claims the partition with its first note
//! (`Claiming` until the coordinator has it, which is only a bound that is still at the beginning), then dispatches below its
//! ceiling. A rule that is new holds dispatch at the next offset until its edge was read back.

use super::Poller;
use super::lookup::Start;
use crate::fault;
use crate::ids::{EpochId, Note, Partition};
use crate::kafka::consumer::Commit;
use crate::kafka::member::Member;
use crate::rules::record::{EdgeKind, RuleId};
use crate::rules::shared::{Began, Order, Proposal, Rules};
use crate::rules::table::Table;
use std::time::{Duration, Instant};

/// A ceiling is at least so far above what is dispatched. A rule that is added right after a crash holds from there on, so
/// it should be small; a partition that finds more than that at once waits for a commit.
pub const AHEAD_MIN: i64 = 256;
/// And at most so far: what a partition can be read in a second or two.
const AHEAD_MAX: i64 = 1 << 20;
/// How much further the next ceiling is when the last one was reached before its time.
const AHEAD_GROWTH: i64 = 8;
/// A ceiling lies so many times ahead of what was dispatched between the last two commits.
const AHEAD_COMMITS: i64 = 4;
/// A commit is answered by then, or its answer said nothing of the partition.
const ANSWERED_BY: Duration = Duration::from_secs(3);
/// A partition that was held back for so long says so.
const HELD_LONG: Duration = Duration::from_secs(5);

/// What an epoch may dispatch.
#[derive(Debug)]
pub struct Tenure {
    partition: Partition,
    /// Its name.
    pub epoch: EpochId,
    stage: Stage,
    /// No epoch before dispatched anything at or beyond this offset.
    frontier: i64,
    /// The offset behind the last one that was dispatched.
    next: i64,
    /// The offset of the last message that a ceiling kept waiting: behind a gap it may be far above `next`.
    kept_waiting: i64,
    /// What `next` was at the last commit.
    next_at_commit: i64,
    /// No offset at or beyond this one is dispatched: the smaller of `limit` and `hold`.
    bound: i64,
    /// The ceiling that the coordinator has.
    limit: i64,
    /// The highest ceiling that was sent.
    asked: i64,
    /// It is on its way since then.
    asked_at: Option<Instant>,
    /// How far ahead the next ceiling is.
    ahead: i64,
    /// Where dispatch waits for edges, and since when.
    hold: Option<(i64, Instant)>,
    /// Edges that are being written. Nobody knows whether they are there before they were read back.
    proposed: Vec<(RuleId, EdgeKind)>,
    /// Whether it must be shown to be the owner still, since a rule ended.
    confirm: Confirm,
    terms: Terms,
}

/// Where a rule ends, messages are applied that it would have skipped. So an epoch acts on an end only once a commit was taken
/// that was sent when the end was on record: else it may have been replaced before, and the next owner has decided otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirm {
    /// There is nothing to confirm.
    Needless,
    /// The end is being written.
    AfterEdges,
    /// A commit is to be sent.
    Wanted,
    /// The one with this ceiling, or a higher one, confirms it.
    Sent(i64),
}

/// What all tenures of a process have in common.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The life of the topic.
    pub incarnation: i32,
    /// How far ahead of what is dispatched a ceiling is at the least; [`AHEAD_MIN`].
    pub ahead_min: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is ever committed, so nothing is promised: a throw-away group, or a partition that stands still.
    Unbound,
    /// What the epoch before had decided is not yet its own.
    Copying,
    /// It is the owner, once its note is taken.
    Owner,
    /// It has said its last.
    Ended,
}

impl Tenure {
    /// An epoch that begins at `start`. `commits`: whether it commits anything.
    pub fn new(start: &Start, epoch: EpochId, terms: Terms, commits: bool) -> Self {
        let unbound = !commits;
        Self {
            partition: start.partition,
            epoch,
            stage: if unbound {
                Stage::Unbound
            } else {
                Stage::Copying
            },
            frontier: start.frontier,
            next: start.offset,
            kept_waiting: i64::MIN,
            next_at_commit: start.offset,
            bound: if unbound { i64::MAX } else { i64::MIN },
            limit: start.offset,
            asked: i64::MIN,
            asked_at: None,
            ahead: terms.ahead_min,
            hold: None,
            proposed: Vec::new(),
            confirm: Confirm::Needless,
            terms,
        }
    }

    /// Whether that offset may be dispatched now.
    pub fn admits(&self, offset: i64) -> bool {
        offset < self.bound || fault::mutant("ceiling-off")
    }

    /// That offset was dispatched.
    pub fn dispatched(&mut self, offset: i64) {
        self.next = offset + 1;
    }

    /// Whether its offset may be committed: before, the note would be another epoch's.
    pub fn may_commit(&self) -> bool {
        self.stage == Stage::Owner
    }

    /// Whether it has said its last.
    pub fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether a commit is wanted for its ceiling's sake.
    pub fn wants_ceiling(&self, now: Instant) -> bool {
        let is_near = self.limit - self.next <= self.ahead / 2 || self.kept_waiting >= self.limit;
        let confirms = matches!(self.confirm, Confirm::Wanted | Confirm::Sent(_));
        self.may_commit() && (is_near || confirms) && !self.is_asked(now)
    }

    /// A commit may succeed and leave a partition out, and nobody says so.
    fn is_asked(&self, now: Instant) -> bool {
        let on_its_way = |at| now.duration_since(at) < ANSWERED_BY;
        self.asked_at.is_some_and(on_its_way)
    }

    /// A message has to wait. If it is for a ceiling, the next one is further away, and true if none is on its way.
    fn starved(&mut self, offset: i64, now: Instant) -> bool {
        if offset < self.limit {
            return false;
        }
        self.kept_waiting = offset;
        let starved = self.may_commit() && !self.is_asked(now);
        if starved && self.asked > i64::MIN {
            self.ahead = (self.ahead * AHEAD_GROWTH).min(AHEAD_MAX);
        }
        starved
    }

    /// The note of a commit that goes out now.
    pub fn note(&mut self, now: Instant) -> Note {
        let recent = (self.next - self.next_at_commit).min(AHEAD_MAX / AHEAD_COMMITS);
        let wanted = (recent * AHEAD_COMMITS).max(self.terms.ahead_min);
        // One that was reached stays far away for a while.
        self.ahead = wanted.max(self.ahead / 2);
        self.next_at_commit = self.next;
        self.asked = self
            .asked
            .max(self.frontier)
            .max(self.next.max(self.kept_waiting).saturating_add(self.ahead));
        self.asked_at = Some(now);
        if matches!(self.confirm, Confirm::Wanted | Confirm::Sent(_)) {
            // A ceiling that no earlier commit has.
            self.asked += 1;
            self.confirm = Confirm::Sent(self.asked);
        }
        self.note_of(self.asked)
    }

    /// The note of its last commit: it dispatches nothing any more.
    pub fn last_note(&mut self) -> Note {
        (self.stage, self.bound) = (Stage::Ended, i64::MIN);
        self.note_of(self.frontier.max(self.next))
    }

    fn note_of(&self, ceiling: i64) -> Note {
        Note {
            incarnation: self.terms.incarnation,
            epoch: self.epoch,
            ceiling,
        }
    }

    /// What was sent may not have arrived; it is sent again.
    pub fn ask_again(&mut self) {
        self.asked_at = None;
    }

    /// The coordinator has a note. Whether it is the epoch's first.
    fn taken(&mut self, note: &Note) -> bool {
        if note.epoch != self.epoch || self.stage != Stage::Owner {
            return false;
        }
        let first = self.bound == i64::MIN;
        self.limit = self.limit.max(note.ceiling);
        if note.ceiling >= self.asked {
            self.asked_at = None;
        }
        if matches!(self.confirm, Confirm::Sent(ceiling) if note.ceiling >= ceiling) {
            self.confirm = Confirm::Needless;
            self.go_on();
        }
        self.set_bound();
        first
    }

    fn set_bound(&mut self) {
        let hold = self.hold.map_or(i64::MAX, |(hold, _)| hold);
        self.bound = self.limit.min(hold);
        if fault::mutant("edges-not-awaited") {
            self.bound = self.limit;
        }
    }

    /// Looks at a new table. What is to be written now.
    fn look(&mut self, table: &Table, now: Instant) -> Vec<Proposal> {
        let known = table.tenures.get(&self.partition);
        let Some(known) = known.filter(|known| known.epoch == self.epoch) else {
            return Vec::new();
        };
        if !matches!(self.stage, Stage::Copying | Stage::Owner) {
            return Vec::new();
        }
        self.proposed.retain(|edge| !known.own.contains(edge));
        let is_new = |edge| !self.proposed.contains(&edge);
        let lacking = known.lacking.iter();
        let new: Vec<Proposal> = lacking
            .filter(|lacking| is_new((lacking.rule, lacking.kind)))
            .map(|lacking| Proposal {
                rule: lacking.rule,
                kind: lacking.kind,
                offset: lacking.known.unwrap_or_else(|| self.first_free()),
            })
            .collect();
        self.proposed
            .extend(new.iter().map(|new| (new.rule, new.kind)));
        // What is written before its first note is confirmed by that.
        if self.stage == Stage::Owner && new.iter().any(|new| new.kind == EdgeKind::End) {
            self.confirm = Confirm::AfterEdges;
        }
        if self.proposed.is_empty() {
            if self.confirm == Confirm::AfterEdges {
                self.confirm = Confirm::Wanted;
                self.asked_at = None;
            }
            self.go_on();
            // Nothing is dispatched all the same before its note is taken.
            self.stage = Stage::Owner;
        } else if self.hold.is_none() {
            self.hold = Some((self.next, now));
        }
        if self.bound > i64::MIN {
            self.set_bound();
        }
        new
    }

    /// Holds back no longer, if nothing is open.
    fn go_on(&mut self) {
        if self.proposed.is_empty() && self.confirm == Confirm::Needless {
            self.hold = None;
        }
    }

    /// From here on nobody has dispatched anything.
    fn first_free(&self) -> i64 {
        match fault::mutant("frontier-off") {
            true => self.next,
            false => self.frontier.max(self.next),
        }
    }

    /// Whether edges have kept it waiting for long; said once in a while.
    fn is_held_long(&mut self, now: Instant) -> bool {
        let Some((_, since)) = &mut self.hold else {
            return false;
        };
        if now.duration_since(*since) < HELD_LONG {
            return false;
        }
        *since = now;
        true
    }
}

impl<M: Member> Poller<M> {
    /// Names a new epoch, and tells the reader of the rules topic of it.
    pub(super) fn new_tenure(&mut self, start: &Start) -> Tenure {
        self.epochs += 1;
        let epoch = EpochId(self.settings.first_epoch.0.wrapping_add(self.epochs));
        let commits = self.settings.commit_interval.is_some() && !start.stopped;
        let mut tenure = Tenure::new(start, epoch, self.settings.terms, commits);
        self.commits_due = crate::clock::now();
        if !commits {
            return tenure;
        }
        if self.shared.rules.decides() {
            self.shared.rules.order(Order::Begin(Began {
                partition: start.partition,
                epoch,
                before: start.before.map(|note| note.epoch),
                rules_end: start.rules_end,
            }));
        } else {
            tenure.stage = Stage::Owner;
        }
        tenure
    }

    /// Tells the reader of the rules topic that an epoch has ended.
    pub(super) fn end_tenure(&self, partition: Partition, epoch: EpochId) {
        self.order(Order::End(partition, epoch));
    }

    /// Where nobody decides nobody hears.
    fn order(&self, order: Order) {
        if self.shared.rules.decides() {
            self.shared.rules.order(order);
        }
    }

    /// In each round: looks at the rules if anything is new.
    pub(super) fn follow_rules(&mut self) {
        let rules: &Rules = &self.shared.rules;
        let version = rules.version();
        if version == self.rules_seen {
            return;
        }
        self.rules_seen = version;
        let (table, now) = (rules.table(), crate::clock::now());
        for assigned in self.assigned.iter_mut().flatten() {
            let Tenure {
                stage,
                bound,
                confirm,
                ..
            } = assigned.tenure;
            let proposals = assigned.tenure.look(&table, now);
            let tenure = &assigned.tenure;
            if !proposals.is_empty() {
                rules.order(Order::Propose(tenure.partition, tenure.epoch, proposals));
            }
            if bound != tenure.bound {
                self.ready.mark(tenure.partition);
            }
            if stage != tenure.stage || confirm != tenure.confirm {
                self.commits_due = now;
            }
        }
    }

    /// The coordinator has taken commits.
    pub(super) fn committed(&mut self, commits: &[Commit]) {
        for commit in commits {
            let Some(assigned) = &mut self.assigned[commit.partition.index()] else {
                continue;
            };
            let tenure = &mut assigned.tenure;
            let epoch = tenure.epoch;
            if tenure.taken(&commit.note) {
                self.order(Order::Claimed(commit.partition, epoch));
            }
            self.ready.mark(commit.partition);
        }
    }

    /// The message of that offset has to wait. If it is for a ceiling, one is asked for at once.
    pub(super) fn wait_for_tenure(&mut self, tenure: &mut Tenure, offset: i64) {
        let now = crate::clock::now();
        if tenure.starved(offset, now) {
            self.commits_due = now;
        }
    }

    /// Says which partitions wait for the rules topic for long.
    pub(super) fn say_held(&mut self) {
        let now = crate::clock::now();
        for assigned in self.assigned.iter_mut().flatten() {
            if assigned.tenure.is_held_long(now) {
                tracing::error!(
                    partition = assigned.partition.0,
                    "the partition waits until it is written down from which offset on a rule holds: the rules topic takes \
                     no record. Look at its partition's leader and at the rights to write to it"
                );
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[path = "tenure_tests.rs"]
mod tests;
