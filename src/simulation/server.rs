//! What the world's shards do with a statement, and what of it is counted.

use super::database::{Reply, Sent, SqlState, Statement};
use super::transaction::Links;
use super::world::{Met, World};
use crate::dead::Reason;
use crate::ids::RowKey;
use crate::sink::shard::Remembered;

impl World {
    /// Whether a statement at a shard is not done yet.
    pub(super) fn takes_its_time(&mut self, shard: usize) -> bool {
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
        sent: &Sent,
    ) -> Result<Reply, SqlState> {
        let written = self.databases[shard].written_by(sent);
        let owner = |key: &RowKey| self.group.owner[self.topic.partition_of(key.app)];
        if member.is_some() && written.iter().any(|key| owner(key) != member) {
            self.meet(match sent.transaction {
                Some(_) => Met::ZombieLink,
                None => Met::ZombieWrite,
            });
        }
        self.check_ceilings(&sent.statement);
        self.tell(|| format!("shard {shard} executes for {member:?}: {sent:?}"));
        let table_locked = self.databases[shard].table_locked;
        let result = self.databases[shard].execute(sent, &mut self.truth);
        match (&result, &sent.statement) {
            (Ok(Reply::Committed(links)), _) => self.meet_links(*links),
            (Err("23514"), Statement::Commit(..)) => self.meet(Met::DeferredError),
            (Err(_), Statement::Update(_)) if sent.transaction.is_some() => {
                self.meet(Met::LinkDataError);
            }
            (Err("55P03"), Statement::LockParents(_) | Statement::ChangeChildren(..)) => {
                self.meet(Met::LockedParent);
            }
            (Ok(Reply::Written(parents)), Statement::ChangeChildren(changes, _))
                if *parents < changes.len() as u64 =>
            {
                self.meet(Met::NoRoom);
            }
            (Ok(Reply::Rows(rows)), Statement::LockRows(..))
                if rows.iter().any(Option::is_none) =>
            {
                self.meet(Met::LinkedRowMissing);
            }
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
            (Ok(Reply::Refusals(found)), _) if !found.is_empty() => {
                let of_link = |refusal: &Remembered| refusal.reason == Reason::LinkLimit;
                self.meet(match found.iter().any(of_link) {
                    true => Met::LinkRemembered,
                    false => Met::Remembered,
                });
            }
            _ => {}
        }
        result
    }

    fn meet_links(&mut self, links: Links) {
        for (count, what) in [
            (links.linked, Met::Linked),
            (links.moved, Met::LinkMoved),
            (links.unlinked, Met::Unlinked),
            (links.refused, Met::LinkRefused),
        ] {
            (0..count).for_each(|_| self.meet(what));
        }
    }

    /// A statement stays when its connection is gone. It may still take effect; of a transaction only the end may.
    pub(super) fn leave_behind(&mut self, shard: usize, mut sent: Sent) {
        let calm = self.chance.calm;
        let database = &mut self.databases[shard];
        if let Some(transaction) = sent.transaction {
            if calm {
                return database.abort(transaction);
            }
            let mut late = database.late.iter();
            if !database.transactions.contains_key(&transaction)
                || late.any(|late| late.transaction == sent.transaction)
            {
                return;
            }
            if !matches!(sent.statement, Statement::Commit(..)) {
                sent.statement = Statement::RollBack;
            }
        }
        database.late.push(sent);
    }
}
