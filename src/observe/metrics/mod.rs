//! Metrics in OpenMetrics text. Read from the recorders at each scrape; nothing is kept here.
//!
//! - `catalogue`: every metric's name, unit and meaning
//! - `consumer`, `edge`, `process`: where the values come from
//! - `page`: how they are written

mod catalogue;
mod consumer;
mod edge;
mod page;
mod process;
#[cfg(test)]
mod tests;

pub use consumer::Consumer;
pub use edge::{Edge, Held};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// The content type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    pub fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.0).expect("a string can be written to");
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
