//! The state, record by record, with owners that come, go, and write too late.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::ids::{AppId, RowKey, SubscriptionId};
use crate::rules::record::{Removed, Target};
use crate::rules::table::Seen;

const P: Partition = Partition(0);
const APP: AppId = AppId([1; 16]);
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn scope() -> Scope {
    Scope {
        partitioner: None,
        incarnation: 1,
    }
}

fn row(subscription: u8) -> RowKey {
    RowKey {
        app: APP,
        subscription: SubscriptionId([subscription; 16]),
    }
}

fn rule(id: u8, target: Target) -> Rule {
    Rule {
        id: RuleId(uuid::Uuid::from_bytes([id; 16])),
        target,
        reason: "why".to_owned(),
        author: "ann".to_owned(),
        created_at: NOW,
        until: None,
        removed: None,
    }
}

fn removed(rule: &Rule) -> Rule {
    let removed = Some(Removed {
        at: NOW,
        author: "bob".to_owned(),
    });
    Rule {
        removed,
        ..rule.clone()
    }
}

fn key(rule: &Rule, kind: EdgeKind, epoch: u64) -> EdgeKey {
    EdgeKey {
        rule: rule.id,
        partition: P,
        kind,
        incarnation: 1,
        epoch: EpochId(epoch),
    }
}

fn edge(rule: &Rule, kind: EdgeKind, epoch: u64, offset: i64) -> Record {
    Record::Edge(key(rule, kind, epoch), Some(offset))
}

fn began(epoch: u64, before: Option<u64>, rules_end: i64) -> Began {
    Began {
        partition: P,
        epoch: EpochId(epoch),
        before: before.map(EpochId),
        rules_end,
    }
}

/// A process that has read these records, and whose epoch has begun.
fn reads(log: &[Record], began: Option<Began>) -> State {
    let mut state = State::new(scope(), 0);
    began.into_iter().for_each(|began| state.begin(began));
    for (at, record) in (0..).zip(log) {
        state.read(record.clone(), at);
    }
    state
}

fn lacking(state: &mut State) -> Vec<(EdgeKind, Option<i64>)> {
    let table = state.table(NOW);
    let lacking = table.tenures[&P].lacking.iter();
    lacking.map(|lack| (lack.kind, lack.known)).collect()
}

fn skips(state: &mut State, offset: i64) -> bool {
    let seen = Seen {
        partition: P,
        offset,
        timestamp_ms: 0,
        row: row(1),
        parent: None,
    };
    state.table(NOW).skips(&seen).is_some()
}

#[test]
fn a_rule_holds_from_its_owners_edge_to_its_owners_end() {
    let of_app = rule(1, Target::App(APP));
    let mut log = vec![Record::Rule(of_app.clone())];
    let owner = Some(began(7, None, 0));
    assert_eq!(lacking(&mut reads(&log, owner)), [(EdgeKind::Begin, None)]);
    log.push(edge(&of_app, EdgeKind::Begin, 7, 100));
    let mut state = reads(&log, owner);
    assert_eq!(lacking(&mut state), []);
    assert!(!skips(&mut state, 99) && skips(&mut state, 100) && skips(&mut state, 5000));
    log.push(Record::Rule(removed(&of_app)));
    assert_eq!(lacking(&mut reads(&log, owner)), [(EdgeKind::End, None)]);
    log.push(edge(&of_app, EdgeKind::End, 7, 200));
    let mut state = reads(&log, owner);
    assert_eq!(lacking(&mut state), []);
    assert!(skips(&mut state, 199) && !skips(&mut state, 200));
}

#[test]
fn a_rule_that_was_removed_before_it_began_needs_no_edge() {
    let of_app = rule(1, Target::App(APP));
    let log = [Record::Rule(removed(&of_app))];
    assert_eq!(lacking(&mut reads(&log, Some(began(7, None, 0)))), []);
}

#[test]
fn the_next_owner_copies_what_the_last_one_decided() {
    let of_app = rule(1, Target::App(APP));
    let log = [
        Record::Rule(of_app.clone()),
        edge(&of_app, EdgeKind::Begin, 7, 100),
        Record::Rule(removed(&of_app)),
        edge(&of_app, EdgeKind::End, 7, 200),
    ];
    let mut state = reads(&log, Some(began(8, Some(7), 4)));
    let known = [(EdgeKind::Begin, Some(100)), (EdgeKind::End, Some(200))];
    assert_eq!(lacking(&mut state), known);
    state.read(edge(&of_app, EdgeKind::Begin, 8, 100), 4);
    state.read(edge(&of_app, EdgeKind::End, 8, 200), 5);
    assert_eq!(lacking(&mut state), []);
    assert!(skips(&mut state, 199) && !skips(&mut state, 200));
    // Once it has claimed the partition, the old ones are needed no more.
    let copied = state.copied(P, EpochId(8));
    assert_eq!(copied.len(), 2);
    for (at, key) in (6..).zip(copied) {
        state.read(Record::Edge(key, None), at);
    }
    assert!(skips(&mut state, 199) && !skips(&mut state, 200));
}

#[test]
fn nothing_is_known_before_all_was_read_that_was_there() {
    let of_app = rule(1, Target::App(APP));
    let log = [Record::Rule(of_app.clone())];
    let mut state = reads(&log, Some(began(8, Some(7), 2)));
    assert!(state.table(NOW).tenures.is_empty());
    assert_eq!(state.table(NOW).entries[0].undecided, [P]);
    state.read(edge(&of_app, EdgeKind::Begin, 7, 100), 1);
    assert_eq!(lacking(&mut state), [(EdgeKind::Begin, Some(100))]);
}

/// A, the owner before, wakes up and writes its edge when B has begun. B may have gone past that offset.
#[test]
fn an_edge_that_the_last_owner_writes_too_late_is_not_copied() {
    let of_app = rule(1, Target::App(APP));
    let log = [
        Record::Rule(of_app.clone()),
        edge(&of_app, EdgeKind::Begin, 7, 100),
    ];
    let mut late = reads(&log, Some(began(8, Some(7), 1)));
    assert_eq!(lacking(&mut late), [(EdgeKind::Begin, None)]);
    assert!(!skips(&mut late, 100));
    late.read(edge(&of_app, EdgeKind::Begin, 8, 150), 2);
    assert!(!skips(&mut late, 149) && skips(&mut late, 150));
    // Whoever comes after B knows B's.
    let log = [&log[..], &[edge(&of_app, EdgeKind::Begin, 8, 150)]].concat();
    let mut next = reads(&log, Some(began(9, Some(8), 3)));
    assert_eq!(lacking(&mut next), [(EdgeKind::Begin, Some(150))]);
}

/// A wrote an edge and was replaced by Z, who never saw it and went on without; then Z died. A's edge must not come back.
#[test]
fn an_edge_that_the_last_owner_did_not_have_is_not_copied() {
    let of_app = rule(1, Target::App(APP));
    let log = [
        Record::Rule(of_app.clone()),
        edge(&of_app, EdgeKind::Begin, 7, 100),
    ];
    let mut after_z = reads(&log, Some(began(9, Some(8), 2)));
    assert_eq!(lacking(&mut after_z), [(EdgeKind::Begin, None)]);
}

#[test]
fn an_owner_that_never_claimed_changes_nothing() {
    let of_app = rule(1, Target::App(APP));
    let log = [
        Record::Rule(of_app.clone()),
        edge(&of_app, EdgeKind::Begin, 7, 100),
        // It copied, and died before its note was taken: the note is still that of 7.
        edge(&of_app, EdgeKind::Begin, 8, 100),
    ];
    let mut next = reads(&log, Some(began(9, Some(7), 3)));
    assert_eq!(lacking(&mut next), [(EdgeKind::Begin, Some(100))]);
}

#[test]
fn without_a_note_the_newest_edge_counts() {
    let of_app = rule(1, Target::App(APP));
    let log = [
        Record::Rule(of_app.clone()),
        edge(&of_app, EdgeKind::Begin, 7, 100),
        edge(&of_app, EdgeKind::Begin, 8, 100),
        edge(&of_app, EdgeKind::Begin, 6, 120),
    ];
    let mut owner = reads(&log, Some(began(9, None, 3)));
    assert_eq!(lacking(&mut owner), [(EdgeKind::Begin, Some(100))]);
    assert!(
        skips(&mut reads(&log, None), 120),
        "for who owns nothing, too"
    );
    assert!(!skips(&mut reads(&log, None), 119));
}

#[test]
fn an_edge_that_was_sent_twice_stands_where_it_was_first() {
    let of_app = rule(1, Target::App(APP));
    let log = [
        Record::Rule(of_app.clone()),
        edge(&of_app, EdgeKind::Begin, 7, 100),
        edge(&of_app, EdgeKind::Begin, 7, 100),
    ];
    let mut state = reads(&log, Some(began(8, Some(7), 2)));
    assert_eq!(lacking(&mut state), [(EdgeKind::Begin, Some(100))]);
}

#[test]
fn an_edge_that_the_next_owner_deletes_counts_here_until_its_epoch_ends() {
    let rule = rule(1, Target::App(APP));
    let mut state = reads(&[Record::Rule(rule.clone())], Some(began(7, None, 0)));
    state.read(edge(&rule, EdgeKind::Begin, 7, 18), 1);
    state.read(edge(&rule, EdgeKind::Begin, 8, 18), 2);
    let own = key(&rule, EdgeKind::Begin, 7);
    state.read(Record::Edge(own, None), 3);
    assert!(!skips(&mut state, 17) && skips(&mut state, 21));
    assert!(state.has_edge(&own) && lacking(&mut state).is_empty());
    state.end(P, EpochId(7));
    assert!(!state.has_edge(&own), "nobody needs it any more");
    assert!(skips(&mut state, 21), "by the next owner's");
}

#[test]
fn edges_of_another_life_of_the_topic_do_not_count() {
    let of_app = rule(1, Target::App(APP));
    let key = EdgeKey {
        rule: of_app.id,
        partition: P,
        kind: EdgeKind::Begin,
        incarnation: 2,
        epoch: EpochId(7),
    };
    let log = [Record::Rule(of_app), Record::Edge(key, Some(100))];
    let mut state = reads(&log, Some(began(8, Some(7), 2)));
    assert_eq!(lacking(&mut state), [(EdgeKind::Begin, None)]);
}

#[test]
fn a_rule_skips_what_it_names_and_nothing_else() {
    let targets = [
        Target::App(AppId([9; 16])),
        Target::Row(row(2)),
        Target::Parent(row(3)),
    ];
    let mut log = Vec::new();
    for (id, target) in (1..).zip(targets) {
        let rule = rule(id, target);
        log.push(Record::Rule(rule.clone()));
        log.push(edge(&rule, EdgeKind::Begin, 7, 0));
    }
    let table = reads(&log, Some(began(7, None, 0))).table(NOW);
    let skipped_by = |row: RowKey, parent: Option<u8>| {
        let seen = Seen {
            partition: P,
            offset: 5,
            timestamp_ms: -1,
            row,
            parent: parent.map(|id| SubscriptionId([id; 16])),
        };
        table.skips(&seen)
    };
    assert_eq!(skipped_by(row(1), None), None);
    assert_eq!(skipped_by(row(2), None), Some(1));
    assert_eq!(skipped_by(row(3), None), Some(2), "the parent's own row");
    assert_eq!(skipped_by(row(1), Some(3)), Some(2), "a link to the parent");
    assert_eq!(skipped_by(row(1), Some(2)), None, "a link to a row");
    let elsewhere = RowKey {
        app: AppId([8; 16]),
        ..row(2)
    };
    assert_eq!(skipped_by(elsewhere, Some(3)), None, "ids are of an app");
    let of_app = RowKey {
        app: AppId([9; 16]),
        ..row(1)
    };
    assert_eq!(skipped_by(of_app, None), Some(0));
}

/// Owners come and go; the first one's reading, a later one's, and one's that reads the topic after it was compacted.
#[test]
fn a_replay_decides_every_offset_as_it_was_decided_first() {
    let (first, second) = (rule(1, Target::App(APP)), rule(2, Target::Row(row(1))));
    let log = [
        Record::Rule(first.clone()),
        edge(&first, EdgeKind::Begin, 7, 100),
        Record::Rule(second.clone()),
        edge(&second, EdgeKind::Begin, 7, 150),
        Record::Rule(removed(&first)),
        edge(&first, EdgeKind::End, 7, 140),
    ];
    let decide = |state: &mut State| (0..300).map(|at| skips(state, at)).collect::<Vec<_>>();
    let at_first = decide(&mut reads(&log, Some(began(7, None, 0))));
    let mut log = log.to_vec();
    for (epoch, before) in [(8, 7), (9, 8)] {
        let rules_end = i64::try_from(log.len()).unwrap();
        let mut owner = reads(&log, Some(began(epoch, Some(before), rules_end)));
        assert_eq!(decide(&mut owner), at_first);
        for lack in &owner.table(NOW).tenures[&P].lacking {
            let rule = if lack.rule == first.id {
                &first
            } else {
                &second
            };
            let known = lack.known.expect("everything was decided");
            log.push(edge(rule, lack.kind, epoch, known));
        }
        // Compacted: of each key the last, in order; a deleted one not at all.
        log.retain(
            |record| !matches!(record, Record::Edge(key, _) if key.epoch == EpochId(before)),
        );
        let last = |at: &usize| {
            let key = log[*at].write().0;
            !log[at + 1..].iter().any(|later| later.write().0 == key)
        };
        log = (0..log.len())
            .filter(last)
            .map(|at| log[at].clone())
            .collect();
        assert_eq!(decide(&mut reads(&log, None)), at_first);
    }
}
