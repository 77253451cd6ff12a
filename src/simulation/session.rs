//! A worker's connection to a simulated shard. Each call is on its way for a while, and may break on either way; what was
//! sent may take effect when its sender has long given up.

use super::database::{Reply, RowWrite, Sent, SqlState, Statement};
use super::world::{Met, Shared};
use crate::ids::{Partition, Position, RowKey, ShardIndex};
use crate::sink::shard::{Linked, Refusal, Remembered, ShardSession, SinkError, WriteBatch};
use crate::sink::sqlstate::Verdict;
use crate::table::Asked;
use corosensei::Yielder;
use std::cell::Cell;
use std::rc::Rc;

/// How a coroutine lets others go on.
pub type Turns = Yielder<(), ()>;

/// The source's incarnation.
pub const INCARNATION: i32 = 1;
/// Rows from which a slow shard cancels a statement.
const ROWS_TOO_MANY: usize = 3;

/// A connection.
pub struct Session<'t> {
    turns: &'t Turns,
    world: Shared,
    member: usize,
    shard: ShardIndex,
    connected: bool,
    /// The number of the open transaction.
    transaction: Option<u64>,
    /// The worker has just looked which epochs are alive.
    has_looked: Rc<Cell<bool>>,
}

/// A statement that is on its way. If its sender dies meanwhile, it may still arrive.
struct OnItsWay<'s> {
    world: &'s Shared,
    shard: usize,
    sent: Option<Sent>,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.world.borrow_mut().leave_behind(self.shard, sent);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.lose_connection();
    }
}

impl<'t> Session<'t> {
    /// For a worker of that member.
    pub fn new(
        turns: &'t Turns,
        world: &Shared,
        (member, shard): (usize, ShardIndex),
        has_looked: &Rc<Cell<bool>>,
    ) -> Self {
        Self {
            turns,
            world: world.clone(),
            member,
            shard,
            connected: false,
            transaction: None,
            has_looked: has_looked.clone(),
        }
    }

    fn call(&mut self, statement: Statement) -> Result<Reply, SinkError> {
        self.check_epochs(&statement);
        let result = self.send(statement);
        if result.is_err() {
            self.fail_transaction();
        }
        if result
            .as_ref()
            .is_err_and(|error| error.verdict != Verdict::Data)
        {
            self.has_looked.set(true);
        }
        result
    }

    /// What is written right after a worker has looked must be of partitions that its poller has.
    fn check_epochs(&self, statement: &Statement) {
        if statement.written().next().is_none() || !self.has_looked.take() {
            return;
        }
        let world = self.world.borrow();
        for key in statement.written() {
            let partition = world.topic.partition_of(key.app);
            assert!(
                world.group.has(self.member, partition),
                "a row of partition {partition} is written, which was given up before"
            );
        }
    }

    /// A statement of the open transaction failed: that has ended, or will.
    fn fail_transaction(&mut self) {
        if !self.connected {
            return self.lose_connection();
        }
        if let Some(transaction) = self.transaction {
            self.world.borrow_mut().databases[self.shard.0].abort(transaction);
        }
    }

    /// Its worker decides about links now, by the limit of this moment.
    fn decides(&self) {
        let world = &mut *self.world.borrow_mut();
        let (shard, limit) = (self.shard.0, world.truth.children_max());
        if let Some(open) = self.transaction {
            world.databases[shard].decides(open, limit);
        }
    }

    /// The connection is gone. Its transaction stays open until the server notices.
    fn lose_connection(&mut self) {
        self.connected = false;
        if let Some(transaction) = self.transaction.take() {
            let sent = Sent {
                transaction: Some(transaction),
                statement: Statement::RollBack,
            };
            self.world.borrow_mut().leave_behind(self.shard.0, sent);
        }
    }

    fn send(&mut self, statement: Statement) -> Result<Reply, SinkError> {
        self.connect()?;
        let at = self.shard.0;
        if let Statement::LockRows(..) = statement {
            assert!(self.transaction.is_none(), "a transaction within another");
            self.transaction = Some(self.world.borrow_mut().databases[at].begin());
        }
        if let Some(error) = self.trouble_before(&statement) {
            self.turns.suspend(());
            return Err(error);
        }
        let sent = self.deliver(Sent {
            transaction: self.transaction,
            statement,
        })?;
        let executed = {
            let mut world = self.world.borrow_mut();
            if world.databases[at].dead {
                self.connected = false;
                world.meet(Met::BrokenBefore);
                return Err(broken());
            }
            // Not often, but often enough where the answer matters most.
            let commits = matches!(sent.statement, Statement::Commit(..));
            if world.chance.strikes(if commits { 12 } else { 40 }) {
                self.connected = false;
                // Now, or later.
                if world.chance.once_in(2) {
                    world.leave_behind(at, sent);
                } else if let Ok(reply) = world.execute(at, Some(self.member), &sent)
                    && reply.has_written()
                {
                    world.meet(match reply {
                        Reply::Committed(_) => Met::AmbiguousLink,
                        _ => Met::AmbiguousWrite,
                    });
                }
                return Err(broken());
            }
            world.execute(at, Some(self.member), &sent)
        };
        self.turns.suspend(());
        let mut world = self.world.borrow_mut();
        let given_up = |key: RowKey| {
            !world
                .group
                .has(self.member, world.topic.partition_of(key.app))
        };
        if sent.statement.written().any(given_up) {
            world.meet(Met::StaleCompletion);
        }
        executed.map_err(refused)
    }

    /// The way to the server, and there to the front of those who wait for the same locks.
    fn deliver(&self, sent: Sent) -> Result<Sent, SinkError> {
        let (world, at) = (&self.world, self.shard.0);
        let mut on_its_way = OnItsWay {
            world,
            shard: at,
            sent: Some(sent),
        };
        self.turns.suspend(());
        while world.borrow_mut().takes_its_time(at) {
            self.turns.suspend(());
        }
        let mut waits = false;
        while let Some(sent) = &on_its_way.sent
            && world.borrow_mut().databases[at].must_wait(sent)
        {
            if !waits {
                world.borrow_mut().meet(Met::WaitedForLink);
            }
            waits = true;
            if world.borrow_mut().chance.strikes(30) {
                on_its_way.sent = None;
                world.borrow_mut().meet(Met::WaitedTooLong);
                return Err(refused("55P03"));
            }
            self.turns.suspend(());
        }
        Ok(on_its_way.sent.take().expect("still on its way"))
    }

    /// What keeps a statement from being executed.
    fn trouble_before(&mut self, statement: &Statement) -> Option<SinkError> {
        let mut world = self.world.borrow_mut();
        let database = &world.databases[self.shard.0];
        if database.refusing {
            world.meet(Met::RefusingShard);
            return Some(refused("42501"));
        }
        if database.slow && statement.written().count() >= ROWS_TOO_MANY {
            world.meet(Met::TimedOut);
            return Some(refused("57014"));
        }
        if world.chance.strikes(60) {
            world.meet(Met::TryAgain);
            return Some(refused("40001"));
        }
        if world.chance.strikes(60) {
            self.connected = false;
            world.meet(Met::BrokenBefore);
            return Some(broken());
        }
        None
    }
}

fn broken() -> SinkError {
    SinkError {
        verdict: Verdict::Reconnect,
        sqlstate: None,
        message: "the connection broke".to_owned(),
        sql: String::new(),
    }
}

fn refused(state: SqlState) -> SinkError {
    SinkError {
        verdict: Verdict::of(state),
        sqlstate: Some(state.to_owned()),
        message: format!("refused with {state}"),
        sql: String::new(),
    }
}

impl ShardSession for Session<'_> {
    fn is_connected(&self) -> bool {
        self.connected
    }

    fn connect(&mut self) -> Result<(), SinkError> {
        if !self.connected {
            self.turns.suspend(());
            let mut world = self.world.borrow_mut();
            if world.databases[self.shard.0].dead {
                world.meet(Met::DeadShard);
                return Err(broken());
            }
            self.connected = true;
        }
        Ok(())
    }

    fn update(&mut self, batch: &WriteBatch) -> Result<u64, SinkError> {
        match self.call(Statement::Update(RowWrite::read(batch, INCARNATION)))? {
            Reply::Written(rows) => Ok(rows),
            other => unreachable!("{other:?}"),
        }
    }

    fn insert(&mut self, batch: &WriteBatch) -> Result<u64, SinkError> {
        match self.call(Statement::Insert(RowWrite::read(batch, INCARNATION)))? {
            Reply::Written(rows) => Ok(rows),
            other => unreachable!("{other:?}"),
        }
    }

    fn ask(&mut self, rows: &[Asked<'_>]) -> Result<Vec<Option<Position>>, SinkError> {
        match self.call(Statement::Ask(keys_of(rows)))? {
            Reply::Fences(fences) => Ok(fences),
            other => unreachable!("{other:?}"),
        }
    }

    fn unlocked(&mut self, rows: &[Asked<'_>]) -> Result<Vec<bool>, SinkError> {
        match self.call(Statement::Unlocked(keys_of(rows)))? {
            Reply::Unlocked(unlocked) => Ok(unlocked),
            other => unreachable!("{other:?}"),
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> Result<bool, SinkError> {
        match self.call(Statement::Refuse(Box::new(refusal.clone())))? {
            Reply::Moved(moved) => Ok(moved),
            other => unreachable!("{other:?}"),
        }
    }

    fn remembered(
        &mut self,
        partition: Partition,
        positions: &[Position],
    ) -> Result<Vec<Remembered>, SinkError> {
        match self.call(Statement::Remembered(partition, positions.to_vec()))? {
            Reply::Refusals(refusals) => Ok(refusals),
            other => unreachable!("{other:?}"),
        }
    }

    fn lock_rows(
        &mut self,
        keys: &[RowKey],
        makes_missing: bool,
    ) -> Result<Vec<Option<Linked>>, SinkError> {
        match self.call(Statement::LockRows(keys.to_vec(), makes_missing))? {
            Reply::Rows(rows) => Ok(rows),
            other => unreachable!("{other:?}"),
        }
    }

    fn lock_parents(&mut self, parents: &[RowKey]) -> Result<Vec<i32>, SinkError> {
        if parents.is_empty() {
            return Ok(Vec::new());
        }
        match self.call(Statement::LockParents(parents.to_vec()))? {
            Reply::Children(children) => {
                self.decides();
                Ok(children)
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn change_children(&mut self, changes: &[(RowKey, i32)], most: i32) -> Result<u64, SinkError> {
        self.decides();
        match self.call(Statement::ChangeChildren(changes.to_vec(), most))? {
            Reply::Written(parents) => Ok(parents),
            other => unreachable!("{other:?}"),
        }
    }

    fn commit_links(&mut self, refused: &[Refusal]) -> Result<(), SinkError> {
        match self.call(Statement::Commit(refused.to_vec()))? {
            Reply::Committed(_) => self.transaction = None,
            other => unreachable!("{other:?}"),
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        if self.transaction.is_none() {
            return;
        }
        self.turns.suspend(());
        if self.world.borrow_mut().chance.strikes(40) {
            return self.lose_connection();
        }
        self.fail_transaction();
        self.transaction = None;
    }

    fn unlocked_parents(&mut self, parents: &[RowKey]) -> Result<Vec<bool>, SinkError> {
        match self.call(Statement::UnlockedParents(parents.to_vec()))? {
            Reply::Unlocked(unlocked) => Ok(unlocked),
            other => unreachable!("{other:?}"),
        }
    }
}

fn keys_of(rows: &[Asked<'_>]) -> Vec<RowKey> {
    rows.iter().map(|row| row.key).collect()
}
