//! Looks into the stream without joining the group: which messages are wanted, how they are written, how they are counted.
//!
//! One thread reads, sifts and writes. It never commits, and nothing that it does can be seen by the consumer.

// What is asked for.
pub mod condition;
pub mod field;
pub mod spans;
// What is wanted of what comes.
mod pick;
pub mod sieve;
// What becomes of it.
pub mod group_key;
pub mod groups;
pub mod write;

pub use condition::Condition;
pub use field::Field;
pub use groups::Groups;
pub use sieve::{Passed, Sieve};

use crate::kafka::reader::{Message, ReadError, Reader};
use crate::sync::{Ordering, SignalFlag};
use sieve::Record;
use std::ops::ControlFlow;
use std::time::Duration;

/// How long to wait for the next message before looking whether to go on.
const WAIT: Duration = Duration::from_millis(200);

/// Without a message for so long, one that reads to an end gives up: the brokers are away, or what is left is gone.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// How the reading goes.
pub enum Event<'m> {
    /// A message that is wanted.
    Message(&'m Message<'m>, &'m Passed<'m>),
    /// None came for a moment.
    Quiet,
    /// So many were read.
    Read(u64),
}

/// How the reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Messages that were looked at.
    pub read: u64,
    /// Whether all that was asked for was read.
    pub is_whole: bool,
}

/// Between two [`Event::Read`].
const READ_STEP: u64 = 1 << 16;

/// Reads until the spans are at their end, `each` breaks, or `stop` is set. With `follows` silence is no error.
pub fn read(
    reader: &mut Reader,
    sieve: &Sieve,
    follows: bool,
    stop: &SignalFlag,
    mut each: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Ended, ReadError> {
    let (mut read, mut quiet) = (0, Duration::ZERO);
    let ended = |read, is_whole| Ok(Ended { read, is_whole });
    while !stop.load(Ordering::Relaxed) {
        let message = match reader.next(WAIT) {
            None => return ended(read, true),
            Some(Ok(message)) => message,
            Some(Err(error @ ReadError::Quiet { .. })) => {
                quiet += WAIT;
                if !follows && quiet >= QUIET_MAX {
                    return Err(error);
                }
                if each(Event::Quiet).is_break() {
                    return ended(read, false);
                }
                continue;
            }
            Some(Err(error)) => return Err(error),
        };
        (read, quiet) = (read + 1, Duration::ZERO);
        let headers: Vec<(&str, Option<&[u8]>)> = match sieve.needs_headers() {
            true => message.headers().collect(),
            false => Vec::new(),
        };
        let passed = sieve.pass(Record {
            partition: message.partition().0,
            offset: message.offset(),
            timestamp_ms: message.timestamp().milliseconds(),
            key: message.key(),
            value: message.value(),
            headers: &headers,
        });
        if passed.is_some_and(|passed| each(Event::Message(&message, &passed)).is_break())
            || (read % READ_STEP == 0 && each(Event::Read(read)).is_break())
        {
            return ended(read, false);
        }
    }
    ended(read, false)
}

#[cfg(test)]
mod tests;
