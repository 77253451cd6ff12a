//! The machine gives too little, the clock jumps, threads panic, Postgres refuses what was right: each under a steady load on
//! two shards, and judged as the [`crate::faults`] are. A fault counts only if its effect was seen.
//!
//! - [`conflicts`]: deadlocks and serialization failures
//! - [`clock`]: the wall clock jumps
//! - [`files`]: no more files may be opened
//! - [`panics`]: a thread panics
//! - [`memory`], [`processor`]: a control group allows little of it ([`cgroup`])

mod cgroup;
mod clock;
pub mod conflicts;
mod files;
mod memory;
mod panics;
mod processor;
