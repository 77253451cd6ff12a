//! The leader epochs in lists of offsets, which rust-rdkafka has no call for.
#![expect(unsafe_code, reason = "a door to librdkafka's C interface")]

use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka_sys as sys;

/// Sets the leader epochs of a list's elements, in their order; -1 for none.
pub(super) fn set_leader_epochs(
    list: &mut TopicPartitionList,
    leader_epochs: impl Iterator<Item = i32>,
) {
    for (element, leader_epoch) in elements(list).zip(leader_epochs) {
        // SAFETY: the element is live, and nobody else has the list.
        unsafe { sys::rd_kafka_topic_partition_set_leader_epoch(element, leader_epoch) };
    }
}

/// The leader epochs of a list's elements, in their order; -1 for none.
pub(super) fn leader_epochs(list: &TopicPartitionList) -> impl Iterator<Item = i32> {
    // SAFETY: the element is live, and is only read.
    elements(list).map(|element| unsafe { sys::rd_kafka_topic_partition_get_leader_epoch(element) })
}

/// The elements live as long as the list is borrowed and not added to.
fn elements(
    list: &TopicPartitionList,
) -> impl Iterator<Item = *mut sys::rd_kafka_topic_partition_t> {
    // SAFETY: the list is live; it has `cnt` elements from `elems` on.
    let (first, count) = unsafe { ((*list.ptr()).elems, (*list.ptr()).cnt) };
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: below the count, so within the list.
    (0..count).map(move |at| unsafe { first.add(at) })
}
