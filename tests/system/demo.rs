//! `millpond demo`: nothing but the binary, and nothing left behind. Needs an installed Postgres, no service.

use crate::child::Process;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// With an initdb on a busy machine.
const DEMO: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

/// A folder for temporary files, so that what is left behind is seen.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        // As root, the server runs as another user, who has to come through, and to remove its folder.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(place.0.path(), mode).unwrap();
        place
    }

    fn demo(&self, arguments: &[&str]) -> Process {
        let folder = self.0.path().to_str().unwrap();
        let arguments = [&["demo"], arguments].concat();
        Process::start_bare(&arguments, &[("TMPDIR", folder)])
    }

    /// The processes whose command lines name this place.
    fn processes(&self) -> Vec<String> {
        let place = self.0.path().to_str().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let line = |process: PathBuf| std::fs::read(process.join("cmdline")).unwrap_or_default();
        processes
            .map(|process| String::from_utf8_lossy(&line(process.path())).replace('\0', " "))
            .filter(|line| line.contains(place))
            .collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Waits until nothing is left; the process itself may be gone a little before what it started.
    fn assert_left_empty(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let (processes, files) = (self.processes(), self.files());
            if processes.is_empty() && files.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {processes:?} {files:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the server of a demonstration takes connections.
    fn wait_for_server(&self) {
        let deadline = Instant::now() + DEMO;
        let is_up = |folder: &Path| {
            let socket = folder.join(".s.PGSQL.5432");
            std::os::unix::net::UnixStream::connect(socket).is_ok()
        };
        while !self.files().iter().any(|folder| is_up(folder)) {
            assert!(Instant::now() < deadline, "no server in {:?}", self.files());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!self.processes().is_empty(), "its processes are seen");
    }
}

/// Panics unless the verdict, the last line, is that all is exact.
fn assert_exact(verdict: &Value) {
    assert_eq!(verdict["ok"], true, "{verdict}");
    assert!(verdict["rows_checked"].as_u64().unwrap() > 0, "{verdict}");
    for count in ["mismatched", "missing", "extra", "unverifiable"] {
        assert_eq!(verdict[count], 0, "{verdict}");
    }
}

#[test]
fn a_demo_is_exact_and_leaves_nothing_behind() {
    let place = Place::new();
    let ended = place
        .demo(&["--messages", "20000", "--scenario", "hot"])
        .wait(DEMO);
    let verdict = ended.json();
    assert_exact(&verdict);
    assert_eq!(
        (&verdict["messages_read"], &verdict["dead_letters"]),
        (&20_000.into(), &20.into()),
        "{verdict}"
    );
    let summary: Value = serde_json::from_str(ended.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(summary["messages"], 20_000, "{summary}");
    assert_eq!(summary["dead_lettered"], 20, "{summary}");
    place.assert_left_empty();
}

#[test]
fn the_incident_as_a_demo_is_exact() {
    let place = Place::new();
    let ended = place
        .demo(&["--messages", "20000", "--scenario", "clothesly"])
        .wait(DEMO);
    assert_exact(&ended.json());
    place.assert_left_empty();
}

/// The address in "… admin address: http://ADDRESS/metrics", once something was applied there.
fn wait_until_it_works(process: &Process) {
    let deadline = Instant::now() + DEMO;
    while !process.has_said(" applied") {
        assert!(Instant::now() < deadline, "nothing is applied");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_demo_that_is_told_to_stop_verifies_what_it_did_and_leaves_nothing_behind() {
    let place = Place::new();
    let process = place.demo(&["--seconds", "600"]);
    wait_until_it_works(&process);
    let ended = process.terminate(SOON);
    assert_exact(&ended.json());
    place.assert_left_empty();
}

#[test]
fn a_demo_that_is_told_to_stop_before_it_began_proves_nothing_and_leaves_nothing_behind() {
    let place = Place::new();
    let process = place.demo(&["--seconds", "600"]);
    while place.files().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended = process.terminate(SOON);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    place.assert_left_empty();
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind() {
    let place = Place::new();
    let process = place.demo(&["--seconds", "600"]);
    place.wait_for_server();
    process.kill();
    place.assert_left_empty();
}

#[test]
fn a_demo_that_is_kept_stays_up_until_it_is_told_to_stop() {
    let place = Place::new();
    let mut process = place.demo(&["--messages", "3000", "--keep"]);
    let deadline = Instant::now() + DEMO;
    while !process.has_said("--config ") {
        assert!(process.is_running() && Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    let file = place.files()[0].join("millpond.toml");
    let lag = Process::start(&file, &["lag", "--format", "json"], &[]).wait(SOON);
    let lag: Value = lag.json();
    let ends = lag.as_array().unwrap().iter();
    let end: u64 = ends
        .map(|partition| partition["log_end_offset"].as_u64().unwrap())
        .sum();
    assert_eq!(end, 3000, "{lag}");
    assert!(process.is_running(), "it stays up");
    assert_exact(&process.terminate(SOON).json());
    place.assert_left_empty();
}
