//! What the rules topic says, as the thread that reads it keeps it: every rule, every edge with its writer, and which epochs
//! this process has. Nothing here reads a clock or a topic.

use super::record::{EdgeKey, EdgeKind, Record, Rule, RuleId};
use super::shared::Began;
use super::table::{Entry, Lacking, Skipped, Span, Table, Tenure};
use crate::ids::{EpochId, Partition};
use crate::partitioner::Partitioner;
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which partitions a rule is about.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Says which partition an app is on; `None` where an app may be on any.
    pub partitioner: Option<Partitioner>,
    /// The life of the topic whose edges count.
    pub incarnation: i32,
}

/// An edge as it was read.
#[derive(Clone, Copy, Debug)]
struct Edge {
    kind: EdgeKind,
    epoch: EpochId,
    offset: i64,
    /// Where it stands in the rules topic.
    at: i64,
    /// Somebody who owns the partition by now has deleted it. It counts here for as long as its epoch lives here: what is in a
    /// worker's hands is decided by it.
    deleted: bool,
}

/// A rule, and what this process has done with it.
#[derive(Debug)]
struct Known {
    rule: Rule,
    skipped: Arc<Skipped>,
    effective_at: Option<Timestamp>,
}

/// All that was read.
#[derive(Debug)]
pub struct State {
    scope: Scope,
    rules: BTreeMap<RuleId, Known>,
    edges: HashMap<(RuleId, Partition), Vec<Edge>>,
    tenures: HashMap<Partition, Began>,
    /// The next offset of the rules topic.
    read_to: i64,
}

impl State {
    /// Nothing was read below that offset of the rules topic.
    pub fn new(scope: Scope, read_to: i64) -> Self {
        Self {
            scope,
            rules: BTreeMap::new(),
            edges: HashMap::new(),
            tenures: HashMap::new(),
            read_to,
        }
    }

    /// The next offset of the rules topic to be read.
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Everything below was read, though it may hold no record.
    pub fn passed(&mut self, offset: i64) {
        self.read_to = self.read_to.max(offset);
    }

    /// Takes in what was read at that offset of the rules topic.
    pub fn read(&mut self, record: Record, at: i64) {
        self.passed(at + 1);
        match record {
            Record::Rule(rule) => {
                let known = self.rules.entry(rule.id).or_insert_with(|| Known {
                    rule: rule.clone(),
                    skipped: Arc::default(),
                    effective_at: None,
                });
                if known.rule.removed != rule.removed {
                    known.effective_at = None;
                }
                known.rule = rule;
            }
            Record::Edge(key, _) if key.incarnation != self.scope.incarnation => {}
            Record::Edge(key, None) if self.has(key.partition, key.epoch) => {
                let edges = self.edges.get_mut(&(key.rule, key.partition));
                let is_this = |edge: &&mut Edge| (edge.kind, edge.epoch) == (key.kind, key.epoch);
                let mut edges = edges.into_iter().flatten();
                if let Some(edge) = edges.find(is_this) {
                    edge.deleted = true;
                }
            }
            Record::Edge(key, offset) => {
                let edges = self.edges.entry((key.rule, key.partition)).or_default();
                let is_this = |edge: &Edge| (edge.kind, edge.epoch) == (key.kind, key.epoch);
                if offset.is_some() && edges.iter().any(is_this) {
                    // Sent once more: it has stood there all the time.
                    return;
                }
                edges.retain(|edge| !is_this(edge));
                edges.extend(offset.map(|offset| Edge {
                    kind: key.kind,
                    epoch: key.epoch,
                    offset,
                    at,
                    deleted: false,
                }));
            }
        }
    }

    /// A partition begins in this process.
    pub fn begin(&mut self, began: Began) {
        let partition = began.partition;
        self.tenures.insert(partition, began);
        self.drop_deleted(partition);
    }

    /// An epoch ended. A later one of the same partition may have begun.
    pub fn end(&mut self, partition: Partition, epoch: EpochId) {
        if self.has(partition, epoch) {
            self.tenures.remove(&partition);
            self.drop_deleted(partition);
        }
    }

    /// Edges that were kept for an epoch that lives here no more.
    fn drop_deleted(&mut self, partition: Partition) {
        let lives = self.tenures.get(&partition).map(|began| began.epoch);
        for ((_, at), edges) in &mut self.edges {
            if *at == partition {
                edges.retain(|edge| !edge.deleted || Some(edge.epoch) == lives);
            }
        }
    }

    /// Whether the epoch is this process's newest of that partition.
    pub fn has(&self, partition: Partition, epoch: EpochId) -> bool {
        let began = self.tenures.get(&partition);
        began.is_some_and(|began| began.epoch == epoch)
    }

    /// Whether this very edge was read.
    pub fn has_edge(&self, key: &EdgeKey) -> bool {
        let edges = self.edges.get(&(key.rule, key.partition));
        edges.is_some_and(|edges| {
            let mut edges = edges.iter();
            edges.any(|edge| (edge.kind, edge.epoch) == (key.kind, key.epoch))
        })
    }

    /// Edges of a partition that an epoch has copied from the one before and nobody needs any more.
    pub fn copied(&self, partition: Partition, epoch: EpochId) -> Vec<EdgeKey> {
        let began = self.tenures.get(&partition);
        let before = began.filter(|began| began.epoch == epoch);
        let Some(before) = before.and_then(|began| began.before) else {
            return Vec::new();
        };
        let of_partition = self.edges.iter().filter(|((_, at), _)| *at == partition);
        let old = of_partition.flat_map(|((rule, _), edges)| {
            let old = edges.iter().filter(|edge| edge.epoch == before);
            old.map(|edge| EdgeKey {
                rule: *rule,
                partition,
                kind: edge.kind,
                incarnation: self.scope.incarnation,
                epoch: before,
            })
        });
        let mut old: Vec<EdgeKey> = old.collect();
        old.sort_by_key(|key| (key.rule, key.kind == EdgeKind::End));
        old
    }

    /// For those who decide.
    pub fn table(&mut self, now: Timestamp) -> Table {
        let mut tenures: HashMap<Partition, Tenure> = HashMap::new();
        for began in self.tenures.values() {
            // Before everything was read that was there when it was assigned, nothing is known of it.
            if began.rules_end <= self.read_to {
                tenures.insert(began.partition, self.tenure(began));
            }
        }
        let mut spans: HashMap<RuleId, HashMap<Partition, Span>> = HashMap::new();
        for (rule, partition) in self.edges.keys().copied() {
            if let Some(from) = self.decided(rule, partition, EdgeKind::Begin) {
                let to = self.decided(rule, partition, EdgeKind::End);
                let of_rule = spans.entry(rule).or_default();
                of_rule.insert(partition, Span { from, to });
            }
        }
        let mut entries = Vec::with_capacity(self.rules.len());
        for (id, known) in &mut self.rules {
            let lacks = |tenure: &Tenure| tenure.lacking.iter().any(|lacking| lacking.rule == *id);
            let is_about = |partition: &Partition| self.scope.is_about(&known.rule, *partition);
            let here: Vec<Partition> = self.tenures.keys().copied().filter(is_about).collect();
            let mut undecided = here.clone();
            undecided.retain(|partition| tenures.get(partition).is_none_or(lacks));
            undecided.sort_unstable();
            if undecided.is_empty() && !here.is_empty() && known.effective_at.is_none() {
                known.effective_at = Some(now);
            }
            entries.push(Entry {
                rule: known.rule.clone(),
                spans: spans.remove(id).unwrap_or_default(),
                skipped: known.skipped.clone(),
                undecided,
                effective_at: known.effective_at,
            });
        }
        Table::new(entries, tenures)
    }

    fn tenure(&self, began: &Began) -> Tenure {
        let (partition, epoch) = (began.partition, began.epoch);
        let mut own = HashSet::new();
        let mut lacking = Vec::new();
        for (id, known) in &self.rules {
            if !self.scope.is_about(&known.rule, partition) {
                continue;
            }
            for kind in [EdgeKind::Begin, EdgeKind::End] {
                let written = self.written_by(*id, partition, kind, epoch);
                if written.is_some() {
                    own.insert((*id, kind));
                    continue;
                }
                let before = self.decided(*id, partition, kind);
                let is_removed = known.rule.removed.is_some();
                let is_due = match kind {
                    EdgeKind::Begin => !is_removed,
                    // A rule that never began here needs no end.
                    EdgeKind::End => {
                        is_removed && self.decided(*id, partition, EdgeKind::Begin).is_some()
                    }
                };
                if before.is_some() || is_due {
                    lacking.push(Lacking {
                        rule: *id,
                        kind,
                        known: before,
                    });
                }
            }
        }
        Tenure {
            epoch,
            own,
            lacking,
        }
    }

    fn written_by(
        &self,
        rule: RuleId,
        partition: Partition,
        kind: EdgeKind,
        epoch: EpochId,
    ) -> Option<Edge> {
        let mut edges = self.edges.get(&(rule, partition))?.iter();
        edges
            .find(|edge| (edge.kind, edge.epoch) == (kind, epoch))
            .copied()
    }

    /// What counts: what this process's epoch has written, else what the epoch before it had when this one began: what came
    /// later is of somebody who no longer was the owner. Where the last owner is unknown, and in partitions of other
    /// processes, the newest edge.
    fn decided(&self, rule: RuleId, partition: Partition, kind: EdgeKind) -> Option<i64> {
        let began = self.tenures.get(&partition);
        let own = began.and_then(|began| self.written_by(rule, partition, kind, began.epoch));
        let until = began.map_or(i64::MAX, |began| began.rules_end);
        let edge = own.or_else(|| match began.and_then(|began| began.before) {
            Some(before) => self
                .written_by(rule, partition, kind, before)
                .filter(|edge| edge.at < until),
            None => {
                let edges = self.edges.get(&(rule, partition))?.iter();
                let counts = |edge: &&Edge| edge.kind == kind && edge.at < until;
                edges.filter(counts).max_by_key(|edge| edge.at).copied()
            }
        });
        edge.map(|edge| edge.offset)
    }
}

impl Scope {
    fn is_about(&self, rule: &Rule, partition: Partition) -> bool {
        let home = self.partitioner.as_ref();
        home.is_none_or(|rules| rules.partition_of(rule.target.app()) == partition)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
