//! Traffic for demonstrations, tests and measurements: what to send, then the sending of it at its time, to Kafka or through
//! the HTTP edge, and what the consumer makes of it meanwhile.

// What.
pub mod broken;
pub mod clothesly;
pub mod padding;
pub mod requests;
pub mod rows;
pub mod traffic;
// When.
pub mod schedule;
// To Kafka.
pub mod send;
// Through the edge.
pub mod http;
pub mod tally;
// What comes of it.
pub mod watch;

pub use schedule::{Pace, Spike};
pub use send::{LoadError, Summary, send};
pub use traffic::{Message, Scenario, Traffic, TrafficOptions};
