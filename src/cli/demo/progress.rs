//! How a demonstration is shown while it runs: one line that is drawn again on a terminal, else a line now and then.

use super::super::print_note;
use crate::clock;
use crate::demo::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines where nothing can be drawn again.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Between two texts on a terminal, faster than anybody reads.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// What the whole of it is.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// So many messages.
    Messages(u64),
    /// So long.
    Lasts(Duration),
}

/// The line.
pub(super) struct Line {
    goal: Goal,
    bar: ProgressBar,
    is_terminal: bool,
    began: Instant,
    said: Instant,
}

impl Line {
    pub fn new(goal: Goal) -> Self {
        let length = match goal {
            Goal::Messages(messages) => messages,
            Goal::Lasts(time) => milliseconds(time),
        };
        let style =
            ProgressStyle::with_template("{wide_bar} {msg}").expect("a template that is right");
        Self {
            goal,
            // Drawn on a terminal only.
            bar: ProgressBar::new(length).with_style(style),
            is_terminal: std::io::stderr().is_terminal(),
            began: clock::now(),
            said: clock::now(),
        }
    }

    pub fn show(&mut self, progress: Progress) {
        let now = clock::now();
        let Progress {
            sent,
            applied,
            followed,
        } = progress;
        if self.is_terminal {
            self.bar.set_position(match self.goal {
                Goal::Messages(_) => applied,
                Goal::Lasts(_) => milliseconds(now.duration_since(self.began)),
            });
            if self.bar.message().is_empty() || now.duration_since(self.said) > DRAW_INTERVAL {
                self.said = now;
                self.bar.set_message(format!(
                    "{sent} sent, {applied} applied, {followed} read again"
                ));
            }
        } else if now.duration_since(self.said) > LINE_INTERVAL {
            self.said = now;
            print_note(&progress.to_string());
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
