//! An HTTP/1.1 server over blocking sockets: a thread a connection, the protocol by hyper, and a limit on everything that a
//! client can make us hold or wait for. It knows no path and no payload: its users bring those as a handler.
//!
//! - `message`: what a handler gets and gives
//! - `routes`: exact paths, each with its handler; 404 and 405
//! - `server`: accepts, bounds the connections, stops
//! - `connection`: one client's socket, and the requests that come over it
//! - `progress`: how far a request is, and its deadlines
//! - `client`: the other side, for tools that send requests
//! - `socket`: the connection as hyper sees it, and what drives hyper

pub mod client;
mod connection;
mod message;
mod progress;
mod routes;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use hyper::{HeaderMap, Method, StatusCode, body::Bytes, header};
pub use message::{Request, Response};
pub use routes::Routes;
pub use server::{Limits, Server};
