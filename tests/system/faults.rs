//! The ten worst faults, each under a steady load on two shards. A fault counts only if its effect was seen, so each test
//! says by what; at the end every row is exact. Each prints how long the fault stopped what, and how long after its end
//! everything was applied and committed.
//!
//! - [`trial`]: the load, what is measured meanwhile, and the end that all of them share
//! - [`consumer`]: the consumer is killed at each crash point; it is stopped until another member has taken over
//! - [`broker`]: Kafka is killed, or frozen past the session
//! - [`postgres`]: one of the two Postgres is killed, frozen, read-only or full
//! - [`locks`]: somebody else holds a row or a table
//! - [`moves`]: members come and go while a Postgres is frozen
//! - [`stop`]: SIGTERM during those

mod broker;
mod consumer;
pub mod locks;
mod moves;
pub mod postgres;
mod stop;
pub mod trial;

pub use trial::down;
