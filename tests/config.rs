//! `millpond config` as a user has it: the binary's exit codes, and what goes to stdout and to stderr.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output, Stdio};

/// In an empty directory without any of our variables, so that nothing around it is a source of configuration.
fn millpond(directory: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.args(arguments).current_dir(directory.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLPOND_") {
            command.env_remove(name);
        }
    }
    command
}

/// With the example as `millpond.toml`.
fn with_example() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let example = millpond(&directory, &["config", "example"])
        .output()
        .unwrap();
    assert!(example.status.success());
    std::fs::write(directory.path().join("millpond.toml"), example.stdout).unwrap();
    directory
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The run's stderr, after it was refused with 2 and printed no data.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(output.stdout, b"");
    stderr
}

#[test]
fn the_example_passes_the_check() {
    let directory = with_example();
    let output = millpond(&directory, &["config", "check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stdout(&output),
        "topic subscription-updates, 720 partitions, group millpond, at 127.0.0.1:9092\n\
         shard a: apps 00-ff, 720 partitions, 5 connections, at 127.0.0.1:5432/millpond\n\
         ok\n"
    );
    assert_eq!(output.stderr, b"");
}

#[test]
fn without_a_file_it_says_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let stderr = refusal(&mut millpond(&directory, &["config", "check"]));
    assert!(stderr.starts_with("millpond: ./millpond.toml: there is no such file; make one with"));
}

#[test]
fn each_problem_has_a_line_of_its_own() {
    let directory = with_example();
    let flags = [
        "config",
        "check",
        "--set",
        "kafka.partitions=0",
        "-X",
        "acks=0",
    ];
    let stderr = refusal(&mut millpond(&directory, &flags));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with("millpond: flag -X: kafka.librdkafka.acks can't be set: "));
    assert!(
        lines[1].starts_with("millpond: flag --set: kafka.partitions: found 0, allowed is 1 to")
    );
}

#[test]
fn settings_that_librdkafka_does_not_take_are_refused() {
    let directory = with_example();
    let flags = [
        "config",
        "check",
        "-X",
        "linger.msec=5",
        "-X",
        "linger.ms=x",
    ];
    let stderr = refusal(&mut millpond(&directory, &flags));
    assert!(
        stderr.contains("flag -X: kafka.librdkafka.linger.msec: found 5, but"),
        "{stderr}"
    );
    assert!(
        stderr.contains("flag -X: kafka.librdkafka.linger.ms: found x, but"),
        "{stderr}"
    );
}

#[test]
fn variables_beat_the_file_and_flags_beat_variables() {
    let directory = with_example();
    let shown = |command: &mut Command| {
        let text = stdout(&command.output().unwrap());
        let line = text
            .lines()
            .find(|line| line.starts_with("kafka.group "))
            .unwrap();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut show = millpond(&directory, &["config", "show"]);
    assert!(shown(&mut show).starts_with("millpond ./millpond.toml:"));
    show.env("MILLPOND_KAFKA_GROUP", "v");
    assert_eq!(shown(&mut show), "v environment MILLPOND_KAFKA_GROUP");
    show.args(["--set", "kafka.group=f"]);
    assert_eq!(shown(&mut show), "f flag --set");
}

#[test]
fn the_variable_names_the_file() {
    let directory = with_example();
    let path = directory.path().join("millpond.toml");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut check = millpond(&elsewhere, &["config", "check"]);
    let output = check.env("MILLPOND_CONFIG", path).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_warning_does_not_stop_it() {
    let directory = with_example();
    let flags = [
        "config",
        "check",
        "--set",
        "shard.a.postgres=host=::1 password=hunter2",
    ];
    let output = millpond(&directory, &flags).output().unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        stderr.starts_with("millpond: warning: flag --set: shard.a.postgres: holds the password")
    );
    assert!(!format!("{stderr}{}", stdout(&output)).contains("hunter2"));
}

#[test]
fn a_shard_that_is_away_fails_the_connect_check_but_not_the_configuration() {
    let directory = with_example();
    let away = "shard.a.postgres=host=127.0.0.1 port=1 dbname=rows";
    let broker = "kafka.brokers=127.0.0.1:1";
    let flags = [
        "config",
        "check",
        "--connect",
        "--set",
        away,
        "--set",
        broker,
    ];
    let output = millpond(&directory, &flags).output().unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("shard a: Postgres at 127.0.0.1:1/rows can't be reached"),
        "{stderr}"
    );
    assert!(!stdout(&output).contains("ok"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut example = millpond(&directory, &["config", "example"]);
    let child = example
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

#[test]
fn the_version_names_what_is_built_in() {
    let directory = tempfile::tempdir().unwrap();
    let output = millpond(&directory, &["--version"]).output().unwrap();
    let text = stdout(&output);
    let names: Vec<&str> = text
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        names,
        ["millpond", "librdkafka", "target", "profile", "allocator"]
    );
}
