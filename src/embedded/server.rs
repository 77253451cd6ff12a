//! A private Postgres server in a temporary directory, reachable by a unix socket there and by nobody else.
//!
//! `guard.sh` runs it and cleans up after it. The guard ends it all when its standard input closes, which happens when
//! [`Server`] is dropped and when this process dies, be it by `kill -9`. It has a process group of its own, so that Ctrl-C
//! reaches us alone and what is in flight can be finished.

use super::account::Account;
use super::{Binaries, EmbeddedError, system};
use crate::clock;
use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const GUARD: &str = include_str!("guard.sh");

/// How long making the cluster and starting the server may take: seconds, but for a disk that is busy otherwise.
const START_MAX: Duration = Duration::from_secs(120);
/// How long the end may take; an immediate shutdown takes tenths of a second. After it the guard is left behind.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Between two looks at the guard.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// So much of the server's log is shown when it doesn't start.
const SAID_BYTES_MAX: usize = 4096;

/// A running server. Ends with its directory when dropped.
pub struct Server {
    guard: Child,
    /// Open, since the guard removes it.
    log: File,
    directory: TempDir,
}

impl Server {
    /// Makes a cluster and starts its server; returns when it takes connections, or when `stop` asks to give up.
    pub fn start(
        binaries: &Binaries,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Self>, EmbeddedError> {
        let directory = tempfile::Builder::new()
            .prefix("millpond-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(system("making a temporary directory"))?;
        let shown = directory.path().display().to_string();
        let log_file = directory.path().join("server.log");
        let log =
            File::create_new(&log_file).map_err(system(format!("making a log in {shown}")))?;
        let account = Account::for_server();
        if let Some(Account { user, group }) = account {
            chown(directory.path(), Some(user), Some(group))
                .map_err(system(format!("giving {shown} to the user {user}")))?;
        }
        let guard = guard(binaries, directory.path(), &log, account)
            .map_err(system("starting /bin/sh to run Postgres"))?;
        let log = File::open(&log_file).map_err(system(format!("reading the log in {shown}")))?;
        let mut server = Self {
            guard,
            log,
            directory,
        };
        let deadline = clock::now() + START_MAX;
        while !server.is_ready() {
            if stop() {
                return Ok(None);
            }
            if !server.is_running() || clock::now() > deadline {
                return Err(EmbeddedError::NotStarted {
                    binaries: binaries.directory.clone(),
                    directory: server.directory.path().to_owned(),
                    said: server.said(),
                });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(Some(server))
    }

    /// Its connection string, in libpq's keywords, for its first database.
    pub fn address(&self) -> String {
        format!(
            "host='{}' user=millpond dbname=postgres",
            self.directory.path().display()
        )
    }

    /// Where everything of it lies, and where small files may be put that shall end with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The eighth line of this file, which the server writes for `pg_ctl`, is its state.
    fn is_ready(&self) -> bool {
        let file: PathBuf = self.directory.path().join("data/postmaster.pid");
        let state = std::fs::read_to_string(file).unwrap_or_default();
        state.lines().nth(7).map(str::trim) == Some("ready")
    }

    /// Whether the server still runs, or is being started.
    pub fn is_running(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// The end of the log.
    fn said(&mut self) -> String {
        let mut said = Vec::new();
        // Whatever can't be read is not shown.
        let _ = self.log.read_to_end(&mut said);
        let end = &said[said.len().saturating_sub(SAID_BYTES_MAX)..];
        String::from_utf8_lossy(end).trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let deadline = clock::now() + STOP_MAX;
        while self.is_running() {
            if clock::now() > deadline {
                tracing::warn!(
                    directory = %self.directory.path().display(),
                    "Postgres does not end; its guard goes on trying"
                );
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

fn guard(
    binaries: &Binaries,
    directory: &Path,
    log: &File,
    account: Option<Account>,
) -> std::io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", GUARD, "millpond-guard"])
        .args([&binaries.directory, directory])
        // The server's user may not be allowed to stand where we do.
        .current_dir(directory)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    // libpq's and the server's own variables would change what they do.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    if let Some(account) = account {
        account.takes(&mut command);
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::fs;

    /// Programs that fail as this script does.
    fn programs(folder: &Path, initdb: &str) -> Binaries {
        for (name, script) in [("initdb", initdb), ("postgres", "exit 1")] {
            let file = folder.join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        Binaries {
            directory: folder.to_owned(),
            version: (15, 0),
        }
    }

    #[test]
    fn a_server_that_does_not_start_says_why_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for initdb in ["echo no room >&2; exit 1", "echo no room"] {
            let binaries = programs(folder.path(), initdb);
            let failed = Server::start(&binaries, || false).err().unwrap();
            let EmbeddedError::NotStarted {
                directory, said, ..
            } = failed
            else {
                panic!("{failed}");
            };
            assert!(said.contains("no room"), "{said}");
            assert!(!directory.exists());
        }
    }

    #[test]
    fn giving_up_ends_a_start_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = programs(folder.path(), "pwd > \"$0.ran\"; sleep 0.2");
        // The account of the server must be able to say where it is.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let ran = folder.path().join("initdb.ran");
        let started = Server::start(&binaries, || ran.exists()).unwrap();
        assert!(started.is_none());
        let directory = fs::read_to_string(&ran).unwrap();
        assert!(directory.contains("millpond-demo-"), "{directory}");
        assert!(!Path::new(directory.trim()).exists());
    }
}
