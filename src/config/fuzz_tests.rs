//! Whatever stands in a configuration: it is taken, or each problem says where it is, and no password is among its words.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests say what they saw"
)]

use super::*;
use crate::fuzz;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

const INPUTS: u64 = 50_000;
const ADDRESSES: u64 = 20_000;
const SECRET: &str = "marlin-77d0";

const TOKENS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r\n",
    " ",
    "\\",
    "\\u0000",
    "\0",
    "é",
    "true",
    "-1",
    "0",
    "1",
    "65536",
    "1e9",
    "0x10",
    "nan",
    "1979-05-27",
    "00-ff",
    "80",
    "7f-00",
    "64KiB",
    "1GiB",
    "\"\"",
    "[]",
    "[\"0-3\"]",
    "{}",
    "[[shard]]\n",
    "[kafka]\n",
    "[consumer]\n",
    "[kafka.librdkafka]\n",
    "name",
    "apps",
    "postgres",
    "postgres_password_file",
    "postgres_password_env",
    "workers",
    "write_rate_max",
    "topic",
    "group",
    "partitions",
    "start",
    "listen",
    "tokens",
    "token",
    "peers",
    "core_groups",
    "level",
    "\"app\"",
    "\"any\"",
    "\"skip\"",
    "\"127.0.0.1:0\"",
    "\"0.0.0.0:9464\"",
    "\"host=h\"",
    "\"host=/tmp user=u\"",
    "\"postgres://h/d?sslmode=disable\"",
    "sslmode=verify-full",
    "sslrootcert=/no/such",
    "\"/no/such/file\"",
    "shard.a.workers = 3\n",
    "#set ",
    "#env MILLPOND_",
    "#X ",
    "SHARD_A_WORKERS=",
    "acks=",
    "kafka.topic=",
    "workers = 2",
    "batch_linger_ms = 5",
    "links_per_parent_max = 0",
    "topic = \"t\"",
    "listen = \"127.0.0.1:1\"",
];

/// The file is the text. Its lines `#set KEY=VALUE`, `#env NAME=VALUE` and `#X KEY=VALUE`, comments to TOML, are the other sources.
fn sources(text: &str) -> Sources {
    let of = |mark: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
        let pairs = lines.filter_map(|line| line.split_once('='));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pairs.collect::<Vec<_>>()
    };
    Sources {
        environment: of("#env "),
        flags: of("#set "),
        librdkafka: of("#X "),
        ..Sources::of_text(text)
    }
}

/// Whether a problem says where it is: a line of the file, a variable, a flag, or else a key.
fn names_its_place(problem: &Problem, sources: &Sources, text: &str) -> bool {
    let place = problem.place.as_str();
    if let Some(variable) = place.strip_prefix("environment ") {
        return sources.environment.iter().any(|(name, _)| name == variable);
    }
    if let Some(line) = place.strip_prefix("(text):") {
        let line = line.split(':').next().unwrap();
        let line: usize = line.parse().unwrap();
        return (1..=text.matches('\n').count() + 1).contains(&line);
    }
    let names_a_key = problem.text.contains("[[shard]]")
        || keys::KEYS.iter().any(|key| problem.text.contains(key.name))
        || keys::SHARD_KEYS
            .iter()
            .any(|key| problem.text.contains(key.name));
    match place {
        "flag --set" => sources
            .flags
            .iter()
            .any(|(name, _)| problem.text.contains(name.as_str())),
        "flag -X" => sources
            .librdkafka
            .iter()
            .any(|(name, _)| problem.text.contains(name.as_str())),
        "default" | "(text)" => names_a_key,
        _ => false,
    }
}

#[test]
fn whatever_stands_in_a_configuration_is_taken_or_each_problem_says_where_it_is() {
    let (mut taken, mut refused) = (0, 0);
    let made = fuzz::each("configuration", TOKENS, INPUTS, |_, input| {
        let text = String::from_utf8_lossy(input);
        let sources = sources(&text);
        match load(&sources) {
            Ok(loaded) => {
                taken += 1;
                for value in &loaded.values {
                    let secret = keys::KEYS
                        .iter()
                        .any(|key| key.secret && key.name == value.key);
                    assert!(
                        !secret || ["(hidden)", "\"\"", "[]"].contains(&value.value.as_str()),
                        "{value:?}"
                    );
                }
                let places = loaded
                    .warnings
                    .iter()
                    .map(|warning| names_its_place(warning, &sources, &text));
                assert!(
                    places.into_iter().all(|names| names),
                    "{:?}",
                    loaded.warnings
                );
            }
            Err(error) => {
                refused += 1;
                assert!(!error.problems.is_empty());
                for problem in &error.problems {
                    assert!(names_its_place(problem, &sources, &text), "{problem:?}");
                    assert!(!problem.text.is_empty(), "{problem:?}");
                }
            }
        }
    });
    println!("{taken} taken, {refused} refused");
    assert!(
        taken > made / 50 && refused > made / 5,
        "{taken} taken, {refused} refused"
    );
}

const PIECES: [&str; 16] = [
    "'",
    "=",
    " ",
    "\\",
    "&",
    "?",
    "%",
    "%zz",
    ":",
    "/",
    "@",
    ",",
    "é",
    "sslmode=prefer",
    "port=x",
    "-1",
];

/// A few typing errors behind the password and one before it, which stays as it is.
fn mistyped(random: &mut SmallRng, (before, after): (&str, &str), password: &str) -> String {
    let mut behind: Vec<char> = after.chars().collect();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..=behind.len());
        match random.random_range(0..3) {
            0 => behind.truncate(at),
            1 => drop(behind.drain(at..(at + 1).min(behind.len()))),
            _ => drop(behind.splice(at..at, PIECES.choose(random).unwrap().chars())),
        }
    }
    let mut ahead = before.to_owned();
    if random.random() {
        // Not in the word that says that this is the password.
        let at = random.random_range(0..before.len() - "password='".len());
        ahead.insert_str(at, PIECES.choose(random).unwrap());
    }
    format!("{ahead}{password}{}", behind.iter().collect::<String>())
}

#[test]
fn no_problem_of_a_connection_string_holds_its_password() {
    let forms = [
        (
            "host=db port=5432 dbname=d user=u password=",
            " sslmode=require connect_timeout=5",
        ),
        ("host=db port=5432 password='", "' user='a b' keepalives=1"),
        (
            "postgres://some-user:",
            "@db:5432/d?sslmode=require&target_session_attrs=any",
        ),
    ];
    let mut random = SmallRng::seed_from_u64(3);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..ADDRESSES {
        let form = *forms.choose(&mut random).unwrap();
        let text = mistyped(&mut random, form, SECRET);
        let quoted = toml::Value::String(text.clone());
        let file = format!("[[shard]]\nname = \"a\"\napps = \"00-ff\"\npostgres = {quoted}\n");
        let shown = match load(&Sources::of_text(&file)) {
            Ok(Loaded {
                config,
                values,
                warnings,
            }) => {
                taken += 1;
                format!("{values:?} {warnings:?} {:?}", config.shards)
            }
            Err(error) => {
                refused += 1;
                error.to_string()
            }
        };
        assert!(!shown.contains(SECRET), "{text}: {shown}");
    }
    let least = ADDRESSES / 20;
    assert!(
        taken > least && refused > least,
        "{taken} taken, {refused} refused"
    );
}
