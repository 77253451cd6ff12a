//! `millpond load`: generated traffic, straight into the topic or through the HTTP edge.
//!
//! - `plan`: what the arguments ask for, checked
//! - `watching`: what comes of it meanwhile, a line a second and a picture
//! - `picture`: the same as bars for people

mod picture;
mod plan;
mod watching;

pub(super) use plan::{COUNTS_SHARE, Scenario};

use super::{ConfigArgs, UsageError, print_data, print_note, stop_at_signals};
use crate::config::checked::{Kafka, Secret};
use crate::load::http::{self, HttpSummary, Target};
use crate::load::tally::Tally;
use crate::load::watch::{Source, Watched};
use crate::load::{self, Pace, Summary, Traffic};
use crate::observe::log;
use crate::observe::recorder::SharedCounter;
use crate::sync::Ordering;
use indicatif::{ProgressBar, ProgressStyle};
use plan::Choice;
use serde::Serialize;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

/// Send generated updates, to the topic or through the HTTP edge; the same seed gives the same rows and messages
///
/// For a table of yours ([table]) rows and values are made by the columns' types and paths, now and then one is null, and one in a
/// hundred messages deletes its row, where the table has deletes; --apps are the values of the column that picks the shard.
///
/// Prints one line of JSON at the end. Through the edge (--http) that has the answers by status, refusals by reason, answers
/// a second, quantiles of the delay in microseconds, requests that were sent more than 1 ms after their time (sent_late), and
/// connection errors. With a rate the loop is open: request i has its time, whatever happened to those before, and its delay
/// counts from that time to the answer. Without one it is closed ("loop":"closed"): each connection sends its next request
/// when it has an answer, so delays leave out what would have waited. Requests without a whole answer are `lost`: they may
/// have been taken, and are not sent again.
///
/// With --watch, one line of JSON a second before that: messages sent a second, delays of the requests answered in it, queue
/// (messages between the group's committed offsets and the end), lag by shard, time lag (age of the first message that is not
/// committed), rows written a second by each shard's own statistics (up to a second late). It goes on until the consumer
/// group has caught up. A picture of it goes to stderr at the end, and stands there all the time on a terminal.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// How messages are spread over rows, or a spike
    #[arg(long, value_enum, default_value = "uniform")]
    scenario: Choice,
    /// How many messages [default: 1000000; with a spike, what rate and seconds make]
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Messages a second; each is stamped with the time at which it was due, and a missed rate is said. Without it, as fast
    /// as they are taken. With a spike, the normal rate [default: 2000]
    #[arg(long, value_name = "R")]
    rate: Option<NonZeroU32>,
    /// With spike: how long ten times the rate lasts [default: 60]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    spike_seconds: Option<u32>,
    /// With spike: how long the normal rate lasts before, and as long again after [default: 30]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    calm_seconds: Option<u32>,
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
    /// Make shorter values that many bytes long, by a tag of random text that the row keeps. Those above
    /// consumer.message_max_bytes are dead letters [default: as they are, about 150 bytes]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    value_bytes: usize,
    /// How many of the messages can't be applied, for each reason in turn
    #[arg(long, value_name = "N", default_value_t = 0)]
    broken: u64,
    /// Let some of the broken ones be larger than message_max_bytes
    #[arg(long)]
    broken_too_large: bool,
    /// Through the edge at this address, http://HOST:PORT, instead of Kafka. Of the messages it takes tags, counts, links of
    /// emails and mirrored updates; devices and unknown keys are left out
    #[arg(long, value_name = "URL", conflicts_with_all = ["broken", "broken_too_large", "value_bytes"])]
    http: Option<String>,
    /// With --http: keep-alive connections
    #[arg(long, value_name = "N", default_value_t = 64, requires = "http",
        value_parser = clap::value_parser!(u16).range(1..=4_096))]
    connections: u16,
    /// With --http: the bearer token [default: the first of ingest.tokens]
    #[arg(long, value_name = "T", requires = "http")]
    token: Option<String>,
    /// Watch queue, lag, time lag and writes meanwhile, and until the group has caught up
    #[arg(long)]
    watch: bool,
    /// How long after the last message to wait for the group; exit 1 if it has not caught up by then
    #[arg(long, value_name = "S", default_value_t = 300, requires = "watch")]
    watch_deadline: u32,
}

/// What was done.
#[derive(Serialize)]
#[serde(untagged)]
enum Done {
    ToKafka(Summary),
    OverHttp(Box<HttpSummary>),
}

/// The line at the end.
#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    done: Done,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<Watched>,
}

/// Sends until all is acknowledged or a signal comes, and prints what it did.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.check()?;
    let config = args.config.load()?.config;
    if let Some(table) = &config.table {
        args.check_for(table)?;
    }
    let traffic = args.traffic(&config);
    let pace = args.pace();
    let token = args.token.clone().map(Secret);
    let token = token.or_else(|| config.ingest.tokens.first().cloned());
    let target = args.http.as_ref().map(|url| Target::new(url, token));
    let target = target
        .transpose()
        .map_err(|error| UsageError(error.to_string()))?;
    log::start(&config.telemetry)?;
    let signal = stop_at_signals()?;
    let (tally, sent) = (Tally::default(), SharedCounter::default());
    let progress = progress(&args, &traffic);
    let go_on = || {
        progress.set_position(sent.get());
        !signal.load(Ordering::Relaxed)
    };
    let send = || match &target {
        None => to_kafka(&config.kafka, &traffic, pace, &sent, go_on).map(Done::ToKafka),
        Some(target) => {
            let counts = (&tally, &sent);
            let connections = args.connections.into();
            let done = http::send(target, connections, &traffic, pace, counts, go_on);
            Ok(Done::OverHttp(Box::new(done?)))
        }
    };
    let source = Source {
        sent: &sent,
        tally: target.as_ref().map(|_| &tally),
        pace,
    };
    let (done, watch) = if args.watch {
        let deadline = Duration::from_secs(args.watch_deadline.into());
        let (done, watched) = watching::during(&config, source, deadline, &signal, send)?;
        (done, Some(watched))
    } else {
        (send()?, None)
    };
    progress.finish_and_clear();
    say_troubles(&done, &traffic);
    let is_behind = watch.as_ref().is_some_and(|watched| !watched.caught_up);
    if is_behind {
        print_note("the consumer group has not caught up; is `millpond run` there?");
    }
    print_data(&serde_json::to_string(&Printed { done, watch })?)?;
    Ok(if is_behind && !signal.load(Ordering::Relaxed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Drawn on a terminal only, and not where the picture of the watch is.
fn progress(args: &Args, traffic: &Traffic) -> ProgressBar {
    if args.watch {
        return ProgressBar::hidden();
    }
    ProgressBar::new(traffic.options().messages).with_style(
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {per_sec} {eta} left")
            .expect("a template that is right"),
    )
}

fn to_kafka(
    kafka: &Kafka,
    traffic: &Traffic,
    pace: Pace,
    sent: &SharedCounter,
    go_on: impl Fn() -> bool,
) -> anyhow::Result<Summary> {
    let summary = load::send(kafka, traffic, pace, |number| {
        sent.add(number - sent.get());
        go_on()
    })?;
    sent.add(summary.messages.saturating_sub(sent.get()));
    Ok(summary)
}

/// For people; programs read the summary.
fn say_troubles(done: &Done, traffic: &Traffic) {
    match done {
        Done::ToKafka(summary) if summary.rate_missed => print_note(&format!(
            "the rate was missed: messages were up to {} ms late, so delays count that in",
            summary.behind_ms_max
        )),
        Done::ToKafka(_) => {}
        Done::OverHttp(summary) => {
            let outcome = &summary.outcome;
            if outcome.sent_late > 0 {
                print_note(&format!(
                    "{} of {} requests were sent more than 1 ms after their time, up to {} ms; delays count that in. More \
                     --connections help if the edge is waited for",
                    outcome.sent_late,
                    summary.requests,
                    outcome.late_us_max / 1_000
                ));
            }
            if let Some(trouble) = &outcome.first_trouble {
                print_note(&format!(
                    "{} of {} messages are accepted; {} requests lost, {} not sent; the first trouble: {trouble}",
                    outcome.messages,
                    traffic.options().messages,
                    outcome.lost,
                    outcome.unsent
                ));
            }
        }
    }
}
