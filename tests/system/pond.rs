//! A topic, its shards as databases of their own, a configuration, and the commands on them.

use crate::child::{Ended, Process};
use crate::reading::{self, Reading};
use crate::services;
use millpond::config::{self, Config, Sources};
use millpond::ids::{AppId, Partition};
use millpond::kafka::admin::Admin;
use millpond::kafka::reader::{Reader, Span};
use postgres::{Client, NoTls};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Commands that look or make something end by then.
const COMMAND: Duration = Duration::from_secs(600);
/// A topic that can't be deleted by then stays.
const FORGET: Duration = Duration::from_secs(5);

/// What a test works on.
pub struct Pond {
    pub topic: String,
    pub config: PathBuf,
    pub admin_port: u16,
    brokers: String,
    databases: Vec<String>,
    _directory: TempDir,
}

/// A message to be produced.
pub struct Sent<'a> {
    pub partition: i32,
    pub key: Option<&'a str>,
    pub value: Option<&'a str>,
    pub headers: &'a [(&'a str, &'a str)],
}

/// A message as it was read: an update or a dead letter.
pub struct Letter {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<String>,
    headers: Vec<(String, String)>,
}

impl Letter {
    /// The last header of that name.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().rev().find(|(own, _)| own == name);
        &found.unwrap_or_else(|| panic!("no header {name}")).1
    }

    /// How many headers it has.
    pub fn headers(&self) -> usize {
        self.headers.len()
    }
}

/// The names of the shards of a pond that has two.
pub const SHARDS: [&str; 2] = ["s0", "s1"];

/// How a pond differs from the usual.
pub struct Shape {
    pub partitions: u32,
    pub shards: usize,
    pub workers: usize,
    /// More TOML, by section; a section may come again with other keys.
    pub consumer: &'static str,
    pub kafka: &'static str,
    /// Others than those that all tests share.
    pub brokers: Option<String>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            partitions: 12,
            shards: 2,
            workers: 2,
            consumer: "",
            kafka: "",
            brokers: None,
        }
    }
}

/// A variable that tells of the services.
pub fn environment(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run these tests with tests/run"))
}

/// The server that holds the databases of a shard.
pub fn server(shard: usize) -> String {
    environment(&format!("MILLPOND_TEST_POSTGRES_{shard}"))
}

impl Pond {
    /// A pond with its topic and tables made.
    pub fn new(name: &str, shape: &Shape) -> Self {
        let pond = Self::without_init(name, shape);
        let made = pond.command(&["init"]);
        assert!(made.status.success(), "{}", made.stderr);
        pond
    }

    /// A pond whose topic and tables are not there yet.
    pub fn without_init(name: &str, shape: &Shape) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let topic = format!("{name}-{}", std::process::id());
        let admin_port = free_port();
        let brokers = shape
            .brokers
            .clone()
            .unwrap_or_else(|| environment("MILLPOND_TEST_KAFKA"));
        let mut text = format!(
            "[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\ngroup = \"{topic}\"\npartitions = {}\n\
             dead_letter_topic = \"{topic}.dlq\"\n{}\n[kafka.librdkafka]\n\"session.timeout.ms\" = \"3000\"\n\
             \"heartbeat.interval.ms\" = \"500\"\n\"reconnect.backoff.max.ms\" = \"500\"\n",
            shape.partitions, shape.kafka,
        );
        let mut databases = Vec::new();
        for shard in 0..shape.shards {
            let database = format!("{}_{shard}", topic.replace('-', "_"));
            admin_client(shard)
                .batch_execute(&format!("CREATE DATABASE {database}"))
                .unwrap();
            let address = server(shard).replace("dbname=millpond", &format!("dbname={database}"));
            let (first, last) = (
                shard * 256 / shape.shards,
                (shard + 1) * 256 / shape.shards - 1,
            );
            write!(
                text,
                "[[shard]]\nname = \"s{shard}\"\napps = \"{first:02x}-{last:02x}\"\npostgres = \"{address}\"\nworkers = {}\n",
                shape.workers
            )
            .unwrap();
            databases.push(database);
        }
        write!(
            text,
            "[consumer]\n{}\n[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n",
            shape.consumer
        )
        .unwrap();
        let config = directory.path().join("millpond.toml");
        std::fs::write(&config, text).unwrap();
        Self {
            topic,
            config,
            admin_port,
            brokers,
            databases,
            _directory: directory,
        }
    }

    /// Replaces text in the configuration.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from} is not in the configuration");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// Another configuration beside the own one, with text replaced: for a process that takes another way to the services.
    pub fn detour(&self, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = std::fs::read_to_string(&self.config).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in the configuration");
            text = text.replace(from, to);
        }
        let config = self.config.with_file_name("detour.toml");
        std::fs::write(&config, text).unwrap();
        config
    }

    /// Goes to the broker's door for those with a name and a password, with further lines of librdkafka's settings.
    pub fn use_the_secure_door(&self, settings: &str) {
        self.reconfigure(
            &environment("MILLPOND_TEST_KAFKA"),
            &environment("MILLPOND_TEST_KAFKA_SECURE"),
        );
        let root = services::directory().join("tls/ca.pem");
        let door = format!(
            "[kafka.librdkafka]\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
             \"ssl.ca.location\" = \"{}\"\n{settings}",
            root.display()
        );
        self.reconfigure("[kafka.librdkafka]", &door);
    }

    /// Runs a command to its end.
    pub fn command(&self, arguments: &[&str]) -> Ended {
        self.start(arguments, &[]).wait(COMMAND)
    }

    /// Runs a command that must succeed.
    pub fn good(&self, arguments: &[&str]) -> Ended {
        let ended = self.command(arguments);
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
        ended
    }

    /// Starts a command.
    pub fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        Process::start(&self.config, arguments, environment)
    }

    /// Runs the consumer until it has caught up; its summary.
    pub fn catch_up(&self) -> Value {
        self.command(&["run", "--until-caught-up"]).json()
    }

    /// Produces messages; what was produced.
    pub fn load(&self, arguments: &[&str]) -> Value {
        self.command(&[&["load"], arguments].concat()).json()
    }

    /// Compares every row with the model, once the group has no members any more.
    pub fn verify(&self) -> Value {
        for _ in 0..200 {
            let ended = self.command(&["verify"]);
            if !ended.stderr.contains("member") {
                return ended.json_whatever();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the group keeps its members");
    }

    /// Panics unless every row is right.
    pub fn assert_exact(&self) -> Value {
        let verdict = self.verify();
        assert_eq!(verdict["ok"], true, "{verdict}");
        verdict
    }

    /// The checked configuration.
    pub fn configuration(&self) -> Config {
        let text = std::fs::read_to_string(&self.config).unwrap();
        config::load(&Sources::of_text(&text))
            .expect("a good configuration")
            .config
    }

    /// The partition of an app's messages.
    pub fn partition_of(&self, app: &str) -> i32 {
        self.configuration()
            .partitioner
            .partition_of(AppId::parse(app.as_bytes()).unwrap())
            .0
    }

    /// Produces updates, each a key and a value, onto one partition.
    pub fn produce_to(&self, partition: i32, updates: &[(String, String)]) {
        let messages: Vec<Sent<'_>> = updates
            .iter()
            .map(|(key, value)| Sent {
                partition,
                key: Some(key),
                value: Some(value),
                headers: &[],
            })
            .collect();
        self.produce(&messages);
    }

    /// Produces messages one after the other, and waits until the broker has them.
    pub fn produce(&self, messages: &[Sent<'_>]) {
        self.try_produce(messages).unwrap();
    }

    /// The same where the broker may be away for long: then nobody knows which of them it has.
    pub fn try_produce(&self, messages: &[Sent<'_>]) -> KafkaResult<()> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .create()
            .unwrap();
        for sent in messages {
            let headers = sent
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header {
                        key,
                        value: Some(*value),
                    })
                });
            let mut record: BaseRecord<'_, str, str> =
                BaseRecord::to(&self.topic).partition(sent.partition);
            record.key = sent.key;
            record.payload = sent.value;
            record.headers = (!sent.headers.is_empty()).then_some(headers);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30))
    }

    /// What the group has committed, by partition.
    pub fn committed(&self) -> Vec<Option<i64>> {
        let kafka = self.configuration().kafka;
        let admin = Admin::connect(&kafka).unwrap();
        admin
            .committed_offsets(&kafka.group, &kafka.topic, COMMAND)
            .unwrap()
    }

    /// Every dead letter.
    pub fn dead_letters(&self) -> Vec<Letter> {
        self.read(&self.configuration().kafka.dead_letter_topic)
    }

    /// Every update, those of a partition in their order.
    pub fn updates(&self) -> Vec<Letter> {
        self.read(&self.topic)
    }

    fn read(&self, topic: &str) -> Vec<Letter> {
        let kafka = self.configuration().kafka;
        let ends = Admin::connect(&kafka)
            .unwrap()
            .end_offsets(topic, Duration::from_secs(10))
            .unwrap();
        let spans: Vec<Span> = (0..)
            .zip(ends)
            .map(|(at, end)| Span {
                partition: Partition(at),
                start: 0,
                end,
            })
            .collect();
        let mut reader = Reader::open(&kafka, topic, &spans).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut letters = Vec::new();
        while let Some(message) = reader.next(Duration::from_secs(10)) {
            let message = message.unwrap();
            let headers = message
                .headers()
                .map(|(name, value)| (name.to_owned(), text(value.unwrap_or_default())));
            letters.push(Letter {
                partition: message.partition().0,
                key: message.key().map(text),
                value: message.value().map(text),
                headers: headers.collect(),
            });
        }
        letters
    }

    /// Deletes the topic of updates and waits until it is gone.
    pub fn delete_topics(&self) {
        let admin = Admin::connect(&self.configuration().kafka).unwrap();
        admin
            .delete_topic(&self.topic, Duration::from_secs(10))
            .unwrap();
        self.wait_for("the topic is gone", Duration::from_secs(30), |pond| {
            admin
                .topic_partitions(&pond.topic, Duration::from_secs(10))
                .unwrap()
                .is_none()
        });
    }

    /// A connection to a shard's database.
    pub fn shard(&self, shard: usize) -> Client {
        Client::connect(&self.address(shard), NoTls).unwrap()
    }

    /// Where a shard's database is.
    pub fn address(&self, shard: usize) -> String {
        let database = format!("dbname={}", self.databases[shard]);
        server(shard).replace("dbname=millpond", &database)
    }

    /// The answer of the running consumer's admin address.
    pub fn admin(&self, path: &str) -> Option<(u16, String)> {
        reading::ask(self.admin_port, path)
    }

    /// A metric's value, summed over its labels; `None` while the consumer isn't up.
    pub fn metric(&self, name: &str) -> Option<f64> {
        Reading::take(self.admin_port)?.sum(name)
    }

    /// Waits until a condition holds.
    pub fn wait_for(&self, what: &str, within: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = std::time::Instant::now() + within;
        while !condition(self) {
            assert!(
                std::time::Instant::now() < deadline,
                "{what}: not within {within:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Pond {
    /// A broker that was killed looks through all partitions when it starts, so that topics left behind would make it slow.
    fn forget_topics(&self) -> Option<()> {
        let text = std::fs::read_to_string(&self.config).ok()?;
        let kafka = config::load(&Sources::of_text(&text)).ok()?.config.kafka;
        let admin = Admin::connect(&kafka).ok()?;
        let rules = format!("{}.rules", kafka.topic);
        for topic in [&kafka.topic, &kafka.dead_letter_topic, &rules] {
            admin.delete_topic(topic, FORGET).ok()?;
        }
        Some(())
    }
}

impl Drop for Pond {
    fn drop(&mut self) {
        self.forget_topics();
        for (shard, database) in self.databases.iter().enumerate() {
            let _ = admin_client(shard)
                .batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)"));
        }
    }
}

/// A connection to a server, to none of the ponds' databases.
pub fn admin_client(shard: usize) -> Client {
    Client::connect(&server(shard), NoTls).expect("Postgres answers")
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
