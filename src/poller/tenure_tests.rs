//! One epoch's right to dispatch, step by step.

use super::*;
use crate::observe::recorder::PartitionAlarm;
use crate::rules::table::{Lacking, Tenure as Known};
use hashbrown::{HashMap, HashSet};

const P: Partition = Partition(0);
const EPOCH: EpochId = EpochId(7);
const TERMS: Terms = Terms {
    incarnation: 1,
    ahead_min: AHEAD_MIN,
};

fn start(offset: i64, frontier: i64) -> Start {
    Start {
        partition: P,
        offset,
        end: offset,
        committed: Some(offset),
        leader_epoch: -1,
        stopped: false,
        alarm: PartitionAlarm::None,
        before: None,
        frontier,
        rules_end: 0,
    }
}

fn table(own: &[(RuleId, EdgeKind)], lacking: &[Lacking]) -> Table {
    let known = Known {
        epoch: EPOCH,
        own: own.iter().copied().collect::<HashSet<_>>(),
        lacking: lacking.to_vec(),
    };
    Table::new(Vec::new(), HashMap::from_iter([(P, known)]))
}

fn lacks(rule: RuleId, known: Option<i64>) -> Lacking {
    Lacking {
        rule,
        kind: EdgeKind::Begin,
        known,
    }
}

/// One that has looked at a table and whose first note was taken.
fn owner(offset: i64, frontier: i64) -> Tenure {
    let mut tenure = Tenure::new(&start(offset, frontier), EPOCH, TERMS, true);
    let now = crate::clock::now();
    tenure.look(&table(&[], &[]), now);
    let note = tenure.note(now);
    assert!(tenure.taken(&note), "it is the first");
    tenure
}

#[test]
fn nothing_is_dispatched_before_the_last_owners_edges_are_copied_and_the_note_is_taken() {
    let mut tenure = Tenure::new(&start(100, 120), EPOCH, TERMS, true);
    let (rule, now) = (RuleId::random(), crate::clock::now());
    assert!(!tenure.admits(100) && !tenure.may_commit());
    let proposed = tenure.look(&table(&[], &[lacks(rule, Some(40))]), now);
    assert_eq!(proposed.len(), 1);
    assert_eq!(proposed[0].offset, 40, "what was decided stays");
    assert!(!tenure.admits(100) && !tenure.may_commit());
    let again = tenure.look(&table(&[], &[lacks(rule, Some(40))]), now);
    assert!(again.is_empty(), "it is on its way");
    tenure.look(&table(&[(rule, EdgeKind::Begin)], &[]), now);
    assert!(!tenure.admits(100) && tenure.wants_ceiling(now));
    let note = tenure.note(now);
    assert!(!tenure.wants_ceiling(now), "it is on its way");
    assert!(
        note.ceiling >= 120,
        "what the owners before may have dispatched"
    );
    let foreign = Note {
        epoch: EpochId(6),
        ..note
    };
    assert!(!tenure.taken(&foreign) && !tenure.admits(100));
    assert!(tenure.taken(&note) && tenure.admits(100));
    assert!(tenure.admits(note.ceiling - 1) && !tenure.admits(note.ceiling));
}

#[test]
fn a_new_rule_holds_dispatch_where_it_is_until_its_edge_is_read_back() {
    let mut tenure = owner(100, 100);
    let (rule, now) = (RuleId::random(), crate::clock::now());
    (100..110).for_each(|offset| tenure.dispatched(offset));
    let proposed = tenure.look(&table(&[], &[lacks(rule, None)]), now);
    assert_eq!(proposed[0].offset, 110);
    assert!(!tenure.admits(110));
    // It was removed meanwhile. The edge may be there all the same, and then it counts.
    tenure.look(&table(&[], &[]), now);
    assert!(!tenure.admits(110));
    tenure.look(&table(&[(rule, EdgeKind::Begin)], &[]), now);
    assert!(tenure.admits(110));
}

#[test]
fn a_new_rule_begins_behind_whatever_an_owner_before_may_have_dispatched() {
    let mut tenure = owner(100, 5000);
    let proposed = tenure.look(
        &table(&[], &[lacks(RuleId::random(), None)]),
        crate::clock::now(),
    );
    assert_eq!(proposed[0].offset, 5000);
}

#[test]
fn a_ceiling_that_is_reached_too_soon_is_higher_next_time_and_failures_raise_none() {
    let (mut tenure, mut now) = (owner(0, 0), crate::clock::now());
    let mut ceilings = vec![tenure.limit];
    for _ in 0..3 {
        (tenure.next..tenure.limit).for_each(|offset| tenure.dispatched(offset));
        assert!(!tenure.admits(tenure.next));
        assert!(tenure.starved(tenure.next, now));
        let note = tenure.note(now);
        assert!(!tenure.starved(tenure.next, now), "one is on its way");
        tenure.ask_again();
        assert!(tenure.wants_ceiling(now), "it did not arrive");
        assert!(!tenure.admits(tenure.next));
        tenure.note(now);
        tenure.taken(&note);
        ceilings.push(tenure.limit);
        now += ANSWERED_BY;
    }
    let steps: Vec<i64> = ceilings.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(steps.windows(2).all(|two| two[1] > two[0]), "{ceilings:?}");
}

#[test]
fn the_last_note_says_exactly_how_far_it_went_and_nothing_follows() {
    let mut tenure = owner(100, 100);
    (100..130).for_each(|offset| tenure.dispatched(offset));
    let first = tenure.note(crate::clock::now());
    let last = tenure.last_note();
    assert_eq!(last.ceiling, 130);
    assert!(!tenure.taken(&first) && !tenure.admits(130) && !tenure.may_commit());
    let mut idle = owner(100, 4000);
    assert_eq!(
        idle.last_note().ceiling,
        4000,
        "an owner before went further"
    );
}

#[test]
fn a_throw_away_group_promises_nothing_and_waits_for_nothing() {
    let mut tenure = Tenure::new(&start(0, 0), EPOCH, TERMS, false);
    let lacking = table(&[], &[lacks(RuleId::random(), None)]);
    assert!(tenure.look(&lacking, crate::clock::now()).is_empty());
    assert!(tenure.admits(1 << 40) && !tenure.may_commit());
}

#[test]
fn a_gap_that_is_wider_than_the_ceiling_is_far_is_no_end() {
    let (mut tenure, now) = (owner(100, 100), crate::clock::now());
    let behind_gap = 1_000_000;
    assert!(!tenure.admits(behind_gap) && tenure.starved(behind_gap, now));
    let note = tenure.note(now);
    tenure.ask_again();
    assert!(
        tenure.wants_ceiling(now),
        "it is asked for until it is there"
    );
    tenure.taken(&note);
    assert!(tenure.admits(behind_gap) && !tenure.wants_ceiling(now));
    assert_eq!(tenure.last_note().ceiling, 100, "nothing was dispatched");
}
