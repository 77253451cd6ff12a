//! Where the thread that reads the rules topic, pollers, workers and the admin address meet. The thread publishes a table at
//! each change; the others look at its version, one load, and take the table when it has changed.

use super::record::{EdgeKind, Rule, RuleId};
use super::table::{Seen, Table};
use crate::ids::{EpochId, Partition};
use crate::sync::{AtomicU64, Ordering};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// A partition begins in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// Which one.
    pub partition: Partition,
    /// Its new epoch.
    pub epoch: EpochId,
    /// The epoch that committed last; `None` where that is unknown.
    pub before: Option<EpochId>,
    /// The end of the rules topic, as it was after the partition was assigned.
    pub rules_end: i64,
}

/// From which offset on a rule holds in a partition, or no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The rule.
    pub rule: RuleId,
    /// Which end.
    pub kind: EdgeKind,
    /// The offset.
    pub offset: i64,
}

/// What the thread that keeps the rules topic is to do.
#[derive(Debug)]
pub enum Order {
    /// A partition begins here.
    Begin(Began),
    /// It ended.
    End(Partition, EpochId),
    /// Edges to be written in the name of an epoch, however often it takes.
    Propose(Partition, EpochId, Vec<Proposal>),
    /// The coordinator has the epoch's first note: what it copied from the one before is needed no longer.
    Claimed(Partition, EpochId),
    /// A rule to be written once. The answer comes when the broker has it, or says why not.
    Write(Rule, Sender<Result<(), String>>),
}

type Waker = Box<dyn Fn() + Send + Sync>;

/// The meeting place.
pub struct Rules {
    /// Counts the tables.
    version: AtomicU64,
    table: Mutex<Arc<Table>>,
    /// Pollers that sleep.
    wakers: Mutex<Vec<Waker>>,
    orders: Sender<Order>,
    ordered: Receiver<Order>,
    /// Whether the epochs of this process write edges.
    decides: bool,
}

impl Rules {
    /// `decides`: whether epochs of this process wait for what the rules topic says and write edges to it. A throw-away group
    /// owns nothing: for it rules hold where edges are.
    pub fn new(decides: bool) -> Self {
        let (orders, ordered) = crossbeam_channel::unbounded();
        Self {
            version: AtomicU64::new(0),
            table: Mutex::default(),
            wakers: Mutex::default(),
            orders,
            ordered,
            decides,
        }
    }

    /// Whether epochs of this process write edges.
    pub fn decides(&self) -> bool {
        self.decides
    }

    /// Counts the tables.
    pub fn version(&self) -> u64 {
        // Pairs with the release in `publish`: who sees a version finds its table, or a later one.
        self.version.load(Ordering::Acquire)
    }

    /// The newest table.
    pub fn table(&self) -> Arc<Table> {
        self.table.lock().clone()
    }

    /// Makes a table known, and wakes the pollers.
    pub fn publish(&self, table: Table) {
        *self.table.lock() = Arc::new(table);
        // Pairs with the acquire in `version`.
        self.version.fetch_add(1, Ordering::Release);
        self.wakers.lock().iter().for_each(|wake| wake());
    }

    /// Calls `wake` after each new table.
    pub fn wake_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.wakers.lock().push(Box::new(wake));
    }

    /// Hands an order to the thread that keeps the rules topic.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// What was ordered; for that thread.
    pub fn ordered(&self) -> &Receiver<Order> {
        &self.ordered
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("version", &self.version)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// A worker's view: the table of its turn, and what its rules have skipped in it.
#[derive(Debug)]
pub struct RulesView {
    rules: Arc<Rules>,
    version: u64,
    table: Arc<Table>,
    /// Rules of the table that skipped something, and how much.
    skipped: Vec<(usize, u64)>,
    active: bool,
}

impl RulesView {
    /// Nothing is known before the first turn.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            version: 0,
            table: Arc::default(),
            skipped: Vec::new(),
            active: false,
        }
    }

    /// Before each turn, when its messages are in hand: whatever was decided before they were dispatched is in the table.
    pub fn refresh(&mut self) {
        let version = self.rules.version();
        if version != self.version {
            self.version = version;
            self.table = self.rules.table();
            self.active = !self.table.skips_nothing();
        }
    }

    /// Whether there is anything to ask.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether a rule skips the message; it is counted then.
    pub fn skips(&mut self, seen: &Seen) -> bool {
        let Some(rule) = self.table.skips(seen) else {
            return false;
        };
        match self.skipped.iter_mut().find(|(number, _)| *number == rule) {
            Some((_, count)) => *count += 1,
            None => self.skipped.push((rule, 1)),
        }
        true
    }

    /// After each turn: adds what was skipped to what the process knows.
    pub fn count(&mut self) {
        for (number, count) in self.skipped.drain(..) {
            self.table.entries[number].skipped.add(count);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::ids::{AppId, RowKey, SubscriptionId};
    use crate::rules::record::{Rule, Target};
    use crate::rules::table::{Entry, Span};
    use hashbrown::HashMap;
    use jiff::Timestamp;

    const P: Partition = Partition(3);

    fn table(from: i64) -> Table {
        let rule = Rule {
            id: RuleId::random(),
            target: Target::App(AppId([1; 16])),
            reason: String::new(),
            author: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            until: None,
            removed: None,
        };
        let entry = Entry {
            rule,
            spans: HashMap::from_iter([(P, Span { from, to: None })]),
            skipped: Arc::default(),
            undecided: Vec::new(),
            effective_at: None,
        };
        Table::new(vec![entry], HashMap::new())
    }

    fn seen(offset: i64) -> Seen {
        Seen {
            partition: P,
            offset,
            timestamp_ms: -1,
            row: RowKey {
                app: AppId([1; 16]),
                subscription: SubscriptionId([2; 16]),
            },
            parent: None,
        }
    }

    #[test]
    fn a_turn_is_decided_by_one_table_and_the_next_by_the_newest() {
        let rules = Arc::new(Rules::new(true));
        let mut view = RulesView::new(rules.clone());
        view.refresh();
        assert!(!view.is_active(), "no rule, no question");
        rules.publish(table(10));
        assert!(!view.is_active(), "the turn goes on as it began");
        view.refresh();
        assert!(view.is_active());
        assert!(!view.skips(&seen(9)));
        assert!(view.skips(&seen(10)) && view.skips(&seen(11)));
        assert_eq!(rules.table().entries[0].skipped.get(), 0);
        view.count();
        assert_eq!(rules.table().entries[0].skipped.get(), 2);
        view.count();
        assert_eq!(rules.table().entries[0].skipped.get(), 2, "counted once");
    }

    #[test]
    fn a_new_table_wakes_who_sleeps() {
        let rules = Rules::new(true);
        let (woken, wakes) = crossbeam_channel::unbounded();
        rules.wake_by(move || woken.send(()).expect("somebody listens"));
        rules.publish(table(0));
        assert_eq!(wakes.len(), 1);
        assert_eq!(rules.version(), 1);
    }
}
