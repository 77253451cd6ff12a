//! `millpond top`: a running consumer in the terminal, live.
//!
//! The main thread has the terminal. The thread `top-ask` asks the consumer, when the main thread wants it, so that keys
//! are heard while a consumer doesn't answer; it ends with the channel, or with the process: it holds nothing.

mod readings;
mod screen;
mod terminal;
mod view;

use self::readings::Reading;
use self::screen::{Line, lines};
use self::terminal::{Key, Terminal, Tone};
use self::view::{History, View};
use super::admin_client::{AdminArgs, AdminClient};
use super::print_data;
use crate::clock;
use crate::config::Config;
use crate::sync::{Ordering, SignalFlag};
use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGHUP, TERM_SIGNALS};
use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const ASK_THREAD: &str = "top-ask";

/// Between two readings.
const REFRESH: Duration = Duration::from_secs(1);

/// A consumer answers at once. What takes longer than this is worth saying.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a key may wait.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Watch a running consumer in the terminal: rates, lag and where it goes, shards, the worst partitions, the hottest apps and rows
///
/// Asks the admin address each second; q or ctrl-C ends. Shows the process that is asked, not the whole group; `millpond lag` shows
/// the group.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print it once, as plain text, after a second for the rates; so it does too when stdout is no terminal
    #[arg(long)]
    once: bool,
}

/// Shows it until somebody ends it, or once.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (client, config) = args.admin.client_within(PATIENCE)?;
    if args.once || !std::io::stdout().is_terminal() {
        once(&client, &config)?;
    } else {
        live(client, &config)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn once(client: &AdminClient, config: &Config) -> anyhow::Result<()> {
    let mut history = History::default();
    let first = Reading::take(client)?;
    history.add(&first);
    clock::sleep(REFRESH);
    let second = Reading::take(client)?;
    history.add(&second);
    let view = View::of(&second, Some(&first), &history, config);
    let lines = lines(&title(client, &view), &view, None);
    let text: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
    print_data(&text.join("\n"))
}

fn title(client: &AdminClient, view: &View) -> String {
    let version = view.version.as_deref().unwrap_or("of unknown version");
    format!("millpond {version} at {}", client.address())
}

type Answer = anyhow::Result<Reading>;

fn live(client: AdminClient, config: &Config) -> anyhow::Result<()> {
    let stop = Arc::new(SignalFlag::new(false));
    for kind in TERM_SIGNALS.iter().chain(&[SIGHUP]) {
        signal_hook::flag::register(*kind, stop.clone())?;
    }
    let client = Arc::new(client);
    let (asking, questions) = bounded::<()>(1);
    let (answering, answers) = bounded::<Answer>(1);
    let asked = client.clone();
    thread::Builder::new()
        .name(ASK_THREAD.to_owned())
        .spawn(move || ask(&asked, &questions, &answering))
        .context("no thread is left")?;
    let terminal = Terminal::take().context("the terminal can't be used; try --once")?;
    let mut watch = Watch {
        client: &client,
        config,
        history: History::default(),
        last: None,
        before: None,
        trouble: None,
        asked_at: None,
    };
    match watch.go_on(&terminal, &asking, &answers, &stop) {
        Err(error) if is_closed(&error) => Ok(()),
        ended => ended,
    }
}

/// The terminal went away: nobody looks any more.
fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn ask(client: &AdminClient, questions: &Receiver<()>, answering: &Sender<Answer>) {
    while questions.recv().is_ok() {
        if answering.send(Reading::take(client)).is_err() {
            return;
        }
    }
}

/// What the main thread knows.
struct Watch<'c> {
    client: &'c AdminClient,
    config: &'c Config,
    history: History,
    last: Option<Reading>,
    before: Option<Reading>,
    /// Why there is no newer reading.
    trouble: Option<String>,
    asked_at: Option<Instant>,
}

impl Watch<'_> {
    fn go_on(
        &mut self,
        terminal: &Terminal,
        asking: &Sender<()>,
        answers: &Receiver<Answer>,
        stop: &SignalFlag,
    ) -> anyhow::Result<()> {
        let mut is_waiting = false;
        let mut size = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let is_due = self.asked_at.is_none_or(|at| clock::now() - at >= REFRESH);
            if is_due && !is_waiting {
                asking.send(()).context("the thread that asks is gone")?;
                (self.asked_at, is_waiting) = (Some(clock::now()), true);
            }
            let answer = answers.try_recv().ok();
            let is_new = answer.is_some();
            if let Some(answer) = answer {
                is_waiting = false;
                self.take(answer);
            }
            let size_now = terminal.size();
            if is_new || size_now != size {
                size = size_now;
                terminal.show(&self.screen(size))?;
            }
            if terminal.key(KEY_WAIT)? == Some(Key::Quit) {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Ok(reading) => {
                self.history.add(&reading);
                self.before = self.last.replace(reading);
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }

    fn screen(&self, (columns, height): (usize, usize)) -> Vec<Line> {
        let mut trouble: Vec<Line> = Vec::new();
        if let Some(why) = &self.trouble {
            let age = self
                .last
                .as_ref()
                .map(|last| (clock::now() - last.at).as_secs());
            let age = age.map_or(String::new(), |age| {
                format!("what stands below is {age} s old; ")
            });
            let text: Vec<char> = format!("{age}{why}").chars().collect();
            let text = text.chunks(columns).take(3);
            trouble = text
                .map(|line| (line.iter().collect(), Tone::Alarming))
                .collect();
        }
        let Some(last) = &self.last else {
            if trouble.is_empty() {
                trouble.push((format!("asking {} …", self.client.address()), Tone::Plain));
            }
            trouble.push(("q ends".to_owned(), Tone::Plain));
            trouble.truncate(height);
            return trouble;
        };
        let view = View::of(last, self.before.as_ref(), &self.history, self.config);
        let title = format!("{}   q ends", title(self.client, &view));
        let left = height.saturating_sub(trouble.len());
        trouble.extend(lines(&title, &view, Some((columns, left))));
        trouble
    }
}
