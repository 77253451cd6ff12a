//! Rows that a program writes by statements of its own. It can't forget the fence: the rows' fences are in a table that only Millpond
//! writes, they are moved first, and only rows whose fence was moved are handed over, in the same transaction. So whatever the
//! statements do, they do once, or nothing of it is there: an append, a call of a function, rows of several tables.
//!
//! As for all writes: a fence is below the *first* position of what is written, a row that is not there is made, and one that
//! another connection makes or moves meanwhile is left to the next round. The fence's lock is held until the end, so no two
//! connections write what belongs to one row at a time.

use super::shard::{SinkError, failed, number};
use super::sqlstate::Verdict;
use crate::fault;
use crate::update::Decoded;
use hashbrown::HashMap;
use postgres::types::ToSql as Param;
use postgres::{Client, Row, Statement, Transaction};

pub use postgres::types::ToSql;

/// Statements that a program may have prepared on a connection; more are forgotten and prepared again.
const PREPARED_MAX: usize = 128;

/// What a statement of a program begins with. Others would end the transaction, or change what it promises.
const ALLOWED: [&str; 6] = ["DELETE", "INSERT", "MERGE", "SELECT", "UPDATE", "WITH"];

/// What writes the rows of a program.
pub trait Writer: Send + Sync {
    /// Writes rows, each with what it was decoded to, in order. An error leaves nothing of it.
    fn write(&self, rows: &[&[Decoded]], sql: &mut Sql<'_, '_>) -> Result<(), SinkError>;
}

/// The statement that moves fences or makes them, with its parameters.
pub(super) struct Fences<'a> {
    pub statement: &'a Statement,
    pub sql: &'a str,
    pub params: &'a [&'a (dyn Param + Sync)],
}

/// The transaction that has moved the rows' fences. Statements are prepared once for each connection.
pub struct Sql<'c, 't> {
    transaction: &'c mut Transaction<'t>,
    prepared: &'c mut HashMap<&'static str, Statement>,
    /// What went wrong first: the transaction is without effect then, whatever its writer makes of it.
    failure: Option<SinkError>,
}

impl Sql<'_, '_> {
    /// Runs a statement: how many rows it wrote.
    ///
    /// # Errors
    /// Postgres', sorted by what is done next. To be handed on: the transaction has no effect any more.
    pub fn execute(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, SinkError> {
        self.run(sql, |transaction, statement| {
            transaction.execute(statement, params)
        })
    }

    /// Runs a statement: the rows that it answers.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SinkError> {
        self.run(sql, |transaction, statement| {
            transaction.query(statement, params)
        })
    }

    fn run<T>(
        &mut self,
        sql: &'static str,
        call: impl FnOnce(&mut Transaction<'_>, &Statement) -> Result<T, postgres::Error>,
    ) -> Result<T, SinkError> {
        let done = self.prepare(sql).and_then(|()| {
            call(self.transaction, &self.prepared[sql]).map_err(|error| failed(error, sql))
        });
        if let Err(error) = &done {
            self.failure.get_or_insert_with(|| error.clone());
        }
        done
    }

    fn prepare(&mut self, sql: &'static str) -> Result<(), SinkError> {
        if self.prepared.contains_key(sql) {
            return Ok(());
        }
        let first = sql.split_whitespace().next().unwrap_or_default();
        if !ALLOWED.iter().any(|word| first.eq_ignore_ascii_case(word)) {
            return Err(SinkError {
                verdict: Verdict::ShardDown,
                sqlstate: None,
                message: format!(
                    "a statement begins with {}, not with {first}",
                    ALLOWED.join(", ")
                ),
                sql: sql.to_owned(),
            });
        }
        let made = self.transaction.prepare(sql);
        let statement = made.map_err(|error| failed(error, sql))?;
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sql, statement);
        Ok(())
    }
}

/// Moves fences and has those rows written whose fence was moved: how many. All of it is there afterwards, or nothing.
pub(super) fn write(
    client: &mut Client,
    prepared: &mut HashMap<&'static str, Statement>,
    fences: &Fences<'_>,
    (writer, decoded): (&dyn Writer, &[Vec<Decoded>]),
) -> Result<u64, SinkError> {
    let of_fences = |error| failed(error, fences.sql);
    let mut transaction = client.transaction().map_err(of_fences)?;
    let moved = transaction.query(fences.statement, fences.params);
    let moved = moved.map_err(of_fences)?;
    let mut numbers: Vec<usize> = moved.iter().map(number).collect();
    numbers.sort_unstable();
    let rows: Vec<&[Decoded]> = numbers.iter().map(|at| decoded[*at].as_slice()).collect();
    if !rows.is_empty() {
        let mut sql = Sql {
            transaction: &mut transaction,
            prepared,
            failure: None,
        };
        let written = writer.write(&rows, &mut sql);
        sql.failure.map_or(written, Err)?;
    }
    fault::crash_point("before-own-commit");
    transaction.commit().map_err(of_fences)?;
    Ok(rows.len() as u64)
}
