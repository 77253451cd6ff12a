//! What is built in: under which licences, from where, which crates in two versions, and which not below a version. Known
//! vulnerabilities are tests/advisories' to look for, which needs a list from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Under one of these a crate may be used. None of them asks anything of who uses the program.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "PostgreSQL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates of which there are several versions, since crates that use them disagree. A new one is a reason to look for another
/// version of what brings it; one that is gone from Cargo.lock is to go here.
const SEVERAL_VERSIONS: &[&str] = &[
    "base64",
    "bitflags",
    "block-buffer",
    "cpufeatures",
    "crypto-common",
    "digest",
    "foldhash",
    "getrandom",
    "hashbrown",
    "md-5",
    "parking_lot",
    "parking_lot_core",
    "r-efi",
    "rand",
    "rand_chacha",
    "rand_core",
    "redox_syscall",
    "sha2",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-width",
    "wasi",
    "windows-sys",
];

/// Versions before these have faults that Millpond would meet.
const FLOORS: &[(&str, [u64; 3])] = &[
    ("crossbeam-channel", [0, 5, 17]),
    ("postgres-protocol", [0, 6, 12]),
    ("tokio-postgres", [0, 7, 18]),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A package of Cargo.lock.
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    has_checksum: bool,
}

fn locked() -> Vec<Locked> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let lock: toml::Table = text.parse().expect("TOML");
    let packages = lock["package"].as_array().expect("a list");
    let text = |package: &toml::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    let locked = packages.iter().map(|package| Locked {
        name: text(package, "name").expect("a name"),
        version: text(package, "version").expect("a version"),
        source: text(package, "source"),
        has_checksum: package.get("checksum").is_some(),
    });
    locked.collect()
}

#[test]
fn every_crate_comes_from_crates_io_with_its_checksum() {
    for Locked {
        name,
        source,
        has_checksum,
        ..
    } in locked()
    {
        let is_ours = name == env!("CARGO_PKG_NAME") && source.is_none();
        let is_theirs = source.as_deref() == Some(CRATES_IO) && has_checksum;
        assert!(is_ours || is_theirs, "{name} comes from {source:?}");
    }
}

#[test]
fn a_crate_has_several_versions_only_where_that_is_known() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Locked { name, version, .. } in locked() {
        versions.entry(name).or_default().insert(version);
    }
    let several = versions.iter().filter(|(_, versions)| versions.len() > 1);
    let several: Vec<&str> = several.map(|(name, _)| name.as_str()).collect();
    assert_eq!(several, SEVERAL_VERSIONS);
}

#[test]
fn no_crate_is_below_its_floor() {
    for (name, floor) in FLOORS {
        let all = locked();
        let mut found = all
            .iter()
            .filter(|package| package.name == *name)
            .peekable();
        assert!(
            found.peek().is_some(),
            "{name} is used no longer: remove its floor"
        );
        for package in found {
            let numbers = package
                .version
                .split('.')
                .map(|number| number.parse().expect("a number"));
            let numbers: Vec<u64> = numbers.collect();
            assert!(
                numbers.as_slice() >= floor.as_slice(),
                "{name} {} is below {floor:?}",
                package.version
            );
        }
    }
}

#[test]
fn every_crate_may_be_used_under_its_licence() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Those of other systems need not be here.
    let compiler = Command::new("rustc").arg("-vV").output().expect("rustc");
    let said = String::from_utf8(compiler.stdout).expect("text");
    let target = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host");
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--all-features",
        "--filter-platform",
        target,
    ]);
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    assert!(
        packages.len() > 100,
        "that can't be all: {}",
        packages.len()
    );
    for package in packages {
        let (name, licence) = (
            &package["name"],
            package["license"].as_str().unwrap_or("none"),
        );
        assert!(
            may_be_used(licence),
            "{name} is under {licence}: use another crate, or add the licence"
        );
    }
}

/// Whether an SPDX expression is met by the licences above. As SPDX has it, AND binds more than OR; `/` is an old OR.
fn may_be_used(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(rest: &mut &[&str]) -> bool {
    let mut met = all_of(rest);
    while let [word, others @ ..] = *rest
        && *word == "OR"
    {
        *rest = others;
        met |= all_of(rest);
    }
    met
}

fn all_of(rest: &mut &[&str]) -> bool {
    let mut met = one(rest);
    while let [word, others @ ..] = *rest
        && *word == "AND"
    {
        *rest = others;
        met &= one(rest);
    }
    met
}

fn one(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", others @ ..] => {
            *rest = others;
            let met = any_of(rest);
            let closed = rest.first() == Some(&")");
            *rest = rest.get(1..).unwrap_or_default();
            met && closed
        }
        // An exception only allows more.
        [licence, "WITH", _, others @ ..] | [licence, others @ ..] => {
            *rest = others;
            LICENCES.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_has_them() {
    for fine in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(GPL-3.0 OR MIT) AND Unicode-3.0",
        "GPL-3.0 AND MIT OR Zlib",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(may_be_used(fine), "{fine}");
    }
    for not in [
        "",
        "none",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT AND (GPL-3.0 OR AGPL-3.0)",
        "(MIT",
        "MIT MIT",
        "GPL-3.0 OR",
    ] {
        assert!(!may_be_used(not), "{not}");
    }
}

/// The script against a list of one advisory.
fn advisories(name: &str, id: &str, versions: &str) -> (bool, String) {
    let list = tempfile::tempdir().expect("a directory");
    let folder = list.path().join("crates").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let text = format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{name}\"\n[versions]\n{versions}\n```\n\n# What is wrong\n"
    );
    fs::write(folder.join(format!("{id}.md")), text).expect("a file");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/advisories");
    let output = Command::new(script)
        .arg(list.path())
        .output()
        .expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn an_advisory_of_a_crate_that_is_built_in_is_found() {
    let (passed, said) = advisories(
        "tokio-postgres",
        "RUSTSEC-2999-0001",
        "patched = [\">= 99.1\"]",
    );
    assert!(
        !passed && said.contains("RUSTSEC-2999-0001") && said.contains("What is wrong"),
        "{said}"
    );
    for versions in [
        "patched = [\">= 0.7.1\"]",
        "patched = [\"^0.7.2\"]",
        "patched = [\">= 99\"]\nunaffected = [\"< 99\"]",
        "patched = [\">= 0.7.1, < 0.8.0\"]",
    ] {
        let (passed, said) = advisories("tokio-postgres", "RUSTSEC-2999-0001", versions);
        assert!(passed, "{versions}: {said}");
    }
    let (passed, said) = advisories("not-one-of-ours", "RUSTSEC-2999-0001", "patched = []");
    assert!(passed, "{said}");
}

#[test]
fn without_its_list_the_check_of_advisories_says_that_nothing_was_checked() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/advisories");
    let output = Command::new(script)
        .arg("/no/such/list")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("NOT CHECKED"),
        "{said}"
    );
}
