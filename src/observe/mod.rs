//! What an operator sees. Each thread records its own work; everything here only reads.
//!
//! - `recorder`: what is recorded, one writer per counter; `counters`: what it is made of
//! - `changes`: what changing the number of workers cost
//! - `edge`: what the HTTP edge answered
//! - `process`: what the kernel knows of this process
//! - `metrics`: every metric with its name, unit and meaning
//! - `delays`: one distribution, for tools that measure from outside
//! - `summary`: the JSON line at the end of a run, and its histograms as a file
//! - `admin`: the address with health and metrics
//! - `hot`: the answer that says who is hot
//! - `page`: the status page and its document
//! - `status`: the status line
//! - `notify`: the process manager is told
//! - `gate`: who may change something over it
//! - `log`: lines on stderr, which applied updates are among them, and their level
//! - `trace`: spans for a collector of traces
//! - `telemetry`: what a consumer's threads share of the two

pub mod admin;
pub mod changes;
mod counters;
pub mod delays;
pub mod edge;
pub mod gate;
pub mod hot;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod page;
pub mod process;
pub mod recorder;
pub mod status;
pub mod summary;
pub mod telemetry;
pub mod trace;

pub use recorder::Registry;
