//! `millpond inspect`: looks into the stream, and counts what is in it.

// kcat's offsets, and counts.
mod offsets;
mod report;

use self::offsets::OffsetArg;
use self::report::{GroupBy, Report};
use super::{ConfigArgs, UsageError, moment, print_data, print_note, stop_at_signals};
use crate::clock;
use crate::config::Config;
use crate::config::checked::PartitionBy;
use crate::ids::{AppId, Partition, SubscriptionId};
use crate::inspect::field::Field;
use crate::inspect::spans::{From, Range, SpansError, spans};
use crate::inspect::write::{Form, parse_format};
use crate::inspect::{self, Condition, Ended, Event, Sieve};
use crate::kafka::admin::Admin;
use crate::kafka::reader::{Message, ReadError, Reader, Span};
use crate::sync::SignalFlag;
use crate::table::Table;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

/// Output is collected so far before it is written; it is written at once when no message comes.
const BUFFER_BYTES: usize = 1 << 16;

/// Look into the stream without joining the group: print messages, filter them, count them
///
/// Reads all partitions from the beginning and follows them, unless told otherwise; what it reads stays unread for everybody
/// else, and nothing is committed. PATH is a place in the message's JSON such as tags.first_name, counts.sessions or
/// tags."name.with.dots", or header.NAME, key, value, size, timestamp, partition, offset; @key.NAME in a key that is JSON. With
/// [table] it may also be the name of a column, which stands for its path.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this app's messages; only its partition is read
    #[arg(long, value_name = "UUID", value_parser = app)]
    app: Option<AppId>,
    /// Only this subscription's messages
    #[arg(long, value_name = "UUID", value_parser = subscription)]
    subscription: Option<SubscriptionId>,
    /// Only this partition [repeatable]
    #[arg(long, value_name = "N")]
    partition: Vec<i32>,
    /// Where to begin: beginning (the default), end, stored (what the group has committed), N, -N (the last N of each partition), s@TIME; and e@TIME
    /// where to end [repeatable]. TIME is in milliseconds since 1970, RFC 3339, or so long ago, as -15m
    #[arg(short, long = "offset", value_name = "OFFSET", value_parser = offsets::parse, allow_hyphen_values = true)]
    offset: Vec<OffsetArg>,
    /// Only messages for which this holds: OP is = != < > or ~ (a regular expression) [repeatable: all must hold]
    #[arg(long = "where", num_args = 3, value_names = ["PATH", "OP", "VALUE"], allow_hyphen_values = true)]
    conditions: Vec<String>,
    /// End after so many messages
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// End where the partitions end now, instead of following them
    #[arg(short, long)]
    exit: bool,
    /// Count messages by app, subscription or PATH, instead of printing them; with [table] by row, which is all columns of the key,
    /// by a column or PATH
    #[arg(long, value_name = "app|subscription|PATH")]
    group_by: Option<String>,
    /// Count messages by Kafka timestamp in steps of so long, such as 10s, 1m, 1h; with --group-by the largest groups of each
    #[arg(long, value_name = "DURATION", value_parser = step)]
    every: Option<i64>,
    /// How many groups are printed [default: 20; 3 for each step of --every]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Print messages in kcat's format: %s value, %S its size, %R the same as 4 bytes, %k key, %K its size, %T timestamp, %h headers, %t topic, %p partition,
    /// %o offset, \n \t escapes
    #[arg(short, long, value_name = "FORMAT", conflicts_with_all = ["json", "group_by", "every"])]
    format: Option<String>,
    /// Print a JSON object a line: messages as kcat -J does, or groups
    #[arg(short = 'J', long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  The last five messages of each partition:
    millpond inspect -e -o -5
  Ten messages of an app:
    millpond inspect --app UUID --where tags.vip = true -c 10
  Who sent most in the last quarter of an hour, and one app minute by minute:
    millpond inspect -e -o s@-15m --group-by app
    millpond inspect -e -o s@-1h --app UUID --every 1m
  Where large messages are:
    millpond inspect -e --where size '>' 100000 -f '%p %o %S\\n'";

fn app(text: &str) -> Result<AppId, String> {
    AppId::parse(text.as_bytes()).ok_or_else(|| NO_UUID.to_owned())
}

fn subscription(text: &str) -> Result<SubscriptionId, String> {
    SubscriptionId::parse(text.as_bytes()).ok_or_else(|| NO_UUID.to_owned())
}

const NO_UUID: &str = "write a UUID such as 5eb5a37e-b458-11e3-ac11-000c2940e62c";

/// Milliseconds.
fn step(text: &str) -> Result<i64, String> {
    let step: Option<jiff::SignedDuration> = text.parse().ok();
    let milliseconds = step.and_then(|step| i64::try_from(step.as_millis()).ok());
    milliseconds
        .filter(|step| *step > 0)
        .ok_or_else(|| "write how long a step is, such as 10s, 1m or 1h".to_owned())
}

/// Reads and prints until the end, or until interrupted.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let plan = Plan::of(&args, &config)?;
    let stop = stop_at_signals()?;
    let admin = Admin::connect(&config.kafka)?;
    let spans = spans(&admin, &config.kafka, &plan.range).map_err(|error| match error {
        SpansError::NoPartition { .. } => UsageError(error.to_string()).into(),
        other => anyhow::Error::from(other),
    })?;
    drop(admin);
    let mut reader = Reader::open(&config.kafka, &config.kafka.topic, &spans)?;
    let begun = clock::now();
    let mut session = Session::new(&plan, &config, &spans);
    let ended = session.read(&mut reader, &stop);
    session.finish(&ended)?;
    let ended = ended?;
    if session.report.is_some() || session.wanted == 0 {
        print_note(&format!(
            "{} messages read, {} {}, in {:.1} s",
            ended.read,
            session.wanted,
            if session.report.is_some() {
                "counted"
            } else {
                "wanted"
            },
            (clock::now() - begun).as_secs_f64()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the arguments mean.
struct Plan {
    range: Range,
    sieve: Sieve,
    form: Form,
    count_max: Option<u64>,
    report: Option<(Option<GroupBy>, Option<i64>, Option<usize>)>,
}

impl Plan {
    fn of(args: &Args, config: &Config) -> Result<Self, UsageError> {
        let by = args.group_by.as_deref();
        let table = config.table.as_deref();
        if table.is_some() && (args.app.is_some() || args.subscription.is_some()) {
            let text = "--app and --subscription are for subscriptions, and the configuration has [table]: write --where COLUMN = VALUE";
            return Err(UsageError(text.to_owned()));
        }
        let by = by.map(|by| GroupBy::parse(by, args.app.is_some(), table));
        let by = by.transpose().map_err(UsageError)?;
        let form = match (&args.format, args.json) {
            (Some(format), _) => Form::Format(parse_format(format).map_err(UsageError)?),
            (None, true) => Form::Json,
            (None, false) => Form::Line,
        };
        let taken = by.as_ref().map(GroupBy::fields).unwrap_or_default();
        let conditions = conditions(args, table).map_err(UsageError)?;
        let counts = by.is_some() || args.every.is_some();
        Ok(Self {
            range: range(args, config)?,
            sieve: Sieve::new(conditions, taken),
            form,
            count_max: args.count,
            report: counts.then_some((by, args.every, args.top)),
        })
    }

    fn follows(&self) -> bool {
        !self.range.to_end && self.range.until_ms.is_none()
    }
}

fn conditions(args: &Args, table: Option<&Table>) -> Result<Vec<Condition>, String> {
    let mut conditions = Vec::new();
    conditions.extend(args.app.map(|AppId(id)| Condition::of_id("app_id", id)));
    let subscription = args.subscription;
    conditions
        .extend(subscription.map(|SubscriptionId(id)| Condition::of_id("subscription_id", id)));
    for written in args.conditions.chunks(3) {
        let [path, operator, value] = written else {
            return Err("write --where PATH OP VALUE".to_owned());
        };
        let is_time = path == "timestamp" && value.parse::<i64>().is_err() && operator != "~";
        let value = match is_time {
            true => moment::parse(value)
                .map_err(|why| format!("VALUE {value:?}: {why}, or milliseconds since 1970"))?
                .to_string(),
            false => value.clone(),
        };
        let field = Field::of_table(path, table).map_err(|error| error.to_string())?;
        conditions.push(Condition::on(field, operator, &value)?);
    }
    Ok(conditions)
}

fn range(args: &Args, config: &Config) -> Result<Range, UsageError> {
    let (mut from, mut until_ms) = (None, None);
    for offset in &args.offset {
        let again = match *offset {
            OffsetArg::From(begin) => from.replace(begin).is_some(),
            OffsetArg::Until(end_ms) => until_ms.replace(end_ms).is_some(),
        };
        if again {
            let text = "-o may say once where to begin and once, with e@, where to end";
            return Err(UsageError(text.to_owned()));
        }
    }
    let mut partitions: Vec<Partition> = args.partition.iter().copied().map(Partition).collect();
    // The rule says where an app's messages are; messages elsewhere are dead letters. --partition looks there all the same.
    if let (true, Some(app), PartitionBy::App) =
        (partitions.is_empty(), args.app, config.kafka.partition_by)
    {
        partitions.push(config.partitioner.partition_of(app));
    }
    Ok(Range {
        from: from.unwrap_or(From::Beginning),
        until_ms,
        to_end: args.exit,
        partitions,
    })
}

/// One reading, with what came of it so far.
struct Session<'p> {
    plan: &'p Plan,
    topic: &'p str,
    out: BufWriter<StdoutLock<'static>>,
    report: Option<Report>,
    progress: ProgressBar,
    wanted: u64,
    /// Whether the user was told that nothing more is there for now.
    told_quiet: bool,
    failed: Option<std::io::Error>,
}

impl<'p> Session<'p> {
    fn new(plan: &'p Plan, config: &'p Config, spans: &[Span]) -> Self {
        let report = plan.report.clone();
        let report = report.map(|(by, every_ms, top)| Report::new(by, every_ms, top));
        let progress = match report.is_some() && std::io::stderr().is_terminal() {
            true => progress(plan.follows(), spans),
            false => ProgressBar::hidden(),
        };
        Self {
            plan,
            topic: &config.kafka.topic,
            out: BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock()),
            report,
            progress,
            wanted: 0,
            told_quiet: false,
            failed: None,
        }
    }

    fn read(&mut self, reader: &mut Reader, stop: &SignalFlag) -> Result<Ended, ReadError> {
        if self.plan.count_max == Some(0) {
            let is_whole = false;
            return Ok(Ended { read: 0, is_whole });
        }
        let plan = self.plan;
        inspect::read(
            reader,
            &plan.sieve,
            plan.follows(),
            stop,
            |event| match event {
                Event::Message(message, passed) => {
                    match &mut self.report {
                        Some(report) => report.add(&plan.sieve, message, passed),
                        None => self.write(message),
                    }
                    self.wanted += 1;
                    self.go_on()
                }
                Event::Quiet => {
                    self.quiet();
                    self.go_on()
                }
                Event::Read(read) => {
                    self.progress.set_position(read);
                    ControlFlow::Continue(())
                }
            },
        )
    }

    fn write(&mut self, message: &Message<'_>) {
        let written = self.plan.form.write(&mut self.out, self.topic, message);
        self.failed = self.failed.take().or(written.err());
    }

    fn go_on(&self) -> ControlFlow<()> {
        match self.failed.is_some() || self.plan.count_max == Some(self.wanted) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn quiet(&mut self) {
        if self.report.is_none() {
            self.failed = self.failed.take().or(self.out.flush().err());
        } else if !self.told_quiet && self.plan.follows() {
            self.told_quiet = true;
            self.progress.suspend(|| {
                print_note(
                    "no more messages for now; ctrl-C prints the counts (-e ends by itself)",
                );
            });
        }
    }

    /// What was counted is printed even if the reading failed.
    fn finish(&mut self, ended: &Result<Ended, ReadError>) -> anyhow::Result<()> {
        self.progress.finish_and_clear();
        let flushed = self.out.flush();
        match self.failed.take().or(flushed.err()) {
            Some(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Some(error) => return Err(error).context("standard output can't be written to"),
            None => {}
        }
        let Some(report) = &self.report else {
            return Ok(());
        };
        if ended.is_err() && report.messages() == 0 {
            return Ok(());
        }
        match self.plan.form {
            Form::Json => report.json().iter().try_for_each(|line| print_data(line))?,
            _ => print_data(&report.text())?,
        }
        report.notes().iter().for_each(|note| print_note(note));
        Ok(())
    }
}

/// On a terminal: how far the reading is.
fn progress(follows: bool, spans: &[Span]) -> ProgressBar {
    let length = |span: &Span| u64::try_from(span.end - span.start).unwrap_or(0);
    let (bar, style) = match follows {
        true => (
            ProgressBar::new_spinner(),
            "{spinner} {human_pos} messages read, {per_sec}",
        ),
        false => (
            ProgressBar::new(spans.iter().map(length).sum()),
            "{bar:30} {human_pos} of {human_len} messages, {per_sec}, {eta} to go",
        ),
    };
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
