//! What a process manager hears of `run` and `ingest`, over a socket of systemd's protocol.

use crate::ingest::edge::SOON;
use crate::pond::{Pond, Shape};
use crate::services::{Harm, Trouble};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// A process manager's end.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        let moment = Duration::from_millis(100);
        socket.set_read_timeout(Some(moment)).unwrap();
        Self { socket }
    }

    fn abstractly(name: &str) -> Self {
        Self::at(&SocketAddr::from_abstract_name(name).unwrap())
    }

    /// The assignments that come in that time, or until one begins like this.
    fn hear(&self, until: &str, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        let mut heard: Vec<String> = vec![];
        let mut buffer = [0; 4096];
        while Instant::now() < deadline && !heard.iter().any(|line| line.starts_with(until)) {
            if let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                heard.extend(text.lines().map(str::to_owned));
            }
        }
        heard
    }

    #[track_caller]
    fn wait_for(&self, what: &str) -> Vec<String> {
        let heard = self.hear(what, SOON);
        let found = heard.iter().any(|line| line.starts_with(what));
        assert!(found, "no {what} in {heard:?}");
        heard
    }
}

fn count(heard: &[String], line: &str) -> usize {
    heard.iter().filter(|own| *own == line).count()
}

#[test]
fn the_process_manager_hears_of_the_start_the_watchdog_and_the_end() {
    let pond = Pond::new("notify", &Shape::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let environment = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "1000000"),
    ];
    let away = Trouble::begin("postgres-1", Harm::Killed);
    let consumer = pond.start(&["run"], &environment);
    let heard = manager.wait_for("STATUS=not ready: shard s1");
    assert_eq!(count(&heard, "READY=1"), 0, "{heard:?}");
    away.end();
    manager.wait_for("READY=1");
    assert_eq!(pond.admin("/readyz").unwrap().0, 200);
    manager.wait_for("STATUS=12 partitions, lag ");
    let heard = manager.hear("STOPPING", Duration::from_secs(3));
    // One each half second.
    assert!((4..=8).contains(&count(&heard, "WATCHDOG=1")), "{heard:?}");
    assert_eq!(count(&heard, "READY=1"), 0, "{heard:?}");
    consumer.signal("-STOP");
    manager.hear("STOPPING", Duration::from_millis(200));
    let heard = manager.hear("STOPPING", Duration::from_secs(1));
    assert_eq!(heard, Vec::<String>::new());
    consumer.signal("-CONT");
    consumer.signal("-TERM");
    manager.wait_for("STOPPING=1");
    assert!(consumer.wait(SOON).status.success());
}

#[test]
fn an_edge_is_told_of_over_an_abstract_socket_and_a_socket_that_is_none_is_refused() {
    let pond = Pond::new("notify-edge", &Shape::default());
    let name = format!("millpond-{}", std::process::id());
    let manager = Manager::abstractly(&name);
    let arguments = [
        "ingest",
        "--set",
        "ingest.listen=127.0.0.1:0",
        "--set",
        "ingest.admin_listen=127.0.0.1:0",
    ];
    let edge = pond.start(&arguments, &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    let heard = manager.wait_for("STATUS=0 connections, ");
    assert_eq!(count(&heard, "READY=1"), 1, "{heard:?}");
    edge.signal("-TERM");
    let heard = manager.wait_for("STOPPING=1");
    assert_eq!(count(&heard, "WATCHDOG=1"), 0, "none was asked for");
    assert!(edge.wait(SOON).status.success());

    let ended = pond.start(&arguments, &[("NOTIFY_SOCKET", &"/".repeat(200))]);
    let ended = ended.wait(SOON);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("NOTIFY_SOCKET"), "{}", ended.stderr);
}
