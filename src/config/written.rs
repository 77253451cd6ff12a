//! The configuration as written: the four sources laid over each other, every value with its origin. Knows which names
//! exist, and of values only that they are text, numbers or lists. Defaults < file < environment < flags.

use super::file::{self, Content, Given, ShardTable};
use super::keys::{self, environment_name};
use super::problem::{ConfigError, Origin, Problem, nearest};
use super::{File, Sources};
use std::collections::BTreeMap;

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub value: Given,
    pub origin: Origin,
}

/// A `[[shard]]` of the file.
#[derive(Clone, Debug)]
pub(super) struct WrittenShard {
    pub name: String,
    /// Its header.
    pub origin: Origin,
}

/// A column of `[table.columns]`.
#[derive(Clone, Debug)]
pub(super) struct WrittenColumn {
    pub name: String,
    /// Its first line.
    pub origin: Origin,
    /// In the order of the file.
    pub entries: Vec<(String, Setting)>,
}

impl WrittenColumn {
    /// Whether something is said of it under that key.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }
}

/// All sources merged.
#[derive(Debug)]
pub(super) struct Written {
    /// The file, as messages call it.
    pub path: String,
    /// Every setting by its full name; those that nobody gave hold their default.
    settings: BTreeMap<String, Setting>,
    /// In the order of the file; names are legal and unique.
    pub shards: Vec<WrittenShard>,
    /// In the order of the file.
    pub columns: Vec<WrittenColumn>,
    /// In the order in which they were first given.
    pub librdkafka: Vec<(String, Setting)>,
}

impl Written {
    /// The setting with that full name, which must exist.
    pub fn setting(&self, name: &str) -> &Setting {
        &self.settings[name]
    }
}

/// Lays the sources over each other. Problems are what no setting could be: syntax, unknown names, shards' names.
pub(super) fn merge(sources: &Sources) -> Result<Written, ConfigError> {
    let (path, text) = read(&sources.file)?;
    let content = file::parse(&path, &text)?;
    let mut merge = Merge::new(path);
    merge.file(content);
    merge.environment(&sources.environment);
    for (name, value) in &sources.flags {
        merge.flag("--set", name, value);
    }
    for (name, value) in &sources.librdkafka {
        merge.flag("-X", &format!("{}{name}", keys::LIBRDKAFKA), value);
    }
    ConfigError::unless_empty(merge.problems)?;
    Ok(with_dead_letter_topic(merge.written))
}

fn read(file: &File) -> Result<(String, String), ConfigError> {
    let path = match file {
        File::At(path) => path,
        File::Text(text) => return Ok(("(text)".to_owned(), text.clone())),
    };
    let shown = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((shown, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ConfigError::one(
            shown,
            "there is no such file; make one with `millpond config example > millpond.toml`, \
             or name another with --config",
        )),
        Err(error) => Err(ConfigError::one(shown, format!("can't be read: {error}"))),
    }
}

/// Where nobody named it, the dead letter topic is `<topic>.dlq`.
fn with_dead_letter_topic(mut written: Written) -> Written {
    let topic = written.setting("kafka.topic").value.to_string();
    let dead_letters = written
        .settings
        .get_mut(keys::DEAD_LETTER_TOPIC)
        .expect("every setting has its default");
    if dead_letters.value == Given::Text(String::new()) {
        dead_letters.value = Given::Text(format!("{topic}.dlq"));
    }
    written
}

struct Merge {
    written: Written,
    problems: Vec<Problem>,
}

impl Merge {
    fn new(path: String) -> Self {
        let mut merge = Self {
            written: Written {
                path,
                settings: BTreeMap::new(),
                shards: Vec::new(),
                columns: Vec::new(),
                librdkafka: Vec::new(),
            },
            problems: Vec::new(),
        };
        for key in &keys::KEYS {
            merge.default(key.name.to_owned(), key.default);
        }
        merge
    }

    fn default(&mut self, name: String, value: &str) {
        let setting = Setting {
            value: Given::Text(value.to_owned()),
            origin: Origin::Default,
        };
        self.written.settings.insert(name, setting);
    }

    fn problem(&mut self, place: impl std::fmt::Display, text: String) {
        self.problems.push(Problem::new(place, text));
    }

    fn file(&mut self, content: Content) {
        let path = self.written.path.clone();
        let at = |line| Origin::File {
            path: path.clone(),
            line,
        };
        for shard in content.shards {
            let origin = at(shard.line);
            let Some(name) = self.shard_name(&shard, &origin) else {
                continue;
            };
            for key in &keys::SHARD_KEYS {
                self.default(keys::of_shard(&name, key.name), key.default);
            }
            for entry in shard
                .entries
                .into_iter()
                .filter(|entry| entry.key != "name")
            {
                let name = keys::of_shard(&name, &entry.key);
                self.set(&name, entry.value, at(entry.line));
            }
            self.written.shards.push(WrittenShard { name, origin });
        }
        for entry in content.entries {
            self.set(&entry.key, entry.value, at(entry.line));
        }
    }

    /// The shard's name if it can be one.
    fn shard_name(&mut self, shard: &ShardTable, origin: &Origin) -> Option<String> {
        const ALLOWED: &str = "allowed are 1 to 32 of a-z, 0-9, _ and -";
        let name = shard.entries.iter().find(|entry| entry.key == "name");
        let name = match name.map(|entry| &entry.value) {
            Some(Given::Text(name)) if is_shard_name(name) => name.clone(),
            Some(other) => {
                self.problem(origin, format!("shard name: found {other}, {ALLOWED}"));
                return None;
            }
            None => {
                let text = format!("this [[shard]] has no name; add name = \"a\" ({ALLOWED})");
                self.problem(origin, text);
                return None;
            }
        };
        let variable = |name: &str| environment_name(&keys::of_shard(name, ""));
        let twin = self
            .written
            .shards
            .iter()
            .find(|other| variable(&other.name) == variable(&name));
        if let Some(twin) = twin {
            let text = format!(
                "shard name: found {name}, but {} has shard {}; names must differ, and in more than \
                 - and _, which are the same in environment variables",
                twin.origin, twin.name
            );
            self.problem(origin, text);
            return None;
        }
        Some(name)
    }

    fn environment(&mut self, environment: &[(String, String)]) {
        let names: BTreeMap<String, String> = self
            .written
            .settings
            .keys()
            .map(|name| (environment_name(name), name.clone()))
            .collect();
        let librdkafka = environment_name(keys::LIBRDKAFKA);
        for (variable, value) in environment {
            let name = match (names.get(variable), variable.strip_prefix(&librdkafka)) {
                (Some(name), _) => name.clone(),
                (None, Some(setting)) => {
                    let setting = setting.to_ascii_lowercase().replace('_', ".");
                    format!("{}{setting}", keys::LIBRDKAFKA)
                }
                (None, None) => {
                    if is_meant_as_setting(variable) {
                        let nearest = nearest(variable, names.keys().map(String::as_str));
                        self.unknown(format!("environment {variable}"), "this variable", nearest);
                    }
                    continue;
                }
            };
            let origin = Origin::Environment(variable.clone());
            self.set(&name, Given::Text(value.clone()), origin);
        }
    }

    fn flag(&mut self, flag: &'static str, name: &str, value: &str) {
        self.set(name, Given::Text(value.to_owned()), Origin::Flag(flag));
    }

    /// Lays a value over what the setting had before.
    fn set(&mut self, name: &str, value: Given, origin: Origin) {
        let setting = Setting { value, origin };
        if let Some(known) = self.written.settings.get_mut(name) {
            *known = setting;
        } else if let Some(name) = name.strip_prefix(keys::LIBRDKAFKA) {
            let given = &mut self.written.librdkafka;
            match given.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = setting,
                None => given.push((name.to_owned(), setting)),
            }
        } else if let Some(name) = name.strip_prefix(keys::COLUMNS) {
            self.column(name, setting);
        } else if name.starts_with("shard.") && self.names_no_shard(name) {
            let text = format!(
                "`{name}`: shards are given as [[shard]] in the file, with name, apps and postgres"
            );
            self.problem(setting.origin, text);
        } else {
            let known = self.written.settings.keys().map(String::as_str);
            let nearest = nearest(name, known).map(str::to_owned);
            self.unknown(setting.origin, &format!("`{name}`"), nearest.as_deref());
        }
    }

    /// `NAME.KEY`, of the file only: what else would say in which order they are?
    fn column(&mut self, path: &str, setting: Setting) {
        let is_in_file = matches!(setting.origin, Origin::File { .. });
        let Some((name, key)) = path.split_once('.').filter(|_| is_in_file) else {
            let text = format!(
                "`{}{path}`: columns are given in the file, as NAME = {{ set = \"text\", from = \"a.b\" }} under [table.columns]",
                keys::COLUMNS
            );
            return self.problem(setting.origin, text);
        };
        let columns = &mut self.written.columns;
        let entry = (key.to_owned(), setting);
        match columns.iter_mut().find(|column| column.name == name) {
            Some(column) => column.entries.push(entry),
            None => columns.push(WrittenColumn {
                name: name.to_owned(),
                origin: entry.1.origin.clone(),
                entries: vec![entry],
            }),
        }
    }

    fn names_no_shard(&self, name: &str) -> bool {
        let mut shards = self.written.shards.iter();
        let named = name.split('.').nth(1);
        !shards.any(|shard| named == Some(shard.name.as_str()))
    }

    fn unknown(&mut self, place: impl std::fmt::Display, what: &str, nearest: Option<&str>) {
        let advice = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "`millpond config example` prints all settings".to_owned(),
        };
        self.problem(place, format!("{what} is no setting; {advice}"));
    }
}

fn is_shard_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=32).contains(&name.len()) && name.chars().all(legal)
}

/// Whether a variable that names no setting is a mistake. Not ours are those of other programs, of the tests, and those
/// that Kubernetes makes for each service whose name begins with "millpond".
fn is_meant_as_setting(variable: &str) -> bool {
    let of_kubernetes = variable.ends_with("_PORT")
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"]
            .iter()
            .any(|part| variable.contains(part));
    variable.starts_with("MILLPOND_")
        && variable != "MILLPOND_CONFIG"
        && !variable.starts_with("MILLPOND_TEST_")
        && !of_kubernetes
}
