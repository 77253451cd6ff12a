//! The consumer that is written first: each thread is a member of the group with a connection of its own, sends one statement
//! a message, waits for it, and commits every so many messages. perf/peers puts it beside Millpond.
//!
//! `cargo bench --bench naive -- --brokers … --topic … --group … --postgres …` goes on until it is ended.

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};
use millpond::cli::print_data;
use postgres::{Client, NoTls, Statement};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::thread;
use std::time::Duration;

const SESSION: &str = include_str!("../perf/peers_sql/session.sql");
const UPDATE: &str = include_str!("../perf/peers_sql/update.sql");
const INSERT: &str = include_str!("../perf/peers_sql/insert.sql");
const ONE: &str = include_str!("../perf/peers_sql/one.sql");

const POLL_MAX: Duration = Duration::from_millis(100);

/// Apply a topic's updates one by one
#[derive(Parser)]
struct Args {
    /// Kafka's addresses; without them nothing is done
    #[arg(long)]
    brokers: Option<String>,
    /// Where the updates are
    #[arg(long, default_value = "")]
    topic: String,
    /// Whose offsets are committed
    #[arg(long, default_value = "")]
    group: String,
    /// Where the rows are
    #[arg(long, default_value = "")]
    postgres: String,
    /// Above that of the rows, or the updates are replays
    #[arg(long, default_value_t = 1)]
    incarnation: i32,
    /// Members of the group
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Messages between two commits of a thread
    #[arg(long, default_value_t = 1000)]
    commit_every: u32,
}

#[derive(Deserialize)]
struct Update {
    app_id: String,
    subscription_id: String,
    tags: Option<Map<String, Value>>,
    counts: Option<Map<String, Value>>,
    device_type: Option<String>,
    identifier: Option<String>,
}

fn main() -> anyhow::Result<()> {
    // Cargo adds flags of its own.
    let own =
        std::env::args().filter(|argument| !["--bench", "--test"].contains(&argument.as_str()));
    let args = Args::parse_from(own);
    let Some(brokers) = &args.brokers else {
        return print_data(&Args::command().render_help().to_string());
    };
    thread::scope(|scope| {
        let members: Vec<_> = (0..args.threads)
            .map(|_| scope.spawn(|| consume(brokers, &args)))
            .collect();
        let join = |member: thread::ScopedJoinHandle<'_, _>| {
            member
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        members.into_iter().try_for_each(join)
    })
}

fn consume(brokers: &str, args: &Args) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[&args.topic])?;
    let mut table = Table::connect(&args.postgres, args.incarnation)?;
    let mut uncommitted = 0;
    loop {
        let idle = match consumer.poll(POLL_MAX) {
            Some(message) => {
                table.apply(&message?)?;
                uncommitted += 1;
                false
            }
            None => true,
        };
        if uncommitted >= args.commit_every || idle && uncommitted > 0 {
            // During a rebalance it fails: those messages come again, here or to another member.
            let _ = consumer.commit_consumer_state(CommitMode::Sync);
            uncommitted = 0;
        }
    }
}

struct Table {
    client: Client,
    update: Statement,
    insert: Statement,
}

impl Table {
    fn connect(address: &str, incarnation: i32) -> anyhow::Result<Self> {
        let mut client = Client::connect(address, NoTls)?;
        client.batch_execute(SESSION)?;
        let mut prepare = |text: &str| {
            let text = text
                .replace("{updates}", ONE)
                .replace("{incarnation}", &incarnation.to_string());
            client.prepare(&text)
        };
        let (update, insert) = (prepare(UPDATE)?, prepare(INSERT)?);
        Ok(Self {
            client,
            update,
            insert,
        })
    }

    /// A replay changes nothing: its row's fence is not below it.
    fn apply(&mut self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        let value = message.payload().context("a message without a value")?;
        let mut update: Update = serde_json::from_slice(value)?;
        let removes = update.tags.as_mut().is_some_and(empty_to_null);
        let text =
            |map: &Option<Map<String, Value>>| map.as_ref().map(serde_json::to_string).transpose();
        let (tags, counts) = (text(&update.tags)?, text(&update.counts)?);
        let (offset, ms) = (message.offset(), message.timestamp().to_millis());
        let parameters: [&(dyn postgres::types::ToSql + Sync); 9] = [
            &update.app_id,
            &update.subscription_id,
            &tags,
            &removes,
            &counts,
            &update.device_type,
            &update.identifier,
            &offset,
            &ms,
        ];
        if self.client.execute(&self.update, &parameters)? == 0 {
            self.client.execute(&self.insert, &parameters)?;
        }
        Ok(())
    }
}

/// An empty text removes a tag, as null does. Whether any is removed.
fn empty_to_null(tags: &mut Map<String, Value>) -> bool {
    for value in tags.values_mut().filter(|value| *value == "") {
        *value = Value::Null;
    }
    tags.values().any(Value::is_null)
}
