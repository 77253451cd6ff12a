//! Tells whether every row is right: reads the log again, computes what each row should be at its own fence, and compares.
//!
//! An independent model. It shares words (`ids`, `dead`) and the partitioner with the consumer, but neither its decoder
//! nor its fold nor its SQL, so that a fault there can't hide here. It changes nothing anywhere.

// What is read: the rows of Postgres, the dead letters, the rules, and one message's meaning.
mod json;
mod judge;
mod letters;
mod rules;
mod stored;
// The counts beside the rows.
mod children;
// What becomes of a row, and how far the comparison is with it.
mod entry;
mod state;
// All of them together, and what comes out.
mod audit;
mod report;
mod run;
// Tables that the configuration describes, with a model of their own.
mod table;
// The same for a log that is read while it grows, since it won't be there afterwards.
mod follow;

#[cfg(test)]
mod decoder_fuzz;

pub use follow::Follower;
pub use report::{Difference, Example, Report};
pub use run::{VerifyError, verify};
pub use stored::StoredError;
