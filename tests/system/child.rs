//! A millpond process that is ended with its test.

use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running millpond. Killed when dropped.
pub struct Process {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// What a process that has ended left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts `millpond ARGUMENTS --config FILE` with this environment besides ours.
    pub fn start(config: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // Another build of the program (with the feature `faults`) may be named.
        let named = std::env::var("MILLPOND_TEST_BINARY");
        let mut command = Command::new(named.as_deref().unwrap_or(env!("CARGO_BIN_EXE_millpond")));
        command
            .args(arguments)
            .arg("--config")
            .arg(config)
            .envs(environment.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        // Read on threads of their own, so that a full pipe never holds the process.
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let reader = |stream: &mut dyn Read| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let stdout = std::thread::spawn(move || reader(&mut out));
        let stderr = std::thread::spawn(move || reader(&mut err));
        Self {
            child,
            stdout: Some(stdout),
            stderr: Some(stderr),
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it ends by itself in that time.
    pub fn ends_within(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.is_running() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// kill -9.
    pub fn kill(mut self) -> Ended {
        let _ = self.child.kill();
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to stop, as a process manager does, and waits.
    pub fn terminate(self, within: Duration) -> Ended {
        self.signal("-TERM");
        self.wait(within)
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "kill {name}");
    }

    /// Waits until it ends by itself; panics with what it said if it doesn't in time.
    pub fn wait(mut self, within: Duration) -> Ended {
        if !self.ends_within(within) {
            let said = self.kill().stderr;
            panic!("not ended within {within:?}; it said:\n{said}");
        }
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = (self.stdout.take().unwrap(), self.stderr.take().unwrap());
        Ended {
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The JSON line on stdout; panics with what the process said if it failed.
    pub fn json(&self) -> Value {
        assert!(
            self.status.success(),
            "{}\n{}\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.json_whatever()
    }

    /// The JSON line on stdout, even if the process failed.
    pub fn json_whatever(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}\n{}", self.stderr))
    }
}
