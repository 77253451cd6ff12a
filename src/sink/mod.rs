//! The one door to Postgres.
//!
//! - [`shape`]: the table's columns and what an update does to each
//! - [`params`]: a statement's parameters, encoded as Postgres' binary arrays
//! - [`statement`]: the SQL texts: write, insert, ask, refuse
//! - `catalogue`: a table that the configuration describes, made or compared
//! - [`connect`]: addresses to connections, TLS
//! - [`pool`]: a shard's connections
//! - [`shard`]: one worker's connection and what can be asked of it
//! - [`own`]: rows that a program writes by its own statements, with the fence moved in the same transaction
//! - [`identity`]: who hot rows are
//! - `links`: the transaction that links rows to parents
//! - [`standing`]: how new rows are, for those who only look
//! - [`sqlstate`]: what each error of Postgres asks for
//! - [`rate`]: the bound on rows per second
//! - [`written`]: the rows that a shard has written, by its own count
//! - [`schema`]: the tables, and the memory of where their offsets come from

pub mod catalogue;
pub mod connect;
pub mod identity;
mod links;
pub mod own;
pub mod params;
pub mod pool;
pub mod rate;
pub mod schema;
pub mod shape;
pub mod shard;
pub mod sqlstate;
pub mod standing;
pub mod statement;
pub mod written;
