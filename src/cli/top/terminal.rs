//! The terminal while `top` has it: another screen, no cursor, keys as they are pressed. Given back when dropped, whatever
//! ended the program short of SIGKILL.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::io::{self, Write};
use std::time::Duration;

/// On the other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Bold, red, and neither.
const STRONG: &str = "\x1b[1m";
const ALARMING: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Alarming,
}

/// The terminal of stdin and stdout.
pub struct Terminal {
    /// `None`: stdin is no terminal, and nobody presses keys.
    before: Option<Termios>,
    has_colour: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Quit,
    Other,
}

impl Terminal {
    /// Takes it.
    pub fn take() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            // Without ISIG ctrl-C comes as a key, and ctrl-Z can't leave the other screen behind.
            raw.local_modes
                .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        }
        let terminal = Self {
            before,
            has_colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        write(ENTER)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        let size = termios::tcgetwinsize(io::stdout()).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        size.filter(|(columns, lines)| *columns > 0 && *lines > 0)
            .unwrap_or((80, 24))
    }

    /// Shows these lines and no others; each must fit.
    pub fn show(&self, lines: &[(String, Tone)]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (index, (line, tone)) in lines.iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            let tone = match tone {
                Tone::Strong => STRONG,
                Tone::Alarming if self.has_colour => ALARMING,
                Tone::Alarming => STRONG,
                Tone::Plain => PLAIN,
            };
            text.push_str(tone);
            text.push_str(line);
            text.push_str(PLAIN);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        write(&text)
    }

    /// The next key, if one comes within that time.
    pub fn key(&self, within: Duration) -> io::Result<Option<Key>> {
        if self.before.is_none() {
            crate::clock::sleep(within);
            return Ok(None);
        }
        let stdin = io::stdin();
        let timeout = Timespec {
            tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: within.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // Not through std, which would keep what it read ahead.
        let mut bytes = [0; 32];
        let count = rustix::io::read(&stdin, &mut bytes)?;
        let quits = |byte: &u8| matches!(byte, b'q' | b'Q' | 3 | 4);
        // Nobody is there any more when nothing can be read.
        match count == 0 || bytes[..count].iter().any(quits) {
            true => Ok(Some(Key::Quit)),
            false => Ok(Some(Key::Other)),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nowhere is left to tell about it.
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
