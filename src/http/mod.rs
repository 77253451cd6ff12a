//! HTTP/1.1 without an async runtime: the protocol by hyper, and a limit on everything that a client can make us hold or wait
//! for. It knows no path and no payload: its users bring those as a handler.
//!
//! - `message`: what a handler gets and gives; `bearer`: tokens in it
//! - `routes`: exact paths, each with its handler; 404 and 405
//! - `server`: a thread a connection, so handlers may wait: for the few who administer
//! - `reactor`: a few threads for all connections, whose handlers answer later instead: for the many who send
//! - `acceptor`, `body`, `progress`: what both are made of: the listening thread, from a head to a handler, deadlines
//! - `connection`, `socket`: one client of `server`, and how hyper sees it
//! - `client`: the other side, for tools that send requests: many connections on one thread

mod acceptor;
mod bearer;
mod body;
pub mod client;
mod connection;
mod message;
mod progress;
pub mod reactor;
mod routes;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use bearer::has_bearer_token;
pub use hyper::{HeaderMap, Method, StatusCode, body::Bytes, header};
pub use message::{Request, Response};
pub use routes::Routes;
pub use server::{Limits, Server};
