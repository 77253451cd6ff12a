//! Reads settings one by one as what they must be. A value that can't be is a problem, and something harmless stands in
//! for it, so that all problems are found; [`Reader::finish`] ends with them before anything harmless is used.

use super::checked::Secret;
use super::file::{Given, list_of_text};
use super::keys;
use super::problem::{ConfigError, Problem};
use super::written::Written;
use std::fmt::Debug;
use std::ops::RangeInclusive;

/// Collects problems while settings are read.
pub(super) struct Reader<'w> {
    pub written: &'w Written,
    problems: Vec<Problem>,
    /// What is allowed, but unwise.
    pub warnings: Vec<Problem>,
}

impl<'w> Reader<'w> {
    pub fn new(written: &'w Written) -> Self {
        Self {
            written,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Ends with the problems that were found since the last call.
    pub fn finish(&mut self) -> Result<(), ConfigError> {
        ConfigError::unless_empty(std::mem::take(&mut self.problems))
    }

    /// The setting is wrong: what was found, what is allowed, what to do.
    pub fn refuse(&mut self, name: &str, text: impl std::fmt::Display) {
        let origin = self.written.setting(name).origin.clone();
        self.refuse_at(origin, format!("{name}: {text}"));
    }

    /// Something is wrong that is no setting's value.
    pub fn refuse_at(&mut self, place: impl std::fmt::Display, text: impl Into<String>) {
        self.problems.push(Problem::new(place, text));
    }

    /// The setting is allowed, but unwise.
    pub fn warn(&mut self, name: &str, text: impl std::fmt::Display) {
        let origin = &self.written.setting(name).origin;
        self.warnings
            .push(Problem::new(origin, format!("{name}: {text}")));
    }

    /// As messages show what was found.
    pub fn found(&self, name: &str) -> String {
        if keys::named(name).secret {
            "(hidden)".to_owned()
        } else {
            self.written.setting(name).value.to_string()
        }
    }

    /// Any text, also an empty one.
    pub fn text(&mut self, name: &str) -> String {
        match &self.written.setting(name).value {
            Given::Text(text) => text.clone(),
            Given::Bare(_) | Given::List(_) => {
                self.refuse(
                    name,
                    format!("found {}, allowed is text in quotes", self.found(name)),
                );
                String::new()
            }
        }
    }

    /// Text that `parse` makes something of; `Err` says what is allowed and what to do.
    pub fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Given::Text(text) = &self.written.setting(name).value else {
            self.text(name);
            return None;
        };
        parse(text)
            .map_err(|allowed| self.refuse(name, format!("found {}, {allowed}", self.found(name))))
            .ok()
    }

    /// A whole number. `why` names the accident that the bounds prevent, or what they come from.
    pub fn whole<T>(&mut self, name: &str, bounds: RangeInclusive<i64>, why: &str) -> T
    where
        T: TryFrom<i64, Error: Debug>,
    {
        let number = match &self.written.setting(name).value {
            Given::Text(text) | Given::Bare(text) => text.parse().ok(),
            Given::List(_) => None,
        };
        let within = number.filter(|number| bounds.contains(number));
        if within.is_none() {
            let (min, max, unit) = (bounds.start(), bounds.end(), keys::named(name).unit);
            let space = if unit.is_empty() { "" } else { " " };
            let found = self.found(name);
            self.refuse(
                name,
                format!("found {found}, allowed is {min} to {max}{space}{unit}: {why}"),
            );
        }
        T::try_from(within.unwrap_or(*bounds.start())).expect("the bounds fit the type")
    }

    /// A count of bytes, plain or with KiB, MiB, GiB. `why` as for [`Self::whole`].
    pub fn bytes<T>(&mut self, name: &str, bounds: RangeInclusive<i64>, why: &str) -> T
    where
        T: TryFrom<i64, Error: Debug>,
    {
        let bytes = match &self.written.setting(name).value {
            Given::Text(text) | Given::Bare(text) => bytes_of_text(text),
            Given::List(_) => None,
        };
        let within = bytes.filter(|bytes| bounds.contains(bytes));
        if within.is_none() {
            let (min, max) = (text_of_bytes(*bounds.start()), text_of_bytes(*bounds.end()));
            let found = self.found(name);
            self.refuse(
                name,
                format!(
                    "found {found}, allowed is {min} to {max}, as plain bytes or like \"64KiB\", \
                     \"256MiB\", \"1GiB\": {why}"
                ),
            );
        }
        T::try_from(within.unwrap_or(*bounds.start())).expect("the bounds fit the type")
    }

    /// A number from 0 to 1.
    pub fn ratio(&mut self, name: &str, why: &str) -> f64 {
        let number = match &self.written.setting(name).value {
            Given::Text(text) | Given::Bare(text) => text.parse().ok(),
            Given::List(_) => None,
        };
        let within = number.filter(|number| (0.0..=1.0).contains(number));
        if within.is_none() {
            self.refuse(
                name,
                format!("found {}, allowed is 0 to 1: {why}", self.found(name)),
            );
        }
        within.unwrap_or(0.0)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: [(&str, T); 2]) -> T {
        let [(first, default), (second, _)] = choices;
        self.parsed(name, |text| {
            let chosen = choices.iter().find(|(word, _)| *word == text);
            chosen
                .map(|(_, choice)| *choice)
                .ok_or_else(|| format!("allowed is \"{first}\" or \"{second}\""))
        })
        .unwrap_or(default)
    }

    /// Several texts.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let list = match &self.written.setting(name).value {
            Given::List(list) => Some(list.clone()),
            Given::Text(text) => list_of_text(text),
            Given::Bare(_) => None,
        };
        if list.is_none() {
            let found = self.found(name);
            self.refuse(
                name,
                format!("found {found}, allowed is a list of texts, like [\"first\", \"second\"]"),
            );
        }
        list.unwrap_or_default()
    }

    /// A text that is never shown; `None` where it is empty.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .map(Secret)
    }
}

const BYTE_UNITS: [(&str, i64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn bytes_of_text(text: &str) -> Option<i64> {
    for (unit, bytes) in BYTE_UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return number.trim_end().parse::<i64>().ok()?.checked_mul(bytes);
        }
    }
    text.parse().ok()
}

fn text_of_bytes(bytes: i64) -> String {
    BYTE_UNITS
        .iter()
        .rev()
        .find(|(_, unit_bytes)| bytes >= *unit_bytes && bytes % unit_bytes == 0)
        .map_or_else(
            || bytes.to_string(),
            |(unit, unit_bytes)| format!("{}{unit}", bytes / unit_bytes),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_plain_or_with_a_binary_unit() {
        assert_eq!(bytes_of_text("262144"), Some(262_144));
        assert_eq!(bytes_of_text("64KiB"), Some(65_536));
        assert_eq!(bytes_of_text("256 MiB"), Some(268_435_456));
        assert_eq!(bytes_of_text("1GiB"), Some(1_073_741_824));
        for wrong in ["", "MiB", "1MB", "1.5MiB", "9999999999999GiB", "0x10"] {
            assert_eq!(bytes_of_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bytes_are_shown_in_the_largest_unit_that_fits() {
        assert_eq!(text_of_bytes(1024), "1KiB");
        assert_eq!(text_of_bytes(16 << 20), "16MiB");
        assert_eq!(text_of_bytes(1500), "1500");
    }
}
