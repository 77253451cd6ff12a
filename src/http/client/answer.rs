//! An answer of a server, from its bytes: HTTP/1.1 with `Content-Length`, as our own servers answer. Everything else is broken.

use std::io;
use std::time::Duration;

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

/// What came of an answer so far.
pub(super) struct Incoming {
    buffer: Vec<u8>,
    filled: usize,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
    stays_open: bool,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; 4096],
            filled: 0,
        }
    }

    /// Forgets what came.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Room for more; an error where an answer of ours would have ended.
    pub(super) fn room(&mut self) -> Result<&mut [u8], ExchangeError> {
        if self.filled == self.buffer.len() {
            if self.filled >= ANSWER_BYTES_MAX {
                return Err(ExchangeError::Broken("too long"));
            }
            self.buffer.resize(2 * self.filled, 0);
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// So much of the room was used.
    pub(super) fn came(&mut self, count: usize) {
        self.filled += count;
    }

    /// The answer, once it is whole.
    pub(super) fn answer(&self) -> Result<Option<Answer<'_>>, ExchangeError> {
        let Some(head) = parse(&self.buffer[..self.filled])? else {
            return Ok(None);
        };
        let end = head.bytes + head.body_bytes;
        if self.filled > end {
            return Err(ExchangeError::Broken("more than its length"));
        }
        Ok((self.filled == end).then(|| Answer {
            status: head.status,
            body: &self.buffer[head.bytes..end],
            stays_open: head.stays_open,
        }))
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
