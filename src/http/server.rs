//! Accepts connections, gives each a thread, refuses those beyond the limit, and stops in order:
//!
//! 1. no request is begun: idle connections are closed, the others say `Connection: close` with the answer under way;
//! 2. nothing is accepted: the listening socket is closed;
//! 3. at the deadline what is left is cut.

use super::acceptor::Acceptor;
use super::connection::{Connection, Handler};
use super::{Request, Response, StatusCode};
use crate::clock;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The stack of a connection's thread: it holds a read buffer and what the handler needs.
const CONNECTION_STACK_BYTES: usize = 256 * 1024;
/// The smallest read buffer that hyper works with.
pub(super) const HEAD_BYTES_MIN: usize = 8192;
/// Refused connections that are kept open at most, so that the refusal arrives before the reset.
const REFUSED_MAX: usize = 64;

/// What a client can make the server hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones are answered 503. Keeps threads and descriptors within bounds.
    pub connections_max: usize,
    /// Bytes of a request line with its headers, at least 8192; larger ones are answered 431.
    pub head_bytes_max: usize,
    /// Bytes of a body; larger ones are answered 413.
    pub body_bytes_max: usize,
    /// From a request's first byte to the end of its head, else 408. Keeps a trickling client from holding a connection.
    pub head_deadline: Duration,
    /// From a request's first byte to the end of its body, else 408.
    pub request_deadline: Duration,
    /// From an answer's end (or the connection's begin) to the next request's first byte, else the connection is closed.
    pub idle_deadline: Duration,
    /// From an answer's first byte to its last, else the connection is closed. Keeps a client that doesn't read from
    /// holding one.
    pub write_deadline: Duration,
}

/// A running server. Dropped, it stops at once.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Acceptor,
    stopped: bool,
}

struct Shared {
    /// Begins the names of the threads.
    name: String,
    limits: Limits,
    handler: Box<Handler>,
    connections: Mutex<Connections>,
    /// Signalled when the last connection is gone.
    emptied: Condvar,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, Arc<Connection>>,
    /// Ever made.
    made: u64,
    stopping: bool,
}

impl Server {
    /// Listens, and answers with the handler from then on. Threads are named `<name>-accept` and `<name>-http`; the kernel
    /// shows the first 15 bytes.
    ///
    /// # Errors
    /// The address can't be listened on, or there is no thread for it.
    pub fn start(
        listen: SocketAddr,
        limits: Limits,
        name: &str,
        handler: impl Fn(Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<Self> {
        assert!(
            limits.head_bytes_max >= HEAD_BYTES_MIN,
            "head_bytes_max is below {HEAD_BYTES_MIN}"
        );
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            limits,
            handler: Box::new(handler),
            connections: Mutex::default(),
            emptied: Condvar::new(),
        });
        let for_acceptor = shared.clone();
        let mut refused = VecDeque::new();
        let acceptor = Acceptor::start(listen, name, move |stream, peer| {
            let connection = Arc::new(Connection::new(stream, peer, limits));
            if let Err(why) = start_serving(&for_acceptor, &connection) {
                connection.say(StatusCode::SERVICE_UNAVAILABLE, &why);
                refused.push_back(connection);
                if refused.len() > REFUSED_MAX {
                    refused.pop_front();
                }
            }
        })?;
        Ok(Self {
            shared,
            acceptor,
            stopped: false,
        })
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Stops. Requests that are under way have that long to be answered. Returns how many connections were cut then.
    pub fn stop(mut self, within: Duration) -> usize {
        self.shut_down(within)
    }

    fn shut_down(&mut self, within: Duration) -> usize {
        let deadline = clock::now() + within;
        {
            let mut connections = self.shared.connections.lock();
            connections.stopping = true;
            connections
                .open
                .values()
                .for_each(|connection| connection.finish());
        }
        self.acceptor.stop();
        self.stopped = true;
        let mut connections = self.shared.connections.lock();
        let is_open = |connections: &mut Connections| !connections.open.is_empty();
        self.shared
            .emptied
            .wait_while_until(&mut connections, is_open, deadline);
        connections
            .open
            .values()
            .for_each(|connection| connection.cut());
        connections.open.len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.stopped {
            self.shut_down(Duration::ZERO);
        }
    }
}

/// Gives the connection a thread; an error says why it can't have one.
fn start_serving(shared: &Arc<Shared>, connection: &Arc<Connection>) -> Result<(), String> {
    let open = Open::new(shared, connection)?;
    let connection = connection.clone();
    thread::Builder::new()
        .name(format!("{}-http", shared.name))
        .stack_size(CONNECTION_STACK_BYTES)
        .spawn(move || connection.serve(&open.shared.handler))
        .map(drop)
        .map_err(|error| format!("no thread for this connection: {error}"))
}

/// Holds the place of an open connection.
struct Open {
    shared: Arc<Shared>,
    key: u64,
}

impl Open {
    fn new(shared: &Arc<Shared>, connection: &Arc<Connection>) -> Result<Self, String> {
        let mut connections = shared.connections.lock();
        if connections.stopping {
            return Err("stopping".to_owned());
        }
        if connections.open.len() >= shared.limits.connections_max {
            return Err(format!(
                "{} connections are open, and no more are taken",
                connections.open.len()
            ));
        }
        connections.made += 1;
        let key = connections.made;
        connections.open.insert(key, connection.clone());
        Ok(Self {
            shared: shared.clone(),
            key,
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut connections = self.shared.connections.lock();
        connections.open.remove(&self.key);
        if connections.open.is_empty() {
            self.shared.emptied.notify_all();
        }
    }
}
