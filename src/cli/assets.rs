//! `millpond assets`: files for what stands around Millpond, printed from this binary so that they fit it.

use super::{UsageError, print_data};
use clap::{Command, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::process::ExitCode;

/// Print files for what stands around Millpond: dashboard, alerts, service units, completions, manual pages
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    asset: Asset,
}

#[derive(Subcommand)]
enum Asset {
    /// Dashboard for Grafana (Classic JSON): Dashboards > New > Import, then choose the data source
    Grafana,
    /// Alert rules for Prometheus: a rule file
    Alerts,
    /// Tests of these rules: `promtool test rules` wants them beside the rules, which are to be called alerts.yml
    AlertTests,
    /// systemd unit: of the consumer, or of the edge
    Systemd {
        /// The command that the unit runs
        #[arg(value_enum, default_value = "run")]
        of: Unit,
    },
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Manual page: of millpond, or of a command
    Man {
        /// The command, as `run` or `rules add`
        command: Vec<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Unit {
    Run,
    Ingest,
}

/// Prints the file.
pub fn run(args: Args, mut millpond: Command) -> anyhow::Result<ExitCode> {
    let text = match args.asset {
        Asset::Grafana => include_str!("../assets/grafana.json").to_owned(),
        Asset::Alerts => include_str!("../assets/alerts.yml").to_owned(),
        Asset::AlertTests => include_str!("../assets/alert-tests.yml").to_owned(),
        Asset::Systemd { of: Unit::Run } => include_str!("../assets/millpond.service").to_owned(),
        Asset::Systemd { of: Unit::Ingest } => {
            include_str!("../assets/millpond-ingest.service").to_owned()
        }
        Asset::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut millpond, "millpond", &mut script);
            String::from_utf8(script)?
        }
        Asset::Man { command } => manual(millpond, &command)?,
    };
    print_data(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn manual(mut millpond: Command, command: &[String]) -> anyhow::Result<String> {
    millpond.build();
    let mut found = &millpond;
    for name in command {
        found = found
            .find_subcommand(name)
            .ok_or_else(|| UsageError(format!("there is no command {}", command.join(" "))))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(found.clone()).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::Cli;
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_a_page_and_others_have_none() {
        let page = manual(Cli::command(), &[]).unwrap();
        assert!(page.contains(".TH millpond 1") && page.contains("millpond\\-assets(1)"));
        let page = manual(Cli::command(), &["rules".to_owned(), "add".to_owned()]).unwrap();
        assert!(page.contains("millpond\\-rules\\-add") && page.contains("\\-\\-reason"));
        let error = manual(Cli::command(), &["rule".to_owned()]).unwrap_err();
        assert!(error.is::<UsageError>(), "{error}");
    }
}
