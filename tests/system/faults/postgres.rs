//! One of the two Postgres is killed, frozen, read-only or full. The other shard's rows go on.

use super::trial::{Load, Trial, applied, down, pond};
use crate::child::Process;
use crate::pond::server;
use crate::services::{Harm, Trouble, directory};
use postgres::{Client, NoTls};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a fault is left to do its harm once it was seen.
const HARM: Duration = Duration::from_secs(3);
const DELAY: &str = "millpond_end_to_end_seconds";

/// The shard that nothing was done to goes on.
fn assert_other_goes_on(trial: &Trial) {
    trial.assert_goes_on("s0", HARM);
}

#[test]
fn a_killed_postgres_stops_its_shard_only() {
    let (mut trial, consumer) = Trial::running(pond("postgres-killed", ""), &Load::default());
    let killed = Trouble::begin("postgres-1", Harm::Killed);
    trial.wait_for("its connections are down", |now| down(now, "s1") == 2.0);
    assert_other_goes_on(&trial);
    assert_eq!(down(&trial.reading(), "s0"), 0.0);
    killed.end();
    let recovery = trial.recover();
    trial.conclude("postgres killed", "2 connections down", recovery, consumer);
}

/// While it is frozen only the other shard records delays, so the difference of two readings is the other shard's.
#[test]
fn a_frozen_postgres_leaves_the_other_shard_its_rate_and_delay() {
    let (mut trial, consumer) = Trial::running(pond("postgres-frozen", ""), &Load::default());
    let before = trial.reading();
    let usual_rate = trial.applied_within("s0", HARM / 2) / (HARM / 2).as_secs_f64();
    let usual = trial.reading().quantile_since(&before, DELAY, 0.99);
    let frozen = Trouble::begin("postgres-1", Harm::Frozen);
    // What was answered already is counted a moment later.
    std::thread::sleep(Duration::from_millis(300));
    let start = trial.reading();
    assert_other_goes_on(&trial);
    let end = trial.reading();
    let stuck = applied(&end, "s1") - applied(&start, "s1");
    assert_eq!(stuck, 0.0, "a frozen Postgres answers nothing");
    let rate = (applied(&end, "s0") - applied(&start, "s0")) / HARM.as_secs_f64();
    let delay = end.quantile_since(&start, DELAY, 0.99);
    frozen.end();
    let recovery = trial.recover();
    let observed = format!(
        "s1 applied 0 in {HARM:?}; s0 before and during: {usual_rate:.0} and {rate:.0} messages/s, p99 delay at most {:.3} \
         and {:.3} s",
        usual.unwrap(),
        delay.unwrap()
    );
    trial.conclude("postgres frozen", &observed, recovery, consumer);
}

/// Settings of a whole server, taken back when dropped.
pub struct ReadOnly(Client);

impl ReadOnly {
    pub fn begin(shard: usize) -> Self {
        let mut client = Client::connect(&server(shard), NoTls).unwrap();
        set(
            &mut client,
            "ALTER SYSTEM SET default_transaction_read_only = on",
        )
        .unwrap();
        Self(client)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let back = set(
            &mut self.0,
            "ALTER SYSTEM RESET default_transaction_read_only",
        );
        if let Err(error) = back {
            println!("the server stays read-only: {error}");
        }
    }
}

fn set(client: &mut Client, change: &str) -> Result<(), postgres::Error> {
    client.batch_execute(change)?;
    client.batch_execute("SELECT pg_reload_conf()")
}

#[test]
fn a_read_only_postgres_is_written_to_again_once_it_is_the_primary() {
    let (mut trial, consumer) = Trial::running(pond("read-only", ""), &Load::default());
    let read_only = ReadOnly::begin(1);
    trial.wait_for("its connections are given up", |now| down(now, "s1") == 2.0);
    assert_other_goes_on(&trial);
    let stuck = trial.applied_within("s1", Duration::from_millis(500));
    assert_eq!(stuck, 0.0, "nothing is written to a read-only server");
    drop(read_only);
    let recovery = trial.recover();
    let ended = trial.conclude("postgres read-only", "SQLSTATE 25006", recovery, consumer);
    assert!(
        ended.stderr.contains(r#""sqlstate":"25006""#),
        "{}",
        ended.stderr
    );
}

/// A small file system for a shard's table. Unmounted when dropped, after the pond whose table is on it.
struct SmallDisk {
    mount: PathBuf,
    tablespace: String,
    server: Client,
}

impl SmallDisk {
    /// Room for some 20,000 rows.
    const BYTES: &str = "16m";

    /// `Err`: why it can't be mounted here.
    fn mount(shard: usize) -> Result<Self, String> {
        let mount = directory().join("small-disk");
        std::fs::create_dir_all(&mount).unwrap();
        let options = format!("size={},mode=755", Self::BYTES);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&mount)
            .output();
        match mounted {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let tables = mount.join("tables");
        std::fs::create_dir(&tables).unwrap();
        // Root mounts, and Postgres runs as its own user then.
        let owned = Command::new("chown").arg("postgres:").arg(&tables).status();
        assert!(owned.unwrap().success(), "chown {}", tables.display());
        let mut server = Client::connect(&server(shard), NoTls).unwrap();
        let tablespace = format!("small_{}", std::process::id());
        let create = format!(
            "CREATE TABLESPACE {tablespace} LOCATION '{}'",
            tables.display()
        );
        server.batch_execute(&create).unwrap();
        Ok(Self {
            mount,
            tablespace,
            server,
        })
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let drop = format!("DROP TABLESPACE {}", self.tablespace);
        if let Err(error) = self.server.batch_execute(&drop) {
            println!("{drop}: {error}");
        }
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = match SmallDisk::mount(1) {
        Ok(disk) => disk,
        Err(why) => {
            println!("disk full: skipped, since no tmpfs can be mounted here: {why}");
            return;
        }
    };
    let pond = pond("disk-full", "");
    let space = &disk.tablespace;
    pond.shard(1)
        .batch_execute(&format!(
            "ALTER TABLE subscription SET TABLESPACE {space}; ALTER INDEX subscription_pkey SET TABLESPACE {space}"
        ))
        .unwrap();
    let load = Load {
        // Nearly every message makes a row, so the table grows all the time.
        rows: 200_000,
        ..Load::default()
    };
    let (trial, consumer) = Trial::running(pond, &load);
    fill_and_free(&disk, trial, consumer);
}

fn fill_and_free(disk: &SmallDisk, mut trial: Trial, consumer: Process) {
    disk.fill();
    let retries =
        |now: &crate::reading::Reading| now.sum_of("millpond_retries_total", &[("shard", "s1")]);
    trial.wait_for("writes fail", |now| retries(now) > 4.0);
    assert_other_goes_on(&trial);
    assert_eq!(
        down(&trial.reading(), "s1"),
        0.0,
        "its connections are good"
    );
    disk.free();
    let recovery = trial.recover();
    let ended = trial.conclude("disk full", "SQLSTATE 53100", recovery, consumer);
    assert!(
        ended.stderr.contains(r#""sqlstate":"53100""#),
        "{}",
        ended.stderr
    );
}
