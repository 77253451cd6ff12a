//! When a row counts as moved on. What the rest of a plan does is seen on real Kafka and Postgres (tests/system/letters.rs).

use super::*;
use crate::ids::Position;

const HOME: Partition = Partition(3);

/// A letter of offset 100 on that partition, stamped 5000.
fn letter(partition: &str) -> Letter {
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    Letter {
        place: Place {
            partition: Partition(0),
            offset: 0,
        },
        timestamp_ms: Some(5000),
        key: None,
        value: None,
        headers: vec![
            header(header::PARTITION, partition),
            header(header::OFFSET, "100"),
        ],
    }
}

/// Whether a row with that newest update holds the letter back, under incarnation 2.
fn moved_on(from: &str, incarnation: i32, offset: i64, updated_at_ms: i64) -> bool {
    let fence = Position {
        incarnation,
        leader_epoch: 7,
        offset,
    };
    let standing = Standing {
        fence,
        updated_at_ms,
    };
    has_moved_on(&letter(from), HOME, 2, &standing)
}

#[test]
fn a_row_that_stands_at_the_letter_or_before_has_not_moved_on() {
    assert!(!moved_on("3", 2, 100, 5000), "the refused update itself");
    assert!(!moved_on("3", 2, 99, 5000));
    assert!(!moved_on("3", 2, 1, 4000));
}

#[test]
fn a_later_offset_or_a_later_time_is_enough() {
    assert!(
        moved_on("3", 2, 101, 5000),
        "many updates share a millisecond"
    );
    assert!(
        moved_on("3", 2, 101, 4000),
        "a producer's clock was set back"
    );
    assert!(
        moved_on("3", 2, 5, 6000),
        "the letter is of the topic's former life"
    );
}

#[test]
fn offsets_of_another_partition_or_life_of_the_topic_tell_nothing() {
    assert!(
        !moved_on("4", 2, 101, 5000),
        "a letter of a wrong partition"
    );
    assert!(moved_on("4", 2, 1, 5001));
    assert!(!moved_on("3", 1, 101, 5000), "a row of the former life");
    assert!(moved_on("3", 1, 1, 5001));
}
