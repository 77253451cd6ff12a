//! Skip rules: which updates are not to be applied, from which offset on, and since when the whole group knows. Pure: who
//! reads and writes the rules topic is the pipeline's thread.
//!
//! The protocol, and why a replay and `verify` decide the same, is in README.md beside this file.
//!
//! - [`record`]: rules and edges as the rules topic holds them
//! - [`state`]: what the topic says, as the thread that reads it keeps it
//! - [`table`]: the same for those who decide: immutable, by app, row and parent
//! - [`shared`]: the meeting place of that thread, pollers, workers and the admin address
//! - [`shown`]: a rule for people and scripts

pub mod record;
pub mod shared;
pub mod shown;
pub mod state;
pub mod table;

pub use shared::{Rules, RulesView};

/// So many rules may be active. An incident has a few; this bounds what each assignment writes, and a script run wild.
pub const ACTIVE_MAX: usize = 1000;

/// The name of a topic's rules topic. It has one partition, which is compacted.
pub fn topic_of(topic: &str) -> String {
    format!("{topic}.rules")
}
