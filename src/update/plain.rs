//! Reads JSON of the usual shape, several times as fast as serde_json: objects of scalars, and of objects of scalars, whose strings
//! need no unescaping and whose numbers are integers. It knows when a text is of another shape, which is then serde_json's to
//! read or to refuse. Of a text that it reads it says what serde_json says; a test compares them.

use memchr::memchr;

/// Whether no byte is a control character or a backslash: a string then ends at the next quote, and is what it stands for.
pub fn is_plain(bytes: &[u8]) -> bool {
    // All of them are looked at, which is a few instructions for sixteen.
    bytes.iter().fold(true, |plain, byte| {
        plain & (*byte >= b' ') & (*byte != b'\\')
    })
}

/// Gives each entry of an object in a text that [`is_plain`]: the name, and the value's JSON text. `None`: the text is of another
/// shape, or no JSON, and what was given is void.
pub fn object<'a>(text: &'a str, each: impl FnMut(&'a str, &'a str)) -> Option<()> {
    let mut scan = Scan { text, at: 0 };
    scan.object(true, each)?;
    scan.skip_spaces();
    (scan.at == text.len()).then_some(())
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn object(&mut self, may_nest: bool, mut each: impl FnMut(&'a str, &'a str)) -> Option<()> {
        self.expect(b'{')?;
        self.skip_spaces();
        if self.byte() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_spaces();
            let name = self.string()?;
            self.expect(b':')?;
            self.skip_spaces();
            let start = self.at;
            self.value(may_nest)?;
            each(name, &self.text[start..self.at]);
            self.skip_spaces();
            self.at += 1;
            match self.text.as_bytes().get(self.at - 1)? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn value(&mut self, may_nest: bool) -> Option<()> {
        match self.byte()? {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.integer(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'{' if may_nest => self.object(false, |_, _| {}),
            _ => None,
        }
    }

    /// What is between the quotes.
    fn string(&mut self) -> Option<&'a str> {
        if self.byte()? != b'"' {
            return None;
        }
        let start = self.at + 1;
        let end = start + memchr(b'"', &self.text.as_bytes()[start..])?;
        self.at = end + 1;
        Some(&self.text[start..end])
    }

    /// One that goes on as a fraction ends here, and is then followed by what may not follow.
    fn integer(&mut self) -> Option<()> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let digits = &self.text.as_bytes()[start..self.at];
        let is_one = matches!(digits, [b'0'] | [b'1'..=b'9', ..]);
        is_one.then_some(())
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        let is_it = self.text[self.at..].starts_with(word);
        self.at += word.len();
        is_it.then_some(())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_spaces();
        let is_it = self.byte() == Some(byte);
        self.at += 1;
        is_it.then_some(())
    }

    fn skip_spaces(&mut self) {
        while self.byte() == Some(b' ') {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
