//! What should be, by a model of its own: which updates took effect, and what the rows are when the logs' updates are applied
//! one after the other. Shares no code with fold, statement or `verify`.

use super::database::{Database, Stored};
use super::rules::RulesTopic;
use super::topic::{Entry, Kind, Topic, Update};
use crate::config::checked::OnLostRecords;
use crate::dead::Reason;
use crate::ids::{Note, OffsetAndEpoch, RowKey};
use crate::sink::shard::Refusal;
use crate::worker::tunables::Tunables;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What became of an update.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// How often it was handed to a member.
    pub delivered: u32,
    /// Whether it took effect in its row.
    pub applied: bool,
    /// Whether the database remembers that it was refused.
    pub refused: bool,
    /// Whether that was for no fault of its own.
    pub struck: bool,
    /// Whether the database remembers that its link was refused; the rest of it took effect.
    pub link_refused: bool,
    /// How often its dead letter was delivered.
    pub lettered: u32,
    /// It is gone from its log.
    pub lost: bool,
}

/// All updates and their fates.
#[derive(Default)]
pub struct Truth {
    /// By their numbers, in the order in which each partition had them.
    pub updates: Vec<Rc<Update>>,
    /// By their numbers.
    pub fates: Vec<Fate>,
    /// Children that a parent may have, as all processes have it configured now.
    pub tunables: Arc<Tunables>,
    /// Somebody has decided that reading goes on behind what is gone.
    pub goes_on_behind_gaps: bool,
    /// By partition: everything below was found to be finished.
    finished: BTreeMap<usize, i64>,
}

impl Truth {
    /// Nothing yet, for a world where a parent may have so many children.
    pub fn new(links_per_parent_max: usize) -> Self {
        let truth = Self::default();
        truth.set_limit(links_per_parent_max);
        truth
    }

    /// A parent may have so many children now.
    pub fn set_limit(&self, links_per_parent_max: usize) {
        let limit = u32::try_from(links_per_parent_max).expect("small");
        self.tunables.set_links_per_parent_max(Some(limit));
    }

    /// As all processes have it configured now.
    pub fn on_lost_records(&self) -> OnLostRecords {
        match self.goes_on_behind_gaps {
            true => OnLostRecords::Skip,
            false => OnLostRecords::Stop,
        }
    }

    /// A new update.
    pub fn add(&mut self, update: Rc<Update>) {
        self.updates.push(update);
        self.fates.push(Fate::default());
    }

    /// The next update's number.
    pub fn next(&self) -> usize {
        self.updates.len()
    }

    /// An update takes effect.
    pub fn apply(&mut self, number: usize) {
        let fate = &mut self.fates[number];
        assert!(!fate.applied, "update {number} takes effect twice");
        assert!(
            !fate.refused,
            "update {number} takes effect, but was refused"
        );
        fate.applied = true;
    }

    /// The same, as children are counted.
    pub fn children_max(&self) -> i32 {
        let limit = self.tunables.links_per_parent_max();
        i32::try_from(limit.expect("there is always one")).expect("small")
    }

    /// The link of an update is refused; the rest of it has taken effect with that.
    pub fn refuse_link(&mut self, number: usize) {
        let fate = &mut self.fates[number];
        assert!(
            fate.applied,
            "the link of update {number} is refused, but where is the rest?"
        );
        assert!(
            !fate.link_refused,
            "the link of update {number} is refused twice"
        );
        fate.link_refused = true;
    }

    /// The update that is refused.
    pub fn number_of(&self, refusal: &Refusal) -> usize {
        let position = refusal.position;
        let at = (refusal.partition, position.leader_epoch, position.offset);
        let found = self.updates.iter().find(|update| update.at == at);
        found
            .map(|update| update.number)
            .expect("an update that was written")
    }

    /// The dead letter of an update is delivered.
    pub fn letter(&mut self, number: usize, reason: Reason) {
        let fate = &mut self.fates[number];
        let expected = match self.updates[number].kind {
            _ if reason == Reason::LinkLimit => fate.link_refused,
            Kind::Bad(kind) => reason == kind,
            Kind::Poisoned => matches!(reason, Reason::Database | Reason::Overflow),
            Kind::Good => reason == Reason::Overflow,
        };
        let expected = expected || fate.struck && reason == Reason::Database;
        assert!(expected, "update {number} is a dead letter for {reason}");
        let depends_on_row = reason.depends_on_row();
        let remembered = match reason {
            Reason::LinkLimit => fate.link_refused,
            _ => fate.refused,
        };
        assert_eq!(
            remembered, depends_on_row,
            "update {number} is a dead letter for {reason}, and the database remembers otherwise"
        );
        fate.lettered += 1;
    }

    /// The log's messages below an offset are gone before they were read.
    pub fn lose(&mut self, updates: &[Entry]) {
        for entry in updates {
            if let Entry::Message(update) = entry {
                self.fates[update.number].lost = true;
            }
        }
    }

    /// A partition that was never seen begins at its oldest message; what was before is nobody's concern.
    pub fn begin(&mut self, partition: usize, offset: i64) {
        self.finished.insert(partition, offset);
    }

    /// Where the end of a log was cut off, what follows is not finished.
    pub fn cut(&mut self, partition: usize, at: i64) {
        let finished = self.finished.entry(partition).or_default();
        *finished = (*finished).min(at);
    }

    fn is_finished(&self, number: usize, rules: &RulesTopic) -> bool {
        let fate = &self.fates[number];
        // Whether it was skipped rightly is judged at the end.
        let applied = fate.applied && !fate.link_refused;
        rules.may_skip(&self.updates[number])
            || applied
            || fate.lettered > 0
            || (fate.lost && self.goes_on_behind_gaps)
    }

    /// Everything below an offset must be finished when it is committed. If the log was cut off below since, whoever begins
    /// there must find out.
    pub fn check_commit(
        &mut self,
        (topic, rules): (&Topic, &RulesTopic),
        partition: usize,
        place: OffsetAndEpoch,
    ) {
        let (log, offset) = (&topic.logs[partition], place.offset);
        if place.leader_epoch >= 0 {
            let is_cut = log.end_of(place.leader_epoch) < offset;
            assert_eq!(
                is_cut,
                log.was_cut_below(place),
                "partition {partition} is committed with a wrong leader epoch: {place:?}"
            );
            if is_cut {
                return;
            }
        }
        let mut finished = self.finished.get(&partition).copied().unwrap_or(0);
        while finished < offset {
            if let Some(Entry::Message(update)) = log.at(finished) {
                assert!(
                    self.is_finished(update.number, rules),
                    "offset {offset} of partition {partition} is committed, but update {} at {finished} isn't finished: {:?}",
                    update.number,
                    self.fates[update.number]
                );
            }
            finished += 1;
        }
        self.finished.insert(partition, finished);
    }

    /// Whether something below an offset is not finished.
    pub fn has_open_below(
        &self,
        (topic, rules): (&Topic, &RulesTopic),
        partition: usize,
        offset: i64,
    ) -> bool {
        let finished = self.finished.get(&partition).copied().unwrap_or(0);
        (finished..offset).any(|at| {
            let entry = topic.logs[partition].at(at);
            matches!(entry, Some(Entry::Message(update)) if !self.is_finished(update.number, rules))
        })
    }

    /// Whether all messages that are not gone are finished.
    pub fn all_finished(&self, rules: &RulesTopic) -> bool {
        let finished = |number: usize| self.fates[number].lost || self.is_finished(number, rules);
        (0..self.updates.len()).all(finished)
    }

    /// An update that is not finished, for the message.
    pub fn unfinished(&self, rules: &RulesTopic) -> String {
        let unfinished = (0..self.updates.len())
            .find(|number| !self.fates[*number].lost && !self.is_finished(*number, rules));
        unfinished.map_or_else(
            || "all are finished".to_owned(),
            |number| {
                format!(
                    "update {number} at {:?}: {:?}",
                    self.updates[number].at, self.fates[number]
                )
            },
        )
    }

    /// Everything is finished: compares fates and rows. How many updates rules have skipped.
    pub fn judge(
        &self,
        topic: &Topic,
        databases: &[Database],
        rules: &RulesTopic,
        notes: &[Option<Note>],
    ) -> u64 {
        let mut skipped = 0;
        let mut rows: BTreeMap<RowKey, Stored> = BTreeMap::new();
        for (update, fate) in self.updates.iter().zip(&self.fates) {
            let context = || format!("update {} at {:?}: {fate:?}", update.number, update.at);
            if let Kind::Bad(_) = update.kind {
                assert!(!fate.applied && !fate.refused, "{}", context());
                continue;
            }
            if rules.skips(update, notes) {
                skipped += 1;
                let is_untouched = !fate.applied && !fate.refused && fate.lettered == 0;
                assert!(is_untouched, "a rule skips it: {}", context());
                continue;
            }
            let is_whole = fate.applied && !fate.link_refused;
            if !fate.lost {
                assert!(is_whole != (fate.lettered > 0), "{}", context());
            }
            assert!(!is_whole || fate.lettered == 0, "{}", context());
            if !fate.applied && !fate.refused {
                continue;
            }
            let row = rows.entry(update.row).or_default();
            let overflows = update.counts.iter().any(|(name, delta)| {
                let before = row.counts.get(*name).copied().unwrap_or(0);
                before.checked_add(*delta).is_none()
            });
            let is_due = overflows || fate.struck || update.kind == Kind::Poisoned;
            assert!(
                is_due || !fate.refused,
                "refused without cause: {}",
                context()
            );
            assert!(
                !overflows || !fate.applied,
                "applied over 64 bits: {}",
                context()
            );
            if fate.applied {
                apply(row, update);
            }
            if is_whole && update.parent.is_some() {
                row.parent = update.parent_row();
            }
            // A link that is there already takes no place.
            let is_new = row.parent != update.parent_row();
            assert!(is_new || !fate.link_refused, "{}", context());
        }
        for (key, row) in rows {
            let shard = topic.partitioner.shard_of(key.app);
            let stored = databases[shard.0].rows.get(&key);
            let stored = stored.unwrap_or_else(|| panic!("{key:?} is missing"));
            assert_eq!(stored.without_fence(), row.without_fence(), "{key:?}");
        }
        databases.iter().for_each(Database::check_children);
        skipped
    }
}

/// One update after the other, as the contract says.
fn apply(row: &mut Stored, update: &Update) {
    for (name, value) in &update.tags {
        match value {
            Some(value) => row.tags.insert((*name).to_owned(), value.clone()),
            None => row.tags.remove(*name),
        };
    }
    for (name, delta) in &update.counts {
        *row.counts.entry((*name).to_owned()).or_default() += delta;
    }
    row.counts.insert(Update::own_count(update.number), 1);
    if let Some(identifier) = &update.identifier {
        row.identifier.clone_from(identifier);
    }
}
