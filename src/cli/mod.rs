//! Commands: parse, call a room, print. Data goes to stdout, everything else to stderr; a file for each subcommand.
//!
//! Exit codes: 0 done, 1 failed while running, 2 usage or configuration.

// A file for each.
mod assets;
mod config;
mod dead;
mod demo;
mod ingest;
pub(crate) mod init;
mod inspect;
mod lag;
mod load;
mod log;
mod rewind;
mod rules;
pub(crate) mod run;
mod top;
mod verify;
mod workers;
// What several of them ask, read and print.
mod admin_client;
mod moment;
mod paths;
mod reload;
mod table;

use crate::observe;
use crate::sync::SignalFlag;
use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use signal_hook::consts::TERM_SIGNALS;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Applies a Kafka stream of row updates to sharded Postgres: in order per row, nothing lost, nothing twice.
#[derive(Parser)]
#[command(name = "millpond", version, long_version = long_version(), max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Ingest(ingest::Args),
    Init(init::Args),
    Load(load::Args),
    Verify(verify::Args),
    Lag(lag::Args),
    Top(top::Args),
    Inspect(inspect::Args),
    Dead(dead::Args),
    Rewind(rewind::Args),
    Rules(rules::Args),
    Workers(workers::Args),
    Log(log::Args),
    Config(config::Args),
    Assets(assets::Args),
}

/// Parses the arguments and runs the command. 0 done, 1 failed while running, 2 usage or configuration.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Ingest(args) => ingest::run(args),
        Command::Init(args) => init::run(args),
        Command::Load(args) => load::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Lag(args) => lag::run(args),
        Command::Top(args) => top::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Dead(args) => dead::run(args),
        Command::Rewind(args) => rewind::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Workers(args) => workers::run(args),
        Command::Log(args) => log::run(args),
        Command::Config(args) => config::run(args),
        Command::Assets(args) => assets::run(args, Cli::command()),
    };
    let code = done.unwrap_or_else(|error| {
        print_note(&format!("{error:#}"));
        let is_usage = error.chain().any(|cause| cause.is::<UsageError>());
        ExitCode::from(if is_usage { 2 } else { 1 })
    });
    observe::log::end();
    code
}

/// The arguments or the configuration are wrong; makes `main` answer 2. A line for each thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Where the configuration comes from.
#[derive(clap::Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Configuration file, TOML
    #[arg(
        long,
        value_name = "FILE",
        env = "MILLPOND_CONFIG",
        default_value = "./millpond.toml"
    )]
    pub config: PathBuf,
    /// Set a key of the configuration, as `consumer.batch_rows_max=500`; beats environment and file [repeatable]
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
    /// Pass a setting to librdkafka [repeatable]
    #[arg(short = 'X', value_name = "NAME=VALUE", value_parser = key_and_value)]
    pub librdkafka: Vec<(String, String)>,
}

impl ConfigArgs {
    /// Loads and checks the configuration, prints its warnings, and asks librdkafka about its own settings.
    pub fn load(&self) -> Result<crate::config::Loaded, UsageError> {
        let environment = std::env::vars_os()
            .map(|(name, value)| [name, value].map(|text| text.to_string_lossy().into_owned()))
            .map(|[name, value]| (name, value))
            .collect();
        let loaded = crate::config::load(&crate::config::Sources {
            file: crate::config::File::At(self.config.clone()),
            environment,
            flags: self.set.clone(),
            librdkafka: self.librdkafka.clone(),
        })
        .map_err(|error| UsageError(error.to_string()))?;
        config::ask_librdkafka(&loaded)?;
        observe::log::check_level(&loaded.config.telemetry.level)
            .map_err(|error| UsageError(error.to_string()))?;
        for warning in &loaded.warnings {
            print_note(&format!("warning: {warning}"));
        }
        Ok(loaded)
    }
}

/// Ends a command that knows nothing of other tables.
fn for_subscriptions_only(config: &crate::config::Config, command: &str) -> Result<(), UsageError> {
    match &config.table {
        None => Ok(()),
        Some(table) => Err(UsageError(format!(
            "`millpond {command}` is for the table subscription only, and the configuration has [table] name = \"{}\"",
            table.name
        ))),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Writes the text and a newline to stdout. A closed pipe ends the process with 0: the reader has what it wanted.
pub fn print_data(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            observe::log::end();
            std::process::exit(0)
        }
        written => written.context("standard output can't be written to"),
    }
}

/// Writes to stderr, `millpond: ` before each line. That nobody reads it is no error.
pub fn print_note(text: &str) {
    for line in text.lines() {
        observe::log::note(&format!("millpond: {line}\n"));
    }
}

/// A flag that SIGTERM, SIGINT and SIGQUIT set. A second signal ends the process at once.
fn stop_at_signals() -> anyhow::Result<Arc<SignalFlag>> {
    let signal = Arc::new(SignalFlag::new(false));
    set_at_signals(&signal)?;
    Ok(signal)
}

/// The same with a flag that others set too.
pub(crate) fn set_at_signals(signal: &Arc<SignalFlag>) -> std::io::Result<()> {
    for kind in TERM_SIGNALS {
        signal_hook::flag::register_conditional_shutdown(*kind, 1, signal.clone())?;
        signal_hook::flag::register(*kind, signal.clone())?;
    }
    Ok(())
}

/// Made once in a process, so it may stay in memory.
fn long_version() -> &'static str {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let text = format!(
        "{}\nlibrdkafka {}\ntarget {}-{}\nprofile {profile}\nallocator mimalloc",
        env!("CARGO_PKG_VERSION"),
        crate::kafka::library_version(),
        std::env::consts::ARCH,
        std::env::consts::OS,
    );
    text.leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_value_may_hold_equals_signs_and_be_empty() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(key_and_value("a.b=c=d"), pair("a.b", "c=d"));
        assert_eq!(key_and_value("admin.token="), pair("admin.token", ""));
        assert!(key_and_value("=x").is_err());
        assert!(key_and_value("x").is_err());
    }
}
