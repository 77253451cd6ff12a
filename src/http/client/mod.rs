//! Many keep-alive connections to one server, all on the caller's thread: each takes a request, then waits for its answer.
//! Nothing is ever sent again: after a request that got no answer, nobody knows whether it was taken. A connection that is
//! lost is made anew.
//!
//! - `answer`: what a server answers

mod answer;
#[cfg(test)]
mod tests;

pub use answer::{Answer, ExchangeError};

use crate::clock;
use answer::Incoming;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often deadlines are looked at, and how long a connection that could not be made rests.
const SWEEP: Duration = Duration::from_millis(50);
/// Sockets with news that are taken from the kernel at a time.
const EVENTS: usize = 1024;

/// The connections. `T` is what the caller knows a request by.
pub struct Clients<T> {
    address: SocketAddr,
    /// Of connecting, and of each answer.
    timeout: Duration,
    poll: Poll,
    events: Events,
    connections: Vec<Connection<T>>,
    /// Those that take a request, the one that rested longest first.
    free: VecDeque<usize>,
    busy: usize,
    swept_at: Instant,
}

struct Connection<T> {
    stream: Option<TcpStream>,
    state: State<T>,
    /// What the socket has not taken of a request yet.
    unsent: Vec<u8>,
    incoming: Incoming,
}

enum State<T> {
    /// There is none; it is made anew at the next sweep.
    Down,
    Connecting {
        until: Instant,
    },
    Free,
    Busy {
        ticket: T,
        until: Instant,
    },
}

/// What [`Clients::wait`] has to tell.
#[derive(Debug)]
pub enum News<'a, T> {
    /// A request has its answer.
    Answered(T, Answer<'a>),
    /// A request will have none.
    Lost(T, ExchangeError),
    /// A connection could not be made; it is tried again.
    NotConnected(io::Error),
}

impl<T: Copy> Clients<T> {
    /// Makes so many connections.
    ///
    /// # Errors
    /// One can't be made within the timeout.
    pub fn connect(address: SocketAddr, count: usize, timeout: Duration) -> io::Result<Self> {
        let mut clients = Self {
            address,
            timeout,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            connections: Vec::with_capacity(count),
            free: (0..count).collect(),
            busy: 0,
            swept_at: clock::now(),
        };
        for number in 0..count {
            let stream = std::net::TcpStream::connect_timeout(&address, timeout)?;
            stream.set_nonblocking(true)?;
            let mut connection = Connection {
                stream: None,
                state: State::Free,
                unsent: Vec::new(),
                incoming: Incoming::new(),
            };
            connection.keep(TcpStream::from_std(stream), &clients.poll, number)?;
            clients.connections.push(connection);
        }
        Ok(clients)
    }

    /// Requests that wait for their answers.
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Whether a request can be sent.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether there is no connection at all.
    pub fn is_cut_off(&self) -> bool {
        let is_away = |connection: &Connection<T>| {
            matches!(connection.state, State::Down | State::Connecting { .. })
        };
        self.connections.iter().all(is_away)
    }

    /// Sends a request, head and body, over a connection that is free; there has to be one.
    ///
    /// # Errors
    /// The connection broke; the request may have been taken.
    pub fn send(&mut self, request: &[u8], ticket: T) -> Result<(), ExchangeError> {
        let number = self.free.pop_front().expect("a connection is free");
        let connection = &mut self.connections[number];
        connection.unsent.clear();
        connection.incoming.clear();
        connection.state = State::Busy {
            ticket,
            until: clock::now() + self.timeout,
        };
        let written = connection.write(request).inspect(|written| {
            connection.unsent.extend_from_slice(&request[*written..]);
        });
        if let Err(error) = written {
            connection.close();
            return Err(error.into());
        }
        self.busy += 1;
        Ok(())
    }

    /// Waits until something happens, that long at most, and tells all of it.
    pub fn wait(&mut self, at_most: Duration, mut tell: impl FnMut(News<'_, T>)) {
        let now = clock::now();
        let until_sweep = (self.swept_at + SWEEP).saturating_duration_since(now);
        if let Err(error) = self
            .poll
            .poll(&mut self.events, Some(at_most.min(until_sweep)))
        {
            assert_eq!(
                error.kind(),
                ErrorKind::Interrupted,
                "the kernel refuses to wait: {error}"
            );
            return;
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.advance(event, &mut tell);
        }
        self.events = events;
        let now = clock::now();
        if now >= self.swept_at + SWEEP {
            self.swept_at = now;
            self.sweep(now, &mut tell);
        }
    }

    fn advance(&mut self, event: &Event, tell: &mut impl FnMut(News<'_, T>)) {
        let number = event.token().0;
        let connection = &mut self.connections[number];
        match connection.state {
            State::Down => {}
            State::Connecting { .. } if !event.is_writable() && !event.is_error() => {}
            State::Connecting { .. } => match connection.is_connected() {
                // It may have been closed at once.
                Ok(true) if event.is_readable() => connection.close(),
                Ok(true) => {
                    connection.state = State::Free;
                    self.free.push_back(number);
                }
                Ok(false) => {}
                Err(error) => {
                    connection.close();
                    tell(News::NotConnected(error));
                }
            },
            // Without a request there is nothing to come but the end.
            State::Free if event.is_readable() || event.is_error() => {
                self.free.retain(|free| *free != number);
                connection.close();
            }
            State::Free => {}
            State::Busy { ticket, .. } => {
                let goes_on = match connection.exchange() {
                    Ok(None) => return,
                    Ok(Some(answer)) => {
                        let goes_on = answer.stays_open && !event.is_read_closed();
                        tell(News::Answered(ticket, answer));
                        // A server may answer before it has the whole request.
                        goes_on && connection.unsent.is_empty()
                    }
                    Err(error) => {
                        tell(News::Lost(ticket, error));
                        false
                    }
                };
                self.busy -= 1;
                if goes_on {
                    connection.state = State::Free;
                    self.free.push_back(number);
                } else {
                    self.anew(number, tell);
                }
            }
        }
    }

    /// Begins to make a connection again.
    fn anew(&mut self, number: usize, tell: &mut impl FnMut(News<'_, T>)) {
        let connection = &mut self.connections[number];
        connection.close();
        let begun = TcpStream::connect(self.address)
            .and_then(|stream| connection.keep(stream, &self.poll, number));
        match begun {
            Ok(()) => {
                let until = clock::now() + self.timeout;
                connection.state = State::Connecting { until };
            }
            Err(error) => {
                connection.close();
                tell(News::NotConnected(error));
            }
        }
    }

    fn sweep(&mut self, now: Instant, tell: &mut impl FnMut(News<'_, T>)) {
        for number in 0..self.connections.len() {
            match self.connections[number].state {
                State::Down => {}
                State::Connecting { until } if now >= until => {
                    tell(News::NotConnected(ErrorKind::TimedOut.into()));
                }
                State::Busy { ticket, until } if now >= until => {
                    self.busy -= 1;
                    tell(News::Lost(ticket, ExchangeError::Timeout(self.timeout)));
                }
                _ => continue,
            }
            self.anew(number, tell);
        }
    }
}

impl<T> Connection<T> {
    /// Takes a socket that is open, or on its way.
    fn keep(&mut self, mut stream: TcpStream, poll: &Poll, number: usize) -> io::Result<()> {
        // A request is written at once; without this it could wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let news = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(number), news)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Closing takes the socket out of the poll, too.
    fn close(&mut self) {
        self.stream = None;
        self.state = State::Down;
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream.as_mut().expect("it is not down")
    }

    fn is_connected(&mut self) -> io::Result<bool> {
        let stream = self.stream();
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As much as the socket takes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream().write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Goes on with the request and its answer, which is given once it is whole.
    fn exchange(&mut self) -> Result<Option<Answer<'_>>, ExchangeError> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let written = self.write(&unsent)?;
            self.unsent.extend_from_slice(&unsent[written..]);
        }
        loop {
            let stream = self.stream.as_mut().expect("it is not down");
            match stream.read(self.incoming.room()?) {
                Ok(0) => return Err(ExchangeError::Closed),
                Ok(count) => self.incoming.came(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            if self.incoming.answer()?.is_some() {
                // Asked again, since a loop can't give what it borrowed in a round.
                return self.incoming.answer();
            }
        }
    }
}
