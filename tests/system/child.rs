//! A millpond process that is ended with its test.

use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running millpond. Killed when dropped.
pub struct Process {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    /// What stderr brought so far.
    said: Arc<Mutex<Vec<u8>>>,
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
        let config = ["--config", config.to_str().unwrap()];
        Self::start_bare(&[arguments, &config].concat(), environment)
    }

    /// The same without a configuration.
    pub fn start_bare(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_saying(arguments, environment, Stdio::piped())
    }

    /// The same with a stderr that the caller reads, or doesn't.
    pub fn start_saying(
        arguments: &[&str],
        environment: &[(&str, &str)],
        stderr: impl Into<Stdio>,
    ) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn(command, stderr)
    }

    /// Starts another program, which is ended the same way.
    pub fn of(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn(command, Stdio::piped())
    }

    fn spawn(mut command: Command, stderr: impl Into<Stdio>) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().expect("the binary starts");
        // Read on threads of their own, so that a full pipe never holds the process.
        let mut out = child.stdout.take().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = said.clone();
        let stdout = std::thread::spawn(move || read_all(&mut out, &Mutex::default()));
        let stderr = child.stderr.take();
        let stderr = std::thread::spawn(move || match stderr {
            Some(mut stderr) => read_all(&mut stderr, &saying),
            None => String::new(),
        });
        Self {
            child,
            stdout: Some(stdout),
            stderr: Some(stderr),
            said,
        }
    }

    /// Its id, as /proc has it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether this stands in what stderr brought so far.
    pub fn has_said(&self, text: &str) -> bool {
        self.said().contains(text)
    }

    /// What stderr brought so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
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

/// The program. Another build of it (with the feature `faults`) may be named.
pub fn binary() -> String {
    std::env::var("MILLPOND_TEST_BINARY")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_millpond").to_owned())
}

/// Reads to the end; `so_far` is what was read up to now.
fn read_all(stream: &mut dyn Read, so_far: &Mutex<Vec<u8>>) -> String {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        so_far.lock().unwrap().extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&so_far.lock().unwrap()).into_owned()
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

/// The lines of a text that are JSON, as all of a log are.
pub fn log_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.filter_map(Result::ok).collect()
}
