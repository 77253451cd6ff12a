//! TLS and passwords: through the services' secure door everything works as through the other, what is wrong is told
//! apart and told what to do about, and passwords show nowhere.

use crate::child::{Ended, Process};
use crate::pond::{Pond, Shape, environment};
use crate::services;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// Commands look for Kafka for 10 s.
const REFUSED_BY: Duration = Duration::from_secs(20);
/// Where shard s1's password comes from; shard s0's comes from a file.
const DATABASE_PASSWORD: &str = "DATABASE_PASSWORD";
const KAFKA_PASSWORD: &str = "MILLPOND_KAFKA_LIBRDKAFKA_SASL_PASSWORD";
const WRONG: &str = "marlin-77d0";

/// A pond that is worked on as user secure, with TLS and SCRAM.
struct Secure {
    pond: Pond,
    /// The configuration of user postgres, who has no password.
    plain: String,
    password: String,
}

impl Secure {
    /// Topic and tables are not made yet.
    fn new(name: &str) -> Self {
        let shape = Shape {
            partitions: 4,
            ..Shape::default()
        };
        let pond = Pond::without_init(name, &shape);
        let password = environment("MILLPOND_TEST_PASSWORD");
        let plain = std::fs::read_to_string(&pond.config).unwrap();
        let root = services::directory().join("tls/ca.pem");
        let file = pond.config.with_file_name("password");
        std::fs::write(&file, format!("{password}\n")).unwrap();
        run("chmod", &["600", file.to_str().unwrap()]);

        pond.use_the_secure_door("\"sasl.username\" = \"secure\"\n");
        pond.reconfigure("host=127.0.0.1", "host=localhost");
        let verified = format!(
            "user=secure sslmode=verify-full sslrootcert={}",
            root.display()
        );
        pond.reconfigure("user=postgres", &verified);
        let secrets = [
            format!("postgres_password_file = \"{}\"", file.display()),
            format!("postgres_password_env = \"{DATABASE_PASSWORD}\""),
        ];
        for (shard, secret) in secrets.iter().enumerate() {
            let name = format!("name = \"s{shard}\"");
            pond.reconfigure(&name, &format!("{name}\n{secret}"));
            pond.shard(shard)
                .batch_execute("GRANT ALL ON SCHEMA public TO secure")
                .unwrap();
        }
        Self {
            pond,
            plain,
            password,
        }
    }

    /// Starts a command with these passwords of Kafka and shard s1.
    fn start_with(&self, arguments: &[&str], kafka: &str, database: &str) -> Process {
        let passwords = [(KAFKA_PASSWORD, kafka), (DATABASE_PASSWORD, database)];
        self.pond.start(arguments, &passwords)
    }

    fn start(&self, arguments: &[&str]) -> Process {
        self.start_with(arguments, &self.password, &self.password)
    }

    /// Runs a command that must succeed.
    fn good(&self, arguments: &[&str]) -> Ended {
        let ended = self.start(arguments).wait(SOON);
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
        self.assert_silent(&ended);
        ended
    }

    /// The command fails soon, and says these words but no password.
    fn assert_refused(&self, process: Process, words: &[&str]) {
        let began = Instant::now();
        let ended = process.wait(REFUSED_BY);
        println!("after {:?}: {}", began.elapsed(), ended.stderr.trim_end());
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{word:?}: {}", ended.stderr);
        }
        self.assert_silent(&ended);
    }

    fn assert_silent(&self, ended: &Ended) {
        self.assert_absent("standard output", &ended.stdout);
        self.assert_absent("standard error", &ended.stderr);
    }

    fn assert_absent(&self, place: &str, text: &str) {
        for password in [self.password.as_str(), WRONG] {
            assert!(!text.contains(password), "the password is in {place}");
        }
    }

    /// A root certificate that has signed nothing here.
    fn other_root(&self) -> PathBuf {
        let path = self.pond.config.with_file_name("other.pem");
        let file = path.to_str().unwrap();
        let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other \
                    -keyout /dev/null -out";
        let arguments: Vec<&str> = make.split(' ').chain([file]).collect();
        run("openssl", &arguments);
        path
    }
}

impl Drop for Secure {
    /// The pond clears up after itself with the plain configuration.
    fn drop(&mut self) {
        let _ = std::fs::write(&self.pond.config, &self.plain);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

#[test]
fn everything_works_through_tls_and_scram() {
    let secure = Secure::new("secure");
    let made = secure.good(&["init"]).stdout;
    assert!(made.contains("made"), "{made}");
    let checked = secure.good(&["config", "check", "--connect"]).stdout;
    assert!(checked.contains("shard s1: Postgres"), "{checked}");
    secure.good(&["load", "--messages", "20000", "--rows", "2000"]);
    let summary = secure.good(&["run", "--until-caught-up"]).json();
    assert_eq!(summary["messages"], 20_000, "{summary}");
    let lag = secure.good(&["lag", "--format", "json"]).json();
    let partitions = lag.as_array().unwrap();
    assert!(
        partitions.len() == 4 && partitions.iter().all(|it| it["lag"] == 0),
        "{lag}"
    );
    let verdict = secure.good(&["verify"]).json();
    assert_eq!(
        (&verdict["ok"], &verdict["messages_read"]),
        (&true.into(), &20_000.into()),
        "{verdict}"
    );
}

#[test]
fn a_password_shows_nowhere_not_even_in_the_most_talkative_log() {
    let secure = Secure::new("unseen");
    secure.good(&["init"]);
    secure.good(&["load", "--messages", "200", "--rows", "100"]);
    let passwords = [
        (KAFKA_PASSWORD, secure.password.as_str()),
        (DATABASE_PASSWORD, &secure.password),
        ("RUST_LOG", "trace"),
    ];
    let all = ["run", "-X", "debug=all"];
    let process = secure.pond.start(&all, &passwords);
    secure.pond.wait_for("everything is applied", SOON, |pond| {
        pond.metric("millpond_messages_total") == Some(200.0)
    });
    let of_process =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", process.id())).unwrap();
    assert!(
        of_process("environ").contains(&secure.password),
        "that is where it is"
    );
    secure.assert_absent("the arguments", &of_process("cmdline"));
    for path in ["/livez", "/readyz", "/metrics", "/status", "/api/status"] {
        let (_, page) = secure.pond.admin(path).expect("the admin address answers");
        secure.assert_absent(path, &page);
    }
    let ended = process.terminate(SOON);
    assert!(
        ended.stderr.contains("SCRAM-SHA-512"),
        "librdkafka tells of its login"
    );
    assert!(ended.status.success());
    secure.assert_silent(&ended);

    let shown = secure.good(&["config", "show"]).stdout;
    let hidden = |line: &&str| line.contains("sasl.password") && line.contains("(hidden)");
    assert_eq!(shown.lines().filter(hidden).count(), 1, "{shown}");
}

#[test]
fn a_password_in_the_file_or_the_arguments_is_hidden_too_and_warned_of() {
    let secure = Secure::new("warned");
    let setting = format!("sasl.password={}", secure.password);
    let database = format!("shard.s1.postgres_password={}", secure.password);
    let show = ["config", "show", "-X", &setting, "--set", &database];
    let ended = secure.good(&show);
    for place in [
        "kafka.librdkafka.sasl.password",
        "shard.s1.postgres_password",
    ] {
        let warning = format!("{place}: stands where others may read it");
        assert!(ended.stderr.contains(&warning), "{}", ended.stderr);
    }
}

#[test]
fn what_is_wrong_with_kafka_is_told_apart() {
    let secure = Secure::new("kafka-refuses");
    let brokers = environment("MILLPOND_TEST_KAFKA_SECURE");
    let here = |words: &str| format!("Kafka at {brokers} {words}");
    secure.assert_refused(
        secure.start_with(&["init"], WRONG, &secure.password),
        &[&here("refuses the login"), "Check sasl.username"],
    );
    let other_root = format!("ssl.ca.location={}", secure.other_root().display());
    secure.assert_refused(
        secure.start(&["init", "-X", &other_root]),
        &[&here("is not trusted"), "ssl.ca.location"],
    );
    let address = brokers.replace("localhost", "127.0.0.1");
    let by_address = format!("kafka.brokers={address}");
    secure.assert_refused(
        secure.start(&["init", "--set", &by_address]),
        &[
            &format!("Kafka at {address} is not trusted"),
            "names the host",
        ],
    );
    secure.assert_refused(
        secure.start(&["run", "-X", "ssl.ca.location=/no/such.pem"]),
        &["ssl.ca.location", "Correct [kafka.librdkafka]"],
    );
}

/// A password may be set while the consumer waits for it; so it does, as for a broker that is away.
#[test]
fn a_consumer_that_kafka_does_not_let_in_waits_and_says_why() {
    let secure = Secure::new("kafka-waits");
    let mut process = secure.start_with(&["run"], WRONG, &secure.password);
    secure.pond.wait_for("it says why", REFUSED_BY, |_| {
        process.has_said("refuses the login")
    });
    let (status, _) = secure.pond.admin("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(process.is_running());
    let ended = process.terminate(REFUSED_BY);
    assert!(ended.stderr.contains("Check sasl.username, sasl.password"));
    secure.assert_silent(&ended);
}

#[test]
fn what_is_wrong_with_postgres_is_told_apart() {
    let secure = Secure::new("postgres-refuses");
    secure.assert_refused(
        secure.start_with(&["init"], &secure.password, WRONG),
        &[
            "shard s1",
            "refuses the connection: password authentication failed",
            "check user, password",
        ],
    );
    let written = std::fs::read_to_string(&secure.pond.config).unwrap();
    let root = services::directory()
        .join("tls/ca.pem")
        .display()
        .to_string();
    let other = secure.other_root().display().to_string();
    // A root for Postgres alone: its keyword comes without quotes around the path.
    let (believed, not_believed) = (
        format!("sslrootcert={root}"),
        format!("sslrootcert={other}"),
    );
    let encrypted = format!("sslmode=verify-full {believed}");
    for (from, to, words) in [
        (
            believed.as_str(),
            not_believed.as_str(),
            [
                "no trusted connection to Postgres",
                "check sslmode, sslrootcert",
            ],
        ),
        (
            "host=localhost",
            "host=127.0.0.1",
            [
                "no trusted connection to Postgres at 127.0.0.1",
                "the certificate",
            ],
        ),
        (
            encrypted.as_str(),
            "sslmode=disable",
            ["refuses the connection", "no encryption"],
        ),
    ] {
        secure.pond.reconfigure(from, to);
        secure.assert_refused(secure.start(&["init"]), &words);
        std::fs::write(&secure.pond.config, &written).unwrap();
    }
    // libpq's meaning: the signature is checked, the name is not.
    secure.pond.reconfigure("verify-full", "verify-ca");
    secure.pond.reconfigure("host=localhost", "host=127.0.0.1");
    secure.good(&["init"]);
}

#[test]
fn a_shard_with_a_wrong_password_is_named_and_holds_up_no_other() {
    let secure = Secure::new("shard-refuses");
    secure.good(&["init"]);
    secure.good(&["load", "--messages", "2000", "--rows", "200"]);
    let process = secure.start_with(&["run"], &secure.password, WRONG);
    let rows = |shard: usize| -> i64 {
        let count = "SELECT count(*) FROM subscription";
        let row = secure.pond.shard(shard).query_one(count, &[]).unwrap();
        row.get(0)
    };
    secure
        .pond
        .wait_for("the other shard is written", SOON, |_| {
            rows(0) > 0 && process.has_said("a write failed and is tried again")
        });
    assert_eq!(rows(1), 0);
    let (status, why) = secure.pond.admin("/readyz").unwrap();
    assert!(
        status == 503
            && why.contains("s1: 2 of 2 connections are not up: Postgres at")
            && !why.contains("s0"),
        "{status} {why}"
    );
    let ended = process.terminate(SOON);
    let failed = |line: &&str| line.contains("a write failed") && line.contains("\"shard\":\"s1\"");
    let mut lines = ended.stderr.lines().filter(failed).peekable();
    assert!(lines.peek().is_some(), "{}", ended.stderr);
    for line in lines {
        assert!(line.contains("password authentication failed"), "{line}");
    }
    secure.assert_silent(&ended);
    secure.good(&["run", "--until-caught-up"]);
    assert_eq!(secure.good(&["verify"]).json()["ok"], true);
}
