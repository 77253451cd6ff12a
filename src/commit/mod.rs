//! Which messages are finished, and up to where a partition's offset may be committed. README.md beside this file has the
//! protocol and its proof.
//!
//! - [`ring`]: the slots of one assigned partition, shared between its poller and the workers
//! - [`tracker`]: the poller's side: claims slots, finds the watermark

pub mod ring;
pub mod tracker;

#[cfg(all(test, feature = "loom"))]
mod loom_tests;

pub use ring::{Ring, Slot};
pub use tracker::{Claim, Tracker};
