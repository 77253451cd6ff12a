//! The consumer's decoder and the model's judge read the same of whatever comes: both take a message and mean the same by it, or
//! both refuse it for the same reason.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests say what they saw"
)]

use super::judge::{self, Judge};
use super::state::Value;
use crate::fuzz;
use crate::ids::{AppId, Partition, SubscriptionId};
use crate::partitioner::Partitioner;
use crate::update::{self, Change, Place, SetValue, column};
use rand::Rng;
use std::collections::BTreeMap;

const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
const BYTES_MAX: usize = 4096;
const PARTITIONS: u32 = 8;
const INPUTS: u64 = 500_000;

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "false",
    "-",
    "0",
    "-1",
    "1.5",
    "1e999",
    "1E-1000",
    "1e1001",
    "0e5",
    "-0.0",
    "00",
    "+1",
    ".5",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\ud83d\\ude00",
    "\\u00e9",
    "\\\\",
    "\\\"",
    "\\n",
    "\\",
    "\0",
    "\t",
    "\n",
    " ",
    "\u{7f}",
    "\u{feff}",
    "é",
    "😀",
    "\"tags\"",
    "\"counts\"",
    "\"parent_id\"",
    "\"device_type\"",
    "\"identifier\"",
    "\"app_id\"",
    "\"subscription_id\"",
    "\"t\\u0061gs\"",
    "\"tags\":{}",
    "\"tags\":{\"a\":1,\"a\":\"\"}",
    "\"counts\":{\"n\":1}",
    "\"counts\":{\"n\":-1,\"n\":2}",
    "\"parent_id\":null",
    "\"identifier\":\"x\"",
    "\"x\":[[{}]]",
    "\"a\":1",
    "\"a\":-2",
    "\"b\":\"x\"",
    "\"b\":1e2",
    "\"\"",
    "urn:uuid:",
    "5eb5a37e-b458-11e3-ac11-000c2940e62c",
    ROW,
    "{f47ac10b-58cc-4372-a567-0e02b2c3d479}",
    "f47ac10b58cc4372a5670e02b2c3d479",
];

/// What a message does, in one form for both.
#[derive(Debug, Default, PartialEq)]
struct Meaning {
    row: String,
    /// `None`: left as it is; `Some(None)`: cleared.
    parent: Option<Option<SubscriptionId>>,
    device_type: Option<Option<String>>,
    identifier: Option<Option<String>>,
    tags: BTreeMap<String, Option<Value>>,
    counts: BTreeMap<String, i64>,
}

fn of_update(update: &update::Update<'_>) -> Meaning {
    let mut meaning = Meaning {
        row: format!("{:?}", update.key),
        ..Meaning::default()
    };
    let uuid = |value: &Option<SetValue<'_>>| {
        value.as_ref().map(|value| match value {
            SetValue::Uuid(id) => SubscriptionId(*id),
            other => panic!("a link to {other:?}"),
        })
    };
    let text = |value: &Option<SetValue<'_>>| {
        value.as_ref().map(|value| match value {
            SetValue::Text(text) => text.to_string(),
            other => panic!("{other:?} is no text"),
        })
    };
    for change in &update.changes {
        let again = match change {
            Change::Merge {
                column: column::TAGS,
                name,
                value,
            } => {
                // The row must hold what was sent, so a text must be JSON, and read back as what the judge takes it for.
                let value = value.map(|raw| match serde_json::from_str(raw).unwrap() {
                    serde_json::Value::String(text) => Value::text(&text),
                    _ => Value::plain(raw),
                });
                meaning.tags.insert(name.to_string(), value).is_some()
            }
            Change::Add {
                column: column::COUNTS,
                name,
                delta,
            } => meaning.counts.insert(name.to_string(), *delta).is_some(),
            Change::Set {
                column: column::PARENT,
                value,
            } => meaning.parent.replace(uuid(value)).is_some(),
            Change::Set {
                column: column::DEVICE_TYPE,
                value,
            } => meaning.device_type.replace(text(value)).is_some(),
            Change::Set {
                column: column::IDENTIFIER,
                value,
            } => meaning.identifier.replace(text(value)).is_some(),
            other => panic!("{other:?} of no column"),
        };
        assert!(!again, "a name comes twice: {:?}", update.changes);
    }
    meaning
}

fn set<T, U>(change: judge::Change<T>, as_it_is: impl FnOnce(T) -> U) -> Option<Option<U>> {
    match change {
        judge::Change::Leave => None,
        judge::Change::Clear => Some(None),
        judge::Change::Set(value) => Some(Some(as_it_is(value))),
    }
}

fn of_judge(update: judge::Update<'_>) -> Meaning {
    Meaning {
        row: format!("{:?}", update.row),
        parent: set(update.parent, |parent| parent),
        device_type: set(update.device_type, |text| text.into_owned()),
        identifier: set(update.identifier, |text| text.into_owned()),
        tags: update
            .tags
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value))
            .collect(),
        counts: update
            .counts
            .into_iter()
            .map(|(name, add)| (name.into_owned(), add))
            .collect(),
    }
}

/// One message, read by both. What it was taken for: its meaning, or the reason.
fn agree(
    judge: &Judge,
    partition: Partition,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Meaning, &'static str> {
    let judged = judge.judge(partition, key, value).map(of_judge);
    let decoded = update::judge(key, value, BYTES_MAX).and_then(|envelope| {
        let place = Place {
            subscription: envelope.subscription,
            partition,
            partitioner: judge.partitioner.as_ref(),
        };
        let update = update::decode(envelope.value, &place)?;
        Ok(of_update(&update))
    });
    if let Err(rejection) = &decoded {
        assert!(
            !rejection.message.is_empty() && rejection.message.len() < 2 * BYTES_MAX,
            "{rejection:?}"
        );
    }
    let decoded = decoded.map_err(|rejection| rejection.reason);
    assert_eq!(decoded, judged, "the consumer's decoder, and the model");
    judged.map_err(|reason| reason.as_str())
}

#[test]
fn decoder_and_model_read_the_same_of_whatever_comes() {
    let home = Partitioner::new(PARTITIONS, 1, [0; 256]);
    let app = AppId::parse(b"5eb5a37e-b458-11e3-ac11-000c2940e62c").unwrap();
    let partition = home.partition_of(app);
    let [anywhere, at_home] = [None, Some(home)].map(|partitioner| Judge {
        message_bytes_max: BYTES_MAX,
        partitioner,
    });
    let mut taken_for: BTreeMap<&str, u64> = BTreeMap::new();
    let made = fuzz::each("decoder", TOKENS, INPUTS, |fuzz, input| {
        let key = match fuzz.rng.random_range(0..40) {
            0 => None,
            1 => Some(&input[..input.len().min(36)]),
            2 => Some(ROW.as_bytes()),
            3 => Some(b"F47AC10B58CC4372A5670E02B2C3D479".as_slice()),
            _ => Some(ROW.as_bytes()),
        };
        let value = Some(input).filter(|_| fuzz.rng.random_ratio(499, 500));
        let judge = if fuzz.rng.random() {
            &at_home
        } else {
            &anywhere
        };
        let found = agree(judge, partition, key, value);
        *taken_for.entry(found.err().unwrap_or("good")).or_default() += 1;
    });
    println!("{taken_for:?}");
    for of_message in [
        "good",
        "empty",
        "tombstone",
        "not-json",
        "missing-id",
        "bad-id",
        "key-mismatch",
        "wrong-partition",
        "bad-tags",
        "bad-counts",
        "bad-text",
        "self-parent",
        "too-large",
    ] {
        assert!(
            taken_for.contains_key(of_message),
            "no input is {of_message}: {taken_for:?}"
        );
    }
    assert!(
        taken_for["good"] > made / 50,
        "too few are good: {taken_for:?}"
    );
}
