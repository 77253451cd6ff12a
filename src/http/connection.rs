//! One client's connection, on its own thread: reads and writes the socket within the deadlines, and hands whole
//! requests to the handler. The protocol itself is hyper's.

use super::body::{call, whole};
use super::progress::{Phase, Progress};
use super::server::Limits;
use super::socket::{READ_BYTES, Socket, drive};
use super::{Bytes, Request, Response, StatusCode, header};
use crate::clock;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// What answers requests.
pub(super) type Handler = dyn Fn(Request) -> Response + Send + Sync;

/// How long we read what a client still sends after our last word. Closing with unread bytes would reset the connection,
/// and could take our answer from the client's hands.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// A connection, shared by its thread and whoever stops the server.
pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    progress: Mutex<Progress>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, limits: Limits) -> Self {
        Self {
            stream,
            peer,
            limits,
            progress: Mutex::new(Progress::new(&limits)),
        }
    }

    /// Serves requests until either side closes. Called once, by the connection's thread.
    pub(super) fn serve(&self, handler: &Handler) {
        // An answer is written at once; without this it could wait for the acknowledgement of the one before.
        let _ = self.stream.set_nodelay(true);
        let protocol = http1::Builder::new()
            // Else hyper reads ahead to notice a client that is gone, and a read blocks.
            .half_close(true)
            .max_buf_size(self.limits.head_bytes_max)
            .serve_connection(
                Socket::new(self),
                service_fn(|request| self.answer(request, handler)),
            );
        if drive(protocol).is_err() && self.progress.lock().is_late(Phase::Head) {
            self.say(StatusCode::REQUEST_TIMEOUT, "the head took too long");
        }
        self.linger();
    }

    /// Takes no further request: closes the connection if it is between two, else lets the one under way be answered.
    pub(super) fn finish(&self) {
        let mut progress = self.progress.lock();
        if progress.stop() {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
    }

    /// Ends whatever the connection does: its reads and writes return.
    pub(super) fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Answers what hyper doesn't get to answer, and ends our side.
    pub(super) fn say(&self, status: StatusCode, line: &str) {
        let answer = Response::text(status, line);
        let answer = match status {
            StatusCode::SERVICE_UNAVAILABLE => answer.with_header(header::RETRY_AFTER, 1.into()),
            _ => answer,
        };
        // The few bytes fit into the socket's buffer, but for a client that doesn't read, which has no use for them; then
        // the timeout of the write before ends this one.
        let _ = (&self.stream).write_all(&answer.into_last_bytes());
        self.end_writing();
    }

    /// The client reads to the end of what was written, and then sees ours.
    pub(super) fn end_writing(&self) {
        // Fails only where the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads what has come, or waits for it; 0 at the client's end, and where a stopping server would begin a request.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        if !self.progress.lock().read_begins(&self.limits) {
            return Ok(0);
        }
        let count = self.within_deadline(|mut stream, time_left| {
            stream.set_read_timeout(Some(time_left))?;
            stream.read(into)
        })?;
        if count > 0 {
            self.progress.lock().bytes_came(&self.limits);
        }
        Ok(count)
    }

    /// Writes at least a byte, or waits until it can.
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.within_deadline(|mut stream, time_left| {
            stream.set_write_timeout(Some(time_left))?;
            stream.write_vectored(parts)
        })
    }

    fn within_deadline(
        &self,
        mut attempt: impl FnMut(&TcpStream, Duration) -> io::Result<usize>,
    ) -> io::Result<usize> {
        use io::ErrorKind::{Interrupted, WouldBlock};
        loop {
            let time_left = self.progress.lock().time_left()?;
            match attempt(&self.stream, time_left) {
                Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => {}
                done => return done,
            }
        }
    }

    /// What hyper calls for each head: reads the body, calls the handler.
    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        handler: &Handler,
    ) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        self.progress.lock().body_begins(&self.limits);
        let response = match whole(request, self.peer, &self.limits, || self.is_late()).await {
            Ok(request) => call(handler, request, |failed| failed),
            Err((status, line)) => Response::text(status, line).and_close(),
        };
        let is_last = self.progress.lock().answer_begins(&self.limits);
        let response = if is_last {
            response.and_close()
        } else {
            response
        };
        Ok(response.into_message())
    }

    fn is_late(&self) -> bool {
        self.progress.lock().is_late(Phase::Body)
    }

    fn linger(&self) {
        self.end_writing();
        let until = clock::now() + LINGER;
        let mut ignored = [0; READ_BYTES];
        loop {
            let time_left = until.saturating_duration_since(clock::now());
            // No time left is an invalid timeout, and so ends the loop.
            let timed = self.stream.set_read_timeout(Some(time_left));
            if !matches!(
                timed.and_then(|()| (&self.stream).read(&mut ignored)),
                Ok(1..)
            ) {
                return;
            }
        }
    }
}
