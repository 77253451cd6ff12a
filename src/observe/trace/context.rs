//! A span's place in its trace, as the header `traceparent` carries it: W3C Trace Context, level 1.

use std::fmt::Write;

/// The header's name, in HTTP and in Kafka.
pub const TRACEPARENT: &str = "traceparent";
/// Of version 00, and of what later versions begin with.
const BYTES: usize = 55;
/// The bit of the flags that says that the span is recorded.
const SAMPLED: u8 = 1;

/// Names a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanName {
    /// The trace's id, not all zero.
    pub trace: [u8; 16],
    /// The span's id, not all zero.
    pub span: [u8; 8],
    /// Whether it is recorded.
    pub is_sampled: bool,
}

impl SpanName {
    /// A new span, recorded, in a trace of its own.
    pub fn root() -> Self {
        Self::within(rand::random())
    }

    /// A new span, recorded, in that trace.
    pub fn within(trace: [u8; 16]) -> Self {
        Self {
            trace,
            span: rand::random(),
            is_sampled: true,
        }
    }

    /// Reads a header's value; `None` where it is none.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(BYTES)?;
        let [version] = bytes(&known[..2])?;
        let [flags] = bytes(&known[53..])?;
        let is_one = [2, 35, 52].iter().all(|dash| known[*dash] == b'-')
            && match version {
                0 => rest.is_empty(),
                0xff => false,
                _ => rest.first().is_none_or(|next| *next == b'-'),
            };
        let (trace, span) = (bytes(&known[3..35])?, bytes(&known[36..52])?);
        let name = Self {
            trace,
            span,
            is_sampled: flags & SAMPLED != 0,
        };
        (is_one && trace != [0; 16] && span != [0; 8]).then_some(name)
    }

    /// As a header's value.
    pub fn header(&self) -> String {
        let mut text = String::with_capacity(BYTES);
        text.push_str("00-");
        let mut push = |bytes: &[u8]| {
            for byte in bytes {
                write!(text, "{byte:02x}").expect("a string can be written to");
            }
            text.push('-');
        };
        push(&self.trace);
        push(&self.span);
        text.push_str(if self.is_sampled { "01" } else { "00" });
        text
    }
}

/// Bytes from as many pairs of lower-case digits.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_names_a_span_and_back() {
        let name = SpanName::parse(GOOD.as_bytes()).unwrap();
        assert!(name.is_sampled);
        assert_eq!(name.trace[..2], [0x0a, 0xf7]);
        assert_eq!(name.span[7], 0x31);
        assert_eq!(name.header(), GOOD);
        let unsampled = GOOD.replace("-01", "-02");
        assert!(!SpanName::parse(unsampled.as_bytes()).unwrap().is_sampled);
        let root = SpanName::root();
        assert_eq!(SpanName::parse(root.header().as_bytes()), Some(root));
    }

    #[test]
    fn what_is_no_header_names_nothing() {
        let later = GOOD.replacen("00-", "01-", 1) + "-more";
        assert!(SpanName::parse(later.as_bytes()).is_some());
        let zeros = |count| "0".repeat(count);
        for bad in [
            String::new(),
            "00-1-2-01".to_owned(),
            GOOD.to_uppercase(),
            GOOD.to_owned() + "-more",
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replacen('-', "x", 1),
            format!("00-{}-b7ad6b7169203331-01", zeros(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", zeros(16)),
            GOOD.replacen("-b7", "-g7", 1),
        ] {
            assert_eq!(SpanName::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
