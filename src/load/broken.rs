//! Messages that can't be applied, each for one reason that can be told from the message alone.

use super::traffic::{Message, push_id};
use crate::config::checked::PartitionBy;
use crate::dead::Reason;
use crate::ids::{Partition, RowKey};
use crate::partitioner::Partitioner;

/// The reasons that a consumer with this partitioning can tell. [`Reason::TooLarge`] is not among them: such messages cost
/// what they weigh, so they are asked for by name.
pub fn reasons(partition_by: PartitionBy, partitioner: &Partitioner) -> Vec<Reason> {
    let mut reasons = vec![
        Reason::Empty,
        Reason::Tombstone,
        Reason::NotJson,
        Reason::MissingId,
        Reason::BadId,
        Reason::KeyMismatch,
        Reason::BadTags,
        Reason::BadCounts,
        Reason::BadText,
        Reason::SelfParent,
    ];
    if partition_by == PartitionBy::App && partitioner.partitions() > 1 {
        reasons.push(Reason::WrongPartition);
    }
    reasons
}

/// Makes an update of that row, on its partition, a message that can't be applied.
pub(super) fn spoil(
    message: &mut Message,
    reason: Reason,
    row: RowKey,
    partitions: u32,
    value_bytes_max: usize,
) {
    message.broken = Some(reason);
    match reason {
        Reason::Empty => message.value.clear(),
        Reason::Tombstone => message.tombstone = true,
        Reason::NotJson => message.value.truncate(message.value.len() - 1),
        Reason::MissingId => {
            message.value = format!(r#"{{"app_id":"{}","tags":{{}}}}"#, row.app).into()
        }
        Reason::BadId => {
            message.key = b"player-17".to_vec();
            message.value = format!(
                r#"{{"app_id":"{}","subscription_id":"player-17"}}"#,
                row.app
            )
            .into();
        }
        Reason::KeyMismatch => {
            message.key.clear();
            push_id(&mut message.key, row.app.0);
        }
        Reason::WrongPartition => {
            let partitions = i32::try_from(partitions).expect("partitions fit Kafka's i32");
            message.partition = Partition((message.partition.0 + 1) % partitions);
        }
        Reason::BadTags => message.value = update(row, r#""tags":{"address":{"city":"Oslo"}}"#),
        Reason::BadCounts => message.value = update(row, r#""counts":{"sessions":1.5}"#),
        Reason::BadText => message.value = update(row, r#""tags":{"first_name":"J\u0000n"}"#),
        Reason::SelfParent => {
            message.value = update(row, &format!(r#""parent_id":"{}""#, row.subscription))
        }
        Reason::TooLarge => {
            let filler = "x".repeat(value_bytes_max);
            message.value = update(row, &format!(r#""tags":{{"first_name":"{filler}"}}"#));
        }
        Reason::Overflow | Reason::LinkLimit | Reason::Database => {
            unreachable!("{reason} depends on the row, so no message has it of itself")
        }
        Reason::BadValue => unreachable!("{reason} is of other tables"),
    }
}

fn update(row: RowKey, rest: &str) -> Vec<u8> {
    format!(
        r#"{{"app_id":"{}","subscription_id":"{}",{rest}}}"#,
        row.app, row.subscription
    )
    .into()
}
