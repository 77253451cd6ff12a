//! A raw HTTP client: the test writes the bytes and takes its time. It understands answers strictly, and panics at one
//! that is none.

use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer has come by then, or there is none.
const PATIENCE: Duration = Duration::from_secs(25);

/// A connection to the edge.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

/// Why there is no further answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The edge closed between two answers.
    Closed,
    /// The connection was reset between two answers.
    Reset,
    /// It ended in the middle of an answer.
    Torn,
    /// Nothing came in time, and the connection is open.
    Silent,
}

/// A PUT with a body of JSON.
pub fn put(path: &str, body: &str) -> Vec<u8> {
    put_with(path, &[], body.as_bytes())
}

/// The same with further headers.
pub fn put_with(path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    let common = ["Host: edge", "Content-Type: application/json", &length];
    request(
        &format!("PUT {path} HTTP/1.1"),
        &[&common, headers].concat(),
        body,
    )
}

/// Any request, just as it is given.
pub fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line}\r\n").into_bytes();
    for header in headers {
        bytes.extend(header.as_bytes());
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

impl Client {
    /// Fails where nobody listens.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends bytes. An error: the edge has closed, or doesn't read.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// How long a send may wait for the edge to read.
    pub fn set_write_patience(&self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// The next answer, an interim one too.
    pub fn answer(&mut self) -> Result<Answer, Gone> {
        self.answer_within(PATIENCE)
    }

    /// The same, with less patience.
    pub fn answer_within(&mut self, patience: Duration) -> Result<Answer, Gone> {
        let deadline = Instant::now() + patience;
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some((answer, length)) = parse(&self.unread) {
                self.unread.drain(..length);
                return Ok(answer);
            }
            let between = self.unread.is_empty();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Gone::Silent);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes) {
                Ok(0) if between => return Err(Gone::Closed),
                Ok(0) => return Err(Gone::Torn),
                Ok(count) => self.unread.extend(&bytes[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ if between => return Err(Gone::Reset),
                    _ => return Err(Gone::Torn),
                },
            }
        }
    }

    /// Sends a request and takes its answer.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer, Gone> {
        // Refused early, an answer may come before all is sent.
        let _ = self.send(request);
        self.answer()
    }

    /// All answers up to the end of the connection, and how it ended.
    pub fn rest(&mut self, patience: Duration) -> (Vec<Answer>, Gone) {
        let mut answers = Vec::new();
        loop {
            match self.answer_within(patience) {
                Ok(answer) => answers.push(answer),
                Err(gone) => return (answers, gone),
            }
        }
    }

    /// No more requests; answers are still read.
    pub fn end_writing(&self) {
        // The edge may have ended it before.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

impl Answer {
    /// A header's value; none or one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason of a problem; panics unless this is a whole one.
    pub fn reason(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank", "{problem}");
        assert_eq!(problem["status"], self.status, "{problem}");
        for text in ["title", "detail", "reason"] {
            assert!(
                problem[text].as_str().is_some_and(|text| !text.is_empty()),
                "{text}: {problem}"
            );
        }
        problem["reason"].as_str().unwrap().to_owned()
    }
}

/// The first answer and its length; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head_end = bytes.windows(4).position(|at| at == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("a head in ASCII");
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap();
    // To an old client the edge answers as one.
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .or(line.strip_prefix("HTTP/1.0 "));
    let code = rest.and_then(|rest| rest.get(..3));
    let status: u16 = code
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("a status line: {line:?}"));
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer {
        status,
        headers,
        body: String::new(),
    };
    let length: usize = match answer.header("content-length") {
        Some(length) => length.parse().expect("a length"),
        None if (100..200).contains(&status) => 0,
        None => panic!("an answer without its length: {head:?}"),
    };
    let body = bytes.get(head_end..head_end + length)?;
    answer.body = String::from_utf8(body.to_vec()).expect("a body of text");
    Some((answer, head_end + length))
}
