//! The shards of a configuration: names, ranges, passwords.

use super::*;
use crate::ids::{AppId, ShardIndex};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_shard_can_be_set_by_variable_and_flag() {
    let mut sources = Sources::of_text(&ONE_SHARD.replace("\"a\"", "\"eu-1\""));
    sources.environment = pairs(&[
        ("MILLPOND_SHARD_EU_1_POSTGRES", "host=::1 dbname=other"),
        ("MILLPOND_SHARD_EU_1_POSTGRES_PASSWORD", "secret"),
    ]);
    sources.flags = pairs(&[("shard.eu-1.workers", "7")]);
    let loaded = load(&sources).unwrap();
    let shard = &loaded.config.shards[0];
    assert_eq!(shard.postgres.shown, "::1:5432/other");
    assert_eq!(
        shard.postgres.driver.get_password(),
        Some(b"secret".as_slice())
    );
    assert_eq!(shard.workers, 7);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn ranges_are_sorted_and_make_the_partitioner() {
    let config = load_text(&two_shards("80-ff", "00-7f")).config;
    let names: Vec<&str> = config
        .shards
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(config.partitioner.partitions_per_shard(), 360);
    assert_eq!(
        config.partitioner.shard_of(AppId([0x7f; 16])),
        ShardIndex(0)
    );
    assert_eq!(
        config.partitioner.shard_of(AppId([0x80; 16])),
        ShardIndex(1)
    );
}

#[test]
fn ranges_with_a_gap_or_an_overlap_are_refused_by_name() {
    for (a, b, expected) in [
        (
            "00-7f",
            "90-ff",
            "shard.b.apps: no shard holds apps that begin with 80-8f; widen shard a or b",
        ),
        (
            "01-7f",
            "80-ff",
            "shard.a.apps: no shard holds apps that begin with 00; widen shard a",
        ),
        (
            "00-7f",
            "80-fe",
            "shard.b.apps: no shard holds apps that begin with ff; widen shard b or add one",
        ),
        (
            "00-8f",
            "80-ff",
            "shards a (00-8f) and b (80-ff) both hold apps that begin with 80-8f; narrow one of them",
        ),
        (
            "00-ff",
            "20",
            "shards a (00-ff) and b (20) both hold apps that begin with 20",
        ),
    ] {
        let problems = problems_of(&Sources::of_text(&two_shards(a, b)));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains(expected), "{}", problems[0]);
    }
}

#[test]
fn what_a_shard_lacks_is_named_with_what_to_add() {
    let problems = problems_of(&Sources::of_text("\n[[shard]]\nname = \"a\"\n[[shard]]\n"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with("(text):4: this [[shard]] has no name; add name = \"a\""));
    let problems = problems_of(&Sources::of_text("\n[[shard]]\nname = \"a\"\n"));
    assert_eq!(
        problems,
        [
            "(text):2: shard a has no apps; add apps = \"00-ff\"",
            "(text):2: shard a has no postgres; add postgres = \"host=… dbname=… user=…\""
        ]
    );
    let problems = problems_of(&Sources::of_text(""));
    assert!(
        problems[0].contains("there is no [[shard]]; add at least one"),
        "{problems:?}"
    );
}

#[test]
fn shard_names_are_legal_and_differ() {
    let named = |name: &str| ONE_SHARD.replace("\"a\"", &format!("\"{name}\""));
    for wrong in ["", "A", "a b", "ä", &"a".repeat(33)] {
        let problems = problems_of(&Sources::of_text(&named(wrong)));
        assert!(
            problems[0].contains("allowed are 1 to 32 of"),
            "{problems:?}"
        );
    }
    let twins = format!("{}{}", named("eu-1"), named("eu_1"));
    let problems = problems_of(&Sources::of_text(&twins));
    assert!(
        problems[0].contains("but (text):1 has shard eu-1; names must differ"),
        "{problems:?}"
    );
}

#[test]
fn a_password_comes_from_a_file_without_its_newline() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pass word\n").unwrap();
    let text = format!(
        "{ONE_SHARD}postgres_password_file = \"{}\"\n",
        file.path().display()
    );
    let loaded = load_text(&text);
    let driver = &loaded.config.shards[0].postgres.driver;
    assert_eq!(driver.get_password(), Some(b"pass word".as_slice()));
    assert_eq!(loaded.warnings, []);

    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file.path(), readable).unwrap();
    let warnings = load_text(&text).warnings;
    assert!(
        warnings[0]
            .text
            .contains("may be read by others; chmod 600"),
        "{warnings:?}"
    );

    std::fs::write(file.path(), "\n").unwrap();
    assert!(problems_of(&Sources::of_text(&text))[0].contains("is empty"));
    file.close().unwrap();
    assert!(problems_of(&Sources::of_text(&text))[0].contains("can't be read: No such file"));
}

#[test]
fn a_password_comes_from_the_variable_that_is_named() {
    let mut sources = Sources::of_text(&format!("{ONE_SHARD}postgres_password_env = \"DB_A\"\n"));
    assert!(problems_of(&sources)[0].contains("there is no such variable"));
    sources.environment = pairs(&[("DB_A", "secret")]);
    let driver = load(&sources).unwrap().config.shards[0]
        .postgres
        .driver
        .clone();
    assert_eq!(driver.get_password(), Some(b"secret".as_slice()));
    sources.flags = pairs(&[("shard.a.postgres_password_file", "/run/secrets/db-a")]);
    assert!(problems_of(&sources)[0].contains("keep one of them"));
}
