//! Good requests, and what becomes of them: bytes, splices, headers, codings, pipelines and cuts. The same seed makes the
//! same bytes.

use super::edge::{APP, player};
use super::http::request;
use millpond::ids::SubscriptionId;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Value, json};

/// What goes over one connection.
pub struct Case {
    pub bytes: Vec<u8>,
    /// Where it is cut into writes.
    pub cuts: Vec<usize>,
    /// The client goes away without a word and without reading.
    pub leaves: bool,
}

/// Makes cases without end.
pub struct Mutator {
    rng: SmallRng,
    /// Tells the requests of different runs and clients apart.
    name: String,
    made: u64,
}

/// A request in its parts.
#[derive(Clone)]
struct Parts {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

const REQUESTS_MAX: usize = 10;

const HEADERS: [&str; 24] = [
    "Transfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: identity",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length : 5",
    "Expect: 100-continue",
    "Expect: something",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Upgrade",
    "Upgrade: h2c",
    "Host: other",
    "Host:",
    "Content-Type: text/plain",
    "Content-Encoding: gzip",
    "Authorization: Bearer x",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "traceparent: x",
    " folded: on",
    "X: a\nContent-Length: 3",
    ":",
];

const LINES: [&str; 10] = [
    "PUT /api/v1/players HTTP/1.1",
    "PUT /api/v1/players// HTTP/1.1",
    "PUT http://edge/api/v1/players/00000000-0000-4000-8000-000000000001 HTTP/1.1",
    "PUT /api/v1/players/00000000-0000-4000-8000-000000000001?x=1 HTTP/1.1",
    "PUT /api/v1/players/%30000000-0000-4000-8000-000000000001 HTTP/1.1",
    "PUT /api/v1/players/00000000-0000-4000-8000-000000000001 HTTP/1.0",
    "PUT /api/v1/players/00000000-0000-4000-8000-000000000001 HTTP/2.0",
    "GET / HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT edge:80 HTTP/1.1",
];

const TOKENS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1.5",
    "1e999",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\",
    "\0",
    "\t",
    " ",
    "\u{feff}",
    "é",
    "😀",
    "\"tags\":{}",
    "\"counts\":{\"n\":1}",
    "\"mirror_to\":null",
    "\"app_id\":",
    "\"email\":\"a@example.com\"",
    "\"x\":1",
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "HTTP/1.1",
    "PUT / HTTP/1.1\r\n\r\n",
    "Content-Length: 1\r\n",
    ": ",
];

impl Mutator {
    pub fn new(seed: u64, name: &str) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            name: name.to_owned(),
            made: 0,
        }
    }

    pub fn next_case(&mut self) -> Case {
        let requests = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(2..=REQUESTS_MAX),
            _ => 1,
        };
        let mut bytes: Vec<u8> = (0..requests).flat_map(|_| self.next_request()).collect();
        if self.rng.random_ratio(1, 12) {
            bytes.truncate(self.rng.random_range(0..=bytes.len()));
        }
        let pieces = match self.rng.random_range(0..8) {
            0 => self.rng.random_range(1..5),
            _ => 0,
        };
        let mut cuts: Vec<usize> = (0..pieces)
            .map(|_| self.rng.random_range(0..=bytes.len()))
            .collect();
        cuts.sort_unstable();
        Case {
            bytes,
            cuts,
            leaves: self.rng.random_ratio(1, 20),
        }
    }

    /// One in four is left as it is.
    fn next_request(&mut self) -> Vec<u8> {
        let mut parts = self.good();
        match self.rng.random_range(0..20) {
            0..5 => {}
            5..11 => {
                self.mutate_body(&mut parts);
                parts.set_length();
            }
            11..15 => self.juggle_headers(&mut parts),
            15 => parts.line = (*LINES.choose(&mut self.rng).unwrap()).to_owned(),
            16 => self.chunk(&mut parts),
            _ => {
                let mut bytes = parts.bytes();
                self.mutate_bytes(&mut bytes);
                return bytes;
            }
        }
        parts.bytes()
    }

    /// A request that is taken, with a number that no other has.
    fn good(&mut self) -> Parts {
        self.made += 1;
        let number = format!("{}-{}", self.name, self.made);
        let row = self.row();
        let (mut path, mut fields) = (player(&row), json!({"app_id": APP}));
        match self.rng.random_range(0..6) {
            0 => {
                path += "/email";
                fields["email"] = format!("{number}@example.com").into();
            }
            1 => {
                fields["tags"] =
                    json!({"n": number, "a": null, "b": 1.5, "c": true, "é": "\"\\\n"});
                fields["mirror_to"] = self.row().into();
            }
            2 => {
                fields["counts"] = json!({"n": 1, "m": -1});
                fields["tags"] = json!({"n": number});
            }
            3 => {
                fields["tags"] =
                    json!({"n": number, "text": "x".repeat(self.rng.random_range(0..900))})
            }
            _ => fields["tags"] = json!({"n": number}),
        }
        let mut parts = Parts {
            line: format!("PUT {path} HTTP/1.1"),
            headers: [
                "Host: edge",
                "Content-Type: application/json",
                "Content-Length: 0",
            ]
            .map(str::to_owned)
            .to_vec(),
            body: Value::to_string(&fields).into_bytes(),
        };
        parts.set_length();
        parts
    }

    fn row(&mut self) -> String {
        SubscriptionId(self.rng.random()).to_string()
    }

    fn mutate_body(&mut self, parts: &mut Parts) {
        match self.rng.random_range(0..6) {
            0 => {
                let other = self.good().body;
                self.splice(&mut parts.body, &other);
            }
            1 => parts.body = self.nested(),
            _ => self.mutate_bytes(&mut parts.body),
        }
    }

    /// Much of one kind.
    fn nested(&mut self) -> Vec<u8> {
        let times = 1 << self.rng.random_range(0..14);
        let token = TOKENS.choose(&mut self.rng).unwrap();
        format!(
            "{{\"app_id\":\"{APP}\",\"tags\":{{\"a\":{}",
            token.repeat(times)
        )
        .into_bytes()
    }

    /// A few small changes anywhere.
    fn mutate_bytes(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(0..=bytes.len());
            let end = (at + self.rng.random_range(0..20)).min(bytes.len());
            match self.rng.random_range(0..7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.rng.random_range(0..8),
                1 => bytes.insert(at, self.rng.random()),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                4 => {
                    let mut noise = [0; 16];
                    self.rng.fill_bytes(&mut noise);
                    bytes.splice(at..end, noise);
                }
                _ => {
                    let token = TOKENS.choose(&mut self.rng).unwrap();
                    bytes.splice(at..at, token.bytes());
                }
            }
        }
    }

    /// The beginning of one and the end of the other.
    fn splice(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        bytes.truncate(self.rng.random_range(0..=bytes.len()));
        bytes.extend(&other[self.rng.random_range(0..=other.len())..]);
    }

    fn juggle_headers(&mut self, parts: &mut Parts) {
        let headers = &mut parts.headers;
        for _ in 0..self.rng.random_range(1..3) {
            let at = self.rng.random_range(0..headers.len());
            match self.rng.random_range(0..7) {
                0 => headers.shuffle(&mut self.rng),
                1 => headers.insert(at, headers[at].clone()),
                2 if headers.len() > 1 => drop(headers.remove(at)),
                3 => headers[at] = headers[at].to_uppercase(),
                4 => headers[at] = headers[at].replace(": ", ":\t \t") + " ",
                _ => headers.insert(at, (*HEADERS.choose(&mut self.rng).unwrap()).to_owned()),
            }
        }
    }

    /// The body as chunks, with or without its length.
    fn chunk(&mut self, parts: &mut Parts) {
        let length = format!("{:x}\r\n", parts.body.len());
        parts.body.splice(0..0, length.bytes());
        parts.body.extend(b"\r\n0\r\n\r\n");
        if self.rng.random() {
            parts
                .headers
                .retain(|header| !header.starts_with("Content-Length"));
        }
        let at = self.rng.random_range(0..=parts.headers.len());
        parts
            .headers
            .insert(at, "Transfer-Encoding: chunked".to_owned());
    }
}

impl Parts {
    fn set_length(&mut self) {
        for header in &mut self.headers {
            if header.starts_with("Content-Length") {
                *header = format!("Content-Length: {}", self.body.len());
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        request(&self.line, &headers, &self.body)
    }
}
