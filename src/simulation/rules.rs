//! The rules topic, and what stands for the threads that keep it: records land late or twice, are read late, and go with their
//! process or land after it. What follows from them is decided by the product; what should follow, here.

use super::topic::{Kind, Update};
use super::truth::Truth;
use super::world::{Chance, Met, Shared};
use crate::clock::turned::BEGINNING_MS;
use crate::ids::Note;
use crate::rules::Rules;
use crate::rules::record::{EdgeKey, EdgeKind, Record, Removed, Rule, RuleId, Target};
use crate::rules::shared::Order;
use crate::rules::state::{Scope, State};
use jiff::Timestamp;
use std::sync::Arc;

/// The topic.
#[derive(Default)]
pub struct RulesTopic {
    /// By offset; nothing is compacted.
    pub records: Vec<Record>,
    /// Records of processes that are gone, which may still land.
    pub late: Vec<Record>,
    /// All rules, as they are now.
    rules: Vec<Rule>,
}

/// A process's keeper.
pub struct Keeper {
    rules: Arc<Rules>,
    scope: Scope,
    state: State,
    /// Records on their way.
    sent: Vec<Record>,
}

impl RulesTopic {
    /// Somebody adds a rule for an app or a row of an update, or removes one.
    pub fn change(&mut self, truth: &Truth, chance: &mut Chance) {
        let at = Timestamp::from_millisecond(BEGINNING_MS).expect("a time");
        let author = "somebody".to_owned();
        let active = |rule: &&mut Rule| rule.removed.is_none();
        if chance.once_in(2) {
            let rule = self.rules.iter_mut().find(active);
            let Some(rule) = rule else { return };
            rule.removed = Some(Removed { at, author });
            self.records.push(Record::Rule(rule.clone()));
            return;
        }
        let Some(update) = chance.pick(&truth.updates) else {
            return;
        };
        let target = match chance.of(0..=5) {
            0 | 1 => Target::App(update.row.app),
            2..=4 => Target::Row(update.row),
            _ => Target::Parent(update.parent_row().unwrap_or(update.row)),
        };
        let rule = Rule {
            id: RuleId(uuid::Uuid::from_u128(self.rules.len() as u128)),
            target,
            reason: "why".to_owned(),
            author,
            created_at: at,
            until: None,
            removed: None,
        };
        self.records.push(Record::Rule(rule.clone()));
        self.rules.push(rule);
    }

    /// Whether some owner, or who took itself for one, may have skipped the update.
    pub fn may_skip(&self, update: &Update) -> bool {
        let edges = self.edges(update);
        edges.into_iter().any(|(key, from)| {
            key.kind == EdgeKind::Begin && key.partition == update.at.0 && from <= update.at.2
        })
    }

    /// Whether the rules skip the update, by the last owner's edges.
    pub fn skips(&self, update: &Update, notes: &[Option<Note>]) -> bool {
        let (partition, _, offset) = update.at;
        let Some(note) = notes[partition.index()] else {
            return false;
        };
        if let Kind::Bad(_) = update.kind {
            return false;
        }
        let edges = self.edges(update);
        let mut own = edges
            .iter()
            .filter(|(key, _)| (key.partition, key.epoch) == (partition, note.epoch));
        let end_of = |begin: &EdgeKey| {
            let of_rule = |key: &EdgeKey| {
                (key.rule, key.kind, key.epoch) == (begin.rule, EdgeKind::End, begin.epoch)
            };
            edges
                .iter()
                .find(|(key, _)| of_rule(key) && key.partition == partition)
        };
        own.any(|(key, from)| {
            key.kind == EdgeKind::Begin
                && *from <= offset
                && end_of(key).is_none_or(|(_, to)| offset < *to)
        })
    }

    /// The edges of the rules that are about an update.
    fn edges(&self, update: &Update) -> Vec<(EdgeKey, i64)> {
        let rules = self.rules.iter().filter(|rule| match rule.target {
            Target::App(app) => app == update.row.app,
            Target::Row(row) => row == update.row,
            Target::Parent(row) => row == update.row || update.parent_row() == Some(row),
        });
        let about: Vec<RuleId> = rules.map(|rule| rule.id).collect();
        let edges = self.records.iter().filter_map(|record| match record {
            Record::Edge(key, Some(offset)) => Some((*key, *offset)),
            Record::Edge(_, None) | Record::Rule(_) => None,
        });
        edges.filter(|(key, _)| about.contains(&key.rule)).collect()
    }
}

impl Keeper {
    /// Has read nothing.
    pub fn new(rules: Arc<Rules>, scope: Scope) -> Self {
        let state = State::new(scope.clone(), 0);
        Self {
            rules,
            scope,
            state,
            sent: Vec::new(),
        }
    }

    /// Goes on by one step.
    pub fn step(&mut self, world: &Shared, chance: &mut Chance) {
        let world = &mut *world.borrow_mut();
        match chance.of(0..=3) {
            0 => {
                if let Ok(order) = self.rules.ordered().try_recv() {
                    world.tell(|| format!("a keeper hears {order:?}"));
                    self.obey(order);
                }
            }
            1 if !self.sent.is_empty() => {
                let record = match chance.strikes(10) {
                    // Sent twice.
                    true => self.sent[0].clone(),
                    false => self.sent.remove(0),
                };
                world.tell(|| format!("the rules topic takes {record:?}"));
                world.rules.records.push(record);
            }
            2 => {
                let from = usize::try_from(self.state.read_to()).expect("small");
                let count = chance.of(1..=5);
                let new = world.rules.records.iter().zip(0..).skip(from).take(count);
                for (record, at) in new {
                    self.state.read(record.clone(), at);
                }
            }
            _ => self.rules.publish(self.state.table(Timestamp::UNIX_EPOCH)),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(began) => self.state.begin(began),
            Order::End(partition, epoch) => self.state.end(partition, epoch),
            Order::Propose(partition, epoch, proposals) => {
                let edges = proposals.into_iter().map(|proposal| {
                    let key = EdgeKey {
                        rule: proposal.rule,
                        partition,
                        kind: proposal.kind,
                        incarnation: self.scope.incarnation,
                        epoch,
                    };
                    Record::Edge(key, Some(proposal.offset))
                });
                self.sent.extend(edges);
            }
            Order::Claimed(partition, epoch) => {
                let copied = self.state.copied(partition, epoch).into_iter();
                self.sent.extend(copied.map(|key| Record::Edge(key, None)));
            }
            Order::Write(..) => unreachable!("nobody asks"),
        }
    }

    /// It is gone; some of what it sent lands all the same.
    pub fn kill(self, world: &Shared, chance: &mut Chance) {
        let world = &mut *world.borrow_mut();
        for record in self.sent {
            if chance.once_in(2) {
                world.rules.late.push(record);
            }
        }
    }
}

/// A record of a process that is gone lands.
pub fn late_record(world: &Shared, chance: &mut Chance) {
    let world = &mut *world.borrow_mut();
    if world.rules.late.is_empty() {
        return;
    }
    let at = chance.of(0..=world.rules.late.len() - 1);
    let record = world.rules.late.remove(at);
    world.tell(|| format!("the rules topic takes {record:?}, whose sender is gone"));
    world.rules.records.push(record);
    world.meet(Met::LateEdge);
}
