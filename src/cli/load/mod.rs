//! `millpond load`: generated traffic, straight into the topic.

use super::{ConfigArgs, UsageError, print_data, print_note, stop_at_signals};
use crate::dead::Reason;
use crate::load::{self, Pace, Traffic, TrafficOptions, broken};
use crate::observe::log;
use crate::sync::Ordering;
use indicatif::{ProgressBar, ProgressStyle};
use std::num::NonZeroU32;
use std::process::ExitCode;

/// The share of the messages that add to counts.
pub(super) const COUNTS_SHARE: f64 = 0.2;

/// Send generated updates to the topic; the same seed gives the same rows and messages
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// How messages are spread over rows
    #[arg(long, value_enum, default_value = "uniform")]
    scenario: Scenario,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    messages: u64,
    /// Messages a second; each is stamped with the time at which it was due, and a missed rate is said. Without it, as fast
    /// as the brokers take them
    #[arg(long, value_name = "R")]
    rate: Option<NonZeroU32>,
    /// Customers' datasets
    #[arg(long, value_name = "A", default_value = "1000")]
    apps: NonZeroU32,
    /// Rows over all apps
    #[arg(long, value_name = "R", default_value = "100000")]
    rows: NonZeroU32,
    /// With clothesly: rows that have the one parent [default: 96 % of them]; the others' updates are sent once, as if a link
    /// limit were in force
    #[arg(long, value_name = "N")]
    linked: Option<NonZeroU32>,
    /// What all choices follow from
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many of the messages can't be applied, for each reason in turn
    #[arg(long, value_name = "N", default_value_t = 0)]
    broken: u64,
    /// Let some of the broken ones be larger than message_max_bytes
    #[arg(long)]
    broken_too_large: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Scenario {
    /// Every row alike
    Uniform,
    /// The n-th row gets a share in proportion to 1/n
    Zipf,
    /// 30 % of the messages for one row
    Hot,
    /// The incident: one app, 96 % of whose rows have one parent, which gets each of their updates once more; other apps
    /// besides. --rows are the one app's: 5000000 in the incident
    Clothesly,
}

impl From<Scenario> for load::Scenario {
    fn from(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Uniform => Self::Uniform,
            Scenario::Zipf => Self::Zipf,
            Scenario::Hot => Self::Hot,
            Scenario::Clothesly => Self::Clothesly,
        }
    }
}

/// Sends until all is acknowledged or a signal comes, and prints what it did.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.broken > args.messages {
        return Err(UsageError("--broken is more than --messages".to_owned()).into());
    }
    let config = args.config.load()?.config;
    log::start(config.telemetry.log)?;
    let signal = stop_at_signals()?;
    let mut broken_reasons = broken::reasons(config.kafka.partition_by, &config.partitioner);
    if args.broken_too_large {
        broken_reasons.push(Reason::TooLarge);
    }
    if let (Scenario::Clothesly, Some(links_max)) =
        (args.scenario, config.rules.links_per_parent_max)
    {
        print_note(&format!(
            "this scenario links most rows to one parent: the consumer needs rules.links_per_parent_max = 0, or it refuses \
             those links above the limit ({links_max} in this configuration)"
        ));
    }
    let options = TrafficOptions {
        seed: args.seed,
        scenario: args.scenario.into(),
        messages: args.messages,
        apps: args.apps.get(),
        rows: args.rows.get(),
        linked: args.linked.map(NonZeroU32::get),
        counts_share: COUNTS_SHARE,
        broken: args.broken,
        broken_reasons,
        value_bytes_max: config.consumer.message_max_bytes,
    };
    let traffic = Traffic::new(options, config.partitioner);
    let pace = args.rate.map_or(Pace::Free, Pace::PerSecond);
    // Drawn on a terminal only.
    let progress = ProgressBar::new(args.messages).with_style(
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {per_sec} {eta} left")
            .expect("a template that is right"),
    );
    let summary = load::send(&config.kafka, &traffic, pace, |sent| {
        progress.set_position(sent);
        !signal.load(Ordering::Relaxed)
    });
    progress.finish_and_clear();
    let summary = summary?;
    if summary.rate_missed {
        print_note(&format!(
            "the rate was missed: messages were up to {} ms late, so delays count that in",
            summary.behind_ms_max
        ));
    }
    print_data(&serde_json::to_string(&summary)?)?;
    Ok(ExitCode::SUCCESS)
}
