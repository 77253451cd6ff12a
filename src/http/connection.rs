//! One client's connection, on its own thread: reads and writes the socket within the deadlines, and hands whole
//! requests to the handler. The protocol itself is hyper's.

use super::progress::{Phase, Progress};
use super::server::Limits;
use super::socket::{READ_BYTES, Socket, drive};
use super::{Bytes, Request, Response, StatusCode, header};
use crate::clock;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What answers requests.
pub(super) type Handler = dyn Fn(Request) -> Response + Send + Sync;

/// How long we read what a client still sends after our last word. Closing with unread bytes would reset the connection,
/// and could take our answer from the client's hands.
const LINGER: Duration = Duration::from_secs(1);

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
        let retry = match status {
            StatusCode::SERVICE_UNAVAILABLE => "retry-after: 1\r\n",
            _ => "",
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\n{retry}content-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\n\r\n{line}\n",
            line.len() + 1
        );
        // The few bytes fit into the socket's buffer, but for a client that doesn't read, which has no use for them; then
        // the timeout of the write before ends this one.
        let _ = (&self.stream).write_all(answer.as_bytes());
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
        let response = match self.whole(request).await {
            Ok(request) => call(handler, request),
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

    /// The request with its body, or why there is none.
    async fn whole(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<Request, (StatusCode, String)> {
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if request.version() == hyper::Version::HTTP_11 && hosts != 1 {
            let line = format!("{hosts} Host headers instead of one");
            return Err((StatusCode::BAD_REQUEST, line));
        }
        let bytes_max = self.limits.body_bytes_max;
        let too_large = || {
            let line = format!("the body is larger than {bytes_max} bytes");
            Err((StatusCode::PAYLOAD_TOO_LARGE, line))
        };
        let (head, body) = request.into_parts();
        // Refused before the first byte is asked for: a client that expects `100 Continue` sends none.
        if usize::try_from(body.size_hint().lower()).is_ok_and(|announced| announced > bytes_max) {
            return too_large();
        }
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => {
                let message = hyper::Request::from_parts(head, body.to_bytes());
                Ok(Request::new(self.peer, message))
            }
            Err(error) if error.is::<LengthLimitError>() => too_large(),
            Err(_) if self.progress.lock().is_late(Phase::Body) => Err((
                StatusCode::REQUEST_TIMEOUT,
                "the body took too long".to_owned(),
            )),
            Err(error) => {
                let line = format!("the body can't be read: {error}");
                Err((StatusCode::BAD_REQUEST, line))
            }
        }
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

/// Calls the handler. Its panic is one request's failure, not the server's.
fn call(handler: &Handler, request: Request) -> Response {
    let what = format!("{} {}", request.method(), request.path());
    catch_unwind(AssertUnwindSafe(|| handler(request))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(
            request = what,
            error = text.unwrap_or("no message"),
            "a handler panicked; its connection is closed"
        );
        Response::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the handler failed; the log says why",
        )
        .and_close()
    })
}
