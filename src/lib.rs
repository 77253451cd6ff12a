//! Millpond applies a Kafka stream of row updates to sharded Postgres: in order per row, nothing lost, nothing twice.
//!
//! ```text
//!   Kafka ──fetch──> poller ──dispatch──> lanes ──> worker ──fold──> one statement per batch ──> shard
//!                      │  takes a slot     hash(row)                                               │
//!                      └────────────── commit ring <──────────────complete──────────── applied ────┘
//!                          watermark → Kafka commit (poller only)
//! ```

// Words.
pub mod clock;
pub mod dead;
pub mod fault;
pub mod ids;
pub mod sync;
pub mod table;
pub mod update;
pub mod vital;
// Pure.
pub mod config;
pub mod cores;
pub mod partitioner;
pub mod rules;
// Ground: which messages are finished, and which partitions want a visit.
pub mod commit;
pub mod dispatch;
pub mod lanes;
pub mod ready;
// HTTP/1.1.
pub mod http;
// Who has most of the messages.
pub mod hot;
// What each thread records, and how it is shown.
pub mod observe;
// Doors.
pub mod kafka;
pub mod sink;
// Threads.
pub mod ingest;
pub mod poller;
pub mod worker;
// The only room that knows all of the above: build, start, drain, join.
pub mod pipeline;
// Tools beside the consumer.
pub mod dead_letters;
pub mod inspect;
pub mod load;
pub mod rewind;
pub mod verify;
// Demonstrations: a private Postgres, and a whole life in one process.
pub mod demo;
pub mod embedded;
// Commands.
pub mod cli;
// The consumer for programs that read and write by themselves.
pub mod library;
// All of the consumer against a simulated world.
#[cfg(all(test, not(feature = "loom")))]
mod simulation;
// Inputs that nobody meant to send.
#[cfg(test)]
mod fuzz;
