//! Sends on the caller's thread and watches on another (`load-watch`): a line a second on stdout, and the picture of it on
//! stderr, all the time on a terminal and at the end in any case.

use super::picture::picture;
use crate::cli::print_data;
use crate::clock;
use crate::config::Config;
use crate::load::watch::{Second, Source, Watched, Watcher};
use crate::sync::{Ordering, SignalFlag};
use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

const WATCH_THREAD: &str = "load-watch";

/// Sends with `send`, and watches until the group has caught up, `deadline` after that at most, or a signal comes.
pub(super) fn during<T>(
    config: &Config,
    source: Source<'_>,
    deadline: Duration,
    signal: &SignalFlag,
    send: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Watched)> {
    let watcher = Watcher::connect(config)?;
    let (all_sent, failed) = (OnceLock::new(), SignalFlag::new(false));
    let is = |flag: &SignalFlag| flag.load(Ordering::Acquire);
    let live = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(ProgressStyle::with_template("{msg}").expect("a template that is right"));
    let go_on = || !is(signal) && !is(&failed);
    let watch = || {
        watcher.watch(
            source,
            deadline,
            || all_sent.get().copied(),
            go_on,
            |seconds| {
                live.suspend(|| tell(seconds));
                live.set_message(picture(seconds));
                live.tick();
            },
        )
    };
    let (done, watched) = thread::scope(|scope| {
        let watching = thread::Builder::new()
            .name(WATCH_THREAD.to_owned())
            .spawn_scoped(scope, watch)
            .expect("the system has a thread left");
        let done = send();
        match &done {
            Ok(_) => all_sent.set(clock::now()).expect("set once"),
            Err(_) => failed.store(true, Ordering::Release),
        }
        (done, watching.join())
    });
    live.finish_and_clear();
    let watched = watched.map_err(|_| anyhow!("the thread {WATCH_THREAD} panicked, see above"))?;
    let mut stderr = std::io::stderr().lock();
    // That nobody reads it is no error.
    let _ = writeln!(stderr, "{}", picture(&watched.seconds));
    Ok((done?, watched))
}

/// The newest second as a line of data.
fn tell(seconds: &[Second]) {
    let Some(second) = seconds.last() else {
        return;
    };
    let line = serde_json::to_string(second).expect("plain values are JSON");
    // Standard output that is full or gone must not end the run that is measured.
    let _ = print_data(&line);
}
