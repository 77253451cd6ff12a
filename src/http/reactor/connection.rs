//! One client's connection in an event loop: hyper's protocol over a socket that doesn't block. After our last word what the
//! client still sends is read for a moment, since closing with unread bytes would reset the connection and could take our
//! answer from the client's hands.

use super::super::body::{call, whole};
use super::super::connection::LINGER;
use super::super::progress::{Phase, Progress};
use super::super::socket::READ_BYTES;
use super::super::{Bytes, StatusCode};
use super::lines::Lines;
use super::stream::Stream;
use super::{Answer, Shared};
use crate::clock;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::cell::{RefCell, RefMut};
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Reads at a time of what a client still sends after our last word.
const LINGER_READS: usize = 16;

/// In the head of an answer that hyper makes by itself.
const BARE: &[u8] = b"\r\ncontent-length: 0\r\n";

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for news.
    Open,
    /// It is over.
    Gone,
}

/// A connection.
pub(super) struct Connection {
    client: Rc<Client>,
    /// hyper's side, until it has ended.
    protocol: Option<Pin<Box<dyn Future<Output = hyper::Result<()>>>>>,
    /// After that: until when what comes is read and thrown away.
    lingers_until: Instant,
    waker: Waker,
}

/// Room for what is read at a time.
pub(super) type Scratch = RefCell<[u8; READ_BYTES]>;

/// What hyper, the requests and the loop share of it.
struct Client {
    shared: Arc<Shared>,
    stream: RefCell<Stream>,
    /// Where bytes are read to before they are looked at; all connections of a loop share it.
    scratch: Rc<Scratch>,
    lines: RefCell<Lines>,
    progress: RefCell<Progress>,
    peer: SocketAddr,
}

impl Connection {
    pub(super) fn new(
        (shared, scratch): (&Arc<Shared>, &Rc<Scratch>),
        (stream, peer): (TcpStream, SocketAddr),
        waker: Waker,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // An answer is written at once; without this it could wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let limits = shared.setup.limits;
        let stream = mio::net::TcpStream::from_std(stream);
        let client = Rc::new(Client {
            shared: shared.clone(),
            stream: RefCell::new(Stream::new(stream, shared.setup.tls.as_ref())?),
            scratch: scratch.clone(),
            lines: RefCell::default(),
            progress: RefCell::new(match shared.setup.tls {
                None => Progress::new(&limits),
                Some(_) => Progress::shaking_hands(&limits),
            }),
            peer,
        });
        let for_requests = client.clone();
        let protocol = http1::Builder::new()
            // A client may close its side behind its last request.
            .half_close(true)
            .max_buf_size(limits.head_bytes_max)
            .serve_connection(
                Socket(client.clone()),
                service_fn(move |request| for_requests.clone().answer(request)),
            );
        Ok(Self {
            client,
            protocol: Some(Box::pin(protocol)),
            lingers_until: clock::now(),
            waker,
        })
    }

    /// Its socket, to be registered.
    pub(super) fn stream(&self) -> RefMut<'_, Stream> {
        self.client.stream.borrow_mut()
    }

    /// Takes no further request. To be followed by [`advance`](Self::advance).
    pub(super) fn finish(&self) {
        self.client.progress.borrow_mut().stop();
    }

    /// Whether its time is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.protocol {
            Some(_) => self.client.progress.borrow().is_due(now),
            None => now >= self.lingers_until,
        }
    }

    /// Goes on as far as it can.
    pub(super) fn advance(&mut self) -> State {
        if let Some(protocol) = &mut self.protocol {
            let mut context = Context::from_waker(&self.waker);
            match protocol.as_mut().poll(&mut context) {
                Poll::Pending => return State::Open,
                Poll::Ready(ended) => {
                    if ended.is_err() || self.client.lines.borrow().wrong().is_some() {
                        self.client.say_why();
                    }
                    self.protocol = None;
                    self.lingers_until = clock::now() + LINGER;
                    self.client.stream.borrow_mut().end_writing();
                }
            }
        }
        self.linger()
    }

    fn linger(&self) -> State {
        let mut ignored = self.client.scratch.borrow_mut();
        for _ in 0..LINGER_READS {
            if clock::now() >= self.lingers_until {
                return State::Gone;
            }
            match self.client.stream.borrow_mut().read(&mut *ignored) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return State::Open,
                _ => return State::Gone,
            }
        }
        // A client may send faster than we can throw away; the others have their turn first.
        self.waker.wake_by_ref();
        State::Open
    }
}

impl Client {
    fn is_late(&self, phase: Phase) -> bool {
        self.progress.borrow().is_late(phase)
    }

    /// What hyper calls for each head: reads the body, calls the handler, waits for its answer.
    async fn answer(
        self: Rc<Self>,
        request: hyper::Request<Incoming>,
    ) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        let setup = &self.shared.setup;
        self.progress.borrow_mut().body_begins(&setup.limits);
        let is_late = || self.is_late(Phase::Body);
        let screened = (setup.screen)(request.method(), request.headers());
        let whole = match screened {
            Ok(()) => whole(request, self.peer, &setup.limits, is_late).await,
            Err(refused) => Err(refused),
        };
        let response = match whole {
            Ok(request) => {
                self.progress.borrow_mut().handling_begins();
                match call(&*setup.handler, request, Answer::Now) {
                    Answer::Now(response) => response,
                    Answer::Later(response) => response.await,
                }
            }
            Err((status, line)) => (setup.refuse)(status, line).and_close(),
        };
        let is_last = self.progress.borrow_mut().answer_begins(&setup.limits);
        let response = if is_last {
            response.and_close()
        } else {
            response
        };
        Ok(response.into_message())
    }

    /// Where a head's bytes are at an end before it is whole.
    fn say_why(&self) {
        if self.is_late(Phase::Head) {
            let line = "the head took too long".to_owned();
            self.say(StatusCode::REQUEST_TIMEOUT, line);
        } else if let Some(wrong) = self.lines.borrow().wrong() {
            self.say(StatusCode::BAD_REQUEST, wrong.to_owned());
        }
    }

    /// Answers what hyper doesn't get to answer, or would without a body.
    fn say(&self, status: StatusCode, line: String) {
        let answer = (self.shared.setup.refuse)(status, line).into_last_bytes();
        // The few bytes fit into the socket's buffer, but for a client that doesn't read, which has no use for them.
        let _ = self.stream.borrow_mut().write(&[IoSlice::new(&answer)]);
    }

    /// What hyper itself says of a head that it can't read has a status and nothing else; ours says more.
    fn replaces(&self, answer: &[u8]) -> bool {
        // All of ours have a body. By the phase it can't be told: the head may have come with the request before.
        let is_bare = answer.windows(BARE.len()).any(|at| at == BARE);
        if !(is_bare && answer.ends_with(b"\r\n\r\n")) {
            return false;
        }
        let status = answer
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let Some(status) = status.and_then(|status| StatusCode::from_bytes(status).ok()) else {
            return false;
        };
        let line = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let bytes = self.shared.setup.limits.head_bytes_max;
                format!("the head is larger than {bytes} bytes, or has more than 100 headers")
            }
            _ => "the head can't be read as HTTP/1.1".to_owned(),
        };
        self.say(status, line);
        true
    }
}

/// The socket as hyper sees it.
struct Socket(Rc<Client>);

/// An answer of the socket; `Pending` where it would block, since the loop polls again when it has news.
fn ready(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let (client, limits) = (&self.0, &self.0.shared.setup.limits);
        if !client.progress.borrow_mut().read_begins(limits) {
            return Poll::Ready(Ok(()));
        }
        client.progress.borrow().time_left()?;
        let mut bytes = client.scratch.borrow_mut();
        let room = into.remaining().min(READ_BYTES);
        let read = match client.lines.borrow().wrong() {
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => client.stream.borrow_mut().read(&mut bytes[..room]),
        };
        if client.stream.borrow().has_shaken_hands() {
            client.progress.borrow_mut().hands_are_shaken(limits);
        }
        let Poll::Ready(count) = ready(read)? else {
            return Poll::Pending;
        };
        if count > 0 {
            client.progress.borrow_mut().bytes_came(limits);
        }
        let good = client.lines.borrow_mut().look(&bytes[..count]);
        if good == 0 && count > 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        into.put_slice(&bytes[..good]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.first().is_some_and(|first| self.0.replaces(first)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        self.0.progress.borrow().time_left()?;
        ready(self.0.stream.borrow_mut().write(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.stream.borrow_mut().end_writing();
        Poll::Ready(Ok(()))
    }
}
