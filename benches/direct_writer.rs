//! How fast a shard can be written to at all: the consumer's own fold, parameters and statements, without Kafka, without
//! decoding, without poller. The ceiling of `run` into Postgres.
//!
//! `cargo bench --bench direct_writer -- CONFIG [OPTION]...` makes the messages of a load beforehand, splits them by shard and
//! lane as the consumer would, and lets a thread for each lane write its part over a connection of its own. Prints one
//! JSON line. The rows must be older than `kafka.incarnation` (MILLPOND_KAFKA_INCARNATION), or the updates are replays.

mod measured;

use anyhow::ensure;
use clap::{CommandFactory, Parser, ValueEnum};
use measured::{Began, load_config};
use millpond::cli::print_data;
use millpond::commit::Ring;
use millpond::config::Config;
use millpond::dispatch::Origin;
use millpond::ids::{Partition, Position, ShardIndex, SubscriptionId};
use millpond::lanes::lane_of;
use millpond::load::{self, Traffic, TrafficOptions, padding};
use millpond::observe::recorder::WorkerRecorder;
use millpond::observe::trace::Tracer;
use millpond::pipeline;
use millpond::ready::ReadySet;
use millpond::sink::pool::ShardPool;
use millpond::sink::rate::WriteRates;
use millpond::sink::shape::SUBSCRIPTION;
use millpond::sink::shard::{ShardConnection, ShardSession};
use millpond::update::{Place, Update, decode};
use millpond::worker::apply::{Applier, Shared};
use millpond::worker::fold::{Folds, Outcome};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::{iter, thread};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The share of the messages that add to counts, as `millpond load` has it.
const COUNTS_SHARE: f64 = 0.2;

/// Write the messages of a load straight into the shards
#[derive(Parser)]
struct Args {
    /// Configuration file; without it nothing is done
    config: Option<PathBuf>,
    /// How messages are spread over rows
    #[arg(long, value_enum, default_value = "uniform")]
    scenario: Scenario,
    /// How many messages
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Customers' datasets
    #[arg(long, default_value_t = 1000)]
    apps: u32,
    /// Rows over all apps
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    /// Make shorter values that many bytes long, by a tag that the row keeps
    #[arg(long, default_value_t = 0)]
    value_bytes: usize,
    /// What all choices follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Every row alike
    Uniform,
    /// 30 % of the messages for one row
    Hot,
    /// One message for each row, whatever --messages says: lays the rows in
    Once,
    /// The same for the rows of load's scenario clothesly
    OnceClothesly,
}

impl Scenario {
    fn lays_rows_in(self) -> bool {
        matches!(self, Self::Once | Self::OnceClothesly)
    }
}

fn main() -> anyhow::Result<()> {
    // Cargo adds flags of its own.
    let own =
        std::env::args().filter(|argument| !["--bench", "--test"].contains(&argument.as_str()));
    let args = Args::parse_from(own);
    let Some(path) = args.config.clone() else {
        return print_data(&Args::command().render_help().to_string());
    };
    let config = load_config(path)?;
    let lanes = lanes(&args, &config);
    print_data(&write_all(&config, &lanes)?)
}

/// What one thread writes: its messages in the order of the topic.
struct Lane {
    shard: ShardIndex,
    number: usize,
    /// All values, one behind the other.
    values: Vec<u8>,
    messages: Vec<Message>,
}

struct Message {
    /// Within the lane's values.
    value: Range<usize>,
    subscription: SubscriptionId,
    partition: Partition,
    offset: i64,
}

/// The messages of the load, split as the consumer splits them: by shard, then by row.
fn lanes(args: &Args, config: &Config) -> Vec<Lane> {
    let traffic = Traffic::new(options(args), config.partitioner.clone());
    let mut lanes: Vec<Vec<Lane>> = config
        .shards
        .iter()
        .enumerate()
        .map(|(shard, of)| (0..of.workers).map(|number| lane(shard, number)).collect())
        .collect();
    let mut ends = vec![0; usize::try_from(traffic.partitions()).expect("few partitions")];
    let mut message = load::Message::default();
    let count = match args.scenario.lays_rows_in() {
        true => u64::from(traffic.rows()),
        false => args.messages,
    };
    for number in 0..count {
        let subscription = if args.scenario.lays_rows_in() {
            write_once(&traffic, config, number, &mut message)
        } else {
            traffic.write(number, &mut message);
            SubscriptionId::parse(&message.key).expect("the key of an update is its row's id")
        };
        let shard = config.partitioner.shard_of_partition(message.partition);
        let of_shard = &mut lanes[shard.0];
        let number = lane_of(subscription, of_shard.len());
        let lane = &mut of_shard[number];
        let start = lane.values.len();
        lane.values.extend(&message.value);
        let end = &mut ends[message.partition.index()];
        lane.messages.push(Message {
            value: start..lane.values.len(),
            subscription,
            partition: message.partition,
            offset: *end,
        });
        *end += 1;
    }
    lanes.into_iter().flatten().collect()
}

fn options(args: &Args) -> TrafficOptions {
    TrafficOptions {
        seed: args.seed,
        scenario: match args.scenario {
            Scenario::Hot => load::Scenario::Hot,
            Scenario::Uniform | Scenario::Once => load::Scenario::Uniform,
            Scenario::OnceClothesly => load::Scenario::Clothesly,
        },
        messages: args.messages,
        apps: args.apps,
        rows: args.rows,
        linked: None,
        counts_share: COUNTS_SHARE,
        broken: 0,
        broken_reasons: vec![],
        value_bytes_max: 0,
        value_bytes_min: args.value_bytes,
    }
}

fn lane(shard: usize, number: usize) -> Lane {
    Lane {
        shard: ShardIndex(shard),
        number,
        values: vec![],
        messages: vec![],
    }
}

/// A row with that number as rows in production are: a few tags, a count.
fn write_once(
    traffic: &Traffic,
    config: &Config,
    number: u64,
    message: &mut load::Message,
) -> SubscriptionId {
    let row = traffic.row(u32::try_from(number).expect("below the count of rows"));
    message.partition = config.partitioner.partition_of(row.app);
    let (app, subscription) = (row.app, row.subscription);
    message.value = format!(
        r#"{{"app_id":"{app}","subscription_id":"{subscription}","tags":{{"first_name":"Ada","plan":"free","language":"en","level":1}},"counts":{{"sessions":1}}}}"#
    )
    .into_bytes();
    let options = traffic.options();
    padding::pad(
        &mut message.value,
        options.value_bytes_min,
        options.seed,
        number,
    );
    subscription
}

/// Lets each lane's thread write, from a common start: figures from there to the last one's end.
fn write_all(config: &Config, lanes: &[Lane]) -> anyhow::Result<String> {
    let (_never_gives_up, abandon) = crossbeam_channel::bounded(0);
    let shared = Shared {
        rates: Arc::new(WriteRates::new(config.shards.iter().map(|_| None), 1)),
        registry: pipeline::registry(config, Tracer::default()),
        abandon,
        tunables: Arc::default(),
    };
    let pools = config.shards.iter().map(|shard| ShardPool::new(shard, 0));
    let pools = pools.collect::<Result<Vec<_>, _>>()?;
    let mut writers = vec![];
    for lane in lanes {
        let recorder = Arc::new(WorkerRecorder::new(0, lane.shard, lane.number));
        let mut connection = ShardConnection::new(
            pools[lane.shard.0].another(),
            &SUBSCRIPTION,
            config.kafka.incarnation,
        );
        connection.connect()?;
        let on_missing_row = config.consumer.on_missing_row;
        let applier = Applier::new(
            connection,
            &SUBSCRIPTION,
            on_missing_row,
            recorder.clone(),
            &shared,
        );
        writers.push((lane, applier, recorder));
    }
    let start = &Barrier::new(lanes.len() + 1);
    thread::scope(|scope| {
        let spawn = |(lane, applier, recorder)| {
            let thread = scope.spawn(move || write_lane(config, lane, applier, start));
            (thread, recorder)
        };
        let threads: Vec<_> = writers.into_iter().map(spawn).collect();
        start.wait();
        let began = Began::now();
        let (mut messages, mut rows) = (0, 0);
        for (thread, recorder) in threads {
            messages += thread.join().expect("a thread that writes doesn't panic")?;
            rows += recorder.rows_written.get();
        }
        Ok(began.ended(messages, Some(rows)))
    })
}

/// Decodes the lane's messages, waits for the start, then writes them in full batches: how many there were.
fn write_lane(
    config: &Config,
    lane: &Lane,
    mut applier: Applier,
    start: &Barrier,
) -> anyhow::Result<u64> {
    let mut updates = updates(lane).into_iter().zip(&lane.messages);
    let ready = Arc::new(ReadySet::new(1));
    let origin = Arc::new(Origin::new(Partition(0), Arc::new(Ring::new(1)), ready));
    let origins: Vec<&Arc<Origin>> =
        iter::repeat_n(&origin, config.consumer.batch_rows_max).collect();
    start.wait();
    loop {
        let batch: Vec<_> = updates.by_ref().take(origins.len()).collect();
        if batch.is_empty() {
            return Ok(lane.messages.len() as u64);
        }
        let count = batch.len();
        let mut folds = Folds::for_messages(count);
        for (number, (update, message)) in batch.into_iter().enumerate() {
            let position = Position {
                incarnation: config.kafka.incarnation,
                leader_epoch: 0,
                offset: message.offset,
            };
            folds.add(update, (position, 0, message.partition), number);
        }
        folds.sort();
        applier.apply(&mut folds, &origins[..count]);
        let is_applied = |outcome: &Outcome| matches!(outcome, Outcome::Applied);
        ensure!(
            folds.outcomes.iter().all(is_applied),
            "updates were replays: raise kafka.incarnation above that of the rows"
        );
    }
}

fn updates(lane: &Lane) -> Vec<Update<'_>> {
    let update = |message: &Message| {
        let place = Place {
            subscription: message.subscription,
            partition: message.partition,
            partitioner: None,
        };
        decode(&lane.values[message.value.clone()], &place).expect("generated updates are good")
    };
    lane.messages.iter().map(update).collect()
}
