//! What goes out beside metrics: which applied updates are logged, and where spans go.

use super::log::applied::Applied;
use super::trace::Tracer;

/// Shared by all threads of a consumer.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Which applied updates are logged.
    pub applied: Applied,
    /// Where spans go.
    pub tracer: Tracer,
}
