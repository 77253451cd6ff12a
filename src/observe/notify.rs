//! Tells a process manager how it goes, by the protocol of sd_notify(3): systemd's `Type=notify` and `WatchdogSec`. Nothing
//! happens where NOTIFY_SOCKET is not set.
//!
//! The thread "mp-notify" wakes every 100 ms, or sooner for a short watchdog, looks, and sends a datagram when something is
//! to be said. It knows nothing that `/livez` and `/readyz` don't say.

use crate::clock;
use crate::vital;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Between two status lines of the same kind.
const STATUS: Duration = Duration::from_secs(10);
/// A manager that doesn't read holds this thread no longer than that.
const SEND: Duration = Duration::from_secs(1);

/// What is looked at.
pub struct Watched {
    /// Whether the work has begun; else why not.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send>,
    /// Whether a restart would not help; else why it would.
    pub live: Box<dyn Fn() -> Result<(), String> + Send>,
    /// Whether the end has begun.
    pub stopping: Box<dyn Fn() -> bool + Send>,
    /// How it goes, in a line.
    pub status: Box<dyn Fn() -> String + Send>,
}

/// Where the manager listens.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// A manager that hears nothing for so long ends the process.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names. `None`: there is none.
    ///
    /// # Errors
    /// It names one that can't be spoken to.
    pub fn of_environment() -> io::Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_meant =
            number("WATCHDOG_PID").is_none_or(|meant| meant == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| *us > 0 && is_meant);
        Self::at(&name, watchdog.map(Duration::from_micros)).map(Some)
    }

    /// A path, or `@` and an abstract name.
    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(Path::new(name))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND))?;
        Ok(Self {
            socket,
            address,
            watchdog,
        })
    }

    fn say(&self, message: &str) -> io::Result<()> {
        let sent = self
            .socket
            .send_to_addr(message.as_bytes(), &self.address)?;
        debug_assert_eq!(sent, message.len(), "datagrams are whole");
        Ok(())
    }
}

/// The thread that looks and tells.
#[derive(Debug)]
pub struct Notifier(Option<(Sender<()>, JoinHandle<()>)>);

impl Notifier {
    /// Starts it, where the environment names a manager.
    ///
    /// # Errors
    /// The manager can't be spoken to, or there is no thread.
    pub fn start(watched: Watched) -> io::Result<Self> {
        match Manager::of_environment()? {
            None => Ok(Self(None)),
            Some(manager) => Self::to(manager, watched),
        }
    }

    fn to(manager: Manager, watched: Watched) -> io::Result<Self> {
        let (end, ended) = bounded(0);
        let thread = vital::spawn("mp-notify", move || tell(&manager, &watched, &ended))?;
        Ok(Self(Some((end, thread))))
    }

    /// Says that the end has begun, if that was not said, and ends the thread.
    pub fn stop(self) {
        let Some((end, thread)) = self.0 else { return };
        drop(end);
        if thread.join().is_err() {
            tracing::error!("the thread that tells the process manager has panicked");
        }
    }
}

/// Looks until `end` is closed.
fn tell(manager: &Manager, watched: &Watched, end: &Receiver<()>) {
    let pet_every = manager.watchdog.map(|watchdog| watchdog / 2);
    let look = pet_every.map_or(LOOK, |every| LOOK.min(every / 2));
    let mut told = Told::default();
    loop {
        let over = end.recv_timeout(look) != Err(RecvTimeoutError::Timeout);
        let message = told.next(watched, pet_every, over, clock::now());
        match manager.say_unless_empty(&message) {
            Ok(()) => told.failed = false,
            Err(error) if !told.failed => {
                tracing::warn!(%error, "the process manager can't be told how it goes (NOTIFY_SOCKET)");
                told.failed = true;
            }
            Err(_) => {}
        }
        if over {
            return;
        }
    }
}

impl Manager {
    fn say_unless_empty(&self, message: &str) -> io::Result<()> {
        match message.is_empty() {
            true => Ok(()),
            false => self.say(message),
        }
    }
}

/// What was said so far.
#[derive(Default)]
struct Told {
    ready: bool,
    stopping: bool,
    /// Whether the last try failed; said once.
    failed: bool,
    status: Option<(bool, Instant)>,
    pet_at: Option<Instant>,
}

impl Told {
    /// What is to be said now: assignments, one a line.
    fn next(
        &mut self,
        watched: &Watched,
        pet_every: Option<Duration>,
        over: bool,
        now: Instant,
    ) -> String {
        let mut message = String::new();
        let mut say = |line: &str| {
            message.push_str(line);
            message.push('\n');
        };
        let state = (watched.ready)();
        if state.is_ok() && !self.ready {
            self.ready = true;
            say("READY=1");
        }
        if (over || (watched.stopping)()) && !self.stopping {
            self.stopping = true;
            say("STOPPING=1\nSTATUS=stopping: finishing what is in flight");
        }
        let is_due = |at: Option<Instant>, every| {
            at.is_none_or(|at| now.saturating_duration_since(at) >= every)
        };
        let same = self.status.filter(|(ready, _)| *ready == state.is_ok());
        if !self.stopping && is_due(same.map(|(_, at)| at), STATUS) {
            self.status = Some((state.is_ok(), now));
            let status = state.map_or_else(|why| why, |()| (watched.status)());
            // A line's end would begin an assignment.
            say(&format!("STATUS={}", status.replace('\n', " ")));
        }
        if pet_every.is_some_and(|every| is_due(self.pet_at, every)) && (watched.live)().is_ok() {
            self.pet_at = Some(now);
            say("WATCHDOG=1");
        }
        message
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::sync::{AtomicBool, Ordering};
    use std::sync::Arc;

    struct Flags([AtomicBool; 3]);

    fn watched(flags: &Arc<Flags>) -> Watched {
        let flag = |at: usize| {
            let flags = flags.clone();
            move || flags.0[at].load(Ordering::Relaxed)
        };
        let (ready, live) = (flag(0), flag(1));
        Watched {
            ready: Box::new(move || ready().then_some(()).ok_or("not\nyet".to_owned())),
            live: Box::new(move || live().then_some(()).ok_or(String::new())),
            stopping: Box::new(flag(2)),
            status: Box::new(|| "all is well".to_owned()),
        }
    }

    #[test]
    fn each_change_is_said_once_and_a_status_now_and_then() {
        let flags = Arc::new(Flags(Default::default()));
        let watched = watched(&flags);
        let (mut told, begin) = (Told::default(), clock::now());
        let mut at = |ms| told.next(&watched, None, false, begin + Duration::from_millis(ms));
        assert_eq!(at(0), "STATUS=not yet\n");
        assert_eq!(at(9_999), "");
        flags.0[0].store(true, Ordering::Relaxed);
        assert_eq!(at(10_000), "READY=1\nSTATUS=all is well\n");
        assert_eq!(at(10_100), "");
        assert_eq!(at(20_000), "STATUS=all is well\n");
        flags.0[0].store(false, Ordering::Relaxed);
        assert_eq!(at(20_100), "STATUS=not yet\n");
        flags.0[2].store(true, Ordering::Relaxed);
        assert!(at(20_200).starts_with("STOPPING=1\n"));
        assert_eq!(at(40_000), "");
    }

    #[test]
    fn a_watchdog_hears_of_a_live_process_twice_as_often_as_it_wants_to_and_of_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        let silence = Duration::from_millis(500);
        listening.set_read_timeout(Some(silence)).unwrap();
        let flags = Arc::new(Flags(Default::default()));
        flags.0[1].store(true, Ordering::Relaxed);
        let watchdog = Some(Duration::from_millis(200));
        let manager = Manager::at(path.as_os_str(), watchdog).unwrap();
        let notifier = Notifier::to(manager, watched(&flags)).unwrap();
        let hear = || {
            let mut buffer = [0; 1024];
            let length = listening.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        };
        let begin = clock::now();
        assert_eq!(hear().unwrap(), "STATUS=not yet\nWATCHDOG=1\n");
        for _ in 0..5 {
            assert_eq!(hear().unwrap(), "WATCHDOG=1\n");
        }
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(500), "{took:?}");
        flags.0[1].store(false, Ordering::Relaxed);
        // One may have been under way.
        hear();
        assert_eq!(hear(), None, "the watchdog must hear nothing");
        notifier.stop();
        assert!(hear().unwrap().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn abstract_names_and_paths_are_addresses_and_a_manager_who_is_gone_holds_nobody() {
        let manager = Manager::at(OsStr::new("@millpond-test"), None).unwrap();
        assert_eq!(
            manager.address.as_abstract_name(),
            Some(&b"millpond-test"[..])
        );
        let manager = Manager::at(OsStr::new("no-such-directory/notify"), None).unwrap();
        assert!(manager.say("READY=1\n").is_err());
        let flags = Arc::new(Flags(Default::default()));
        Notifier::to(manager, watched(&flags)).unwrap().stop();
    }
}
