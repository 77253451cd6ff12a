//! `millpond ingest` as its clients see it: what is answered 200 is in Kafka, what is refused is not.
//!
//! - [`http`]: a raw client, so that requests may be broken and slow
//! - [`edge`]: a running edge beside a pond
//! - [`good`]: updates arrive, by every way that HTTP allows
//! - [`refusals`]: each reason why a request is refused, and where in it
//! - [`heads`]: broken, ambiguous and too large heads
//! - [`slow`]: clients that take their time
//! - [`limits`]: tokens, connections, records in flight
//! - [`tls`]: the same, encrypted
//! - [`start`]: something is missing or away when the edge starts
//! - [`traffic`]: many clients who remember what they were told
//! - [`bad_days`]: the edge or the broker goes away under that traffic
//! - [`fuzz`]: seeded mutations of good requests, by [`mutate`], judged by [`model`]

mod bad_days;
pub mod edge;
mod fuzz;
mod good;
mod heads;
pub mod http;
mod limits;
mod model;
mod mutate;
mod refusals;
mod slow;
mod start;
mod tls;
mod traffic;
