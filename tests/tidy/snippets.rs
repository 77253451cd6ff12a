//! Shows that each check refuses what it is there for, and lets the neighbouring right thing pass.

use super::source::mark_test_modules;
use super::*;

type Check = fn(&SourceFile) -> Vec<Offence>;

/// The check finds offences in just these lines.
fn refuses(check: Check, path: &str, text: &str, lines: &[usize]) {
    let found = check(&SourceFile::new(path, text)).into_iter();
    let found: Vec<usize> = found.map(|(line, _)| line).collect();
    assert_eq!(found, lines, "{path}: {text}");
}

fn passes(check: Check, path: &str, text: &str) {
    refuses(check, path, text, &[]);
}

#[test]
fn a_file_of_501_lines_is_too_long_and_one_of_500_is_not() {
    refuses(too_long, "src/a.rs", &"//\n".repeat(501), &[501]);
    passes(too_long, "src/a.rs", &"//\n".repeat(500));
    passes(too_long, "README.md", &"\n".repeat(501));
}

#[test]
fn a_function_of_71_lines_is_too_long_wherever_it_stands() {
    let function = |lines: usize| {
        let calls = "    g();\n".repeat(lines - 2);
        format!("fn f<A, B>() {{\n{calls}}}")
    };
    for around in ["*", "impl A { * }", "mod a { * }", "m! { * }"] {
        let snippet = |lines| format!("\n{}", around.replace('*', &function(lines)));
        refuses(too_long, "benches/a.rs", &snippet(71), &[2]);
        passes(too_long, "benches/a.rs", &snippet(70));
    }
    let fields = "    // A line.\n".repeat(80);
    let no_body = format!("trait A {{ fn f(); }}\ntype F = fn();\nstruct S {{\n{fields}}}");
    passes(too_long, "src/a.rs", &no_body);
}

#[test]
fn a_file_without_a_header_is_refused() {
    refuses(without_header, "tests/a.rs", "use a::b;\n", &[1]);
    passes(without_header, "tests/a.rs", "//! What it is.\n");
    passes(without_header, "tests/run", "#!/usr/bin/env bash\n");
}

#[test]
fn a_room_may_not_use_one_that_ranks_above_it() {
    for snippet in [
        "use crate::worker::Worker;",
        "use crate::{ids::AppId, worker};",
        "fn f() { crate::worker::start() }",
        "fn f(_: &impl crate::worker::Work) {}",
        "fn f() { assert!(crate::worker::NAME.is_empty()) }",
        "use super::super::worker;",
        "mod a { use super::super::super::worker; }",
        "use crate::*;",
        "use crate::unheard_of::Thing;",
        "#[cfg(not(test))] use crate::worker;",
        "#[cfg(any(test, loom))] use crate::worker;",
    ] {
        refuses(against_the_direction, "src/lanes/queue.rs", snippet, &[1]);
    }
    for path in ["src/lanes.rs", "src/lanes/mod.rs"] {
        refuses(against_the_direction, path, "use super::worker;", &[1]);
    }
    let roots = "use millpond::main;";
    refuses(against_the_direction, "src/cli/mod.rs", roots, &[1]);
}

#[test]
fn a_room_may_use_itself_its_rank_and_those_before() {
    for snippet in [
        "use crate::lanes::Lane;",
        "use crate::{commit::Slot, ids::AppId};",
        "use super::worker;",
        "use self::worker::Worker;",
        "use other::worker;",
        "#[cfg(test)] mod tests { use crate::worker; }",
        "#[cfg(all(loom, test))] use crate::worker;",
        "#[cfg(test)] fn f() { crate::worker::start() }",
        "/// See [`crate::worker`].\nfn f() {}",
    ] {
        passes(against_the_direction, "src/lanes/queue.rs", snippet);
    }
    let of_tests = "use millpond::worker;";
    passes(against_the_direction, "tests/a.rs", of_tests);
}

#[test]
fn rooms_that_stand_apart_do_not_use_each_other() {
    let snippet = "use crate::sink::Sink;";
    refuses(against_the_direction, "src/kafka/a.rs", snippet, &[1]);
    passes(against_the_direction, "src/sink/a.rs", snippet);
    passes(against_the_direction, "src/worker/a.rs", snippet);
}

#[test]
fn a_room_without_a_rank_is_refused() {
    refuses(against_the_direction, "src/newcomer.rs", "//! New.\n", &[1]);
}

#[test]
fn a_file_declared_for_tests_is_exempt_as_a_whole() {
    let declared = "#[cfg(test)] mod proof; #[cfg(test)] #[path = \"lane_tests.rs\"] mod tests;";
    let mut files = vec![SourceFile::new("src/lanes.rs", declared)];
    for path in ["src/lanes/proof.rs", "src/lane_tests.rs", "src/lanes/a.rs"] {
        let text = "use crate::worker; fn f() { loom::model(g) }";
        files.push(SourceFile::new(path, text));
    }
    mark_test_modules(&mut files);
    for (file, offences) in files.iter().zip([0, 0, 0, 1]) {
        assert_eq!(against_the_direction(file).len(), offences, "{}", file.path);
        assert_eq!(past_a_door(file).len(), offences, "{}", file.path);
    }
}

#[test]
fn a_name_is_refused_outside_its_rooms() {
    for snippet in [
        "use postgres::Client;",
        "use ::postgres::Client;",
        "use postgres as sql;",
        "use std::{fmt, sync::atomic::AtomicU64};",
        "use std::sync::*;",
        "fn f(_: rdkafka::Message) {}",
        "fn f() { assert!(rdkafka::version() > 3) }",
        "#[derive(Debug, clap::Parser)] struct S;",
        "fn f() { std::time::Instant::now() }",
        "mod tests { use std::time::SystemTime; }",
        "#[cfg(test)] mod tests { use hyper::body; }",
    ] {
        refuses(past_a_door, "src/worker/a.rs", snippet, &[1]);
    }
    refuses(past_a_door, "src/sinking.rs", "use postgres::Client;", &[1]);
}

#[test]
fn a_name_is_followed_through_imports() {
    for snippet in [
        "use std::time::Instant;\nfn f() { Instant::now() }",
        "use std::time::{self, Duration};\nfn f() { time::Instant::now() }",
        "use std::time::Instant as Clock;\nfn f() { Clock::now() }",
        "use std::time::Instant;\nfn f() { assert!(Instant::now() > g()) }",
        "use std::sync;\nfn f() { sync::atomic::fence() }",
    ] {
        refuses(past_a_door, "src/worker/a.rs", snippet, &[2]);
    }
    let refused_once = "use postgres::Client;\nfn f() { Client::connect() }";
    refuses(past_a_door, "src/worker/a.rs", refused_once, &[1]);
}

#[test]
fn a_name_passes_in_its_rooms_and_where_it_is_another_thing() {
    for (path, snippet) in [
        ("src/sink/connect.rs", "use postgres::Client;"),
        ("src/sink.rs", "use postgres::Client;"),
        ("src/config/written.rs", "use postgres::Config;"),
        ("src/clock.rs", "use std::time::SystemTime;"),
        ("tests/system.rs", "use rdkafka::Message;"),
    ] {
        passes(past_a_door, path, snippet);
    }
    for snippet in [
        "use std::time::Instant; fn f(_: Instant) {}",
        "#[cfg(test)] mod tests { fn f() { std::time::Instant::now() } }",
        "mod postgres; fn f() { postgres::start() }",
        "use super::postgres; fn f() { postgres::start() }",
        "fn f(clap: u8) -> u8 { clap }",
    ] {
        passes(past_a_door, "src/embedded/a.rs", snippet);
    }
}

#[test]
fn unsafe_code_is_refused_outside_its_files() {
    for snippet in [
        "\nfn f() { unsafe { g() } }",
        "\nunsafe impl Send for A {}",
        "\nm! { unsafe { g() } }",
    ] {
        refuses(unsafe_elsewhere, "tests/a.rs", snippet, &[2]);
        for file in UNSAFE_FILES {
            passes(unsafe_elsewhere, file, snippet);
        }
    }
    let words = "// unsafe\n#![deny(unsafe_code)]\nconst A: &str = \"unsafe\";";
    passes(unsafe_elsewhere, "src/a.rs", words);
}

#[test]
fn a_module_name_that_says_nothing_is_refused() {
    refuses(empty_names, "src/sink/utils.rs", "", &[1]);
    refuses(empty_names, "tests/common/mod.rs", "", &[1]);
    refuses(empty_names, "src/a.rs", "\nmod helpers {}", &[2]);
    passes(empty_names, "src/commonplace.rs", "mod error_types {}");
}

#[test]
fn each_forbidden_word_is_refused_in_any_file() {
    for (word, _) in FORBIDDEN_WORDS {
        refuses(forbidden_words, "perf/run", &format!("\n# {word}"), &[2]);
        refuses(forbidden_words, "README.md", &format!("`{word}`"), &[1]);
        if word.starts_with('/') {
            passes(forbidden_words, "tests/run", &format!("${{top}}{word}"));
            passes(forbidden_words, "tests/run", &format!("..{word} top{word}"));
        } else if word.starts_with(char::is_alphabetic) {
            passes(forbidden_words, "tests/run", &format!("mktemp X{word}X"));
        }
    }
}

#[test]
fn a_careless_shell_script_is_refused() {
    let careful = "#!/usr/bin/env bash\n# What it does.\nset -euo pipefail\n";
    passes(careless_script, "tests/run", careful);
    let other_shell = careful.replace("env bash", "env -S bash -e");
    refuses(careless_script, "perf/run", &other_shell, &[1]);
    let goes_on_after_errors = careful.replace("euo pipefail", "u");
    refuses(careless_script, "perf/run", &goes_on_after_errors, &[1]);
    refuses(careless_script, "tests/part.bash", "echo\n", &[1, 1]);
    passes(careless_script, "tests/page.py", "#!/usr/bin/env python3\n");
    passes(careless_script, "tests/rows", "a b\n");
    let mut unmarked = SourceFile::new("tests/rows", "a b\n");
    unmarked.executable = true;
    assert_eq!(careless_script(&unmarked).len(), 2);
}
