//! The same messages for the same seed, of the promised kinds and shares, judged as the consumer judges them.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::checked::PartitionBy;
use crate::update::{Place, decode};
use std::collections::{HashMap, HashSet};

fn traffic(scenario: Scenario, messages: u64, broken: u64) -> Traffic {
    let partitioner = Partitioner::new(24, 2, std::array::from_fn(|byte| u16::from(byte >= 0x80)));
    let options = TrafficOptions {
        seed: 7,
        scenario,
        messages,
        apps: 50,
        rows: 2_000,
        linked: None,
        counts_share: 0.2,
        broken,
        broken_reasons: broken::reasons(PartitionBy::App, &partitioner),
        value_bytes_max: 1_000,
        value_bytes_min: 0,
    };
    Traffic::new(options, partitioner)
}

fn messages(traffic: &Traffic) -> Vec<Message> {
    let write = |number| {
        let mut message = Message::default();
        traffic.write(number, &mut message);
        message
    };
    (0..traffic.options().messages).map(write).collect()
}

/// What the consumer makes of a message: the row, or the reason against it.
fn judge(traffic: &Traffic, message: &Message) -> Result<RowKey, Reason> {
    let value = message.value().ok_or(Reason::Tombstone)?;
    if value.is_empty() {
        return Err(Reason::Empty);
    }
    let place = Place {
        subscription: SubscriptionId::parse(&message.key).ok_or(Reason::BadId)?,
        partition: message.partition,
        partitioner: Some(&traffic.partitioner),
    };
    decode(value, &place)
        .map(|update| update.key)
        .map_err(|rejection| rejection.reason)
}

#[test]
fn the_same_seed_gives_the_same_messages_in_any_order() {
    for scenario in [Scenario::Zipf, Scenario::Clothesly] {
        same_in_any_order(scenario);
    }
}

fn same_in_any_order(scenario: Scenario) {
    let (one, other) = (traffic(scenario, 1_000, 10), traffic(scenario, 1_000, 10));
    let mut message = Message::default();
    for (number, expected) in messages(&one).iter().enumerate().rev() {
        other.write(u64::try_from(number).unwrap(), &mut message);
        assert_eq!(
            (&message.key, message.value()),
            (&expected.key, expected.value())
        );
    }
    let reseeded = TrafficOptions {
        seed: 8,
        ..one.options().clone()
    };
    let reseeded = Traffic::new(reseeded, one.partitioner.clone());
    assert_ne!(reseeded.row(0), one.row(0));
}

#[test]
fn rows_are_distinct_and_spread_over_the_apps() {
    let traffic = traffic(Scenario::Uniform, 1, 0);
    let rows: HashSet<RowKey> = (0..2_000).map(|index| traffic.row(index)).collect();
    let apps: HashSet<AppId> = rows.iter().map(|row| row.app).collect();
    assert_eq!((rows.len(), apps.len()), (2_000, 50));
    assert_eq!(traffic.row(3).app, traffic.row(53).app);
}

#[test]
fn updates_are_what_the_consumer_takes_and_of_the_expected_size() {
    let traffic = traffic(Scenario::Uniform, 20_000, 0);
    let (mut counts, mut sizes) = (0, vec![]);
    for message in messages(&traffic) {
        assert!(
            judge(&traffic, &message).is_ok(),
            "{}",
            String::from_utf8_lossy(&message.value)
        );
        counts += u32::from(
            String::from_utf8(message.value.clone())
                .unwrap()
                .contains("counts"),
        );
        sizes.push(message.value.len());
    }
    assert!(
        (3_500..4_500).contains(&counts),
        "{counts} of 20,000 with counts"
    );
    sizes.sort_unstable();
    assert!(
        sizes[1_000] >= 125 && sizes[19_000] <= 210,
        "{} to {}",
        sizes[1_000],
        sizes[19_000]
    );
}

#[test]
fn exactly_the_asked_number_is_broken_evenly_and_each_for_its_reason() {
    let cases = [(1_000, 33), (1_000, 1_000), (1_000, 1), (7, 3), (12, 0)];
    for ((total, broken), scenario) in cases
        .into_iter()
        .flat_map(|case| [(case, Scenario::Uniform), (case, Scenario::Clothesly)])
    {
        let traffic = traffic(scenario, total, broken);
        let messages = messages(&traffic);
        for message in &messages {
            assert_eq!(judge(&traffic, message).err(), message.broken);
        }
        let found: Vec<usize> = (0..messages.len())
            .filter(|at| messages[*at].broken.is_some())
            .collect();
        assert_eq!(u64::try_from(found.len()).unwrap(), broken);
        let step = total
            .checked_div(broken)
            .map_or(usize::MAX, |step| usize::try_from(step).unwrap());
        assert!(
            found
                .windows(2)
                .all(|pair| (step..=step + 1).contains(&(pair[1] - pair[0])))
        );
        let reasons: HashSet<Reason> = messages
            .iter()
            .filter_map(|message| message.broken)
            .collect();
        assert_eq!(u64::try_from(reasons.len()).unwrap(), broken.min(11));
    }
}

#[test]
fn a_message_that_is_too_large_is_larger_than_the_limit() {
    let mut options = traffic(Scenario::Uniform, 1, 1).options().clone();
    options.broken_reasons = vec![Reason::TooLarge];
    let traffic = Traffic::new(options, traffic(Scenario::Uniform, 1, 1).partitioner);
    assert!(messages(&traffic)[0].value.len() > 1_000);
}

#[test]
fn the_first_row_gets_the_share_of_its_scenario() {
    for (scenario, share) in [
        (Scenario::Hot, 0.28..0.32),
        (Scenario::Zipf, 0.1..0.14),
        (Scenario::Uniform, 0.0..0.001),
    ] {
        let traffic = traffic(scenario, 50_000, 0);
        let mut by_key: HashMap<Vec<u8>, u32> = HashMap::new();
        for message in messages(&traffic) {
            *by_key.entry(message.key).or_default() += 1;
        }
        let first = by_key[traffic.row(0).subscription.to_string().as_bytes()];
        assert!(
            share.contains(&(f64::from(first) / 50_000.0)),
            "{scenario:?}: {first}"
        );
        assert!(
            by_key.len() > 1_900,
            "{scenario:?} reaches {} of 2,000 rows",
            by_key.len()
        );
    }
}

#[test]
fn no_json_name_comes_twice() {
    for message in messages(&traffic(Scenario::Uniform, 5_000, 0)) {
        let text = String::from_utf8(message.value).unwrap();
        for (name, _) in TAGS {
            assert!(text.matches(&format!("\"{name}\":")).count() <= 1, "{text}");
        }
    }
}

#[test]
fn values_are_filled_up_to_the_asked_length_and_nothing_else_of_them_changes() {
    let as_they_are = traffic(Scenario::Uniform, 500, 0);
    let mut longer = as_they_are.options().clone();
    longer.value_bytes_min = 1_000;
    let longer = Traffic::new(longer, as_they_are.partitioner.clone());
    let mut texts = HashSet::new();
    for (short, long) in messages(&as_they_are).iter().zip(&messages(&longer)) {
        assert_eq!(judge(&longer, long), judge(&as_they_are, short));
        assert_eq!(long.value.len(), 1_000);
        let [short, mut long] = [short, long]
            .map(|message| serde_json::from_slice::<serde_json::Value>(&message.value).unwrap());
        let text = long["tags"].as_object_mut().unwrap().remove("about");
        assert!(texts.insert(text.unwrap().as_str().unwrap().to_owned()));
        assert_eq!(short, long);
    }
}

#[test]
fn a_value_that_is_long_enough_or_lacks_too_little_for_a_tag_is_left_as_it_is() {
    let value = br#"{"app_id":"1","tags":{"plan":"free"}}"#;
    for (bytes, expected) in [(0, 37), (30, 37), (48, 37), (49, 49)] {
        let mut padded = value.to_vec();
        padding::pad(&mut padded, bytes, 1, 1);
        assert_eq!(padded.len(), expected, "{bytes}");
    }
}
