//! Logs: lines from all threads, written to stderr by a thread of their own.
//!
//! Lines are events of `tracing`; librdkafka's own come the same way. What is logged is decided by `telemetry.level`, or else
//! by `RUST_LOG`, in the syntax of tracing-subscriber's `EnvFilter`.
//!
//! ```text
//!   event ──level──> brake ──form──> queue ──> log-writer ──> stderr
//! ```
//!
//! - [`lines`]: the form of a line
//! - `queue`: bounded; the writer's loop
//! - `brake`, [`repeated`]: errors that repeat
//! - [`applied`]: which applied updates are logged
//! - [`api`]: how that is asked for while running

pub mod api;
pub mod applied;
mod brake;
pub mod lines;
mod queue;
pub mod repeated;

pub use lines::set_form;
pub use queue::dropped;
pub use repeated::Repeated;

use crate::config::checked::{LogForm, Telemetry};
use crate::vital;
use brake::{BRAKE, BrakeLayer};
use lines::EitherForm;
use queue::Queue;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is logged unless somebody says otherwise. librdkafka tells of every reconnect at info.
const FILTER: &str = "info,librdkafka=warn,rdkafka=warn";
/// The thread that writes.
const WRITER: &str = "log-writer";
/// How long the end of the process waits for a stderr that is slow.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// A level can't be understood: a usage error.
#[derive(Debug, thiserror::Error)]
#[error("{origin}={text:?} is no filter ({source}); an example that is one: {FILTER}")]
pub struct InvalidFilter {
    origin: &'static str,
    text: String,
    source: tracing_subscriber::filter::ParseError,
}

/// What was started, once in a process.
struct Started {
    queue: Arc<Queue>,
    filter: reload::Handle<EnvFilter, Registry>,
    /// Where neither the configuration nor `RUST_LOG` says anything.
    otherwise: String,
}

static STARTED: OnceLock<Started> = OnceLock::new();

/// Logs to stderr from now on, from the thread `log-writer`, which inherits the caller's cores. A second call in one process
/// changes nothing.
///
/// # Errors
/// The level is no filter.
pub fn start(telemetry: &Telemetry) -> Result<(), InvalidFilter> {
    start_with(telemetry.log, &telemetry.level, FILTER)
}

/// The same with another filter where neither `level` nor `RUST_LOG` says anything.
///
/// # Errors
/// The level is no filter.
pub fn start_with(form: LogForm, level: &str, otherwise: &str) -> Result<(), InvalidFilter> {
    let (filter, handle) = reload::Layer::new(filter(level, otherwise)?);
    let queue = Arc::new(Queue::new());
    let started = Started {
        queue: queue.clone(),
        filter: handle,
        otherwise: otherwise.to_owned(),
    };
    if STARTED.set(started).is_err() {
        return Ok(());
    }
    set_form(form);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(ToQueue(queue.clone()))
        .event_format(EitherForm::new());
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(BrakeLayer)
        .with(lines);
    // An error here says that another library's subscriber is installed; then nothing comes.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(log_panic));
    vital::spawn(WRITER, move || {
        queue.write_to(&mut io::stderr(), || BRAKE.tell())
    })
    .expect("a process that can have no second thread can't work");
    Ok(())
}

/// A panic is a line as any other: written to stderr at once, it could hold the thread that is about to end.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("without a text");
    let thread = std::thread::current();
    let after = match vital::is_here() {
        true => "; nobody else does this thread's work, so the process ends",
        false => "",
    };
    if thread.name() == Some(WRITER) {
        // No line of its own would come out any more.
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = writeln!(
            io::stderr(),
            "millpond: thread {WRITER} panicked at {place}: {text}{after}"
        );
        return;
    }
    let backtrace = Backtrace::capture();
    let is_there = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        thread = thread.name(),
        place = panic.location().map(tracing::field::display),
        backtrace = is_there.then(|| tracing::field::display(backtrace)),
        "panicked: {text}{after}"
    );
    // It may be the process' last word.
    if let Some(started) = STARTED.get() {
        started.queue.flush(FLUSH_MAX);
    }
}

/// Another level from now on; empty for what holds where none is given. Nothing before [`start`].
///
/// # Errors
/// The level is no filter.
pub fn set_level(level: &str) -> Result<(), InvalidFilter> {
    if let Some(started) = STARTED.get() {
        let filter = filter(level, &started.otherwise)?;
        // An error here says that another subscriber is installed.
        let _ = started.filter.reload(filter);
    }
    Ok(())
}

/// Whether the text is a level.
///
/// # Errors
/// It is no filter.
pub fn check_level(level: &str) -> Result<(), InvalidFilter> {
    filter(level, FILTER).map(|_| ())
}

/// The configuration's level is the nearer one: it can change while running, the environment can not.
fn filter(level: &str, otherwise: &str) -> Result<EnvFilter, InvalidFilter> {
    let of_environment = std::env::var("RUST_LOG").unwrap_or_default();
    let (origin, text) = [("telemetry.level", level), ("RUST_LOG", &of_environment)]
        .into_iter()
        .find(|(_, text)| !text.is_empty())
        .unwrap_or(("", otherwise));
    EnvFilter::try_new(text).map_err(|source| InvalidFilter {
        origin,
        text: text.to_owned(),
        source,
    })
}

/// Writes what waits, as long as stderr takes it within a second. Called last in the process: no line comes out afterwards.
pub fn end() {
    if let Some(started) = STARTED.get() {
        started.queue.end(FLUSH_MAX);
    }
}

/// Text for people on stderr, in its order among the log lines. That nobody reads it is no error, and holds nobody.
pub fn note(text: &str) {
    match STARTED.get().filter(|started| started.queue.is_open()) {
        Some(started) => started.queue.push(text.as_bytes(), true),
        // Nowhere is left to tell about an error.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Where the subscriber writes its lines, each as a whole.
struct ToQueue(Arc<Queue>);

struct LineWriter<'q> {
    queue: &'q Queue,
    is_severe: bool,
}

impl<'q> MakeWriter<'q> for ToQueue {
    type Writer = LineWriter<'q>;

    fn make_writer(&'q self) -> LineWriter<'q> {
        LineWriter {
            queue: &self.0,
            is_severe: false,
        }
    }

    fn make_writer_for(&'q self, metadata: &Metadata<'_>) -> LineWriter<'q> {
        LineWriter {
            queue: &self.0,
            is_severe: *metadata.level() <= Level::WARN,
        }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.is_severe);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_level_that_is_none_says_where_it_stands() {
        assert!(check_level("info,librdkafka=debug").is_ok());
        let error = check_level("millpond=loud=1").unwrap_err().to_string();
        assert!(error.starts_with("telemetry.level=\"millpond=loud=1\" is no filter"));
        assert!(error.ends_with("an example that is one: info,librdkafka=warn,rdkafka=warn"));
    }
}
