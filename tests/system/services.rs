//! The real broker and servers, taken away from under a test and given back.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

/// Another Postgres that follows one of them, for as long as it is let. Killed when dropped.
pub struct Standby {
    service: String,
    pub port: u16,
}

impl Standby {
    /// A copy of the running server, which follows it from now on.
    pub fn of(primary: &str) -> Self {
        let output = command("standby", primary)
            .stderr(Stdio::inherit())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "tests/services standby {primary}");
        let port = String::from_utf8_lossy(&output.stdout);
        Self {
            service: format!("{primary}-standby"),
            port: port.trim().parse().expect("a port"),
        }
    }

    /// It is a primary when this returns.
    pub fn promote(&self) {
        assert!(
            run("promote", &self.service),
            "{} is not promoted",
            self.service
        );
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        run("kill", &self.service);
    }
}

fn run(verb: &str, service: &str) -> bool {
    command(verb, service).status().unwrap().success()
}

fn command(verb: &str, service: &str) -> Command {
    let mut command = tell(&directory(), verb);
    command.arg(service);
    command
}

/// The script that starts and ends services, for those of a directory.
pub fn tell(directory: &Path, verb: &str) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services");
    let mut command = Command::new(script);
    command.arg(verb).arg(directory);
    command
}
