//! One worker's connection to its shard, and what it can be asked to do. Every call is one round trip, bounded by the session's time limits while the server lives; a server that is frozen holds its worker, and
//! nothing else.

use super::links;
use super::own::{self, Fences, Writer};
use super::params::{ArrayParam, Binary, asked_params, typed};
use super::pool::{Manager, ShardPool};
use super::shape::Shape;
use super::sqlstate::{Verdict, verdict};
use super::statement::Touched;
use crate::dead::Reason;
use crate::ids::{Partition, Position, RowKey};
use crate::table::{Asked, KeyValues};
use crate::update::Decoded;
use hashbrown::HashMap;
use postgres::types::{ToSql, Type};
use postgres::{Client, Statement};
use r2d2::PooledConnection;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Rows to be written: the arrays that [`Shape::update`] and [`Shape::insert`] take.
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// Which columns there are arrays for.
    pub touched: Touched,
    /// The arrays, in the order of [`Shape::param_types`].
    pub params: Vec<ArrayParam>,
    /// Elements of each array.
    pub rows: usize,
    /// What a program decoded, by row; none of rows that the arrays say all of.
    pub own: Vec<Vec<Decoded>>,
}

/// What went wrong, with what to do next.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// What the worker does next.
    pub verdict: Verdict,
    /// Postgres' code, if it was Postgres that spoke.
    pub sqlstate: Option<String>,
    /// For people: what, where.
    pub message: String,
    /// The statement's text, never its values; empty when there was none.
    pub sql: String,
}

/// An update that depends on its row's state and was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its row.
    pub key: RowKey,
    /// The row's key where that is not `key` itself.
    pub values: Option<Box<KeyValues>>,
    /// Its partition.
    pub partition: Partition,
    /// Its position, to which the row's fence is moved.
    pub position: Position,
    /// Its Kafka timestamp.
    pub timestamp_ms: i64,
    /// Why.
    pub reason: Reason,
    /// Postgres' code.
    pub sqlstate: Option<String>,
    /// What Postgres said.
    pub message: String,
}

/// What the table `refused` remembers of an update.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The update's position.
    pub position: Position,
    /// Why it was refused.
    pub reason: Reason,
    /// Postgres' code.
    pub sqlstate: Option<String>,
    /// What Postgres said.
    pub message: String,
}

/// Statements that a connection keeps prepared, each for the columns that a batch touches. The server holds memory for each for as
/// long as the connection lives, and sparse updates of a wide table touch any of 2^31 combinations.
const PREPARED_MAX: usize = 128;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Use {
    Update,
    Insert,
}

struct Live {
    client: PooledConnection<Manager>,
    prepared: HashMap<(Use, Touched), (Statement, String)>,
    /// Those of a program, by their text.
    own: HashMap<&'static str, Statement>,
}

impl Shape {
    /// A write decides ON CONFLICT by the row's key. A table that is somebody's own may have other unique indexes, and what
    /// they refuse is refused for what the update says.
    fn judged(&self, error: SinkError) -> SinkError {
        match error.sqlstate.as_deref() {
            Some("23505") if !self.is_preset() => SinkError {
                verdict: Verdict::Data,
                ..error
            },
            _ => error,
        }
    }
}

/// What a row that may be linked holds, under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The position of its newest update; below all others for a row that was just made.
    pub fence: Position,
    /// The row that it is linked to.
    pub parent: Option<RowKey>,
}

/// What a worker asks of its shard.
pub trait ShardSession {
    /// Whether there is a connection as far as is known.
    fn is_connected(&self) -> bool;

    /// Connects if there is no connection.
    fn connect(&mut self) -> Result<(), SinkError>;

    /// Writes rows that exist and whose fence is below their first position: how many.
    fn update(&mut self, batch: &WriteBatch) -> Result<u64, SinkError>;

    /// Makes the rows that don't exist: how many.
    fn insert(&mut self, batch: &WriteBatch) -> Result<u64, SinkError>;

    /// The stored fence of each of these rows; `None` for a row that doesn't exist.
    fn ask(&mut self, rows: &[Asked<'_>]) -> Result<Vec<Option<Position>>, SinkError>;

    /// Which of these rows nobody else holds locked. Rows that don't exist are not locked.
    fn unlocked(&mut self, rows: &[Asked<'_>]) -> Result<Vec<bool>, SinkError>;

    /// Remembers a refused update and moves its row's fence, both or neither. False: the fence was there already, so another
    /// connection has decided about this update.
    fn refuse(&mut self, refusal: &Refusal) -> Result<bool, SinkError>;

    /// Those of a partition's updates that were refused before, by a life of this process that may not have sent its dead
    /// letters.
    fn remembered(
        &mut self,
        partition: Partition,
        positions: &[Position],
    ) -> Result<Vec<Remembered>, SinkError>;

    /// Begins a transaction and locks these rows, which are in the order of their keys. Those that don't exist are made with a
    /// fence below all others if `makes_missing`, else they are `None`.
    fn lock_rows(
        &mut self,
        keys: &[RowKey],
        makes_missing: bool,
    ) -> Result<Vec<Option<Linked>>, SinkError>;

    /// In the transaction: locks the counts of these parents, which are in the order of their keys, and tells how many children
    /// each has.
    fn lock_parents(&mut self, parents: &[RowKey]) -> Result<Vec<i32>, SinkError>;

    /// In the transaction: adds to the counts of these parents, which are in the order of their keys, and makes those that are
    /// missing. A parent that would gain children and have more than `most` is left as it is. How many were changed.
    fn change_children(&mut self, changes: &[(RowKey, i32)], most: i32) -> Result<u64, SinkError>;

    /// Ends the transaction: remembers refused links, and commits.
    fn commit_links(&mut self, refused: &[Refusal]) -> Result<(), SinkError>;

    /// Ends the transaction, if there is one, without effect.
    fn roll_back(&mut self);

    /// Which of these parents' counts nobody else holds locked. Those that don't exist are not locked.
    fn unlocked_parents(&mut self, parents: &[RowKey]) -> Result<Vec<bool>, SinkError>;
}

/// One worker's connection. Made when first used and after it broke.
pub struct ShardConnection {
    pool: ShardPool,
    pub(super) shape: &'static Shape,
    pub(super) incarnation: i32,
    /// Of a program that writes by its own statements.
    writer: Option<Arc<dyn Writer>>,
    live: Option<Live>,
    pub(super) in_transaction: bool,
}

impl ShardConnection {
    /// Connects when first used.
    pub fn new(pool: ShardPool, shape: &'static Shape, incarnation: i32) -> Self {
        Self {
            pool,
            shape,
            incarnation,
            writer: None,
            live: None,
            in_transaction: false,
        }
    }

    /// The same for a program that writes by its own statements.
    pub fn with_writer(self, writer: Option<Arc<dyn Writer>>) -> Self {
        Self { writer, ..self }
    }

    pub(super) fn has_connection(&self) -> bool {
        self.live.is_some()
    }

    fn write(&mut self, which: Use, batch: &WriteBatch) -> Result<u64, SinkError> {
        let (shape, incarnation) = (self.shape, self.incarnation);
        let mut params: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(batch.params.len() + 1);
        params.extend(
            batch
                .params
                .iter()
                .map(|param| param as &(dyn ToSql + Sync)),
        );
        params.push(&incarnation);
        let at = (which, batch.touched);
        self.prepare(at)?;
        let writer = self.writer.clone();
        let Live {
            client,
            prepared,
            own,
        } = self.live()?;
        let (statement, sql) = &prepared[&at];
        let written = match writer {
            None => client
                .execute(statement, &params)
                .map_err(|error| failed(error, sql)),
            Some(writer) => {
                let fences = Fences {
                    statement,
                    sql,
                    params: &params,
                };
                own::write(client, own, &fences, (&*writer, &batch.own))
            }
        };
        written
            .map_err(|error| shape.judged(error))
            .or_else(|error| self.note(error))
    }

    fn prepare(&mut self, at: (Use, Touched)) -> Result<(), SinkError> {
        let shape = self.shape;
        let Live {
            client, prepared, ..
        } = self.live()?;
        if prepared.contains_key(&at) {
            return Ok(());
        }
        let (which, touched) = at;
        let sql = match (which, shape.is_own) {
            (Use::Update, false) => shape.update(touched),
            (Use::Insert, false) => shape.insert(touched),
            (Use::Update, true) => shape.move_fences(),
            (Use::Insert, true) => shape.make_fences(),
        };
        let made = client.prepare_typed(&sql, &shape.prepared_types(touched));
        let statement = made
            .map_err(|error| failed(error, &sql))
            .or_else(|error| self.note(error))?;
        let prepared = &mut self.live()?.prepared;
        if prepared.len() >= PREPARED_MAX {
            // Those that are still needed are made again; dropping one closes it.
            prepared.clear();
        }
        prepared.insert(at, (statement, sql));
        Ok(())
    }

    pub(super) fn run<T>(
        &mut self,
        sql: &str,
        call: impl FnOnce(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T, SinkError> {
        let client = &mut *self.live()?.client;
        call(client)
            .map_err(|error| failed(error, sql))
            .or_else(|error| self.note(error))
    }

    fn live(&mut self) -> Result<&mut Live, SinkError> {
        if self.live.is_none() {
            let client = self.pool.connection().map_err(|message| SinkError {
                verdict: Verdict::Reconnect,
                sqlstate: None,
                message,
                sql: String::new(),
            })?;
            self.live = Some(Live {
                client,
                prepared: HashMap::new(),
                own: HashMap::new(),
            });
        }
        Ok(self.live.as_mut().expect("just made"))
    }

    /// Drops a connection that is of no more use. The pool closes what broke; a healthy connection to a server that
    /// turned read-only must not come back either, so it is closed here.
    fn note<T>(&mut self, error: SinkError) -> Result<T, SinkError> {
        if error.verdict == Verdict::Reconnect
            && let Some(mut live) = self.live.take()
        {
            // Terminating our own backend makes the connection broken, which is how r2d2 learns not to keep it.
            let _ = live
                .client
                .batch_execute("ROLLBACK; SELECT pg_terminate_backend(pg_backend_pid())");
        }
        Err(error)
    }
}

impl ShardSession for ShardConnection {
    fn is_connected(&self) -> bool {
        self.has_connection()
    }

    fn connect(&mut self) -> Result<(), SinkError> {
        self.live().map(|_| ())
    }

    fn update(&mut self, batch: &WriteBatch) -> Result<u64, SinkError> {
        self.write(Use::Update, batch)
    }

    fn insert(&mut self, batch: &WriteBatch) -> Result<u64, SinkError> {
        self.write(Use::Insert, batch)
    }

    fn ask(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Option<Position>>, SinkError> {
        let sql = self.shape.ask();
        let params = asked_params(self.shape, asked);
        let rows = self.run(&sql, |client| client.query_typed(&sql, &typed(&params)))?;
        let mut fences = vec![None; asked.len()];
        for row in rows {
            let position = Position {
                incarnation: row.get(1),
                leader_epoch: row.get(2),
                offset: row.get(3),
            };
            fences[number(&row)] = Some(position);
        }
        Ok(fences)
    }

    fn unlocked(&mut self, asked: &[Asked<'_>]) -> Result<Vec<bool>, SinkError> {
        let exists = self.ask(asked)?;
        let sql = self.shape.unlocked();
        let params = asked_params(self.shape, asked);
        let rows = self.run(&sql, |client| client.query_typed(&sql, &typed(&params)))?;
        let mut unlocked: Vec<bool> = exists.iter().map(Option::is_none).collect();
        for row in rows {
            unlocked[number(&row)] = true;
        }
        Ok(unlocked)
    }

    fn refuse(&mut self, refusal: &Refusal) -> Result<bool, SinkError> {
        let sql = self.shape.refuse();
        let since_1970 = Duration::from_millis(u64::try_from(refusal.timestamp_ms).unwrap_or(0));
        let at = UNIX_EPOCH + since_1970;
        let reason = refusal.reason.as_str();
        let row = Asked {
            key: refusal.key,
            values: refusal.values.as_deref(),
        };
        let parts: Vec<Binary<'_>> = row.parts().into_iter().map(Binary).collect();
        let keys = parts.iter().zip(self.shape.keys);
        let keys = keys.map(|(part, key)| (part as &(dyn ToSql + Sync), key.param_type()));
        let mut params: Vec<(&(dyn ToSql + Sync), Type)> = keys.collect();
        params.extend([
            (
                &refusal.position.incarnation as &(dyn ToSql + Sync),
                Type::INT4,
            ),
            (&refusal.position.leader_epoch, Type::INT4),
            (&refusal.position.offset, Type::INT8),
            (&at, Type::TIMESTAMPTZ),
            (&refusal.partition.0, Type::INT4),
            (&reason, Type::TEXT),
            (&refusal.sqlstate, Type::TEXT),
            (&refusal.message, Type::TEXT),
        ]);
        let rows = self.run(&sql, |client| client.query_typed(&sql, &params))?;
        Ok(!rows.is_empty())
    }

    fn remembered(
        &mut self,
        partition: Partition,
        positions: &[Position],
    ) -> Result<Vec<Remembered>, SinkError> {
        const SQL: &str = "SELECT source_leader_epoch, source_offset, reason, sqlstate, message FROM refused \
             WHERE incarnation = $1 AND partition = $2 \
             AND (source_leader_epoch, source_offset) IN (SELECT * FROM unnest($3::int4[], $4::int8[]))";
        let incarnation = self.incarnation;
        let epochs: Vec<i32> = positions.iter().map(|at| at.leader_epoch).collect();
        let offsets: Vec<i64> = positions.iter().map(|at| at.offset).collect();
        let rows = self.run(SQL, |client| {
            client.query_typed(
                SQL,
                &[
                    (&incarnation, Type::INT4),
                    (&partition.0, Type::INT4),
                    (&epochs, Type::INT4_ARRAY),
                    (&offsets, Type::INT8_ARRAY),
                ],
            )
        })?;
        let remembered = rows.iter().map(|row| Remembered {
            position: Position {
                incarnation,
                leader_epoch: row.get(0),
                offset: row.get(1),
            },
            reason: Reason::parse(row.get(2)).unwrap_or(Reason::Database),
            sqlstate: row.get(3),
            message: row.get(4),
        });
        Ok(remembered.collect())
    }

    fn lock_rows(
        &mut self,
        keys: &[RowKey],
        makes_missing: bool,
    ) -> Result<Vec<Option<Linked>>, SinkError> {
        links::lock_rows(self, keys, makes_missing)
    }

    fn lock_parents(&mut self, parents: &[RowKey]) -> Result<Vec<i32>, SinkError> {
        links::lock_parents(self, parents)
    }

    fn change_children(&mut self, changes: &[(RowKey, i32)], most: i32) -> Result<u64, SinkError> {
        links::change_children(self, changes, most)
    }

    fn commit_links(&mut self, refused: &[Refusal]) -> Result<(), SinkError> {
        links::commit(self, refused)
    }

    fn roll_back(&mut self) {
        links::roll_back(self);
    }

    fn unlocked_parents(&mut self, parents: &[RowKey]) -> Result<Vec<bool>, SinkError> {
        links::unlocked_parents(self, parents)
    }
}

pub(super) fn failed(error: postgres::Error, sql: &str) -> SinkError {
    let message = match error.as_db_error() {
        Some(database) => {
            let detail = database
                .detail()
                .map(|detail| format!(" ({detail})"))
                .unwrap_or_default();
            format!("{}{detail}", database.message())
        }
        None => error.to_string(),
    };
    SinkError {
        verdict: verdict(&error),
        sqlstate: error.code().map(|code| code.code().to_owned()),
        message,
        sql: sql.to_owned(),
    }
}

/// The index of a row whose first column is its number from 1.
pub(super) fn number(row: &postgres::Row) -> usize {
    usize::try_from(row.get::<_, i32>(0) - 1).expect("numbers begin at 1")
}
