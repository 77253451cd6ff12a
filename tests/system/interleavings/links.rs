//! The same for updates that link: children stay counted, and a link is made once.

use super::{APP, ONE, Ours, apply_behind, one_shard, reasons};
use crate::pond::Pond;
use millpond::dead::Reason;
use millpond::worker::fold::Outcome;

const FIRST: &str = "11111111-0000-4000-8000-000000000000";
const SECOND: &str = "22222222-0000-4000-8000-000000000000";

fn link_to(parent: &str) -> String {
    format!(r#""parent_id":"{parent}","counts":{{"n":1}}"#)
}

/// The row's parent, its count n, and the children of each parent.
fn state(pond: &Pond) -> (Option<String>, String, Vec<(String, i32)>) {
    let mut client = pond.shard(0);
    let row = client
        .query_one(
            "SELECT parent_id::text, counts ->> 'n' FROM subscription",
            &[],
        )
        .unwrap();
    let parents = client
        .query(
            "SELECT parent_id::text, children FROM parent ORDER BY 1",
            &[],
        )
        .unwrap();
    let parents = parents.iter().map(|row| (row.get(0), row.get(1)));
    (row.get(0), row.get(1), parents.collect())
}

fn children(first: i32, second: i32) -> Vec<(String, i32)> {
    vec![(FIRST.to_owned(), first), (SECOND.to_owned(), second)]
}

#[test]
fn a_late_writer_that_links_the_row_in_the_middle_of_a_relink_is_counted_once() {
    let pond = one_shard("late-link");
    Ours::new(&pond).apply(&[(3, ONE)]);
    let late = format!(
        "UPDATE subscription SET parent_id = '{FIRST}', counts = '{{\"n\": 2}}', source_offset = 5;
         INSERT INTO parent VALUES ('{APP}', '{FIRST}', 1)"
    );
    let updates = [(5, &*link_to(FIRST)), (6, &*link_to(SECOND))];
    let (outcomes, _) = apply_behind(&pond, &late, &updates);
    assert!(
        matches!(outcomes[..], [Outcome::Replayed, Outcome::Applied]),
        "{outcomes:?}"
    );
    assert_eq!(
        state(&pond),
        (Some(SECOND.to_owned()), "3".to_owned(), children(0, 1))
    );
}

#[test]
fn two_writers_of_the_same_links_take_effect_once() {
    let pond = one_shard("link-race");
    let (first, second) = (link_to(FIRST), link_to(SECOND));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut writer = Ours::new(&pond);
                for round in 0..100 {
                    writer.apply(&[
                        (3 * round, &first),
                        (3 * round + 1, r#""parent_id":null"#),
                        (3 * round + 2, &second),
                    ]);
                }
            });
        }
    });
    assert_eq!(
        state(&pond),
        (Some(SECOND.to_owned()), "200".to_owned(), children(0, 1))
    );
}

#[test]
fn a_refused_link_is_remembered_and_the_rest_of_its_update_applies_once() {
    let pond = one_shard("link-refused");
    let taken = format!("INSERT INTO parent VALUES ('{APP}', '{FIRST}', 1)");
    pond.shard(0).batch_execute(&taken).unwrap();
    for _ in 0..2 {
        let mut ours = Ours::new(&pond);
        ours.tunables.set_links_per_parent_max(Some(1));
        let outcomes = ours.apply(&[
            (1, &link_to(SECOND)),
            (2, &link_to(FIRST)),
            (3, r#""tags":{"a":1}"#),
        ]);
        let expected = [None, Some(Reason::LinkLimit), None];
        assert_eq!(reasons(&outcomes), expected, "{outcomes:?}");
        assert_eq!(
            state(&pond),
            (Some(SECOND.to_owned()), "2".to_owned(), children(1, 1))
        );
    }
}

#[test]
fn a_data_error_between_links_is_refused_with_its_link() {
    let pond = one_shard("link-data-error");
    let check = "ALTER TABLE subscription ADD CHECK (identifier <> 'bad')";
    pond.shard(0).batch_execute(check).unwrap();
    let bad = format!(r#""parent_id":"{SECOND}","identifier":"bad""#);
    let outcomes = Ours::new(&pond).apply(&[(1, &link_to(FIRST)), (2, &bad), (3, ONE)]);
    let expected = [None, Some(Reason::Database), None];
    assert_eq!(reasons(&outcomes), expected, "{outcomes:?}");
    let (parent, count, parents) = state(&pond);
    assert_eq!((parent.as_deref(), count.as_str()), (Some(FIRST), "2"));
    assert_eq!(parents, [(FIRST.to_owned(), 1)]);
}

#[test]
fn sums_that_overflow_in_memory_beside_a_link_are_written_one_by_one() {
    let pond = one_shard("link-sums");
    let max = format!(r#""parent_id":"{FIRST}","counts":{{"n":{}}}"#, i64::MAX);
    let outcomes =
        Ours::new(&pond).apply(&[(1, &max), (2, &link_to(SECOND)), (3, r#""tags":{"a":1}"#)]);
    let expected = [None, Some(Reason::Overflow), None];
    assert_eq!(reasons(&outcomes), expected, "{outcomes:?}");
    let (parent, count, _) = state(&pond);
    assert_eq!(
        parent.as_deref(),
        Some(FIRST),
        "the refused update's link is refused with it"
    );
    assert_eq!(count, i64::MAX.to_string());
}
