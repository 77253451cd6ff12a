//! How fast a topic can be read at all: librdkafka's batch call through this crate's own door, with the consumer's own
//! settings, and nothing done with the messages but dropping them. The ceiling of `run --sink discard`.
//!
//! `cargo bench --bench raw_read -- CONFIG` reads the configured topic once, from each partition's first record to its last,
//! under a group of its own that commits nothing, and prints one JSON line. Variables of the environment count as they do
//! for `millpond`.

mod measured;

use anyhow::{bail, ensure};
use measured::{Began, load_config};
use millpond::config::Config;
use millpond::ids::{OffsetAndEpoch, Partition};
use millpond::kafka::admin::Admin;
use millpond::kafka::consumer::{Event, GroupConsumer};
use millpond::kafka::membership::Membership;
use millpond::kafka::native::PartitionQueue;
use millpond::ready::ReadySet;
use millpond::{cli, clock};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages that a partition gives in one visit, as in the poller.
const QUANTUM: usize = 1024;
/// The longest sleep, as in the poller.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// After that long without any message the rest is not coming.
const STALLED: Duration = Duration::from_secs(30);
/// Each question to the brokers ends by then.
const TIMEOUT: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    // Cargo adds flags of its own; without a configuration there is nothing to do.
    let Some(path) = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
    else {
        return cli::print_data("usage: cargo bench --bench raw_read -- CONFIG");
    };
    let mut reading = Reading::start(&load_config(PathBuf::from(path))?)?;
    let line = reading.read_to_the_end()?;
    reading.close();
    cli::print_data(&line)
}

/// A whole topic being read.
struct Reading {
    consumer: GroupConsumer,
    ready: Arc<ReadySet>,
    /// The first offset and the end of each partition.
    extents: Vec<(i64, i64)>,
    /// By partition, once it is assigned.
    queues: Vec<Option<PartitionQueue>>,
    /// Partitions that are not read to their end.
    unfinished: usize,
    messages: u64,
}

impl Reading {
    /// Joins a new group as its only member.
    fn start(config: &Config) -> anyhow::Result<Self> {
        let (kafka, admin) = (&config.kafka, Admin::connect(&config.kafka)?);
        let firsts = admin.start_offsets(&kafka.topic, TIMEOUT)?;
        let ends = admin.end_offsets(&kafka.topic, TIMEOUT)?;
        let extents: Vec<(i64, i64)> = firsts.into_iter().zip(ends).collect();
        let membership = Membership {
            group: format!("{}.raw-read.{}", kafka.group, std::process::id()),
            number: 0,
            partitions: config.partitioner.partitions(),
        };
        let ready = Arc::new(ReadySet::new(extents.len()));
        ready.owned_by_this_thread();
        Ok(Self {
            consumer: GroupConsumer::join(kafka, &membership, ready.clone())?,
            ready,
            queues: extents.iter().map(|_| None).collect(),
            unfinished: extents.iter().filter(|(first, end)| first < end).count(),
            extents,
            messages: 0,
        })
    }

    /// Reads until every partition has given its last message: figures from the first message to the last.
    fn read_to_the_end(&mut self) -> anyhow::Result<String> {
        let (mut visits, mut began) = (vec![], None);
        let mut moved = clock::now();
        while self.unfinished > 0 {
            self.serve_group()?;
            self.ready.take(&mut visits);
            let before = self.messages;
            let round = Began::now();
            for partition in visits.drain(..) {
                self.visit(partition)?;
            }
            if self.messages > before {
                moved = clock::now();
                began.get_or_insert(round);
            } else {
                ensure!(moved.elapsed() < STALLED, "no message for {STALLED:?}");
                self.ready.sleep(SLEEP_MAX);
            }
        }
        match began {
            Some(began) => Ok(began.ended(self.messages, None)),
            None => bail!("the topic is empty"),
        }
    }

    fn serve_group(&mut self) -> anyhow::Result<()> {
        for event in self.consumer.poll_events() {
            match event {
                Event::Assigned(partitions) => self.begin(&partitions)?,
                Event::Error(error) => return Err(error.into()),
                Event::Fatal(why) => bail!("{why}"),
                Event::Revoked(_) | Event::Lost(_) => bail!("another member has joined the group"),
                Event::Committed(_) => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, partitions: &[Partition]) -> anyhow::Result<()> {
        let mut starts = vec![];
        for partition in partitions {
            self.queues[partition.index()] = Some(self.consumer.take_queue(*partition));
            let start = OffsetAndEpoch {
                offset: self.extents[partition.index()].0,
                leader_epoch: -1,
            };
            starts.push((*partition, start));
            self.ready.mark(*partition);
        }
        Ok(self.consumer.assign(&starts)?)
    }

    fn visit(&mut self, partition: Partition) -> anyhow::Result<()> {
        let Some(queue) = &mut self.queues[partition.index()] else {
            return Ok(());
        };
        let (_, end) = self.extents[partition.index()];
        let mut count = 0;
        for message in queue.read(QUANTUM) {
            if let Some(error) = message.error() {
                bail!("partition {partition}: {error}");
            }
            count += 1;
            self.unfinished -= usize::from(message.offset() + 1 == end);
        }
        self.messages += count as u64;
        if count == QUANTUM {
            self.ready.mark(partition);
        }
        Ok(())
    }

    fn close(self) {
        drop(self.queues);
        self.consumer.close();
    }
}
