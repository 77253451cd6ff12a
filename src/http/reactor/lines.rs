//! Looks for what hyper takes and we don't. A line of a head that ends with a lone LF, which is allowed (RFC 9112, 2.2); but whoever
//! forwards to us may have taken it for a part of a value, and so see other requests than we do. A `#` in a request line, which is
//! not allowed (3.2); hyper leaves out what follows.
//!
//! Knows as much of HTTP as it needs to tell heads from bodies: the empty line, and `Content-Length`. Of a connection with
//! another coding it looks at nothing any more.

/// What is kept of a line: enough for a `Content-Length`.
const LINE_BYTES_KEPT: usize = 64;
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding";

/// How far a connection's bytes have been looked at.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The current line of a head, as far as it is kept.
    line: Vec<u8>,
    last: u8,
    /// Whether the current head has a line.
    begun: bool,
    /// What the current head announces.
    length: usize,
    /// Bytes of the body that are still to come.
    body_left: usize,
    /// What is wrong with a head. For good.
    wrong: Option<&'static str>,
    /// It can't be told any more where heads begin.
    blind: bool,
}

impl Lines {
    /// What is wrong with a head, if something is.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        self.wrong
    }

    /// Looks at what came next. Returns how much of it may be read: all, or what lies before the wrong byte.
    pub(super) fn look(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.blind && self.wrong.is_none() {
            if self.body_left > 0 {
                let of_body = self.body_left.min(bytes.len() - at);
                self.body_left -= of_body;
                at += of_body;
                continue;
            }
            let byte = bytes[at];
            self.wrong = match byte {
                b'\n' if self.last != b'\r' => {
                    Some("a line of the head ends with LF instead of CR LF")
                }
                b'#' if !self.begun => Some("there is a # in the request line"),
                _ => None,
            };
            if self.wrong.is_some() {
                return at;
            }
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < LINE_BYTES_KEPT => self.line.push(byte),
                _ => {}
            }
            self.last = byte;
            at += 1;
        }
        bytes.len()
    }

    fn end_line(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if line.is_empty() {
            // Empty lines before a request are none of its head's.
            if self.begun {
                self.body_left = std::mem::take(&mut self.length);
                self.begun = false;
            }
        } else {
            self.begun = true;
            if let Some(value) = after(line, LENGTH) {
                let digits = std::str::from_utf8(value).ok().map(str::trim);
                match digits.and_then(|digits| digits.parse().ok()) {
                    Some(length) => self.length = length,
                    None => self.blind = true,
                }
            }
            self.blind |= after(line, CODING).is_some();
        }
        self.line.clear();
    }
}

/// What follows that beginning, whose case does not matter.
fn after<'l>(line: &'l [u8], beginning: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(beginning.len())?;
    found.eq_ignore_ascii_case(beginning).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "PUT / HTTP/1.1\r\nA: b#\r\ncontent-length:  5 \r\n\r\na\nb\n\n";

    /// What may be read, in pieces of that size.
    fn read(text: &str, piece: usize) -> usize {
        let mut lines = Lines::default();
        let pieces = text.as_bytes().chunks(piece);
        let counts = pieces.map(|piece| match lines.wrong() {
            Some(_) => 0,
            None => lines.look(piece),
        });
        counts.sum()
    }

    #[test]
    fn heads_are_told_from_bodies_in_pieces_of_any_size() {
        let two = format!("\r\n{GOOD}{GOOD}");
        for piece in 1..two.len() {
            assert_eq!(read(&two, piece), two.len(), "{piece}");
            for head in [
                "PUT / HTTP/1.1\n",
                "PUT / HTTP/1.1\r\nA: b\n",
                "\n",
                "PUT / HTTP/1.1\r\n\n",
            ] {
                let broken = format!("{two}{head}Content-Length: 1\r\n\r\n");
                let end = two.len() + head.len() - 1;
                assert_eq!(read(&broken, piece), end, "{piece} {head:?}");
            }
        }
    }

    #[test]
    fn a_request_line_has_no_fragment() {
        let line = "PUT /a# HTTP/1.1\r\n\r\n";
        for piece in 1..line.len() {
            assert_eq!(
                read(&format!("{GOOD}{line}"), piece),
                GOOD.len() + 6,
                "{piece}"
            );
        }
    }

    #[test]
    fn a_body_in_chunks_is_not_looked_at() {
        let chunks = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n";
        assert_eq!(read(chunks, 7), chunks.len());
    }
}
