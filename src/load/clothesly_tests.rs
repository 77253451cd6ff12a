//! The incident's shares, and that a child's update really comes once more for its parent.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::load::{Message, Scenario, Traffic, TrafficOptions};
use crate::update::{Place, decode};
use std::collections::{HashMap, HashSet};

const MESSAGES: u64 = 40_000;
const ROWS: u32 = 2_000;
const APPS: u32 = 60;

fn partitioner() -> Partitioner {
    Partitioner::new(24, 2, std::array::from_fn(|byte| u16::from(byte >= 0x80)))
}

fn traffic(rows: u32) -> Traffic {
    let options = TrafficOptions {
        seed: 7,
        scenario: Scenario::Clothesly,
        messages: MESSAGES,
        apps: APPS,
        rows,
        linked: None,
        counts_share: 0.2,
        broken: 0,
        broken_reasons: vec![],
        value_bytes_max: 1_000,
        value_bytes_min: 0,
    };
    Traffic::new(options, partitioner())
}

/// A message as text, with its row.
struct Seen {
    row: RowKey,
    partition: crate::ids::Partition,
    value: String,
}

/// All messages; each is one that the consumer takes.
fn seen(traffic: &Traffic) -> Vec<Seen> {
    let partitioner = partitioner();
    let see = |number| {
        let mut message = Message::default();
        traffic.write(number, &mut message);
        let place = Place {
            subscription: SubscriptionId::parse(&message.key).unwrap(),
            partition: message.partition,
            partitioner: Some(&partitioner),
        };
        let value = String::from_utf8(message.value.clone()).unwrap();
        let row = match decode(&message.value, &place) {
            Ok(update) => update.key,
            Err(rejection) => panic!("{value}: {}", rejection.message),
        };
        Seen {
            row,
            partition: message.partition,
            value,
        }
    };
    (0..traffic.options().messages).map(see).collect()
}

fn share(seen: &[Seen], of: impl Fn(&Seen) -> bool) -> f64 {
    let count = seen.iter().filter(|seen| of(seen)).count();
    count as f64 / seen.len() as f64
}

#[test]
fn nearly_half_of_the_messages_are_for_the_parent_and_few_for_other_apps() {
    let traffic = traffic(ROWS);
    let (seen, parent) = (seen(&traffic), traffic.row(ROWS));
    let shares = [
        share(&seen, |seen| seen.row == parent),
        share(&seen, |seen| seen.row.app != parent.app),
        share(&seen, |seen| seen.value.contains("parent_id")),
    ];
    assert!((0.445..0.467).contains(&shares[0]), "{shares:?}");
    assert!((0.043..0.057).contains(&shares[1]), "{shares:?}");
    assert!((0.0037..0.0057).contains(&shares[2]), "{shares:?}");
    let children: HashSet<RowKey> = seen.iter().map(|seen| seen.row).collect();
    let reached = (0..ROWS).filter(|index| children.contains(&traffic.row(*index)));
    assert!(reached.count() > 1_990);
    assert_eq!(traffic.rows(), ROWS + 1 + ROWS / 5);
}

#[test]
fn each_update_of_a_linked_child_comes_at_once_once_more_for_the_parent() {
    let traffic = traffic(ROWS);
    let (seen, parent) = (seen(&traffic), traffic.row(ROWS));
    let linked: HashSet<RowKey> = (0..ROWS * LINKED_PERCENT / 100)
        .map(|index| traffic.row(index))
        .collect();
    let mut mirrored = 0;
    for pair in seen.chunks(2) {
        let [first, second] = pair else {
            panic!("an even number of messages")
        };
        if linked.contains(&first.row) {
            let once_more = first.value.replace(
                &first.row.subscription.to_string(),
                &parent.subscription.to_string(),
            );
            assert_eq!((second.row, &second.value), (parent, &once_more));
            for tag in ["location", "color", "level"] {
                assert_eq!(first.value.matches(&format!("\"{tag}\":")).count(), 1);
            }
            mirrored += 1;
        } else {
            let is_link = second.value.contains("parent_id");
            assert!(second.row != parent && is_link == (first.row == parent));
        }
    }
    assert!(mirrored > 17_000, "{mirrored}");
}

#[test]
fn links_name_the_row_of_the_email_and_one_child_after_the_other() {
    let traffic = traffic(ROWS);
    let (seen, parent) = (seen(&traffic), traffic.row(ROWS));
    let namespace = uuid::Uuid::from_bytes(parent.app.0);
    let expected = uuid::Uuid::new_v5(&namespace, b"admin@clothes.ly");
    assert_eq!(parent.subscription.to_string(), expected.to_string());
    assert_eq!(
        SubscriptionId::of_email(parent.app, "Admin@Clothes.LY"),
        parent.subscription
    );
    let mut linked = HashSet::new();
    for pair in seen
        .chunks(2)
        .filter(|pair| pair[1].value.contains("parent_id"))
    {
        assert!(
            pair[0]
                .value
                .ends_with(r#","device_type":"email","identifier":"admin@clothes.ly"}"#)
        );
        let parent_id = format!(r#","parent_id":"{}"}}"#, parent.subscription);
        assert!(pair[1].value.ends_with(&parent_id) && pair[1].row.app == parent.app);
        assert!(
            linked.insert(pair[1].row),
            "each is linked once before any comes again"
        );
    }
    assert!(linked.len() > 150, "{}", linked.len());
}

#[test]
fn the_app_has_its_partition_together_with_others_and_others_have_others() {
    let traffic = traffic(ROWS);
    let own = traffic.row(0).app;
    let mut partitions: HashMap<RowKey, _> = HashMap::new();
    for seen in seen(&traffic) {
        assert_eq!(seen.partition, partitioner().partition_of(seen.row.app));
        partitions.insert(seen.row, seen.partition);
    }
    let others = || partitions.iter().filter(|(row, _)| row.app != own);
    let shared = partitions[&traffic.row(0)];
    assert!(others().any(|(_, partition)| *partition == shared));
    let elsewhere: HashSet<i32> = others().map(|(_, partition)| partition.0).collect();
    assert!(elsewhere.len() > 15, "{elsewhere:?}");
}

#[test]
fn an_app_of_one_row_and_one_of_a_few_are_traffic_too() {
    for rows in [1, 2, 30] {
        let traffic = traffic(rows);
        let parent = traffic.row(rows);
        let of_parent = share(&seen(&traffic), |seen| seen.row == parent);
        assert!((0.4..0.5).contains(&of_parent), "{rows} rows: {of_parent}");
    }
}

#[test]
fn with_a_link_limit_in_force_the_parent_gets_next_to_nothing() {
    let mut options = traffic(ROWS).options().clone();
    options.linked = Some(20);
    let traffic = Traffic::new(options, partitioner());
    let (seen, parent) = (seen(&traffic), traffic.row(ROWS));
    let of_parent = share(&seen, |seen| seen.row == parent);
    assert!((0.005..0.015).contains(&of_parent), "{of_parent}");
    let linked = seen.iter().filter(|seen| seen.value.contains("parent_id"));
    let linked: HashSet<RowKey> = linked.map(|seen| seen.row).collect();
    assert_eq!(linked.len(), 20);
}
