//! A worker's connection to a simulated shard. Each call is on its way for a while, and may break on either way; what was
//! sent may take effect when its sender has long given up.

use super::database::{Reply, RowWrite, SqlState, Statement};
use super::world::{Met, Shared, World};
use crate::ids::{Partition, Position, RowKey, ShardIndex};
use crate::sink::shard::{Linked, Refusal, Remembered, ShardSession, SinkError, WriteBatch};
use crate::sink::sqlstate::Verdict;
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
    /// The worker has just looked which epochs are alive.
    has_looked: Rc<Cell<bool>>,
}

/// A statement that is on its way. If its sender dies meanwhile, it may still arrive.
struct OnItsWay<'s> {
    world: &'s Shared,
    shard: usize,
    statement: Option<Statement>,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(statement) = self.statement.take() {
            self.world.borrow_mut().databases[self.shard]
                .late
                .push(statement);
        }
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
            has_looked: has_looked.clone(),
        }
    }

    fn call(&mut self, statement: Statement) -> Result<Reply, SinkError> {
        self.check_epochs(&statement);
        let result = self.send(statement);
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

    fn send(&mut self, statement: Statement) -> Result<Reply, SinkError> {
        self.connect()?;
        let at = self.shard.0;
        if let Some(error) = self.trouble_before(&statement) {
            self.turns.suspend(());
            return Err(error);
        }
        let mut on_its_way = OnItsWay {
            world: &self.world,
            shard: at,
            statement: Some(statement),
        };
        self.turns.suspend(());
        while self.world.borrow_mut().takes_its_time(at) {
            self.turns.suspend(());
        }
        let statement = on_its_way.statement.take().expect("still on its way");
        drop(on_its_way);
        let executed = {
            let mut world = self.world.borrow_mut();
            if world.databases[at].dead {
                self.connected = false;
                world.meet(Met::BrokenBefore);
                return Err(broken());
            }
            if world.chance.strikes(40) {
                self.connected = false;
                // Now, or later.
                if world.chance.once_in(2) {
                    world.databases[at].late.push(statement);
                } else if let Ok(reply) = world.execute(at, Some(self.member), &statement)
                    && reply.has_written()
                {
                    world.meet(Met::AmbiguousWrite);
                }
                return Err(broken());
            }
            world.execute(at, Some(self.member), &statement)
        };
        self.turns.suspend(());
        let mut world = self.world.borrow_mut();
        let given_up = |key: RowKey| {
            !world
                .group
                .has(self.member, world.topic.partition_of(key.app))
        };
        if statement.written().any(given_up) {
            world.meet(Met::StaleCompletion);
        }
        executed.map_err(refused)
    }

    /// What keeps a statement from being executed.
    fn trouble_before(&mut self, statement: &Statement) -> Option<SinkError> {
        let mut world = self.world.borrow_mut();
        let database = &world.databases[self.shard.0];
        if database.refusing {
            world.meet(Met::RefusingShard);
            return Some(refused("42501"));
        }
        if database.slow
            && let Statement::Update(writes) | Statement::Insert(writes) = statement
            && writes.len() >= ROWS_TOO_MANY
        {
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

impl World {
    /// Whether a statement at a shard is not done yet.
    fn takes_its_time(&mut self, shard: usize) -> bool {
        if self.databases[shard].slow && !self.chance.once_in(4) {
            self.meet(Met::SlowShard);
            return true;
        }
        self.chance.once_in(3)
    }

    /// Nothing is written at or beyond what the owners of its partition have promised, however late it is written.
    fn check_ceilings(&self, statement: &Statement) {
        for (key, position) in statement.positions() {
            let partition = self.topic.partition_of(key.app);
            let ceiling = self.group.notes[partition].map_or(i64::MIN, |note| note.ceiling);
            assert!(
                position.offset < ceiling,
                "offset {} of partition {partition} is written, the ceiling is {ceiling}",
                position.offset
            );
        }
    }

    /// Executes a statement of a member, or of one whose connection is gone.
    pub fn execute(
        &mut self,
        shard: usize,
        member: Option<usize>,
        statement: &Statement,
    ) -> Result<Reply, SqlState> {
        if let Some(member) = member {
            let topic = &self.topic;
            let owners = statement
                .written()
                .map(|key| self.group.owner[topic.partition_of(key.app)]);
            if owners.into_iter().any(|owner| owner != Some(member)) {
                self.meet(Met::ZombieWrite);
            }
        }
        self.check_ceilings(statement);
        self.tell(|| format!("shard {shard} executes for {member:?}: {statement:?}"));
        let table_locked = self.databases[shard].table_locked;
        let result = self.databases[shard].execute(statement, &mut self.truth);
        match (&result, statement) {
            (Err("55P03"), _) if table_locked => self.meet(Met::LockedTable),
            (Err("55P03"), _) => self.meet(Met::LockedRow),
            (Ok(Reply::Written(rows)), Statement::Update(writes))
                if *rows < writes.len() as u64 =>
            {
                self.meet(Met::HeldByFence);
            }
            (Ok(Reply::Written(rows)), Statement::Insert(writes))
                if *rows < writes.len() as u64 =>
            {
                self.meet(Met::RowThere);
            }
            (Ok(Reply::Moved(true)), _) => self.meet(Met::Refused),
            (Ok(Reply::Refusals(found)), _) if !found.is_empty() => self.meet(Met::Remembered),
            _ => {}
        }
        result
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

    fn ask(&mut self, keys: &[RowKey]) -> Result<Vec<Option<Position>>, SinkError> {
        match self.call(Statement::Ask(keys.to_vec()))? {
            Reply::Fences(fences) => Ok(fences),
            other => unreachable!("{other:?}"),
        }
    }

    fn unlocked(&mut self, keys: &[RowKey]) -> Result<Vec<bool>, SinkError> {
        match self.call(Statement::Unlocked(keys.to_vec()))? {
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

    fn lock_rows(&mut self, _: &[RowKey], _: bool) -> Result<Vec<Option<Linked>>, SinkError> {
        unreachable!("no update links")
    }

    fn lock_parents(&mut self, _: &[RowKey]) -> Result<Vec<i32>, SinkError> {
        unreachable!("no update links")
    }

    fn commit_links(&mut self, _: &[(RowKey, i32)], _: &[Refusal]) -> Result<(), SinkError> {
        unreachable!("no update links")
    }

    fn roll_back(&mut self) {
        unreachable!("no update links")
    }

    fn unlocked_parents(&mut self, _: &[RowKey]) -> Result<Vec<bool>, SinkError> {
        unreachable!("no update links")
    }
}
