//! The form of log lines: one flat JSON object a line, or text for people.

use crate::clock;
use crate::config::checked::LogForm;
use crate::observe::process;
use crate::sync::{Ordering, SignalFlag};
use serde::ser::SerializeMap;
use std::error::Error;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether lines are text for people.
static IS_TEXT: SignalFlag = SignalFlag::new(false);

/// The form of all lines from now on, while running too.
pub fn set_form(form: LogForm) {
    IS_TEXT.store(form == LogForm::Text, Ordering::Relaxed);
}

/// Lines in the form that is set.
pub(super) struct EitherForm {
    json: JsonLines,
    text: Format,
}

impl EitherForm {
    /// For lines of this host.
    pub(super) fn new() -> Self {
        Self {
            json: JsonLines {
                hostname: process::hostname(),
            },
            text: tracing_subscriber::fmt::format().with_target(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for EitherForm
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match IS_TEXT.load(Ordering::Relaxed) {
            true => self.text.format_event(context, writer, event),
            false => self.json.format_event(context, writer, event),
        }
    }
}

/// `{"ts":…,"level":…,"msg":…,"hostname":…}` and then the event's fields by their names. Spans are not shown.
struct JsonLines {
    hostname: String,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let line = self.line(event).map_err(|_| fmt::Error)?;
        writer.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)?;
        writer.write_char('\n')
    }
}

impl JsonLines {
    fn line(&self, event: &Event<'_>) -> serde_json::Result<Vec<u8>> {
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut line = Vec::with_capacity(256);
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut object = serde::Serializer::serialize_map(&mut serializer, None)?;
        object.serialize_entry("ts", &format_args!("{:.6}", clock::timestamp()))?;
        object.serialize_entry("level", &event.metadata().level().as_str())?;
        object.serialize_entry("msg", &message.0)?;
        object.serialize_entry("hostname", &self.hostname)?;
        let mut fields = Fields {
            object: &mut object,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        object.end()?;
        Ok(line)
    }
}

/// Takes the event's message and nothing else.
struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").expect("a string can be written to");
        }
    }
}

/// Writes the event's fields, but for its message, into a JSON object. The first error stays.
struct Fields<'a, M: SerializeMap> {
    object: &'a mut M,
    result: Result<(), M::Error>,
}

impl<M: SerializeMap> Fields<'_, M> {
    fn entry(&mut self, field: &Field, value: &impl serde::Serialize) {
        if self.result.is_ok() && field.name() != "message" {
            self.result = self.object.serialize_entry(field.name(), value);
        }
    }
}

impl<M: SerializeMap> Visit for Fields<'_, M> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.entry(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.entry(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.entry(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.entry(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.entry(field, &value);
    }

    /// The error and what caused it, in one text.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            write!(text, ": {error}").expect("a string can be written to");
            cause = error.source();
        }
        self.entry(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.entry(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;

    /// What is logged while `work` runs, line by line.
    fn logged(work: impl FnOnce()) -> Vec<serde_json::Value> {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Shared::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt()
            .event_format(JsonLines {
                hostname: "box".to_owned(),
            })
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(lines.finish(), work);
        let written = String::from_utf8(written.0.lock().clone()).unwrap();
        written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_one_flat_object_with_numbers_as_numbers() {
        let lines = logged(|| {
            let error = io::Error::other("x".parse::<u8>().unwrap_err());
            let cause = &error as &(dyn Error + 'static);
            tracing::warn!(
                partition = 7,
                offset = u64::MAX,
                share = 0.5,
                sql = "select \"x\"\n",
                done = true,
                app_id = %"a b",
                error = cause,
                "slow {}", "batch"
            );
        });
        let line = &lines[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["msg"], "slow batch");
        assert_eq!(line["hostname"], "box");
        assert_eq!(line["partition"], 7);
        assert_eq!(line["offset"], u64::MAX);
        assert_eq!(line["share"], 0.5);
        assert_eq!(line["sql"], "select \"x\"\n");
        assert_eq!(line["done"], true);
        assert_eq!(line["app_id"], "a b");
        assert_eq!(line["error"], "invalid digit found in string");
        assert!(line.get("message").is_none());
    }

    #[test]
    fn the_time_is_rfc_3339_in_utc_with_microseconds() {
        let lines = logged(|| tracing::info!("now"));
        let text = lines[0]["ts"].as_str().unwrap();
        assert_eq!(text.len(), "2026-11-21T07:58:55.123456Z".len(), "{text}");
        let age = jiff::Timestamp::now().duration_since(text.parse().unwrap());
        assert!(age.as_secs().abs() < 60, "{text}");
    }
}
