//! The one door to librdkafka: no other room names its crates.
//!
//! Clients that apply: the group consumer (`consumer`) and the producer. Clients that look: `admin` for what the brokers
//! know, `reader` for records outside any group, `lag` for both together. Unsafe code is in `native` and
//! `leader_epochs`.

// What all clients share.
mod bootstrap;
pub mod client;
mod leader_epochs;
pub mod native;
// In: the group's member, and reading without joining it.
pub mod consumer;
pub mod member;
pub mod membership;
pub mod reader;
// Out.
pub mod dead_letters;
pub mod producer;
// Topics, offsets and groups, as the brokers know them.
pub mod admin;
pub mod lag;
// A cluster in this process, for demonstrations.
pub mod mock;

pub use client::{KafkaError, library_version};

#[cfg(test)]
mod tests;
