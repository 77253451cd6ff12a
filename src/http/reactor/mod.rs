//! The server for many connections: a few threads, each with an event loop over its share of the sockets. hyper has the
//! protocol; a connection is polled when its socket, its answer or its deadline has news, so nothing here blocks. Handlers
//! may not block either: what takes time is answered later.
//!
//! - `event_loop`: a thread's loop over its connections
//! - `connection`: one client's requests, from its first byte to its end
//! - `stream`: its socket, in plain text or TLS; `lines`: whether its heads' lines end as they should
//! - `mailbox`: how others reach a loop: new connections, and answers that are ready
//! - `later`: an answer that comes from elsewhere

mod connection;
mod event_loop;
mod later;
mod lines;
mod mailbox;
mod stream;

pub use later::{Later, Promise, promise};
pub use stream::Tls;

use super::acceptor::Acceptor;
use super::server::{HEAD_BYTES_MIN, Limits};
use super::{HeaderMap, Method, Request, Response, StatusCode};
use crate::clock;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::vital;
use crossbeam_channel::{Receiver, Sender};
use event_loop::EventLoop;
use mailbox::Mailbox;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Refused connections that are kept open at most, so that the refusal arrives before the reset.
const REFUSED_MAX: usize = 64;

/// What a handler gives.
pub enum Answer {
    /// At once.
    Now(Response),
    /// When something has happened; it is polled on the connection's thread.
    Later(Pin<Box<dyn Future<Output = Response>>>),
}

/// What answers requests, on the loops' threads.
pub type Handler = dyn Fn(Request) -> Answer + Send + Sync;
/// What looks at a head before its body is asked for: an error is answered, and ends the connection.
pub type Screen = dyn Fn(&Method, &HeaderMap) -> Result<(), (StatusCode, String)> + Send + Sync;
/// What answers in the handler's place where there is no whole request.
pub type Refuse = dyn Fn(StatusCode, String) -> Response + Send + Sync;

/// What a server is made of.
pub struct Setup {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What clients can make us hold.
    pub limits: Limits,
    /// Event loops, each on a thread.
    pub threads: usize,
    /// Begins the names of the threads: `<name>-accept`, `<name>-loop`.
    pub name: &'static str,
    /// Plain text without it.
    pub tls: Option<Tls>,
    /// For every head.
    pub screen: Box<Screen>,
    /// For whole requests.
    pub handler: Box<Handler>,
    /// For everything else.
    pub refuse: Box<Refuse>,
}

/// What the threads share.
struct Shared {
    setup: Setup,
    /// Connections that have their place.
    open: AtomicUsize,
    /// No request is begun any more.
    stopping: AtomicBool,
    /// Everything is dropped.
    cut: AtomicBool,
}

/// A running server. Dropped, it stops at once.
pub struct Server {
    acceptor: Acceptor,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
    /// Each loop says so when it ends.
    ended: Receiver<()>,
}

impl Server {
    /// Listens, and answers from then on.
    ///
    /// # Errors
    /// The address can't be listened on, or there is no thread or no epoll for it.
    pub fn start(setup: Setup) -> io::Result<Self> {
        assert!(
            setup.limits.head_bytes_max >= HEAD_BYTES_MIN && setup.threads > 0,
            "head_bytes_max is at least {HEAD_BYTES_MIN}, threads at least 1"
        );
        let shared = Arc::new(Shared {
            setup,
            open: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        });
        let (end, ended) = crossbeam_channel::unbounded();
        let (mut mailboxes, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..shared.setup.threads {
            let event_loop = EventLoop::new(&shared)?;
            mailboxes.push(event_loop.mailbox());
            threads.push(start_loop(shared.setup.name, event_loop, end.clone())?);
        }
        let (for_acceptor, to) = (shared.clone(), mailboxes.clone());
        let (mut next, mut refused) = (0, VecDeque::new());
        let acceptor = Acceptor::start(
            shared.setup.listen,
            shared.setup.name,
            move |stream, peer| match for_acceptor.admit() {
                Ok(()) => {
                    next = (next + 1) % to.len();
                    to[next].arrives(stream, peer);
                }
                Err(why) => {
                    for_acceptor.refuse(&stream, why);
                    refused.push_back(stream);
                    if refused.len() > REFUSED_MAX {
                        refused.pop_front();
                    }
                }
            },
        );
        let acceptor = acceptor.inspect_err(|_| {
            shared.cut.store(true, Ordering::SeqCst);
            mailboxes.iter().for_each(|mailbox| mailbox.rouse());
        })?;
        Ok(Self {
            acceptor,
            shared,
            mailboxes,
            threads,
            ended,
        })
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Tells how many connections are open, also when the server is gone.
    pub fn connections(&self) -> impl Fn() -> usize + Clone + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.open.load(Ordering::Relaxed)
    }

    /// Stops. Requests that are under way have that long to be answered. Returns how many connections were cut then.
    pub fn stop(mut self, within: Duration) -> usize {
        self.shut_down(within)
    }

    fn shut_down(&mut self, within: Duration) -> usize {
        let deadline = clock::now() + within;
        self.tell(|shared| &shared.stopping);
        self.acceptor.stop();
        let all_ended = (0..self.threads.len()).all(|_| self.ended.recv_deadline(deadline).is_ok());
        let cut = self.shared.open.load(Ordering::Relaxed);
        if !all_ended {
            self.tell(|shared| &shared.cut);
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a loop does not panic");
        }
        cut
    }

    fn tell(&self, what: impl Fn(&Shared) -> &AtomicBool) {
        what(&self.shared).store(true, Ordering::SeqCst);
        self.mailboxes.iter().for_each(|mailbox| mailbox.rouse());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shut_down(Duration::ZERO);
        }
    }
}

impl Shared {
    /// Takes a place for a connection; an error says why there is none.
    fn admit(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err("stopping".to_owned());
        }
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        if open >= self.setup.limits.connections_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(format!(
                "{open} connections are open, and no more are taken"
            ));
        }
        Ok(())
    }

    /// Answers a connection that gets no place. In TLS it is only closed: shaking hands would take what it can't have.
    fn refuse(&self, mut stream: &TcpStream, why: String) {
        if self.setup.tls.is_none() {
            let answer = (self.setup.refuse)(StatusCode::SERVICE_UNAVAILABLE, why);
            // A new socket's buffer holds it.
            let _ = stream
                .set_nonblocking(true)
                .and_then(|()| stream.write_all(&answer.into_last_bytes()));
        }
        let _ = stream.shutdown(Shutdown::Write);
    }
}

fn start_loop(name: &str, event_loop: EventLoop, end: Sender<()>) -> io::Result<JoinHandle<()>> {
    // What is !Send is made on the thread itself.
    vital::spawn(format!("{name}-loop"), move || {
        event_loop.run();
        // The receiver is gone where nobody waits.
        let _ = end.send(());
    })
}
