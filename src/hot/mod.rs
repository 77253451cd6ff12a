//! Who is hot: rows and apps with most of a shard's messages, writes and database time, lately. So that one glance shows what
//! is wrong when one customer's mistake sends half of the messages to one row.
//!
//! - [`sketch`]: the heaviest items of a stream, in bounded memory
//! - [`counts`]: a worker's sketches over a window that fades, and how batches are sampled
//! - [`picture`]: the lanes' counts as one, by shard
//! - [`warnings`]: which row or app is to be warned of now
//! - [`identities`]: who a hot row is
//!
//! # From a batch to the picture
//!
//! ```text
//!  worker: sample(batch) → write → count(its time) ──about once a second, try_lock──> shelf (a copy, in its recorder)
//!                                                                                       │ lock
//!  mp-hot, once a second: copies of all shelves → fade to now → merge by shard ─────────┘──> board: picture
//!  /api/hot, /metrics, the status line, warnings: read the board
//! ```
//!
//! A worker owns its counts and is their only writer; nothing is shared per message or per batch. Once a second
//! ([`LOOK_INTERVAL`]) it puts a copy on its shelf. The shelf's lock is held by a reader only while it copies, and the worker
//! only tries it: if a reader is there it goes on, and tries again after its next batch. So a reader never makes a worker
//! wait, and a reader waits for no more than one copy.
//!
//! A copy says as of when it is, and readers let it fade up to now. So a worker that is idle, or stuck in a statement, need
//! not do anything for its share of the picture to fade.
//!
//! What a skip rule drops is not counted: a hot row disappears from the picture once it is skipped.

pub mod counts;
pub mod identities;
pub mod picture;
pub mod sketch;
#[cfg(test)]
mod tests;
pub mod warnings;

pub use counts::{By, Counting, Counts};
pub use identities::{Identities, Identity};
pub use picture::{Board, Picture, ShardPicture};

use crate::ids::{AppId, RowKey};
use parking_lot::Mutex;
use std::time::Duration;

/// How often workers leave a copy of their counts, and how often the picture is made of them.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where a worker leaves a copy of its counts for readers.
pub type Shelf = Mutex<Option<Box<Counts>>>;

/// The command that would skip a row's updates.
pub fn rule_for_row(key: &RowKey) -> String {
    format!(
        "millpond rules add --app {} --subscription {} --reason \"…\"",
        key.app, key.subscription
    )
}

/// The command that would skip an app's updates.
pub fn rule_for_app(app: &AppId) -> String {
    format!("millpond rules add --app {app} --reason \"…\"")
}
