//! What a demonstration runs on: Kafka and Postgres, private ones or those that were named. What it makes there has names
//! of its own, and is removed at the end.

use super::super::UsageError;
use super::super::load::Scenario;
use super::Args;
use crate::clock;
use crate::config::checked::{Kafka, PostgresAddress};
use crate::config::{self, Config};
use crate::embedded::{Binaries, Server};
use crate::kafka::admin::Admin;
use crate::kafka::mock::{self, MockCluster};
use crate::rules;
use crate::sink::connect::connect;
use anyhow::Context;
use std::fmt::Write;
use std::time::Duration;

/// Divides evenly by the shards; each shard's consumer has several to read.
pub(super) const PARTITIONS: u32 = 12;
/// Databases of one server.
const SHARDS: usize = 2;

/// No message of the traffic has as many, its frame included.
const MESSAGE_BYTES_MAX: u64 = 500;
/// How far traffic may be ahead of its readers on the mock cluster: were it all on one partition, and not compressed, none
/// of it would be dropped before it is read.
const MOCK_LAG_MAX: u64 = mock::PARTITION_BYTES_MAX / MESSAGE_BYTES_MAX;

/// Each question to the brokers at the end; what is not removed by then is told.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The services of one demonstration.
pub(super) struct Services {
    /// Of topic and group, and with underscores of the databases.
    pub name: String,
    /// Most rows of the one app have one parent.
    links_without_limit: bool,
    brokers: String,
    /// Where the databases are made, as a connection string.
    postgres: String,
    /// What was made on services that outlive us.
    databases: Vec<String>,
    topics_of: Option<Kafka>,
    /// Last, so that they are still there for what is removed before.
    pub server: Option<Server>,
    mock: Option<MockCluster>,
}

impl Services {
    /// Starts what is not named; `None` when told to stop meanwhile.
    pub fn start(
        args: &Args,
        say: impl Fn(&str),
        stop: impl Fn() -> bool,
    ) -> anyhow::Result<Option<Self>> {
        if let Some(address) = &args.postgres {
            parsed(address)?;
        }
        let mut name = "millpond-demo".to_owned();
        if args.kafka.is_some() || args.postgres.is_some() {
            write!(name, "-{}", clock::wall_ms()).expect("a String takes all");
        }
        let dead_letters = format!("{name}.dlq");
        let rules = rules::topic_of(&name);
        let mock = match &args.kafka {
            Some(_) => None,
            None => Some(MockCluster::start(&[
                (&name, PARTITIONS),
                (&dead_letters, PARTITIONS),
                (&rules, 1),
            ])?),
        };
        let brokers = match (&args.kafka, &mock) {
            (Some(brokers), _) => brokers.clone(),
            (None, mock) => mock.as_ref().map_or("", MockCluster::brokers).to_owned(),
        };
        say(&format!(
            "Kafka: {}{brokers}",
            if mock.is_some() {
                "in this process, at "
            } else {
                ""
            }
        ));
        let server = match &args.postgres {
            Some(_) => None,
            None => {
                let binaries = Binaries::find(&say)?;
                let (major, minor) = binaries.version;
                say(&format!(
                    "Postgres: {major}.{minor} of {}",
                    binaries.directory.display()
                ));
                let Some(server) = Server::start(&binaries, stop)? else {
                    return Ok(None);
                };
                Some(server)
            }
        };
        let postgres = match (&args.postgres, &server) {
            (Some(address), _) => address.clone(),
            (None, server) => server.as_ref().map(Server::address).unwrap_or_default(),
        };
        Ok(Some(Self {
            name,
            links_without_limit: matches!(args.scenario, Scenario::Clothesly),
            brokers,
            postgres,
            databases: Vec::new(),
            topics_of: None,
            server,
            mock,
        }))
    }

    /// How far traffic may be ahead of its readers.
    pub fn lag_max(&self) -> u64 {
        if self.mock.is_some() {
            MOCK_LAG_MAX
        } else {
            u64::MAX
        }
    }

    /// The configuration as a file's text.
    pub fn configuration(&self) -> String {
        let mut text = format!(
            "[kafka]\nbrokers = {}\ntopic = \"{name}\"\ngroup = \"{name}\"\npartitions = {PARTITIONS}\n",
            quoted(&self.brokers),
            name = self.name,
        );
        if self.mock.is_some() {
            // The mock answers a fetch without records after all of this time, however many come meanwhile.
            text.push_str("[kafka.librdkafka]\n\"fetch.wait.max.ms\" = \"10\"\n");
        }
        for shard in 0..SHARDS {
            let (first, last) = (shard * 256 / SHARDS, (shard + 1) * 256 / SHARDS - 1);
            let postgres = quoted(&with_database(&self.postgres, &self.database(shard)));
            write!(
                text,
                "[[shard]]\nname = \"{shard}\"\napps = \"{first:02x}-{last:02x}\"\npostgres = {postgres}\n"
            )
            .expect("a String takes all");
        }
        if self.links_without_limit {
            text.push_str("[rules]\nlinks_per_parent_max = 0\n");
        }
        text + "[consumer]\ncommit_interval_ms = 100\n[admin]\nlisten = \"127.0.0.1:0\"\n[telemetry]\nlog = \"text\"\n"
    }

    fn database(&self, shard: usize) -> String {
        format!("{}_{shard}", self.name.replace('-', "_"))
    }

    /// Makes the databases. Remembers them, and the topics that are to come, to be removed.
    pub fn make_room(&mut self, config: &Config) -> anyhow::Result<()> {
        let mut client = self.connect()?;
        for shard in 0..SHARDS {
            let database = self.database(shard);
            client
                .batch_execute(&format!("CREATE DATABASE {database}"))
                .with_context(|| format!("making database {database}"))?;
            if self.server.is_none() {
                self.databases.push(database);
            }
        }
        if self.mock.is_none() {
            self.topics_of = Some(config.kafka.clone());
        }
        Ok(())
    }

    fn connect(&self) -> anyhow::Result<crate::sink::connect::Client> {
        let address = parsed(&self.postgres)?;
        Ok(connect(&address, "millpond/demo")?)
    }

    fn remove_databases(&self) -> anyhow::Result<()> {
        if self.databases.is_empty() {
            return Ok(());
        }
        let mut client = self.connect()?;
        for database in &self.databases {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        }
        Ok(())
    }

    fn remove_topics(&self) -> anyhow::Result<()> {
        let Some(kafka) = &self.topics_of else {
            return Ok(());
        };
        let admin = Admin::connect(kafka)?;
        admin.delete_topic(&kafka.topic, REMOVE_TIMEOUT)?;
        admin.delete_topic(&kafka.dead_letter_topic, REMOVE_TIMEOUT)?;
        admin.delete_topic(&rules::topic_of(&kafka.topic), REMOVE_TIMEOUT)?;
        admin.delete_group(&kafka.group, REMOVE_TIMEOUT)?;
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for removed in [self.remove_databases(), self.remove_topics()] {
            if let Err(error) = removed {
                let name = &self.name;
                tracing::warn!("what is named {name} could not be removed: {error:#}");
            }
        }
    }
}

fn parsed(address: &str) -> Result<PostgresAddress, UsageError> {
    config::postgres_address(address)
        .map_err(|why| UsageError(format!("--postgres: found something {why}")))
}

/// The connection string with that database instead of its own; of a keyword that comes twice the last holds.
fn with_database(address: &str, database: &str) -> String {
    let is_url = address.starts_with("postgres://") || address.starts_with("postgresql://");
    let link = match (is_url, address.contains('?')) {
        (false, _) => " ",
        (true, false) => "?",
        (true, true) => "&",
    };
    format!("{address}{link}dbname={database}")
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Message;

    /// Batches of one message each would have the most bytes.
    #[test]
    fn what_the_load_may_be_ahead_fits_into_one_partition_of_the_mock_cluster() {
        const FRAME_BYTES: u64 = 100;
        let text = "[kafka]\npartitions = 12\n[[shard]]\nname = \"a\"\napps = \"00-ff\"\npostgres = \"host=127.0.0.1\"\n";
        let config = config::load(&config::Sources::of_text(text)).expect("a configuration");
        for scenario in [Scenario::Uniform, Scenario::Clothesly] {
            let traffic = super::super::traffic(scenario, 100_000, &config.config);
            let mut message = Message::default();
            let mut largest = 0;
            for number in 0..100_000 {
                traffic.write(number, &mut message);
                largest = largest.max(message.bytes() + FRAME_BYTES);
            }
            assert!(largest < MESSAGE_BYTES_MAX, "{largest}");
        }
    }

    #[test]
    fn a_database_replaces_that_of_any_connection_string() {
        for address in [
            "host=127.0.0.1 user=u dbname=mine",
            "host=127.0.0.1 user=u",
            "postgres://u@127.0.0.1:5433/mine",
            "postgresql://u@127.0.0.1",
            "postgresql://u@127.0.0.1/mine?connect_timeout=3",
        ] {
            let other = with_database(address, "demo_0");
            let parsed = config::postgres_address(&other).expect("a connection string");
            assert_eq!(parsed.driver.get_dbname(), Some("demo_0"), "{other}");
        }
    }
}
