//! Millpond as a library: messages that a program reads by code of its own, and rows that it writes by statements of its own, behind
//! the consumer's lanes, commit ring, fence, retries, dead letters and metrics. A program is a [`Program`] and a [`Consumer`] of it.
//!
//! **What the program says:** which row a message is for, what it does to it, and how a batch of rows is written. **What the
//! consumer does:** all else, as in `millpond run`. Updates of a row come in the order of their offsets and never on two
//! threads; all that a batch has of one row comes together; a batch has no row twice.
//!
//! **What makes it exact.** The table [`Program::TABLE`] has nothing but the fence of each row, and nobody else writes to it. A
//! batch is one transaction, which first moves the fences of its rows. [`Program::write`] then gets those rows alone whose fence
//! was moved, each with those updates alone that are above its old fence, and writes in the same transaction. So what it writes it
//! writes once, whatever dies and whenever, appends included, and there is no fence to compare and to forget. A statement that
//! fails fails the batch, even if the program goes on; one that would end the transaction is not sent.
//!
//! **What the program guarantees:**
//!
//! - [`row`](Program::row) and [`decode`](Program::decode) depend on nothing but the message, since it may come again;
//! - [`write`](Program::write) has no effect but by the statements that it is given, since a batch that fails is written again, whole
//!   or in parts; and it touches no data of other rows than those given, or does it in an order that two workers can't deadlock
//!   over (a deadlock is tried again, and costs time);
//! - all updates of a row are on one partition: that of its key's first column, by the rule of the README, or with `partition_by =
//!   "any"` wherever the producer keeps them.
//!
//! Errors of Postgres are sorted by their SQLSTATE, as the consumer's own are: what is about the data (22, 23, 54) is narrowed down to one
//! update, which becomes a dead letter (`database`) while its row's fence moves on; locks, deadlocks, connections are waited for;
//! a missing table or right stops the shard, and says why.
//!
//! **Configuration** is `millpond run`'s, without `[table]`. The admin address with health, metrics, `/status`, workers and rules is the same,
//! and `millpond lag`, `top`, `rules`, `workers`, `dead list`, `rewind` work on such a consumer. `verify`, `load` and `inspect --app` don't: only
//! the program knows what its messages mean.
//!
//! **What may change** from one version to the next: everything outside this module, although it is public for the tests; and in it,
//! until 1.0, any name, in a version whose first number that is not 0 is raised. The fences' table and what is in it stays.
//!
//! **Linking.** librdkafka may read memory that nobody has written when a broker with many partitions starts again. This package's own
//! programs have a function in front of that (`src/kafka/guard.rs`, named to the linker by `src/build.rs`); a build script doesn't reach
//! programs of other packages, which do well to copy both.
//!
//! # Example
//!
//! The system tests run it, and kill it with -9 (`tests/system/library.rs`).
//!
//! ```rust,ignore
#![doc = include_str!("../tests/system/library/meters.rs")]
//! ```

use crate::cli;
use crate::cli::run::Around;
use crate::config::checked::OnMissingRow;
use crate::config::{Config, Loaded, Value};
use crate::dispatch::Headers;
use crate::observe::{Registry, log};
use crate::pipeline::RunOptions;
use crate::sink::own::Writer;
use crate::sync::{Ordering, SignalFlag};
use crate::table::{self, Deletes, KeyColumn, Path, Place, Table};
use crate::update::{Content, Decoded, Incoming, Own, Reader};
use crate::worker::SinkKind;
use std::sync::Arc;

pub use crate::dead::Reason;
pub use crate::observe::summary::Summary;
pub use crate::sink::own::{Sql, ToSql};
pub use crate::sink::shard::SinkError as SqlError;
pub use crate::table::Kind;
pub use crate::update::{KeyPart, Rejection};

/// How a program reads messages and writes rows.
pub trait Program: Send + Sync + 'static {
    /// What a message does to its row.
    type Update: Send + Sync + 'static;

    /// The table of the rows' fences, on each shard; [`Consumer::init`] makes it.
    const TABLE: &'static str;

    /// The columns that name a row, of the kinds `uuid`, `text`, `bigint`, `integer`. The first one picks shard and partition.
    const KEY: &'static [(&'static str, Kind)];

    /// Which row a message is for: a part for each column of [`KEY`](Self::KEY). Key and value are empty where they are null.
    ///
    /// Asked twice, on the thread that reads Kafka and on the row's worker; so it should cost little.
    ///
    /// # Errors
    /// The message becomes a dead letter.
    ///
    /// # Panics
    /// Parts that are not of the columns' kinds end the process.
    fn row<'m>(&self, key: &'m [u8], value: &'m [u8]) -> Result<Vec<KeyPart<'m>>, Rejection>;

    /// What a message does to its row.
    ///
    /// # Errors
    /// The message becomes a dead letter.
    fn decode(&self, message: &Message<'_>) -> Result<Self::Update, Rejection>;

    /// Writes rows, each once and in the order of their keys.
    ///
    /// # Errors
    /// Those of the statements, as they came. Nothing is written then.
    fn write(&self, rows: &[Row<'_, Self::Update>], sql: &mut Sql<'_, '_>) -> Result<(), SqlError>;
}

/// A message as it came from Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a>(&'a Incoming<'a>);

impl<'a> Message<'a> {
    /// Its key; empty for none.
    pub fn key(&self) -> &'a [u8] {
        self.0.content.key
    }

    /// Its value; empty for null.
    pub fn value(&self) -> &'a [u8] {
        self.0.content.value
    }

    /// The value of the first header of that name that is not null.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        Headers::find(self.0.headers, name.as_bytes())
    }

    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.0.partition.0
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    /// Its Kafka timestamp in milliseconds since 1970; -1 for none.
    pub fn timestamp_ms(&self) -> i64 {
        self.0.timestamp_ms
    }
}

/// A row to be written.
#[derive(Debug)]
pub struct Row<'a, U> {
    /// What its messages do to it, in the order of their offsets; at least one.
    pub updates: Vec<&'a U>,
}

/// Why a consumer can't be made, or ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

/// When a consumer ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Stopped,
    /// Once all that was in the topic at the start is applied and committed, by the whole group.
    CaughtUp,
}

/// A program's consumer.
pub struct Consumer {
    config: Arc<Config>,
    values: Vec<Value>,
    writer: Arc<dyn Writer>,
    stop: Stop,
}

/// Stops a consumer that runs: it finishes what is in flight.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<SignalFlag>);

impl Stop {
    /// Stops it.
    pub fn now(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Consumer {
    /// A consumer of a configuration, as [`crate::config::load`] gives it.
    ///
    /// # Errors
    /// The configuration has a `[table]`, or makes no rows; or a name or kind of the program's is none.
    pub fn new<P: Program>(loaded: Loaded, program: P) -> Result<Self, Error> {
        let Loaded {
            mut config, values, ..
        } = loaded;
        let refuse = |why: &str| Err(Error(why.to_owned()));
        if config.table.is_some() {
            return refuse(
                "[table] is for `millpond run`: a program says by itself what its rows are",
            );
        }
        if config.consumer.on_missing_row == OnMissingRow::Skip {
            return refuse(
                "consumer.on_missing_row = \"skip\": a row that has no fence yet is made, or it would never have one",
            );
        }
        let program = Arc::new(Typed(program));
        config.table = Some(Arc::new(table_of::<P>(program.clone())?));
        Ok(Self {
            config: Arc::new(config),
            values,
            writer: program,
            stop: Stop::default(),
        })
    }

    /// Makes the topics and the fences' table, on every shard, where they are missing; what it did. The program's own tables are the
    /// program's.
    ///
    /// # Errors
    /// Kafka or a shard is away, or what is there differs.
    pub fn init(&self) -> Result<Vec<String>, Error> {
        let done = std::cell::RefCell::new(Vec::new());
        cli::init::make(&self.config, |what| {
            done.borrow_mut().push(what.to_owned());
            Ok(())
        })?;
        Ok(done.into_inner())
    }

    /// What stops it.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Lets SIGTERM, SIGINT and SIGQUIT stop it; a second one ends the process at once, which loses nothing.
    ///
    /// # Errors
    /// The process may not.
    pub fn stop_at_signals(&self) -> Result<(), Error> {
        cli::set_at_signals(&self.stop.0).map_err(|error| Error(error.to_string()))
    }

    /// Writes the log to stderr as `[telemetry]` says. For programs that have no `tracing` subscriber of their own.
    ///
    /// # Errors
    /// `telemetry.level` is no filter.
    pub fn log(&self) -> Result<(), Error> {
        log::start(&self.config.telemetry).map_err(|error| Error(error.to_string()))
    }

    /// Runs it, with its admin address; blocks until it ends.
    ///
    /// # Errors
    /// It can't start, or can't go on; the message says what to do.
    pub fn run(&self, until: Until) -> Result<Summary, Error> {
        let options = RunOptions {
            sink: SinkKind::Postgres,
            baseline: None,
            until_caught_up: until == Until::CaughtUp,
            writer: Some(self.writer.clone()),
        };
        let around = Around {
            values: self.values.clone(),
            begin: |_| Ok(()),
            end: |(), _: &Registry| Ok(()),
        };
        Ok(cli::run::consume(
            &self.config,
            options,
            around,
            &self.stop.0,
        )?)
    }
}

/// The table of the fences, in the words of the rest.
fn table_of<P: Program>(reader: Arc<Typed<P>>) -> Result<Table, Error> {
    let names = [P::TABLE]
        .into_iter()
        .chain(P::KEY.iter().map(|(name, _)| *name));
    for name in names {
        let is_taken = table::OWN_TABLES.contains(&name) || table::OWN_COLUMNS.contains(&name);
        if is_taken || !table::is_name(name) {
            return Err(Error(format!(
                "{name:?} can't be a name here: small letters, digits and _, at most {} bytes, and none of Millpond's own",
                table::NAME_LENGTH_MAX
            )));
        }
    }
    let has_good_kinds = P::KEY.iter().all(|(_, kind)| kind.is_for_keys());
    if !has_good_kinds || !(1..=table::KEYS_MAX).contains(&P::KEY.len()) {
        return Err(Error(format!(
            "a row's key has 1 to {} columns of uuid, text, bigint or integer",
            table::KEYS_MAX
        )));
    }
    let nowhere = Path {
        place: Place::Key,
        names: Vec::new(),
    };
    let key = |(name, kind): &(&str, Kind)| KeyColumn {
        name: (*name).to_owned(),
        kind: *kind,
        from: nowhere.clone(),
    };
    Ok(Table {
        name: P::TABLE.to_owned(),
        keys: P::KEY.iter().map(key).collect(),
        shard_by: 0,
        columns: Vec::new(),
        deletes: Deletes::Never,
        own: Some(Own(reader)),
    })
}

/// A program behind the faces that the rest of Millpond knows, which have no types of its own.
struct Typed<P>(P);

impl<P: Program> Reader for Typed<P> {
    fn row<'m>(&self, content: Content<'m>) -> Result<Vec<KeyPart<'m>>, Rejection> {
        self.0.row(content.key, content.value)
    }

    fn update(&self, message: &Incoming<'_>) -> Result<Decoded, Rejection> {
        let update = self.0.decode(&Message(message))?;
        Ok(Decoded(Arc::new(update)))
    }
}

impl<P: Program> Writer for Typed<P> {
    fn write(&self, rows: &[&[Decoded]], sql: &mut Sql<'_, '_>) -> Result<(), SqlError> {
        let rows: Vec<Row<'_, P::Update>> = rows.iter().map(|row| typed::<P>(row)).collect();
        self.0.write(&rows, sql)
    }
}

fn typed<'a, P: Program>(row: &'a [Decoded]) -> Row<'a, P::Update> {
    let of = |decoded: &'a Decoded| -> &'a P::Update {
        let update = decoded.0.downcast_ref();
        update.expect("what this program's reader made of it")
    };
    Row {
        updates: row.iter().map(of).collect(),
    }
}
