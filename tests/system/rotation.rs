//! Passwords that change while the consumer runs, and roles that expire.

use crate::child::Process;
use crate::pond::{Pond, Shape, admin_client};
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const FIRST: &str = "pike-0c1e";
const SECOND: &str = "perch-5b7a";
const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";

/// A pond that is worked on as a role with a password, which stands in a file. Both shards, on whatever servers.
struct Rotated {
    /// Goes first: a role that a database still knows can't be dropped.
    pond: Option<Pond>,
    role: String,
    file: PathBuf,
}

impl Rotated {
    fn new(name: &str) -> Self {
        let shape = Shape {
            partitions: 4,
            ..Shape::default()
        };
        let pond = Pond::new(name, &shape);
        let role = pond.topic.replace('-', "_");
        let file = pond.config.with_file_name("password");
        for shard in 0..2 {
            let make = format!("CREATE ROLE {role} LOGIN PASSWORD '{FIRST}' IN ROLE with_password");
            let made = admin_client(shard).batch_execute(&make);
            // Both shards may be on one server.
            assert!(made.is_ok() || shard > 0, "{made:?}");
            let grant =
                format!("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}");
            pond.shard(shard).batch_execute(&grant).unwrap();
            let name = format!("name = \"s{shard}\"");
            pond.reconfigure(
                &name,
                &format!("{name}\npostgres_password_file = \"{}\"", file.display()),
            );
        }
        pond.reconfigure("user=postgres", &format!("user={role} sslmode=require"));
        let rotated = Self {
            pond: Some(pond),
            role,
            file,
        };
        rotated.write(FIRST);
        rotated
    }

    fn pond(&self) -> &Pond {
        self.pond.as_ref().expect("until the end")
    }

    fn write(&self, password: &str) {
        use std::os::unix::fs::PermissionsExt;
        // As one should: never half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{password}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Changes the role on every server.
    fn alter(&self, what: &str) {
        for shard in 0..2 {
            let sql = format!("ALTER ROLE {} {what}", self.role);
            admin_client(shard).batch_execute(&sql).unwrap();
        }
    }

    /// Ends all of the role's connections; how many there were.
    fn hang_up(&self) -> usize {
        let ended = |shard| {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
            admin_client(shard).query(sql, &[&self.role]).unwrap().len()
        };
        ended(0) + ended(1)
    }

    fn load(&self) {
        self.pond().load(&["--messages", "500", "--rows", "100"]);
    }

    /// Every worker has its connection.
    fn wait_until_ready(&self) {
        self.pond().wait_for("it is ready", SOON, |pond| {
            pond.admin("/readyz")
                .is_some_and(|(status, _)| status == 200)
        });
    }

    fn wait_until_applied(&self, messages: f64) {
        self.pond().wait_for("all is applied", SOON, |pond| {
            pond.metric("millpond_messages_total") == Some(messages)
        });
    }

    /// Waits until the consumer says on its page and in its log that it is not let in.
    fn wait_until_refused(&self, process: &Process) {
        let refused = "password authentication failed";
        self.pond().wait_for("it says why it waits", SOON, |pond| {
            let ready = pond.admin("/readyz");
            ready.is_some_and(|(status, why)| {
                status == 503 && why.contains(refused) && why.contains("until when it is valid")
            })
        });
        self.pond()
            .wait_for("its log says so too", SOON, |_| process.has_said(refused));
    }

    /// Ends the consumer; neither password was ever said.
    fn end(&self, process: Process) {
        let ended = process.terminate(SOON);
        assert!(ended.status.success(), "{}", ended.stderr);
        for password in [FIRST, SECOND] {
            assert!(
                !ended.stderr.contains(password),
                "the password is in the log"
            );
        }
        self.pond().assert_exact();
    }
}

impl Drop for Rotated {
    fn drop(&mut self) {
        self.pond = None;
        for shard in 0..2 {
            let _ =
                admin_client(shard).batch_execute(&format!("DROP ROLE IF EXISTS {}", self.role));
        }
    }
}

#[test]
fn a_password_that_changes_while_it_runs_is_read_again_from_its_file() {
    let rotated = Rotated::new("rotated");
    rotated.load();
    let process = rotated.pond().start(&["run"], &[]);
    rotated.wait_until_applied(500.0);
    rotated.wait_until_ready();

    // The file first, then the role: the next connection has the new one.
    rotated.write(SECOND);
    rotated.alter(&format!("PASSWORD '{SECOND}'"));
    assert!(rotated.hang_up() >= 4, "each worker has a connection");
    rotated.load();
    rotated.wait_until_applied(1000.0);

    // The role first: it is not let in until the file has it, and loses nothing.
    rotated.alter(&format!("PASSWORD '{FIRST}'"));
    rotated.hang_up();
    rotated.load();
    rotated.wait_until_refused(&process);
    rotated.write(FIRST);
    rotated.wait_until_applied(1500.0);

    // A file that is gone for a moment is waited for too. Commands need it, so this update is sent without one.
    let partition = rotated.pond().partition_of(APP);
    std::fs::remove_file(&rotated.file).unwrap();
    rotated.hang_up();
    let update = format!(r#"{{"app_id":"{APP}","subscription_id":"{APP}"}}"#);
    rotated
        .pond()
        .produce_to(partition, &[(APP.to_owned(), update)]);
    rotated.pond().wait_for("it says which file", SOON, |pond| {
        pond.admin("/readyz")
            .is_some_and(|(_, why)| why.contains("check postgres_password_file"))
    });
    rotated.write(FIRST);
    rotated.wait_until_applied(1501.0);
    rotated.end(process);
}

#[test]
fn a_role_that_has_expired_is_waited_for_and_the_reason_is_said() {
    let rotated = Rotated::new("expired");
    rotated.alter("VALID UNTIL '2020-01-01'");
    rotated.load();
    // At the start.
    let process = rotated.pond().start(&["run"], &[]);
    rotated.pond().wait_for("it says why it waits", SOON, |_| {
        process.has_said("password authentication failed")
            && process.has_said("until when it is valid")
    });
    let (status, _) = rotated.pond().admin("/readyz").unwrap();
    assert_eq!(status, 503);
    rotated.alter("VALID UNTIL 'infinity'");
    rotated.wait_until_applied(500.0);
    rotated.wait_until_ready();
    // While it runs: connections that stand go on, new ones are refused.
    rotated.alter("VALID UNTIL '2020-01-01'");
    rotated.load();
    rotated.wait_until_applied(1000.0);
    rotated.hang_up();
    rotated.load();
    rotated.wait_until_refused(&process);
    rotated.alter("VALID UNTIL 'infinity'");
    rotated.wait_until_applied(1500.0);
    rotated.end(process);
}
