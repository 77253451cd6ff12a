//! A member's commits, and how it leaves.

use super::*;
use crate::ids::{EpochId, Note, OffsetAndEpoch};
use crate::kafka::consumer::{Commit, Event, GroupConsumer, cut_in};
use crate::kafka::membership::Membership;
use crate::ready::ReadySet;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::sync::Arc;
use std::time::Instant;

fn mocked(test: &str) -> Broker {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(test, 4, 1).unwrap();
    Broker {
        kafka: kafka(mock.bootstrap_servers(), test.to_owned()),
        mock: Some(mock),
    }
}

fn join(kafka: &Kafka) -> GroupConsumer {
    let membership = Membership {
        group: kafka.group.clone(),
        number: 0,
        partitions: 4,
    };
    GroupConsumer::join(kafka, &membership, Arc::new(ReadySet::new(4))).unwrap()
}

/// The first event for which `wanted` has an answer.
fn wait_for<T>(consumer: &GroupConsumer, wanted: impl Fn(Event) -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = consumer.poll_events().into_iter().find_map(&wanted) {
            return found;
        }
        assert!(Instant::now() < deadline, "the event did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn assigned(event: Event) -> Option<Vec<Partition>> {
    if let Event::Assigned(partitions) = event {
        Some(partitions)
    } else {
        None
    }
}

fn assign(consumer: &GroupConsumer) {
    let partitions = wait_for(consumer, assigned);
    let starts: Vec<_> = partitions
        .into_iter()
        .map(|partition| (partition, at(0)))
        .collect();
    consumer.assign(&starts).unwrap();
}

/// The outer option: whether a commit came back. The inner one: what the coordinator took.
fn committed(event: Event) -> Option<Option<Vec<Commit>>> {
    if let Event::Committed(result) = event {
        Some(result.ok())
    } else {
        None
    }
}

fn at(offset: i64) -> OffsetAndEpoch {
    OffsetAndEpoch {
        offset,
        leader_epoch: 0,
    }
}

fn commit(offset: i64) -> Commit {
    Commit {
        partition: Partition(0),
        place: at(offset),
        note: Note {
            incarnation: 1,
            epoch: EpochId(7),
            ceiling: offset + 100,
        },
    }
}

/// Must end by itself, however long the group takes otherwise.
fn assert_closes(consumer: GroupConsumer) {
    let (done, closed) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        consumer.close();
        done.send(()).unwrap();
    });
    assert!(closed.recv_timeout(TIMEOUT).is_ok(), "closing hangs");
    thread.join().unwrap();
}

#[test]
fn a_commit_that_fails_in_the_background_is_told() {
    let broker = mocked("commit-told");
    let consumer = join(&broker.kafka);
    assign(&consumer);
    consumer.commit(&[commit(5)]).unwrap();
    assert_eq!(wait_for(&consumer, committed), Some(vec![commit(5)]));
    let lookup = consumer.lookup().committed(&[Partition(0)], TIMEOUT);
    let expected = (Partition(0), Some(at(5)), Some(commit(5).note));
    assert_eq!(lookup.unwrap(), [expected]);

    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
    let mock = broker.mock.as_ref().unwrap();
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &[error]);
    consumer.commit(&[commit(9)]).unwrap();
    assert_eq!(wait_for(&consumer, committed), None);
    assert_closes(consumer);
}

#[test]
fn a_member_leaves_while_partitions_are_about_to_be_assigned() {
    let broker = mocked("leave-assigning");
    let consumer = join(&broker.kafka);
    wait_for(&consumer, assigned);
    assert_closes(consumer);
}

#[test]
fn a_member_leaves_while_partitions_are_about_to_be_revoked() {
    let broker = broker("leave-revoking");
    if !broker.is_real() {
        // The mock does not tell the first member of the second.
        return;
    }
    broker.create(&broker.kafka.topic, 4, &[]);
    let first = join(&broker.kafka);
    assign(&first);
    let second = join(&broker.kafka);
    wait_for(&first, |event| {
        matches!(event, Event::Revoked(_)).then_some(())
    });
    assert_closes(first);
    assert_closes(second);
}

#[test]
fn where_a_log_was_cut_off_is_in_the_text_of_its_error() {
    let cut = "Partition log truncation detected at offset 400 (leader epoch 1): broker end offset is 300 (offset leader epoch 1). \
               Reset to INVALID.: Local: Partition log truncation detected (broker 3)";
    assert_eq!(cut_in(cut), Some(300));
    for other in [
        "No epoch found less or equal to offset 400 (leader epoch 1): broker end offset is -1 (offset leader epoch -1). Reset \
         using configured policy.: Local: Partition log truncation detected (broker 3)",
        "fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)",
        "",
    ] {
        assert_eq!(cut_in(other), None, "{other}");
    }
}
