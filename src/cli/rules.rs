//! `millpond rules`: lists, adds and removes skip rules, over the admin address of a running consumer.

use super::admin_client::AdminArgs;
use super::table::{Format, table};
use super::{UsageError, moment, print_data, print_note};
use crate::clock;
use crate::rules::record::Target;
use crate::rules::shown::{Asked, Shown};
use jiff::Timestamp;
use std::process::ExitCode;

/// List, add and remove skip rules, over the admin address of a running consumer
///
/// A skipped update counts as finished: it changes nothing and moves no fence. A rule holds for the whole group within a
/// second, over restarts and moves of partitions, and a replay decides the same. A dead letter stays one.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    List(ListArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
}

/// List the rules, and how much each has skipped in that process
#[derive(clap::Args)]
struct ListArgs {
    /// Removed ones and those whose end time has passed, too
    #[arg(long)]
    all: bool,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Skip an app, a subscription or a parent, from now on
#[derive(clap::Args)]
struct AddArgs {
    /// The app: all its updates, unless --subscription or --parent says less
    #[arg(long, value_name = "APP_ID")]
    app: String,
    /// Only updates of this subscription
    #[arg(long, value_name = "SUBSCRIPTION_ID", conflicts_with = "parent")]
    subscription: Option<String>,
    /// Only updates that link to this subscription as their parent, and those of its own row
    #[arg(long, value_name = "SUBSCRIPTION_ID")]
    parent: Option<String>,
    /// Why; for those who find the rule later
    #[arg(long)]
    reason: String,
    /// Who makes it
    #[arg(long, env = "USER")]
    author: String,
    /// When it ends: 2026-03-01T10:00:00Z, or from now: 2h. Compared with the Kafka timestamp of each message, so that a
    /// replay decides the same; a message without one is skipped
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Take a rule back, from now on: what it skipped stays skipped
#[derive(clap::Args)]
struct RemoveArgs {
    /// The rule's id, as `rules list` shows it
    #[arg(value_name = "ID")]
    id: uuid::Uuid,
    /// Who takes it back
    #[arg(long, env = "USER")]
    author: String,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the consumer, and prints what it answers.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args),
        Command::Add(args) => add(args),
        Command::Remove(args) => remove(&args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let client = args.admin.client()?;
    let mut rules: Vec<Shown> = client.get("/api/rules")?;
    rules.retain(|rule| args.all || rule.state == "active");
    rules.sort_by(|one, other| one.created_at.cmp(&other.created_at));
    match args.format {
        Format::Json => print_data(&serde_json::to_string(&rules)?)?,
        Format::Text => print_data(&text(&rules))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: AddArgs) -> anyhow::Result<ExitCode> {
    let until = args.until.as_deref().map(|text| {
        until(text, clock::timestamp()).map_err(|why| UsageError(format!("--until: {why}")))
    });
    let asked = Asked {
        app_id: args.app,
        subscription_id: args.subscription,
        parent_id: args.parent,
        reason: args.reason,
        author: args.author,
        until: until.transpose()?.map(|until| until.to_string()),
    };
    let (subscription, parent) = (&asked.subscription_id, &asked.parent_id);
    Target::of(&asked.app_id, subscription.as_deref(), parent.as_deref()).map_err(UsageError)?;
    let client = args.admin.client()?;
    print_changed(&client.post("/api/rules", &asked)?, args.format)
}

fn remove(args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let author: String = args.author.bytes().map(escaped).collect();
    let path = format!("/api/rules?id={}&author={author}", args.id);
    let client = args.admin.client()?;
    print_changed(&client.delete(&path)?, args.format)
}

/// A byte of a query's value.
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

fn print_changed(rule: &Shown, format: Format) -> anyhow::Result<ExitCode> {
    match format {
        Format::Json => print_data(&serde_json::to_string(rule)?)?,
        Format::Text => print_data(&text(std::slice::from_ref(rule)))?,
    }
    if rule.undecided.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    print_note(&format!(
        "written, but not yet decided in the partitions {:?} of that process; look at `millpond rules list`, and at its log \
         if it stays so",
        rule.undecided
    ));
    Ok(ExitCode::FAILURE)
}

fn text(rules: &[Shown]) -> String {
    let lines = rules.iter().map(|rule| {
        let what = match (&rule.subscription_id, &rule.parent_id) {
            (Some(id), _) => format!("subscription {id}"),
            (None, Some(id)) => format!("parent {id}"),
            (None, None) => "all".to_owned(),
        };
        let from = match rule.spans.as_slice() {
            [] => "-".to_owned(),
            [span] => format!("{}:{}", span.partition, span.from),
            spans => format!("{} partitions", spans.len()),
        };
        vec![
            rule.id.clone(),
            rule.state.clone(),
            rule.app_id.clone(),
            what,
            rule.skipped.to_string(),
            from,
            rule.until.clone().unwrap_or_else(|| "-".to_owned()),
            rule.author.clone(),
            rule.reason.clone(),
        ]
    });
    table("ID STATE APP WHAT SKIPPED FROM UNTIL AUTHOR REASON", lines)
}

/// Reads `2026-03-01T10:00:00Z`, or `2h` from now.
fn until(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(until) = text.parse::<Timestamp>() {
        return Ok(until);
    }
    match moment::span(text) {
        Ok(ahead) if ahead.is_positive() => now
            .checked_add(ahead)
            .map_err(|_| format!("{text} is after all time")),
        Ok(_) => Err(format!("{text} does not lie ahead")),
        Err(_) => Err(
            "write a time with its zone, such as 2026-03-01T10:00:00Z, or how long from now, such as 2h"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_or_so_long_from_now() {
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().expect("a time");
        let shown = |text| until(text, now).map(|until| until.to_string());
        assert_eq!(shown("2h"), Ok("2026-03-01T12:00:00Z".to_owned()));
        assert_eq!(shown("1d"), Ok("2026-03-02T10:00:00Z".to_owned()));
        assert_eq!(
            shown("2026-04-01T00:00:00+02:00"),
            Ok("2026-03-31T22:00:00Z".to_owned())
        );
        for bad in ["-2h", "soon", "2026-04-01", ""] {
            assert!(until(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_author_may_be_called_anything() {
        let escaped: String = "Jon Dö&e".bytes().map(escaped).collect();
        assert_eq!(escaped, "Jon%20D%C3%B6%26e");
    }
}
