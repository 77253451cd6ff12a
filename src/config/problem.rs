//! What is wrong with a configuration, and where that was written. Every problem names its place, the key, what was
//! found, what is allowed and what to do, so that nobody has to look the key up.

use std::fmt;

/// Where a value came from. A later variant beats an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave it.
    Default,
    /// The file.
    File {
        /// As the command line names it.
        path: String,
        /// From 1.
        line: usize,
    },
    /// The environment variable of that name.
    Environment(String),
    /// The flag of that name, `--set` or `-X`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong, or (as a warning) unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written: an [`Origin`], or the file as a whole.
    pub place: String,
    /// The key, what was found, what is allowed, what to do.
    pub text: String,
}

impl Problem {
    pub(super) fn new(place: impl fmt::Display, text: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// The configuration can't be used. There is one thing to do: correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// At least one; a line each when shown.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn one(place: impl fmt::Display, text: impl Into<String>) -> Self {
        Self {
            problems: vec![Problem::new(place, text)],
        }
    }

    /// `Ok` where there are no problems.
    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self { problems })
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The candidate that `written` was probably meant to be; `None` where nothing is near.
///
/// A name without its section is also compared with the last part of the candidates.
pub(super) fn nearest<'a>(
    written: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Jaro-Winkler similarity below which a suggestion would be a guess.
    const SIMILARITY_MIN: f64 = 0.8;
    let similarity = |candidate: &str| {
        let last = candidate.rsplit('.').next().unwrap_or(candidate);
        strsim::jaro_winkler(written, candidate).max(strsim::jaro_winkler(written, last))
    };
    candidates
        .map(|candidate| (similarity(candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
