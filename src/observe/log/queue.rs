//! Lines on their way from the threads to the writer: a bounded queue, and the writer's loop.
//!
//! Nobody waits here but the writer. A line for which there is no room is dropped and counted; a part of the room is for
//! warnings and errors alone, so that they are dropped last.

use crate::clock;
use crate::fault;
use crate::sync::{Ordering, SignalCount};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

/// Lines that may wait: some seconds of a busy day, while stderr's reader is slow.
const LINES_MAX: usize = 8192;
/// Their bytes, since a line may hold a statement's text: bounds memory while nobody reads stderr.
const BYTES_MAX: usize = 8 << 20;
/// This part of both is for warnings and errors.
const RESERVED_PART: usize = 8;
/// Bytes of one write; what it can't write is all that is lost with a stderr that fails.
const WRITE_BYTES: usize = 64 << 10;
/// For so long lines gather between two writes, so that in a thousand a second not each costs a wake-up and a write.
const GATHER: Duration = Duration::from_millis(50);
/// How long the writer sleeps at most: so often it looks after what is due without a line.
const TICK: Duration = Duration::from_secs(1);
/// Between two tries where stderr is a pipe that doesn't block.
const WRITE_AGAIN: Duration = Duration::from_millis(5);

/// Lines dropped since the start, of all queues of the process.
static DROPPED: SignalCount = SignalCount::new(0);

/// Lines dropped since the start: the queue was full, or stderr took none.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Lines that wait for the writer.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Lines are taken and not yet written.
    is_writing: bool,
    /// The writer has just written, and lets lines gather: one alone does not wake it.
    is_gathering: bool,
    /// A line does not wait for others: a warning, an error, as many bytes as one write takes, or somebody waits for it.
    is_urgent: bool,
    /// Dropped, and nobody was told yet.
    untold: u64,
    /// The writer is to end once the queue is empty.
    ended: bool,
    /// It has. No line comes in any more.
    written: bool,
}

/// What the writer has to do.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Write so many lines.
    Write(u64),
    /// Nothing, for a while.
    Tick,
    /// End.
    End,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Appends a line, or drops it. Never waits.
    pub(super) fn push(&self, line: &[u8], is_severe: bool) {
        let mut state = self.state.lock();
        let room = |max: usize| match is_severe {
            true => max,
            false => max - max / RESERVED_PART,
        };
        let fits =
            state.lines.len() < room(LINES_MAX) && state.bytes + line.len() <= room(BYTES_MAX);
        if !fits || state.written {
            state.untold += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        let was_urgent = state.is_urgent;
        state.is_urgent |= is_severe || state.bytes >= WRITE_BYTES;
        let is_first = state.lines.len() == 1 && !state.is_gathering;
        if is_first || state.is_urgent && !was_urgent {
            self.changed.notify_all();
        }
    }

    /// Waits until what came so far is written, that long at most.
    pub(super) fn flush(&self, within: Duration) {
        let deadline = clock::now() + within;
        let mut state = self.state.lock();
        state.is_urgent = true;
        self.changed.notify_all();
        while (state.is_writing || !state.lines.is_empty())
            && !self.changed.wait_until(&mut state, deadline).timed_out()
        {}
    }

    /// Waits until all lines are written, that long at most; then no further one comes in.
    pub(super) fn end(&self, within: Duration) {
        let deadline = clock::now() + within;
        let mut state = self.state.lock();
        state.ended = true;
        self.changed.notify_all();
        while !state.written && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }

    /// Whether lines still come in.
    pub(super) fn is_open(&self) -> bool {
        !self.state.lock().written
    }

    /// The writer's work, until the end. `tick` is called at least each second.
    pub(super) fn write_to(&self, stream: &mut impl Write, mut tick: impl FnMut()) {
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        loop {
            buffer.clear();
            match self.take(&mut buffer) {
                Due::Write(lines) => {
                    fault::panic_point("log-writer");
                    self.write(&buffer, lines, stream);
                }
                Due::Tick => tick(),
                Due::End => break,
            }
        }
        self.state.lock().written = true;
        self.changed.notify_all();
    }

    /// Takes lines for one write, or waits for them.
    fn take(&self, buffer: &mut Vec<u8>) -> Due {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_writing) {
            self.changed.notify_all();
            let until = clock::now() + GATHER;
            state.is_gathering = true;
            while !state.is_urgent
                && !state.ended
                && !self.changed.wait_until(&mut state, until).timed_out()
            {}
            state.is_gathering = false;
        }
        if state.lines.is_empty() && !state.ended {
            self.changed.wait_for(&mut state, TICK);
        }
        let mut lines = 0;
        while let Some(line) = state.lines.pop_front() {
            state.bytes -= line.len();
            buffer.extend_from_slice(&line);
            lines += 1;
            if buffer.len() >= WRITE_BYTES {
                break;
            }
        }
        state.is_writing = lines > 0;
        state.is_urgent &= !state.lines.is_empty();
        match lines {
            0 if state.ended => Due::End,
            0 => Due::Tick,
            lines => Due::Write(lines),
        }
    }

    fn write(&self, buffer: &[u8], lines: u64, stream: &mut impl Write) {
        if write_whole(stream, buffer).is_err() {
            DROPPED.fetch_add(lines, Ordering::Relaxed);
            self.state.lock().untold += lines;
            return;
        }
        // Told once there is room again, and something could be written.
        let mut state = self.state.lock();
        if state.untold > 0 && state.lines.len() < LINES_MAX / 2 && state.bytes < BYTES_MAX / 2 {
            let dropped = std::mem::take(&mut state.untold);
            drop(state);
            tracing::warn!(
                dropped,
                "log lines were dropped: stderr was slower than they came, or took none"
            );
        }
    }
}

/// Writes all of it, also to a pipe that doesn't block.
fn write_whole(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(WRITE_AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn written(queue: &Queue) -> String {
        let mut written = Vec::new();
        queue.state.lock().ended = true;
        queue.write_to(&mut written, || {});
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let queue = Queue::new();
        queue.push(b"one\n", false);
        queue.push(b"two\n", true);
        assert_eq!(written(&queue), "one\ntwo\n");
        assert!(queue.state.lock().written);
    }

    #[test]
    fn warnings_and_errors_find_room_where_others_are_dropped() {
        let queue = Queue::new();
        for _ in 0..LINES_MAX {
            queue.push(b"info\n", false);
        }
        let reserved = LINES_MAX / RESERVED_PART;
        assert_eq!(queue.state.lock().untold, reserved as u64);
        for _ in 0..=reserved {
            queue.push(b"error\n", true);
        }
        assert_eq!(queue.state.lock().untold, reserved as u64 + 1);
        let text = written(&queue);
        assert_eq!(text.matches("info").count(), LINES_MAX - reserved);
        assert_eq!(text.matches("error").count(), reserved);
    }

    /// Written at once whatever else: by what makes them urgent, and not by the clock.
    #[test]
    fn lines_gather_until_one_is_urgent() {
        let queue = Queue::new();
        let mut buffer = Vec::new();
        queue.push(b"first\n", false);
        assert_eq!(queue.take(&mut buffer), Due::Write(1));
        queue.push(b"gathers\n", false);
        queue.push(b"error\n", true);
        let begun = clock::now();
        assert_eq!(queue.take(&mut buffer), Due::Write(2));
        assert!(!queue.state.lock().is_urgent);
        let at_once = begun.elapsed();
        queue.push(b"gathers\n", false);
        assert_eq!(queue.take(&mut buffer), Due::Write(1));
        assert!(begun.elapsed() >= at_once + GATHER);
        queue.push(&[b'x'; WRITE_BYTES], false);
        assert!(queue.state.lock().is_urgent);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::new();
        let line = vec![b'x'; BYTES_MAX / 4];
        for _ in 0..5 {
            queue.push(&line, true);
        }
        assert_eq!(queue.state.lock().lines.len(), 4);
        assert_eq!(queue.state.lock().untold, 1);
    }

    #[test]
    fn a_stream_that_takes_nothing_costs_lines_and_no_time() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = Queue::new();
        let before = dropped();
        queue.push(b"one\n", false);
        queue.push(b"two\n", false);
        queue.state.lock().ended = true;
        queue.write_to(&mut Closed, || {});
        assert_eq!(queue.state.lock().untold, 2);
        assert!(dropped() >= before + 2);
    }
}
