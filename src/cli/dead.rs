//! `millpond dead`: list, show, replay, drop.

use super::table::table;
use super::{ConfigArgs, UsageError, for_subscriptions_only, moment, print_data, print_note};
use crate::clock;
use crate::config::Config;
use crate::dead::Reason;
use crate::dead_letters::{
    self, Cut, Discard, Fate, Letter, Limits, Place, Planned, Selection, Sent, Summary,
};
use crate::ids::{AppId, Partition};
use crate::kafka::admin::Admin;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

/// List, show, replay or drop dead letters: updates that could not be applied
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Replay(ReplayArgs),
    Drop(DropArgs),
}

/// Which letters.
#[derive(clap::Args)]
struct Filters {
    /// Only this reason, such as bad-tags or database [repeatable]
    #[arg(long = "reason", value_name = "REASON", value_parser = parse_reason)]
    reasons: Vec<Reason>,
    /// Only updates that name this app
    #[arg(long, value_name = "UUID", value_parser = parse_app)]
    app: Option<AppId>,
    /// Only updates from this partition of the topic of updates
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only updates stamped then or later: RFC 3339, or how long ago, as -2h
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    since: Option<i64>,
}

impl Filters {
    fn selection(&self, places: &[Place]) -> Selection {
        Selection {
            reasons: self.reasons.clone(),
            app: self.app,
            source_partition: self.partition.map(Partition),
            since_ms: self.since,
            places: places.iter().copied().collect(),
        }
    }
}

/// List dead letters: where they lie, where they come from, and why
///
/// Reads the whole dead letter topic, without joining a group. AGE is the update's, by its Kafka timestamp.
#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filters: Filters,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// One JSON line a letter
    #[arg(long)]
    json: bool,
}

/// Show everything about one letter: headers, key and value in full
///
/// What is not UTF-8, or holds control characters, is shown as hexadecimal digits.
#[derive(clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The letter, as PARTITION:OFFSET or PARTITION OFFSET of the dead letter topic
    #[arg(value_name = "PARTITION OFFSET", required = true, num_args = 1..=2)]
    place: Vec<String>,
}

/// Send letters again, as new updates at the end of the log
///
/// Sends nothing without --apply. A replayed letter takes effect after everything that its row has had since, so letters whose
/// row holds a newer update are held back (--overwrite-newer sends them). Rows are asked as they are now: let the consumer
/// catch up first. Letters that would be refused again for what is in them are skipped (--force sends them).
///
/// The letters stay in their topic, so a second run finds them again. What the first run sent and the consumer applied, or
/// refused again, has moved its row on and is held back then. What it has not read yet is sent a second time, and so is
/// what --overwrite-newer or --force chose: counts add up twice then. A letter that is refused again comes back as a new one
/// that counts its attempts.
#[derive(clap::Args)]
struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filters: Filters,
    /// Only these letters, as PARTITION:OFFSET of the dead letter topic
    #[arg(value_name = "PARTITION:OFFSET")]
    places: Vec<Place>,
    /// Send no more than so many, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Skip letters that were replayed as often as this
    #[arg(long, value_name = "N", default_value_t = 3)]
    attempts_max: u32,
    /// Send letters whose row holds a newer update, too: also those that were replayed before, so name them or filter well
    #[arg(long)]
    overwrite_newer: bool,
    /// Send messages that will be refused again, too
    #[arg(long)]
    force: bool,
    /// Send them; otherwise it is only shown
    #[arg(long)]
    apply: bool,
}

/// Delete letters for good, from the beginning of each partition on
///
/// Kafka can delete only the beginning of a log: with a letter go all below it on its partition. `verify` learns from the
/// letters which updates were refused; without them it says that they are missing. Deletes nothing without --apply.
#[derive(clap::Args)]
struct DropArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// These letters, as PARTITION:OFFSET of the dead letter topic, and all below them on their partitions
    #[arg(value_name = "PARTITION:OFFSET", conflicts_with_all = ["before", "all"])]
    places: Vec<Place>,
    /// Those below the first letter whose update is stamped then or later: RFC 3339, or how long ago, as -30d
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true, conflicts_with = "all")]
    before: Option<i64>,
    /// All that are there now
    #[arg(long)]
    all: bool,
    /// Delete them; otherwise it is only shown
    #[arg(long)]
    apply: bool,
}

fn parse_reason(text: &str) -> Result<Reason, String> {
    Reason::parse(text).ok_or_else(|| {
        let all = Reason::ALL.map(Reason::as_str).join(", ");
        format!("the reasons are {all}")
    })
}

fn parse_app(text: &str) -> Result<AppId, String> {
    AppId::parse(text.as_bytes()).ok_or_else(|| "not a UUID".to_owned())
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args),
        Command::Show(args) => show(&args),
        Command::Replay(args) => replay(&args),
        Command::Drop(args) => drop_letters(&args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let kafka = args.config.load()?.config.kafka;
    let admin = Admin::connect(&kafka)?;
    let (mut newest, mut count) = (Vec::new(), 0usize);
    let keep_newest = |letters: &mut Vec<Summary>| {
        letters.sort_by_key(|letter| (letter.timestamp_ms, letter.partition, letter.offset));
        letters.drain(..letters.len().saturating_sub(args.limit));
    };
    dead_letters::read(&admin, &kafka, &args.filters.selection(&[]), |letter| {
        count += 1;
        newest.push(letter.summary());
        // Now and then, so that memory holds about twice what is shown.
        if newest.len() >= args.limit.saturating_mul(2).max(1000) {
            keep_newest(&mut newest);
        }
        Ok(())
    })?;
    keep_newest(&mut newest);
    newest.sort_by_key(|letter| (letter.partition, letter.offset));
    let topic = &kafka.dead_letter_topic;
    if args.json {
        for letter in &newest {
            print_data(&serde_json::to_string(letter)?)?;
        }
    } else if !newest.is_empty() {
        let header = "LETTER TOPIC PARTITION OFFSET REASON APP AGE ATTEMPTS EXPLANATION";
        let now_ms = clock::wall_ms();
        print_data(&table(
            header,
            newest.iter().map(|letter| cells(letter, now_ms)),
        ))?;
    }
    match (count, newest.len()) {
        (0, _) => print_note(&format!("no dead letters of that kind in topic {topic}")),
        (count, shown) if shown < count => print_note(&format!(
            "the newest {shown} of {count} letters in topic {topic}; --limit shows more"
        )),
        (count, _) => print_note(&format!("{count} letters in topic {topic}")),
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(letter: &Summary, now_ms: i64) -> Vec<String> {
    fn or_dash(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let reason = match (&letter.reason, &letter.sqlstate) {
        (Some(reason), Some(sqlstate)) => Some(format!("{reason}/{sqlstate}")),
        (reason, _) => reason.clone(),
    };
    let explanation = letter
        .message
        .as_deref()
        .and_then(|text| text.lines().next());
    vec![
        format!("{}:{}", letter.partition, letter.offset),
        or_dash(letter.source_topic.as_deref()),
        or_dash(letter.source_partition),
        or_dash(letter.source_offset),
        or_dash(reason),
        or_dash(letter.app_id.as_deref()),
        or_dash(letter.timestamp_ms.map(|at_ms| moment::age(at_ms, now_ms))),
        letter.attempts.to_string(),
        or_dash(explanation.map(without_controls)),
    ]
}

/// Text that comes from messages must not steer the terminal.
fn without_controls(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let place: Place = args
        .place
        .join(":")
        .parse()
        .map_err(|why| UsageError(format!("{why}, or 3 120")))?;
    let kafka = args.config.load()?.config.kafka;
    let admin = Admin::connect(&kafka)?;
    let letter = dead_letters::find(&admin, &kafka, place)?;
    print_data(&in_full(&kafka.dead_letter_topic, &letter))?;
    Ok(ExitCode::SUCCESS)
}

fn in_full(topic: &str, letter: &Letter) -> String {
    let mut text = format!("letter     {} of topic {topic}\n", letter.place);
    let timestamp = letter.timestamp_ms.map_or("-".to_owned(), moment::show);
    writeln!(text, "timestamp  {timestamp}").expect("writing to a string");
    for (name, value) in &letter.headers {
        let (name, value) = (without_controls(name), shown(value.as_deref()));
        writeln!(text, "header     {name}: {value}").expect("writing to a string");
    }
    writeln!(text, "key        {}", shown(letter.key.as_deref())).expect("writing to a string");
    text + "value      " + &shown(letter.value.as_deref())
}

/// Bytes as text if a terminal can show them, else as hexadecimal digits.
fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "(null)".to_owned();
    };
    let is_plain = |text: &&str| {
        !text
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    };
    match str::from_utf8(bytes).ok().filter(is_plain) {
        Some("") => "(no bytes)".to_owned(),
        Some(text) => text.to_owned(),
        None => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("(hex) {digits}")
        }
    }
}

fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    for_subscriptions_only(&config, "dead replay")?;
    let admin = Admin::connect(&config.kafka)?;
    let limits = Limits {
        attempts_max: args.attempts_max,
        overwrite_newer: args.overwrite_newer,
        force: args.force,
        letters_max: args.limit.unwrap_or(usize::MAX),
    };
    let selection = args.filters.selection(&args.places);
    let plan = dead_letters::plan(&admin, &config, &selection, &limits)?;
    if plan.is_empty() {
        let topic = &config.kafka.dead_letter_topic;
        print_note(&format!("no dead letters of that kind in topic {topic}"));
        return Ok(ExitCode::SUCCESS);
    }
    note_lag(&admin, &config, &plan)?;
    match dead_letters::overtaken(&plan) {
        0 => {}
        count => print_note(&format!(
            "{count} letters are held back while a later one of the same row is to be sent; --overwrite-newer sends them \
             before it, in their order"
        )),
    }
    let outcomes = if args.apply {
        dead_letters::replay(&config.kafka, &plan)?
    } else {
        vec![None; plan.len()]
    };
    let header = "LETTER PARTITION OFFSET REASON ATTEMPTS FATE";
    let lines = plan.iter().zip(&outcomes);
    print_data(&table(
        header,
        lines.map(|(planned, sent)| planned_cells(planned, sent)),
    ))?;
    print_note(&totals(&plan, &outcomes, args.apply));
    let failed = outcomes.iter().flatten().any(Result::is_err);
    Ok(ExitCode::from(u8::from(failed)))
}

/// Rows are asked as they are; what the consumer has not applied yet can't be seen in them.
fn note_lag(admin: &Admin, config: &Config, plan: &[Planned]) -> anyhow::Result<()> {
    let behind = dead_letters::partitions_behind(admin, config, plan)?;
    if !behind.is_empty() {
        let list: Vec<String> = behind.iter().map(Partition::to_string).collect();
        print_note(&format!(
            "the consumer has not caught up on partitions {}: newer updates of these rows may be in the log, which can't \
             be seen yet, and so may earlier replays",
            list.join(", ")
        ));
    }
    Ok(())
}

fn planned_cells(planned: &Planned, sent: &Option<Sent>) -> Vec<String> {
    let Planned { letter, fate, .. } = planned;
    let origin = letter.origin();
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let fate = match sent {
        None => fate.to_string(),
        Some(Ok((partition, offset))) => format!("sent to partition {partition}, offset {offset}"),
        Some(Err(why)) => format!("FAILED: {why}"),
    };
    vec![
        letter.place.to_string(),
        or_dash(origin.map(|origin| origin.partition.to_string())),
        or_dash(origin.map(|origin| origin.offset.to_string())),
        or_dash(letter.reason().map(|reason| reason.to_string())),
        letter.attempts().to_string(),
        without_controls(&fate),
    ]
}

fn totals(plan: &[Planned], outcomes: &[Option<Sent>], apply: bool) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (planned, sent) in plan.iter().zip(outcomes) {
        let what = match (sent, &planned.fate) {
            (Some(Ok(_)), _) => "sent",
            (Some(Err(_)), _) => "failed",
            (None, Fate::Send(_)) => "to send",
            (None, Fate::MovedOn(_)) => "held back",
            (None, _) => "skipped",
        };
        *counts.entry(what).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let end = if apply {
        ""
    } else {
        "; nothing was sent, --apply does it"
    };
    format!("{}{end}", counts.join(", "))
}

fn drop_letters(args: &DropArgs) -> anyhow::Result<ExitCode> {
    let what = match (args.before, args.all) {
        (Some(at_ms), _) => Discard::Before(at_ms),
        (None, true) => Discard::All,
        (None, false) if args.places.is_empty() => {
            let usage = "say which letters: --before TIME, --all, or PARTITION:OFFSET";
            return Err(UsageError(usage.to_owned()).into());
        }
        (None, false) => Discard::UpTo(args.places.clone()),
    };
    let kafka = args.config.load()?.config.kafka;
    let admin = Admin::connect(&kafka)?;
    let mut cuts = dead_letters::cuts(&admin, &kafka, &what)?;
    cuts.retain(|cut| cut.keep_from > cut.start);
    let topic = &kafka.dead_letter_topic;
    if cuts.is_empty() {
        print_note(&format!("no dead letters of that kind in topic {topic}"));
        return Ok(ExitCode::SUCCESS);
    }
    let cells = |cut: &Cut| {
        [
            i64::from(cut.partition.0),
            cut.start,
            cut.keep_from,
            cut.end,
        ]
        .map(|number| number.to_string())
        .into()
    };
    print_data(&table(
        "PARTITION FROM KEEP-FROM END",
        cuts.iter().map(cells),
    ))?;
    let count: i64 = cuts.iter().map(|cut| cut.keep_from - cut.start).sum();
    if args.apply {
        dead_letters::discard(&admin, &kafka, &cuts)?;
        print_note(&format!("{count} offsets of topic {topic} deleted"));
    } else {
        print_note(&format!(
            "{count} offsets of topic {topic} would be deleted; nothing was deleted, --apply does it"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_could_steer_a_terminal_are_shown_as_digits() {
        assert_eq!(shown(None), "(null)");
        assert_eq!(shown(Some(b"")), "(no bytes)");
        assert_eq!(shown(Some("{\n\"é\": 1}".as_bytes())), "{\n\"é\": 1}");
        assert_eq!(shown(Some(b"\x1b[2J")), "(hex) 1b5b324a");
        assert_eq!(shown(Some(b"\xff\x00")), "(hex) ff00");
        assert_eq!(without_controls("a\x1bb"), "a\u{fffd}b");
    }
}
