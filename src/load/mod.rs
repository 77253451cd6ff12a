//! Traffic for demonstrations, tests and measurements: what to send, then the sending of it at a fixed rate.

pub mod broken;
pub mod clothesly;
pub mod send;
pub mod traffic;

pub use send::{LoadError, Pace, Summary, send};
pub use traffic::{Message, Scenario, Traffic, TrafficOptions};
