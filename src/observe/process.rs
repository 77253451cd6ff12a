//! What the kernel knows of this process: processor time, memory, threads, open files. Read from /proc at each call, so
//! for scrapes and summaries, not for hot paths.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// The unit of times in /proc: 100 a second is part of Linux' interface, whatever the kernel's own clock does.
const TICK: Duration = Duration::from_millis(10);
/// Threads that [`cpu_by_thread`] looks at, the oldest first: the edge may have a thread for each of 10,000 connections,
/// and a scrape must not take as long as reading them all.
const THREADS_READ_MAX: usize = 512;

/// Processor time of all threads, ended ones too, since the process began.
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("processor time is not negative"),
        u32::try_from(time.tv_nsec).expect("nanoseconds are below a second"),
    )
}

/// The machine's name; empty where the kernel doesn't tell.
pub fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Memory and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes that are mapped.
    pub virtual_bytes: u64,
    /// Bytes in RAM.
    pub resident_bytes: u64,
    /// The most bytes in RAM so far.
    pub resident_bytes_peak: u64,
    /// Threads now.
    pub threads: u64,
}

/// Memory and threads of this process.
///
/// # Errors
/// /proc is not there, or is not Linux'.
pub fn status() -> io::Result<Status> {
    let text = fs::read_to_string("/proc/self/status")?;
    let number = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .ok_or_else(|| invalid(&format!("/proc/self/status has no {name}")))
    };
    Ok(Status {
        virtual_bytes: number("VmSize")? * 1024,
        resident_bytes: number("VmRSS")? * 1024,
        resident_bytes_peak: number("VmHWM")? * 1024,
        threads: number("Threads")?,
    })
}

/// Files and sockets that are open.
///
/// # Errors
/// /proc is not there.
pub fn open_files() -> io::Result<usize> {
    // One is the directory that is being read.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// How many may be open; `None` for any number.
pub fn open_files_max() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current
}

/// Lets this process open so many files, as far as the system allows. Returns how many it may open then.
pub fn raise_file_limit(wanted: u64) -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let Some(allowed) = limit.current.filter(|current| *current < wanted) else {
        return u64::MAX;
    };
    limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current.unwrap_or(allowed),
        Err(_) => allowed,
    }
}

/// When the process began, since 1970.
///
/// # Errors
/// /proc is not there, or is not Linux'.
pub fn started() -> io::Result<Duration> {
    let since_boot = Stat::read("/proc/self/stat")?.started;
    let text = fs::read_to_string("/proc/stat")?;
    let booted_s = text
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse().ok());
    Ok(
        Duration::from_secs(booted_s.ok_or_else(|| invalid("/proc/stat has no btime"))?)
            + since_boot,
    )
}

/// Processor time of the running threads, by thread name, those of one name together.
///
/// # Errors
/// /proc is not there, or is not Linux'.
pub fn cpu_by_thread() -> io::Result<BTreeMap<String, Duration>> {
    let mut by_name = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task")?.take(THREADS_READ_MAX) {
        // A thread may end between being listed and being read.
        if let Ok(stat) = Stat::read(thread?.path().join("stat")) {
            *by_name.entry(stat.name).or_default() += stat.cpu;
        }
    }
    Ok(by_name)
}

/// A line of /proc/*/stat, as far as it is of use here.
struct Stat {
    name: String,
    cpu: Duration,
    /// After the machine's start.
    started: Duration,
}

impl Stat {
    fn read(path: impl AsRef<std::path::Path>) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        Self::parse(&text).ok_or_else(|| invalid(&format!("not a line of /proc/*/stat: {text}")))
    }

    /// The name is in parentheses and may itself hold some; the fields behind it are numbered from 3 in proc(5).
    fn parse(text: &str) -> Option<Self> {
        let (front, back) = text.rsplit_once(')')?;
        let fields = back.split_whitespace().collect::<Vec<_>>();
        let ticks = |number: usize| {
            fields
                .get(number - 3)?
                .parse::<u32>()
                .ok()
                .map(|ticks| TICK * ticks)
        };
        Some(Self {
            name: front.split_once('(')?.1.to_owned(),
            cpu: ticks(14)? + ticks(15)?,
            started: ticks(22)?,
        })
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_thread_s_name_may_hold_parentheses_and_spaces() {
        let stat =
            Stat::parse("7 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 1234 99").unwrap();
        assert_eq!(stat.name, "a) (b c");
        assert_eq!(stat.cpu, Duration::from_secs(3));
        assert_eq!(stat.started, Duration::from_millis(12_340));
    }

    #[test]
    fn the_process_knows_itself() {
        let status = status().unwrap();
        assert!(status.resident_bytes > 100_000 && status.threads >= 1);
        assert!(status.resident_bytes_peak >= status.resident_bytes);
        assert!(status.virtual_bytes > status.resident_bytes);
        let files = open_files().unwrap();
        assert!(files >= 3 && open_files_max().is_none_or(|most| most >= files as u64));
        let age_ms =
            crate::clock::wall_ms() - i64::try_from(started().unwrap().as_millis()).unwrap();
        assert!(
            (-1_000..600_000).contains(&age_ms),
            "the process began {age_ms} ms ago"
        );
    }

    #[test]
    fn work_is_counted_for_the_process_and_under_the_thread_s_name() {
        let before = cpu();
        let worker = std::thread::Builder::new().name("busy (1)".to_owned());
        let worker = worker.spawn(|| while cpu_by_thread().unwrap()["busy (1)"] < TICK * 5 {});
        worker.unwrap().join().unwrap();
        assert!(cpu() - before >= TICK * 5);
    }
}
