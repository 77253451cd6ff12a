//! A client's connection over a blocking socket: a request, then its answer, and the next. It sends what it is given and
//! takes what our own servers answer, HTTP/1.1 with `Content-Length`; everything else is a broken answer. It never sends
//! anything again: after a request that got no answer, nobody knows whether it was taken.

use crate::clock;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The server may close a connection that had nothing to do for a while. After so long it is asked whether it did.
const IDLE: Duration = Duration::from_secs(1);

/// Enough for the head of any answer of ours. Keeps a server that sends headers without end from filling our memory.
const HEADERS_MAX: usize = 32;
/// Head and body of an answer together, for the same reason.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why a request has no answer. Whether it was taken is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The server closed it.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// Nothing, or not all, came in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It is not an answer.
    #[error("the answer is broken: {0}")]
    Broken(&'static str),
}

/// An answer, whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// Whether the connection takes another request.
    pub stays_open: bool,
}

/// A connection. After an error it is of no more use.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    answer_timeout: Duration,
    used_at: Instant,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
    stays_open: bool,
}

impl Client {
    /// Connects, within the timeout, which is also that of each answer.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            stream,
            buffer: vec![0; 4096],
            answer_timeout: timeout,
            used_at: clock::now(),
        })
    }

    /// Whether a request can still be sent. One that was used a moment ago is taken to be open, as asking costs something.
    pub fn is_open(&self) -> bool {
        if clock::now().duration_since(self.used_at) < IDLE {
            return true;
        }
        // Anything that can be read without a request is the end, or an answer to nobody.
        let peek = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        peek().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request, head and body, and waits for its answer.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>, ExchangeError> {
        let deadline = clock::now() + self.answer_timeout;
        self.stream
            .write_all(request)
            .map_err(|error| self.judge(error))?;
        let mut filled = 0;
        let head = loop {
            filled = self.read(filled, deadline)?;
            if let Some(head) = parse(&self.buffer[..filled])? {
                break head;
            }
        };
        let end = head.bytes + head.body_bytes;
        while filled < end {
            filled = self.read(filled, deadline)?;
        }
        if filled > end {
            return Err(ExchangeError::Broken("more than its length"));
        }
        self.used_at = clock::now();
        Ok(Answer {
            status: head.status,
            body: &self.buffer[head.bytes..end],
            stays_open: head.stays_open,
        })
    }

    /// Reads more behind what is there; how much is there then.
    fn read(&mut self, filled: usize, deadline: Instant) -> Result<usize, ExchangeError> {
        if filled > 0 && clock::now() >= deadline {
            return Err(ExchangeError::Timeout(self.answer_timeout));
        }
        if filled == self.buffer.len() {
            if filled >= ANSWER_BYTES_MAX {
                return Err(ExchangeError::Broken("too long"));
            }
            self.buffer.resize(2 * filled, 0);
        }
        match self.stream.read(&mut self.buffer[filled..]) {
            Ok(0) => Err(ExchangeError::Closed),
            Ok(count) => Ok(filled + count),
            Err(error) => Err(self.judge(error)),
        }
    }

    fn judge(&self, error: io::Error) -> ExchangeError {
        match error.kind() {
            // What a socket says at the end of its timeout.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ExchangeError::Timeout(self.answer_timeout)
            }
            _ => ExchangeError::Io(error),
        }
    }
}

/// `None`: the head goes on.
fn parse(bytes: &[u8]) -> Result<Option<Head>, ExchangeError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(bytes)
        .map_err(|_| ExchangeError::Broken("not HTTP"))?;
    let httparse::Status::Complete(head_bytes) = parsed else {
        return Ok(None);
    };
    let status = response.code.expect("a whole head has a status");
    let mut body_bytes = None;
    let mut stays_open = response.version == Some(1);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = str::from_utf8(header.value).ok();
            body_bytes = length.and_then(|length| length.trim().parse().ok());
        } else if header.name.eq_ignore_ascii_case("connection") {
            stays_open &= !header.value.eq_ignore_ascii_case(b"close");
        }
    }
    match body_bytes {
        None => Err(ExchangeError::Broken("no Content-Length")),
        Some(bytes) if bytes > ANSWER_BYTES_MAX => Err(ExchangeError::Broken("too long")),
        Some(_) if status < 200 => Err(ExchangeError::Broken("an interim status")),
        Some(body_bytes) => Ok(Some(Head {
            status,
            bytes: head_bytes,
            body_bytes,
            stays_open,
        })),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::net::TcpListener;
    use std::thread::{JoinHandle, sleep, spawn};

    const TIMEOUT: Duration = Duration::from_millis(500);
    const REQUEST: &[u8] = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

    /// A connection to somebody who answers each request with the next of these, in pieces, and then closes.
    fn connected(answers: &'static [&'static [&'static str]]) -> (Client, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
                for piece in *answer {
                    stream.write_all(piece.as_bytes()).unwrap();
                    sleep(Duration::from_millis(20));
                }
            }
        });
        (Client::connect(address, TIMEOUT).unwrap(), server)
    }

    fn error_after(answer: &'static [&'static [&'static str]]) -> String {
        let (mut client, server) = connected(answer);
        let error = client.exchange(REQUEST).unwrap_err().to_string();
        server.join().unwrap();
        error
    }

    #[test]
    fn answers_come_one_after_the_other_whole_however_they_are_cut() {
        let (mut client, server) = connected(&[
            &["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"],
            &[
                "HTTP/1.1 503 Busy\r\nContent-",
                "Length: 5\r\n\r\nla",
                "ter",
            ],
            &["HTTP/1.1 204 None\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"],
        ]);
        let answer = |status, body, stays_open| Answer {
            status,
            body,
            stays_open,
        };
        assert_eq!(client.exchange(REQUEST).unwrap(), answer(200, b"{}", true));
        assert_eq!(
            client.exchange(REQUEST).unwrap(),
            answer(503, b"later", true)
        );
        assert_eq!(client.exchange(REQUEST).unwrap(), answer(204, b"", false));
        server.join().unwrap();
    }

    #[test]
    fn a_long_answer_is_taken_and_one_without_end_is_not() {
        let length = 20_000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap(), TIMEOUT).unwrap();
        let server = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let head = format!("HTTP/1.1 400 Bad\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&vec![b'x'; length]).unwrap();
            stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
            stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
            stream.write_all(&vec![b'x'; 100_000]).unwrap_or_default();
        });
        assert_eq!(client.exchange(REQUEST).unwrap().body.len(), length);
        let error = client.exchange(REQUEST).unwrap_err().to_string();
        assert_eq!(error, "the answer is broken: too long");
        drop(client);
        server.join().unwrap();
    }

    #[test]
    fn what_is_no_answer_of_ours_is_said() {
        assert_eq!(
            error_after(&[&["SSH-2.0-OpenSSH_9.2\r\n"]]),
            "the answer is broken: not HTTP"
        );
        assert_eq!(
            error_after(&[&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]]),
            "the answer is broken: no Content-Length"
        );
        assert_eq!(
            error_after(&[&["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc"]]),
            "the answer is broken: more than its length"
        );
        let closed = "the server closed the connection without an answer";
        assert_eq!(error_after(&[&[]]), closed);
        assert_eq!(
            error_after(&[&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]]),
            closed
        );
    }

    #[test]
    fn silence_ends_with_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap(), TIMEOUT).unwrap();
        let began = Instant::now();
        let error = client.exchange(REQUEST).unwrap_err();
        assert!(matches!(error, ExchangeError::Timeout(_)), "{error}");
        assert!((TIMEOUT..TIMEOUT * 4).contains(&began.elapsed()));
    }

    #[test]
    fn a_connection_that_the_server_closed_while_it_was_idle_is_not_open() {
        let (mut client, server) = connected(&[&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]]);
        client.exchange(REQUEST).unwrap();
        assert!(client.is_open());
        server.join().unwrap();
        client.used_at -= IDLE;
        assert!(!client.is_open());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap(), TIMEOUT).unwrap();
        client.used_at -= IDLE;
        assert!(client.is_open());
    }
}
