//! The real broker and servers, taken away from under a test and given back.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The directory of the services.
pub fn directory() -> PathBuf {
    std::env::var_os("MILLPOND_TEST_DIR")
        .expect("run these tests with tests/run")
        .into()
}

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// SIGKILL; given back by starting it again: same port, same data.
    Killed,
    /// SIGSTOP; given back by SIGCONT.
    Frozen,
}

/// A service in trouble. Given back when dropped, so that a test that fails leaves nothing broken to the next one.
pub struct Trouble {
    service: &'static str,
    harm: Harm,
    ended: bool,
}

impl Trouble {
    /// Kills or freezes `kafka`, `postgres-0` or `postgres-1`, which all tests share.
    pub fn begin(service: &'static str, harm: Harm) -> Self {
        assert!(
            std::env::args().any(|argument| argument == "--test-threads=1"),
            "a test that harms the services runs with --test-threads=1; tests/run names their modules"
        );
        let verb = match harm {
            Harm::Killed => "kill",
            Harm::Frozen => "freeze",
        };
        assert!(run(verb, service), "tests/services {verb} {service}");
        Self {
            service,
            harm,
            ended: false,
        }
    }

    /// Gives the service back; it takes requests when this returns. How long that took.
    pub fn end(mut self) -> Duration {
        let began = Instant::now();
        assert!(self.undo(), "{} does not come back", self.service);
        began.elapsed()
    }

    fn undo(&mut self) -> bool {
        self.ended = true;
        match self.harm {
            Harm::Killed => run("start", self.service),
            Harm::Frozen => run("thaw", self.service),
        }
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        if !self.ended {
            self.undo();
        }
    }
}

fn run(verb: &str, service: &str) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services");
    let mut command = Command::new(script);
    command.arg(verb).arg(directory()).arg(service);
    command.status().unwrap().success()
}
