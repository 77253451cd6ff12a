//! A thread's loop: sleeps until a socket, the mailbox or a deadline has news, and lets those connections go on.

use super::super::socket::READ_BYTES;
use super::Shared;
use super::connection::{Connection, Scratch, State};
use super::mailbox::{Bell, MAIL, Mailbox};
use crate::clock;
use crate::sync::Ordering;
use hashbrown::HashMap;
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How often deadlines are looked at, and so how late one may be noticed: short against the shortest, a second, and seldom
/// enough that looking at 10,000 connections costs nothing.
const SWEEP: Duration = Duration::from_millis(250);
/// Sockets with news that are taken from the kernel at a time.
const EVENTS: usize = 1024;

/// Made by the server, run on a thread of its own.
pub(super) struct EventLoop {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
}

/// The connections of a running loop, which never leave its thread.
struct Connections {
    event_loop: EventLoop,
    open: HashMap<usize, Connection>,
    scratch: Rc<Scratch>,
    /// Tokens ever given; none is given twice.
    given: usize,
}

impl EventLoop {
    pub(super) fn new(shared: &Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            mailbox: Mailbox::new(&poll)?,
            poll,
            shared: shared.clone(),
        })
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// Runs until the server stops and all connections have ended, or are cut.
    pub(super) fn run(self) {
        let connections = Connections {
            event_loop: self,
            open: HashMap::new(),
            scratch: Rc::new(Scratch::new([0; READ_BYTES])),
            given: MAIL.0,
        };
        connections.run();
    }
}

impl Connections {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let (mut swept, mut stopping) = (clock::now(), false);
        loop {
            self.sleep(&mut events);
            for event in events.iter().filter(|event| event.token() != MAIL) {
                self.advance(event.token().0);
            }
            let mailbox = self.event_loop.mailbox.clone();
            mailbox.news().for_each(|token| self.advance(token));
            for (stream, peer) in mailbox.arrived() {
                self.admit(stream, peer);
            }
            let shared = &self.event_loop.shared;
            if shared.cut.load(Ordering::SeqCst) {
                return;
            }
            if !stopping && shared.stopping.load(Ordering::SeqCst) {
                stopping = true;
                self.finish();
            }
            if stopping && self.open.is_empty() {
                return;
            }
            let now = clock::now();
            if now >= swept + SWEEP {
                swept = now;
                self.sweep(now);
            }
        }
    }

    fn sleep(&mut self, events: &mut Events) {
        let EventLoop { poll, mailbox, .. } = &mut self.event_loop;
        let longest = if mailbox.may_sleep() {
            SWEEP
        } else {
            Duration::ZERO
        };
        if let Err(error) = poll.poll(events, Some(longest)) {
            assert_eq!(
                error.kind(),
                io::ErrorKind::Interrupted,
                "the kernel refuses to wait: {error}"
            );
        }
        mailbox.is_awake();
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.given += 1;
        let token = self.given;
        let EventLoop {
            poll,
            mailbox,
            shared,
        } = &self.event_loop;
        let bell = Arc::new(Bell {
            token,
            mailbox: mailbox.clone(),
        });
        let made = Connection::new((shared, &self.scratch), (stream, peer), Waker::from(bell));
        let registered = made.and_then(|connection| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let mut stream = connection.stream();
            poll.registry()
                .register(stream.socket(), Token(token), interest)?;
            drop(stream);
            Ok(connection)
        });
        match registered {
            Ok(connection) => {
                if shared.stopping.load(Ordering::SeqCst) {
                    connection.finish();
                }
                self.open.insert(token, connection);
                // hyper says what it waits for when it is polled.
                self.advance(token);
            }
            Err(error) => {
                shared.open.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(error = %error, "a connection can't be served");
            }
        }
    }

    fn advance(&mut self, token: usize) {
        let Some(connection) = self.open.get_mut(&token) else {
            return;
        };
        if connection.advance() == State::Gone {
            // Closing the socket takes it out of the poll.
            self.open.remove(&token);
            self.event_loop.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// No request is begun from now on.
    fn finish(&mut self) {
        self.open.values().for_each(Connection::finish);
        let all: Vec<usize> = self.open.keys().copied().collect();
        all.into_iter().for_each(|token| self.advance(token));
    }

    /// Connections whose time is over notice it when they are polled.
    fn sweep(&mut self, now: Instant) {
        let due = self.open.iter();
        let due = due.filter(|(_, connection)| connection.is_due(now));
        let due: Vec<usize> = due.map(|(token, _)| *token).collect();
        due.into_iter().for_each(|token| self.advance(token));
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        let open = &self.event_loop.shared.open;
        open.fetch_sub(self.open.len(), Ordering::Relaxed);
    }
}
