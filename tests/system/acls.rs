//! Least privilege in Kafka: each command can do what it is for as a user with exactly the ACLs that stand in
//! `src/config/README.md`, and without one of them it says what it may not.

use crate::child::{Ended, Process};
use crate::pond::{Pond, Shape, environment};
use crate::services;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const README: &str = include_str!("../../src/config/README.md");
const PASSWORD: &str = "MILLPOND_KAFKA_LIBRDKAFKA_SASL_PASSWORD";

/// A pond that is reached through Kafka's secure door. Its topic and tables are not made yet.
struct Acls {
    pond: Pond,
    /// The configuration of whoever may do all.
    plain: String,
}

/// The lines of the documentation, each the arguments of `kafka-acls.sh --add`.
fn documented() -> Vec<&'static str> {
    let (_, below) = README.split_once("## Who may do what in Kafka\n").unwrap();
    let block = below.split("```").nth(1).unwrap();
    let lines = block.lines().filter(|line| line.starts_with("--"));
    lines.collect()
}

impl Acls {
    fn new(name: &str) -> Self {
        let shape = Shape {
            partitions: 4,
            ..Shape::default()
        };
        let pond = Pond::without_init(name, &shape);
        let plain = std::fs::read_to_string(&pond.config).unwrap();
        pond.use_the_secure_door("");
        Self { pond, plain }
    }

    /// Lets a user do what a line says, or no longer.
    fn change(&self, verb: &str, line: &str) {
        let topic = &self.pond.topic;
        let line = line
            .replace("subscription-updates", topic)
            .replace("--group millpond", &format!("--group {topic}"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services");
        let mut command = Command::new(script);
        command.arg("kafka-tool").arg(services::directory());
        command.args([
            "AclCommand",
            "--force",
            "--bootstrap-server",
            &environment("MILLPOND_TEST_KAFKA"),
            verb,
        ]);
        let output = command.args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    /// Gives the users of these names what the documentation says.
    fn grant(&self, users: &[&str]) {
        for line in documented() {
            if users
                .iter()
                .any(|user| line.contains(&format!("User:millpond-{user} ")))
            {
                self.change("--add", line);
            }
        }
    }

    fn start(&self, user: &str, arguments: &[&str]) -> Process {
        let name = format!("sasl.username=millpond-{user}");
        let password = environment("MILLPOND_TEST_PASSWORD");
        let arguments = [arguments, &["-X", &name]].concat();
        self.pond.start(&arguments, &[(PASSWORD, &password)])
    }

    fn run(&self, user: &str, arguments: &[&str]) -> Ended {
        self.start(user, arguments).wait(SOON)
    }

    fn good(&self, user: &str, arguments: &[&str]) -> Ended {
        let ended = self.run(user, arguments);
        assert!(
            ended.status.success(),
            "{user} {arguments:?}: {}",
            ended.stderr
        );
        ended
    }

    /// The command fails, and says these words.
    fn refused(&self, user: &str, arguments: &[&str], words: &str) {
        let ended = self.run(user, arguments);
        assert_eq!(
            ended.status.code(),
            Some(1),
            "{user} {arguments:?}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(words),
            "{user} {arguments:?}: {}",
            ended.stderr
        );
    }
}

impl Drop for Acls {
    /// The pond clears up after itself with the plain configuration.
    fn drop(&mut self) {
        let _ = std::fs::write(&self.pond.config, &self.plain);
    }
}

#[test]
fn each_command_needs_the_documented_acls_and_no_more() {
    let acls = Acls::new("acls");
    let denied = "authorization failed";
    acls.refused("init", &["init"], denied);
    acls.grant(&["init", "run", "read", "write", "rewind"]);
    acls.good("init", &["init"]);
    acls.refused("init", &["load", "--messages", "10"], denied);
    acls.refused("read", &["load", "--messages", "10"], denied);
    acls.good("write", &["load", "--messages", "4000", "--rows", "500"]);
    // A message that goes to the dead letters.
    let partition = 0;
    acls.pond
        .produce_to(partition, &[("no-uuid".to_owned(), "{}".to_owned())]);

    let summary = acls.good("run", &["run", "--until-caught-up"]).json();
    assert_eq!(
        (&summary["messages"], &summary["dead_lettered"]),
        (&4001.into(), &1.into()),
        "{summary}"
    );
    let lag = acls.good("read", &["lag", "--format", "json"]).json();
    assert!(
        lag.as_array()
            .unwrap()
            .iter()
            .all(|partition| partition["lag"] == 0),
        "{lag}"
    );
    let verdict = acls.good("read", &["verify"]).json();
    assert_eq!(
        (&verdict["ok"], &verdict["messages_read"]),
        (&true.into(), &4001.into()),
        "{verdict}"
    );
    acls.good("read", &["config", "check", "--connect"]);
    acls.good("read", &["inspect", "-c", "1", "-e"]);
    let letters = acls.good("read", &["dead", "list"]).stdout;
    assert!(letters.contains("bad-id"), "{letters}");

    let rewind = ["rewind", "--to", "1970-01-01T00:00:00Z", "--apply"];
    acls.refused("read", &rewind, denied);
    acls.good("rewind", &rewind);
    assert_eq!(
        acls.good("run", &["run", "--until-caught-up"]).json()["messages"],
        4001
    );
}

#[test]
fn a_consumer_that_lacks_an_acl_says_which_and_goes_on_once_it_has_it() {
    let acls = Acls::new("lacking");
    acls.grant(&["init", "run", "write"]);
    acls.good("init", &["init"]);
    acls.good("write", &["load", "--messages", "1000", "--rows", "100"]);
    let group = "--allow-principal User:millpond-run --operation Read --group millpond";
    acls.change("--remove", group);
    let process = acls.start("run", &["run"]);
    acls.pond.wait_for("it says what is missing", SOON, |_| {
        process.has_said("roup authorization failed")
    });
    acls.change("--add", group);
    acls.pond.wait_for("it goes on", SOON, |pond| {
        pond.metric("millpond_messages_total") == Some(1000.0)
    });
    assert!(process.terminate(SOON).status.success());
}
