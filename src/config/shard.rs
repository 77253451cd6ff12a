//! The shards: each by itself (range, address, password, lanes), then together (the ranges hold every first byte once).

use super::checked::{PostgresAddress, Shard, password_in};
use super::file::Given;
use super::keys;
use super::postgres_address;
use super::problem::Origin;
use super::reader::Reader;
use crate::partitioner::Partitioner;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// All shards, sorted by the start of their range. Those with a problem are left out.
pub(super) fn shards(read: &mut Reader<'_>, environment: &[(String, String)]) -> Vec<Shard> {
    let written = read.written;
    if written.shards.is_empty() {
        let text = "there is no [[shard]]; add at least one, with name = \"a\", apps = \"00-ff\" and \
                    postgres = \"host=… dbname=… user=…\"";
        read.refuse_at(&written.path, text);
    }
    let mut shards: Vec<Shard> = written
        .shards
        .iter()
        .filter_map(|shard| one(read, &shard.name, &shard.origin, environment))
        .collect();
    shards.sort_by_key(|shard| shard.apps);
    shards
}

fn one(
    read: &mut Reader<'_>,
    name: &str,
    origin: &Origin,
    environment: &[(String, String)],
) -> Option<Shard> {
    let written = read.written;
    let key = |key: &str| keys::of_shard(name, key);
    let workers = read.whole(
        &key("workers"),
        1..=64,
        "each is a connection, and past some dozens Postgres gets slower",
    );
    let write_rate_max = read.whole(
        &key("write_rate_max"),
        0..=10_000_000,
        "no Postgres writes more; 0 is no bound",
    );
    let mut required = |key: &str, example: &str| {
        let given = &written.setting(&keys::of_shard(name, key)).value;
        let missing = *given == Given::Text(String::new());
        if missing {
            let text = format!("shard {name} has no {key}; add {key} = \"{example}\"");
            read.refuse_at(origin, text);
        }
        !missing
    };
    let has_apps = required("apps", "00-ff");
    let has_postgres = required("postgres", "host=… dbname=… user=…");
    let apps = has_apps.then(|| read.parsed(&key("apps"), byte_range));
    let postgres = has_postgres.then(|| address(read, name, environment));
    Some(Shard {
        name: name.to_owned(),
        apps: apps??,
        postgres: postgres??,
        workers,
        write_rate_max: Some(write_rate_max).filter(|rate| *rate > 0),
    })
}

/// "00-7f", or "7f" for one byte.
fn byte_range(text: &str) -> Result<(u8, u8), String> {
    let byte = |text: &str| {
        let two_digits = text.len() == 2 && text.chars().all(|c| c.is_ascii_hexdigit());
        u8::from_str_radix(text, 16).ok().filter(|_| two_digits)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (byte(first), byte(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err("allowed are two bytes in hex, lower first, like \"00-7f\", or one".to_owned()),
    }
}

fn address(
    read: &mut Reader<'_>,
    shard: &str,
    environment: &[(String, String)],
) -> Option<PostgresAddress> {
    let name = keys::of_shard(shard, "postgres");
    let mut address = read.parsed(&name, postgres_address::parse)?;
    if address.driver.get_password().is_some() {
        read.warn(
            &name,
            "holds the password, for all to read who may read this; \
             use postgres_password_file or _env",
        );
    }
    if let Some(Password { text, file }) = password(read, shard, environment) {
        address.driver.password(text);
        address.password_file = file;
    }
    Some(address)
}

/// A password as it is now.
struct Password {
    text: String,
    /// Where it stands, if in a file.
    file: Option<PathBuf>,
}

/// The password that was given apart from the connection string.
fn password(
    read: &mut Reader<'_>,
    shard: &str,
    environment: &[(String, String)],
) -> Option<Password> {
    let lasting = |text| Password { text, file: None };
    let [direct_key, file_key, variable_key] = [
        "postgres_password",
        "postgres_password_file",
        "postgres_password_env",
    ]
    .map(|key| keys::of_shard(shard, key));
    if let Some(password) = read.secret(&direct_key) {
        let origin = &read.written.setting(&direct_key).origin;
        if !matches!(origin, Origin::Environment(_)) {
            read.warn(
                &direct_key,
                "stands where others may read it; use postgres_password_file or _env",
            );
        }
        return Some(lasting(password.0));
    }
    let (file, variable) = (read.text(&file_key), read.text(&variable_key));
    match (file.as_str(), variable.as_str()) {
        ("", "") => None,
        (file, "") => password_of_file(read, &file_key, file).map(|text| Password {
            text,
            file: Some(PathBuf::from(file)),
        }),
        ("", variable) => {
            let found = environment.iter().find(|(name, _)| name == variable);
            if found.is_none() {
                read.refuse(
                    &variable_key,
                    format!("found {variable}, but there is no such variable in the environment"),
                );
            }
            found.map(|(_, value)| lasting(value.clone()))
        }
        _ => {
            read.refuse(
                &file_key,
                "postgres_password_env is given too; keep one of them",
            );
            None
        }
    }
}

/// The file's content without the newline at its end.
fn password_of_file(read: &mut Reader<'_>, key: &str, path: &str) -> Option<String> {
    const OTHERS_MAY_READ: u32 = 0o044;
    let content = std::fs::metadata(path).and_then(|metadata| {
        if metadata.permissions().mode() & OTHERS_MAY_READ != 0 {
            read.warn(
                key,
                format!("{path} may be read by others; chmod 600 {path}"),
            );
        }
        std::fs::read_to_string(path)
    });
    match content {
        Ok(content) if password_in(&content).is_empty() => {
            read.refuse(
                key,
                format!("{path} is empty; allowed is a file that holds the password"),
            );
            None
        }
        Ok(content) => Some(password_in(&content).to_owned()),
        Err(error) => {
            read.refuse(key, format!("{path} can't be read: {error}"));
            None
        }
    }
}

/// The shard of each app's first byte. Gaps, overlaps and a number of partitions that can't be split are problems.
///
/// `None` where there is any; shards are sorted by the start of their range.
pub(super) fn partitioner(
    read: &mut Reader<'_>,
    shards: &[Shard],
    partitions: u32,
) -> Option<Partitioner> {
    let covered = covers_every_byte(read, shards);
    let count = u32::try_from(shards.len()).expect("shards fit 32 bits");
    if !partitions.is_multiple_of(count) {
        let (below, above) = (
            partitions / count * count,
            partitions.next_multiple_of(count),
        );
        let nearest = if below == 0 {
            above.to_string()
        } else {
            format!("{below} or {above}")
        };
        read.refuse(
            "kafka.partitions",
            format!(
                "found {partitions}, which can't be divided evenly between {count} shards; \
                 nearest is {nearest}"
            ),
        );
        return None;
    }
    covered.then(|| {
        let shard_of_byte = std::array::from_fn(|byte| {
            let holds = |shard: &Shard| (shard.apps.0..=shard.apps.1).contains(&byte_of(byte));
            let index = shards
                .iter()
                .position(holds)
                .expect("every byte is covered");
            u16::try_from(index).expect("at most 256 ranges of bytes")
        });
        Partitioner::new(partitions, count, shard_of_byte)
    })
}

fn byte_of(index: usize) -> u8 {
    u8::try_from(index).expect("the table has a place for each byte")
}

fn covers_every_byte(read: &mut Reader<'_>, shards: &[Shard]) -> bool {
    let mut whole = true;
    // The first byte that no shard so far holds; 256 when all are held.
    let mut next: u16 = 0;
    let mut before: Option<&Shard> = None;
    for shard in shards {
        let (first, last) = (u16::from(shard.apps.0), u16::from(shard.apps.1));
        let apps_key = keys::of_shard(&shard.name, "apps");
        if first > next {
            let beside = before.map_or_else(String::new, |other| format!("{} or ", other.name));
            let missing = bytes_shown(next, first - 1);
            read.refuse(
                &apps_key,
                format!(
                    "no shard holds apps that begin with {missing}; widen shard {beside}{}",
                    shard.name
                ),
            );
            whole = false;
        }
        if let Some(other) = before.filter(|_| first < next) {
            let both = bytes_shown(first, last.min(next - 1));
            read.refuse(
                &apps_key,
                format!(
                    "shards {} ({}) and {} ({}) both hold apps that begin with {both}; \
                     narrow one of them",
                    other.name,
                    shown(other.apps),
                    shard.name,
                    shown(shard.apps)
                ),
            );
            whole = false;
        }
        if last >= next {
            next = last + 1;
            before = Some(shard);
        }
    }
    if let Some(last) = before.filter(|_| next <= 0xff) {
        let missing = bytes_shown(next, 0xff);
        read.refuse(
            &keys::of_shard(&last.name, "apps"),
            format!(
                "no shard holds apps that begin with {missing}; widen shard {} or add one",
                last.name
            ),
        );
        whole = false;
    }
    whole
}

/// A range as the file spells it.
#[must_use]
pub fn shown(apps: (u8, u8)) -> String {
    bytes_shown(u16::from(apps.0), u16::from(apps.1))
}

fn bytes_shown(first: u16, last: u16) -> String {
    if first == last {
        format!("{first:02x}")
    } else {
        format!("{first:02x}-{last:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_bytes_in_hex() {
        assert_eq!(byte_range("00-7f"), Ok((0, 0x7f)));
        assert_eq!(byte_range("7F"), Ok((0x7f, 0x7f)));
        for wrong in [
            "", "0-7", "7f-00", "00-7g", "00-100", "+1-7f", "00-7f-ff", "00–7f",
        ] {
            assert!(byte_range(wrong).is_err(), "{wrong}");
        }
    }
}
