//! Metrics as Prometheus reads them. Read from the recorders at each scrape; nothing is kept here.
//!
//! - `catalogue`: every metric's name, unit and meaning
//! - `consumer`, `edge`, `process`: where the values come from
//! - `page`: how they are written
//! - `native`: histograms as native ones
//! - `format`: in which form the page goes out

mod catalogue;
mod consumer;
mod edge;
mod format;
mod native;
mod page;
mod process;
#[cfg(test)]
mod tests;

pub use consumer::Consumer;
pub use edge::{Edge, Held};
pub use format::Format;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{prometheus_protobuf, text};
use prometheus_client::registry::Registry;

/// What a scrape shows.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// The build and the process.
    pub fn new() -> Self {
        Self(Registry::default()).with(process::Process::new())
    }

    /// And what the collector has.
    #[must_use]
    pub fn with(mut self, collector: impl Collector) -> Self {
        self.0.register_collector(Box::new(collector));
        self
    }

    /// All values as of now.
    pub fn render(&self, format: Format) -> Vec<u8> {
        if format == Format::Protobuf {
            return prometheus_protobuf::encode_to_vec(&self.0).expect("a vector has room");
        }
        let mut page = String::new();
        text::encode(&mut page, &self.0).expect("a string can be written to");
        match format {
            Format::Text => format::plain(&page).into_bytes(),
            _ => page.into_bytes(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
