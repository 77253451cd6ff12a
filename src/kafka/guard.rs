//! Stands in front of a function of librdkafka that reads memory which nobody has written.
//!
//! In its answer to a fetch a broker tells which partitions have a new leader. librdkafka up to 2.14 at the least
//! (confluentinc/librdkafka issue 5280) makes a list for all of them, leaves out those that have none at the moment, and does not
//! shorten it. What stands at the end was in that memory before. A number below 0 among it is an index all the same: it is read, and
//! maybe written, far outside of the table. A client with 480 partitions died of that the first time its broker was killed and
//! started again.
//!
//! `build.rs` names it to the linker, as the function is called within librdkafka only. A program of one's own, with
//! `millpond::library`, does well to do the same.

#![allow(unsafe_code, reason = "C calls it, and it calls C")]

use rdkafka_sys::bindings::{rd_kafka_metadata, rd_kafka_t};
use std::ffi::c_int;

unsafe extern "C" {
    /// The function itself.
    fn __real_rd_kafka_metadata_update_op(
        client: *mut rd_kafka_t,
        update: *mut rd_kafka_metadata,
    ) -> c_int;
}

/// Called in place of it.
///
/// # Safety
/// librdkafka calls it, with what it calls the function with. The update's first member, at the same address, is the public
/// structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_rd_kafka_metadata_update_op(
    client: *mut rd_kafka_t,
    update: *mut rd_kafka_metadata,
) -> c_int {
    // SAFETY: the caller's topics and their partitions are as many as it says, written or not; any bits are an integer.
    unsafe {
        for topic in 0..usize::try_from((*update).topic_cnt).unwrap_or(0) {
            let topic = (*update).topics.add(topic);
            let count = usize::try_from((*topic).partition_cnt).unwrap_or(0);
            let is_written = |at: &usize| (*(*topic).partitions.add(*at)).id >= 0;
            let written = (0..count).take_while(is_written).count();
            (*topic).partition_cnt = c_int::try_from(written).unwrap_or(0);
        }
        __real_rd_kafka_metadata_update_op(client, update)
    }
}
