//! The configuration: as [`written`], then as [`checked`]. Flags beat environment, environment beats file, file beats
//! defaults; what can't be right is refused here, with its place, so that no other room checks it again.
//!
//! `keys` names every setting; `file` is the TOML; `written` lays the sources over each other; `reader` turns one value
//! into what it must be; `check` (with `shard`, `table`, `core_groups`, `passthrough`, `postgres_address`) holds every bound and
//! relation; `show` prints; `problem` is what is wrong, and where.

pub mod checked;

mod check;
mod core_groups;
mod file;
#[cfg(test)]
mod fuzz_tests;
mod ingest;
mod keys;
mod passthrough;
mod postgres_address;
mod problem;
mod reader;
mod shard;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod written;

pub use checked::Config;
pub use postgres_address::parse as postgres_address;
pub use problem::{ConfigError, Origin, Problem};
pub use shard::shown as apps_shown;
pub use show::{Value, lines as table};

use std::path::PathBuf;

/// A commented file with every setting at its default.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Where settings are looked for.
#[derive(Clone)]
pub struct Sources {
    /// The file.
    pub file: File,
    /// All variables of the environment: `MILLPOND_…`, and those that `postgres_password_env` names.
    pub environment: Vec<(String, String)>,
    /// `--set KEY=VALUE`; the last one of a key counts.
    pub flags: Vec<(String, String)>,
    /// `-X key=value`; the last one of a key counts.
    pub librdkafka: Vec<(String, String)>,
}

/// The file, or what would be in one.
#[derive(Clone, Debug)]
pub enum File {
    /// Its path.
    At(PathBuf),
    /// Its text.
    Text(String),
}

impl Sources {
    /// A file's text and nothing else.
    pub fn of_text(text: &str) -> Self {
        Self {
            file: File::Text(text.to_owned()),
            environment: Vec::new(),
            flags: Vec::new(),
            librdkafka: Vec::new(),
        }
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the rest of the program sees.
    pub config: Config,
    /// Every setting as it was merged, secrets hidden.
    pub values: Vec<Value>,
    /// What is allowed, but unwise.
    pub warnings: Vec<Problem>,
}

/// Merges the sources and checks the result.
///
/// Reads the file, and the files of passwords that it names. The error holds all problems of a kind: of syntax; or of
/// names; or of values; or of relations between values.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let written = written::merge(sources)?;
    let (config, warnings) = check::check(&written, &sources.environment)?;
    Ok(Loaded {
        values: show::values(&written, &config),
        config,
        warnings,
    })
}

impl Loaded {
    /// What to say of a librdkafka setting that librdkafka itself, the only one to know, refuses.
    pub fn librdkafka_refused(&self, name: &str) -> Problem {
        let key = format!("{}{name}", keys::LIBRDKAFKA);
        let value = self.values.iter().find(|value| value.key == key);
        let value = value.expect("each setting that is given is among the values");
        Problem::new(
            &value.origin,
            format!(
                "{key}: found {}, but librdkafka has no such setting, or does not take this value; \
                 its CONFIGURATION.md lists both",
                value.value
            ),
        )
    }
}
