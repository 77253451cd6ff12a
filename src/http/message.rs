//! What a handler gets and gives. A request is whole: its body has been read and is within the limit.

use super::{Bytes, HeaderMap, Method, StatusCode, header};
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use std::net::SocketAddr;

/// A request with its whole body.
#[derive(Debug)]
pub struct Request {
    peer: SocketAddr,
    message: hyper::Request<Bytes>,
}

impl Request {
    pub(super) fn new(peer: SocketAddr, message: hyper::Request<Bytes>) -> Self {
        Self { peer, message }
    }

    /// A request as a test wants it.
    #[cfg(test)]
    pub fn for_tests(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let request = Self::try_for_tests(method, target, headers, body.as_bytes());
        request.expect("a test's request is one")
    }

    /// The same of whatever a test has; `None` where it is no request.
    #[cfg(test)]
    pub fn try_for_tests(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Self> {
        let mut message = hyper::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            message = message.header(*name, *value);
        }
        let message = message.body(Bytes::copy_from_slice(body)).ok()?;
        Some(Self::new(SocketAddr::from(([127, 0, 0, 1], 1)), message))
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// GET, PUT and so on.
    pub fn method(&self) -> &Method {
        self.message.method()
    }

    /// Method and target, to be told when the request is gone; both are cheap to keep.
    pub(super) fn line(&self) -> (Method, hyper::Uri) {
        (self.message.method().clone(), self.message.uri().clone())
    }

    /// The path as sent, percent signs and all.
    pub fn path(&self) -> &str {
        self.message.uri().path()
    }

    /// What follows the question mark, as sent; `None` without one.
    pub fn query(&self) -> Option<&str> {
        self.message.uri().query()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        self.message.headers()
    }

    /// The whole body; empty without one.
    pub fn body(&self) -> &Bytes {
        self.message.body()
    }
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct Response(Box<hyper::Response<Bytes>>);

impl Response {
    /// An answer with a body of that type.
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut message = hyper::Response::new(body.into());
        *message.status_mut() = status;
        Self(Box::new(message))
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// A line of text for people; the line's end is added.
    pub fn text(status: StatusCode, line: impl std::fmt::Display) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{line}\n"))
    }

    /// A value as JSON.
    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        let json = serde_json::to_vec(value).expect("plain values are JSON");
        Self::new(status, "application/json", json)
    }

    /// With a header set.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// After this answer the connection is closed.
    #[must_use]
    pub fn and_close(self) -> Self {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    pub(super) fn into_message(self) -> hyper::Response<Full<Bytes>> {
        self.0.map(Full::new)
    }

    /// The whole answer as it is sent where hyper doesn't get to; the connection's last.
    pub(super) fn into_last_bytes(self) -> Vec<u8> {
        let (head, body) = self.and_close().0.into_parts();
        let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
        for (name, value) in &head.headers {
            bytes.extend(name.as_str().as_bytes());
            bytes.extend(b": ");
            bytes.extend(value.as_bytes());
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend(&body);
        bytes
    }
}
