//! What the arguments of `load` ask for: messages, and their times.

use super::{Args, UsageError};
use crate::cli::print_note;
use crate::config::Config;
use crate::dead::Reason;
use crate::load::{self, Pace, Spike, Traffic, TrafficOptions, broken, rows};
use crate::table::Table;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::num::NonZeroU32;

/// The share of the messages that add to counts.
pub(in crate::cli) const COUNTS_SHARE: f64 = 0.2;

const MESSAGES: u64 = 1_000_000;
const SPIKE_RATE: NonZeroU32 = NonZeroU32::new(2_000).expect("not 0");
const SPIKE_SECONDS: u32 = 60;
const CALM_SECONDS: u32 = 30;

/// How messages are spread over rows.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Scenario {
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

/// A scenario, or a spike of uniform traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Of(Scenario),
    Spike,
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Of(Scenario::Uniform),
            Self::Of(Scenario::Zipf),
            Self::Of(Scenario::Hot),
            Self::Of(Scenario::Clothesly),
            Self::Spike,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Of(scenario) => scenario.to_possible_value(),
            Self::Spike => Some(PossibleValue::new("spike").help(
                "A campaign goes out: the normal --rate for --calm-seconds, ten times that for --spike-seconds, and the normal \
                 rate again; uniform",
            )),
        }
    }
}

impl Args {
    /// Refuses arguments that contradict each other.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let refuse = |why: &str| Err(UsageError(why.to_owned()));
        let is_spike = self.scenario == Choice::Spike;
        if is_spike && self.messages.is_some() {
            return refuse(
                "--messages does not go with --scenario spike: rate and seconds say how many",
            );
        }
        if !is_spike && (self.spike_seconds.is_some() || self.calm_seconds.is_some()) {
            return refuse("--spike-seconds and --calm-seconds go with --scenario spike");
        }
        if self.broken > self.messages() {
            return refuse("--broken is more than --messages");
        }
        if self.value_bytes > 0 && self.scenario == Choice::Of(Scenario::Clothesly) {
            return refuse(
                "--value-bytes does not go with --scenario clothesly: its messages are those of the incident",
            );
        }
        let in_pairs = self.scenario == Choice::Of(Scenario::Clothesly) && self.http.is_some();
        if in_pairs && self.messages() % 2 == 1 {
            return refuse(
                "the messages of clothesly come in pairs, and a request may bring both: with --http, --messages must be even",
            );
        }
        Ok(())
    }

    /// Refuses arguments that are for subscriptions only.
    pub(super) fn check_for(&self, table: &Table) -> Result<(), UsageError> {
        let refuse = |why: String| {
            Err(UsageError(format!(
                "the configuration has [table] name = \"{}\": {why}",
                table.name
            )))
        };
        let of_subscriptions = [
            ("--http", self.http.is_some()),
            ("--broken", self.broken > 0),
            ("--value-bytes", self.value_bytes > 0),
            ("--linked", self.linked.is_some()),
            (
                "--scenario clothesly",
                self.scenario == Choice::Of(Scenario::Clothesly),
            ),
        ];
        if let Some((name, _)) = of_subscriptions.iter().find(|(_, given)| *given) {
            return refuse(format!("{name} is for subscriptions"));
        }
        match rows::collision(table) {
            Some(which) => refuse(format!("no message can have both values, as {which}")),
            None => Ok(()),
        }
    }

    fn messages(&self) -> u64 {
        match self.pace() {
            Pace::Spike(spike) => spike.messages(),
            Pace::Free | Pace::PerSecond(_) => self.messages.unwrap_or(MESSAGES),
        }
    }

    /// When messages are due.
    pub(super) fn pace(&self) -> Pace {
        match (self.scenario, self.rate) {
            (Choice::Spike, rate) => Pace::Spike(Spike {
                rate: rate.unwrap_or(SPIKE_RATE),
                calm_seconds: self.calm_seconds.unwrap_or(CALM_SECONDS),
                spike_seconds: self.spike_seconds.unwrap_or(SPIKE_SECONDS),
            }),
            (Choice::Of(_), Some(rate)) => Pace::PerSecond(rate),
            (Choice::Of(_), None) => Pace::Free,
        }
    }

    /// What to send.
    pub(super) fn traffic(&self, config: &Config) -> Traffic {
        let scenario = match self.scenario {
            Choice::Of(scenario) => scenario,
            Choice::Spike => Scenario::Uniform,
        };
        if let (Scenario::Clothesly, Some(links_max)) =
            (scenario, config.rules.links_per_parent_max)
        {
            print_note(&format!(
                "this scenario links most rows to one parent: the consumer needs rules.links_per_parent_max = 0, or it refuses \
                 those links above the limit ({links_max} in this configuration)"
            ));
        }
        let mut broken_reasons = broken::reasons(config.kafka.partition_by, &config.partitioner);
        if self.broken_too_large {
            broken_reasons.push(Reason::TooLarge);
        }
        let options = TrafficOptions {
            seed: self.seed,
            scenario: scenario.into(),
            messages: self.messages(),
            apps: self.apps.get(),
            rows: self.rows.get(),
            linked: self.linked.map(NonZeroU32::get),
            counts_share: COUNTS_SHARE,
            broken: self.broken,
            broken_reasons,
            value_bytes_max: config.consumer.message_max_bytes,
            value_bytes_min: self.value_bytes,
        };
        let partitioner = config.partitioner.clone();
        match &config.table {
            None => Traffic::new(options, partitioner),
            Some(table) => Traffic::for_table(options, partitioner, table.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Load {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("load").chain(line.split_whitespace());
        let args = Load::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .args;
        args.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn a_spike_has_a_normal_rate_and_its_messages_follow_from_it() {
        let args = parse("--scenario spike").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(args.messages(), 2_000 * (30 + 10 * 60 + 30));
        let args = parse("--scenario spike --rate 200 --calm-seconds 10 --spike-seconds 10")
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(args.messages(), 24_000);
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        for (line, why) in [
            (
                "--scenario spike --messages 5",
                "rate and seconds say how many",
            ),
            ("--spike-seconds 5", "go with --scenario spike"),
            ("--messages 5 --broken 6", "more than --messages"),
            ("--http http://a --broken 1", "cannot be used with"),
            ("--connections 5", "--http"),
            ("--http http://a --value-bytes 500", "cannot be used with"),
            (
                "--scenario clothesly --value-bytes 500",
                "those of the incident",
            ),
            ("--watch-deadline 5", "--watch"),
            (
                "--http http://a --scenario clothesly --messages 7",
                "must be even",
            ),
        ] {
            let refused = parse(line).err().unwrap_or_default();
            assert!(refused.contains(why), "{line}: {refused}");
        }
        for line in [
            "",
            "--http http://a --messages 7",
            "--messages 5 --broken 5 --rate 3",
            "--scenario zipf --value-bytes 10000",
        ] {
            assert_eq!(parse(line).err(), None, "{line}");
        }
    }
}
