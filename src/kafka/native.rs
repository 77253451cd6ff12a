//! Nearly all of the crate's unsafe code: what librdkafka has and rust-rdkafka has no call for. Queues of single partitions, their
//! batch read and wake-up, the leader epoch of a message, cached end offsets, the topic's id.
//!
//! A batch is never read from the consumer's own queue: without a rebalance callback librdkafka would drop the
//! assignment there. Only one thread reads a client's queues.
#![expect(unsafe_code, reason = "the one door to librdkafka's C interface")]

use crate::{ids::Partition, ready::ReadySet};
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;
use std::ffi::{CStr, CString, c_void};
use std::{iter, ptr, slice, sync::Arc, time::Duration};

/// What a queue's callback needs: whom to wake for which partition.
struct Mark {
    ready: Arc<ReadySet>,
    partition: Option<Partition>,
}

/// librdkafka's thread calls this when a queue turns from empty to not empty, under the queue's lock.
unsafe extern "C" fn on_not_empty(_client: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the opaque is the `Mark` of a `Queue`, which disables this callback under the same lock before it frees it.
    let mark = unsafe { &*opaque.cast::<Mark>() };
    match mark.partition {
        Some(partition) => mark.ready.mark(partition),
        None => mark.ready.wake(),
    }
}

/// A queue of librdkafka with its wake-up. Not tied to a thread, but used by one at a time.
struct Queue {
    queue: ptr::NonNull<sys::rd_kafka_queue_t>,
    /// Read by the callback until `drop` has disabled it.
    mark: *mut Mark,
}

// SAFETY: librdkafka's queues are locked inside; the mark is only read, and its fields are Sync.
unsafe impl Send for Queue {}

impl Queue {
    fn with_wake_up(queue: ptr::NonNull<sys::rd_kafka_queue_t>, mark: Mark) -> Self {
        let mark = Box::into_raw(Box::new(mark));
        // SAFETY: the queue is live, and the mark lives until `drop`.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(on_not_empty), mark.cast())
        };
        Self { queue, mark }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: disabling takes the lock under which the callback runs, so nobody reads the mark afterwards. The handle
        // is ours and destroyed once.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            drop(Box::from_raw(self.mark));
        }
    }
}

/// The consumer's own queue, only to be told that it holds events (rebalances, commit results, errors).
pub(super) struct EventQueue(Queue);

impl EventQueue {
    /// Wakes the poller for each event from now on.
    pub(super) fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>, ready: Arc<ReadySet>) -> Self {
        // SAFETY: the client is live; a consumer with a group has a consumer queue.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = ptr::NonNull::new(queue).expect("a group member has a consumer queue");
        Self(Queue::with_wake_up(
            queue,
            Mark {
                ready,
                partition: None,
            },
        ))
    }

    /// Events waiting.
    pub(super) fn len(&self) -> usize {
        // SAFETY: the handle is live.
        unsafe { sys::rd_kafka_queue_length(self.0.queue.as_ptr()) }
    }

    /// Sends offsets to the group coordinator. The result comes as an event of this queue, whether it succeeds or fails;
    /// rust-rdkafka's own asynchronous commit never tells.
    pub(super) fn commit<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        offsets: &TopicPartitionList,
    ) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are live, and librdkafka copies the list. Without a function to call, the result
        // becomes an event.
        let sent = unsafe {
            sys::rd_kafka_commit_queue(
                consumer.client().native_ptr(),
                offsets.ptr(),
                self.0.queue.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        match sent {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(error.into()),
        }
    }
}

/// The queue of one partition, taken off the consumer's: reading is ours, and what is not read stays there, which holds back
/// this partition's fetches and no other's.
pub struct PartitionQueue {
    queue: Queue,
    /// Where librdkafka puts the messages of a read.
    pointers: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: the pointers are scratch space, empty between calls.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Takes the queue. To be called before the partition is assigned, at every assign: librdkafka then leaves it alone.
    pub(super) fn take<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        topic: &CStr,
        partition: Partition,
        ready: Arc<ReadySet>,
    ) -> Self {
        // SAFETY: the client and the name are live; forwarding to NULL detaches the queue from the consumer's.
        let queue = unsafe {
            let queue = sys::rd_kafka_queue_get_partition(
                consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.0,
            );
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            queue
        };
        let queue =
            ptr::NonNull::new(queue).expect("librdkafka makes the partition's queue when asked");
        let mark = Mark {
            ready,
            partition: Some(partition),
        };
        Self {
            queue: Queue::with_wake_up(queue, mark),
            pointers: Vec::new(),
        }
    }

    /// Takes at most `most` messages that are there, without waiting. Fewer than `most`: the queue was empty for a moment, and
    /// its next message marks the partition ready.
    pub fn read(&mut self, most: usize) -> impl ExactSizeIterator<Item = Message> + '_ {
        self.pointers.clear();
        self.pointers.resize(most, ptr::null_mut());
        // SAFETY: the buffer has room for `most` pointers. Timeout 0 never blocks.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.queue.as_ptr(),
                0,
                self.pointers.as_mut_ptr(),
                most,
            )
        };
        // A negative count is an error of the call itself (unknown queue): nothing was read.
        self.pointers.truncate(usize::try_from(count).unwrap_or(0));
        self.pointers
            .drain(..)
            .map(|message| Message(ptr::NonNull::new(message).expect("a message that was read")))
    }
}

/// A message, or an error in its place, as librdkafka holds it. It pins its whole fetch response: copy and drop.
pub struct Message(ptr::NonNull<sys::rd_kafka_message_t>);

// SAFETY: we own the message; librdkafka counts references to its buffer atomically.
unsafe impl Send for Message {}

impl Message {
    fn get(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: we own the message until `drop`.
        unsafe { self.0.as_ref() }
    }

    /// The error that stands in place of a message, if it is one.
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        let error = self.get().err;
        (error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.get().offset
    }

    /// Its key; `None` for null.
    pub fn key(&self) -> Option<&[u8]> {
        let message = self.get();
        // SAFETY: librdkafka gives pointer and length of bytes that live as long as the message.
        (!message.key.is_null())
            .then(|| unsafe { slice::from_raw_parts(message.key.cast(), message.key_len) })
    }

    /// Its value; `None` for null. For an error: the text that explains it.
    pub fn value(&self) -> Option<&[u8]> {
        let message = self.get();
        // SAFETY: as for the key.
        (!message.payload.is_null())
            .then(|| unsafe { slice::from_raw_parts(message.payload.cast(), message.len) })
    }

    /// The leader epoch of its record batch; -1 where the format has none.
    pub fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is live.
        unsafe { sys::rd_kafka_message_leader_epoch(self.0.as_ptr()) }
    }

    /// Its timestamp in milliseconds since 1970; -1 for none.
    pub fn timestamp_ms(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message and the out parameter are live.
        unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), &raw mut kind) }
    }

    /// Names and values of its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        // SAFETY: the message lives as long as the borrow of it.
        unsafe { headers(self.0.as_ptr()) }
    }

    /// Whether it is certain that there are no headers. librdkafka makes a buffer to find that out, which takes a quarter of the
    /// poller's time.
    fn has_no_headers(&self) -> bool {
        let message = self.get();
        // Only records of format 2 have a leader epoch. In these the count of headers stands behind the value, which
        // librdkafka leaves where it was received; but an empty or null value is elsewhere.
        self.leader_epoch() >= 0
            && message.len > 0
            // SAFETY: a record of format 2 does not end with its value: at least the count of headers follows.
            && unsafe { *message.payload.cast::<u8>().add(message.len) } == 0
    }

    /// Calls `each` with the name and value of each header, in order.
    pub fn for_each_header(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        if self.has_no_headers() {
            return;
        }
        self.headers().for_each(|(name, value)| each(name, value));
    }
}

/// SAFETY: `message` must live for `'a`.
unsafe fn headers<'a>(
    message: *const sys::rd_kafka_message_t,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    let mut headers = ptr::null_mut();
    // SAFETY: the message and the out parameter are live. The headers belong to the message; without any they stay null.
    unsafe { sys::rd_kafka_message_headers(message, &raw mut headers) };
    let mut indexes = 0..;
    iter::from_fn(move || {
        if headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers and the out parameters are live; past the last index an error comes back.
        let found = unsafe {
            let index = indexes.next()?;
            sys::rd_kafka_header_get_all(
                headers,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )
        };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: the name ends with NUL, the value has `size` bytes, both live as long as the message.
        unsafe {
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast(), size));
            Some((CStr::from_ptr(name).to_bytes(), value))
        }
    })
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: we own the message, and this is its one end.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// The leader epoch of a message that rust-rdkafka read; -1 where the format has none.
pub fn leader_epoch(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message is borrowed, so it is live.
    unsafe { sys::rd_kafka_message_leader_epoch(message.ptr()) }
}

/// The id of the broker that a message which rust-rdkafka read came from; -1 if nobody knows.
pub(super) fn broker(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message is borrowed, so it is live.
    unsafe { sys::rd_kafka_message_broker_id(message.ptr()) }
}

/// Names and values of the headers of a message that rust-rdkafka read, in order. Its own accessor panics at a name that is
/// not UTF-8.
pub(super) fn headers_of<'a>(
    message: &'a BorrowedMessage<'_>,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    // SAFETY: the message is borrowed for as long, so it is live.
    unsafe { headers(message.ptr()) }
}

/// The partition's end offset as of its last fetch, without asking the broker; `None` before the first.
pub(super) fn cached_end_offset<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &CStr,
    partition: Partition,
) -> Option<i64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client, the name and the out parameters are live.
    let found = unsafe {
        let client = consumer.client().native_ptr();
        sys::rd_kafka_get_watermark_offsets(
            client,
            topic.as_ptr(),
            partition.0,
            &raw mut low,
            &raw mut high,
        )
    };
    (found == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// The topic's id, which changes when a topic is deleted and made anew, in Kafka's base64 form; `None` if the brokers didn't
/// tell within `timeout` (they are away, or the topic is). Asks `broker`: each knows, while the controller, whom librdkafka
/// would ask, may be none, as in its own mock cluster.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &str,
    timeout: Duration,
) -> Option<String> {
    let topic = CString::new(topic).ok()?;
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = client.native_ptr();
    let mut names = [topic.as_ptr()];
    // SAFETY: every pointer is checked or made here and destroyed here, in the reverse order; results live as long as
    // their event.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, milliseconds);
        let id = if event.is_null() {
            None
        } else {
            described_topic_id(event)
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        id
    }
}

/// SAFETY: `event` must be a live event that `rd_kafka_DescribeTopics` of one topic put into its queue.
unsafe fn described_topic_id(event: *mut sys::rd_kafka_event_t) -> Option<String> {
    // SAFETY: the result, its topics and their ids live as long as the event.
    unsafe {
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count != 1 {
            return None;
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        let text = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id));
        Some(text.to_string_lossy().into_owned())
    }
}

/// Whether the client knows a broker by the brokers' own word.
pub(super) fn has_learned_brokers<C: ClientContext>(client: &Client<C>) -> bool {
    let mut count = 0;
    // SAFETY: the client and the out parameter are live; the list was made for us, with librdkafka's allocator.
    unsafe {
        let ids = sys::rd_kafka_brokers_learned_ids(client.native_ptr(), &raw mut count);
        sys::rd_kafka_mem_free(client.native_ptr(), ids.cast());
    }
    count > 0
}

/// Names brokers to the client, as `bootstrap.servers` does; those that it has already stay as they are.
pub(super) fn add_brokers<C: ClientContext>(client: &Client<C>, brokers: &CStr) {
    // SAFETY: the client is live, and the names are copied.
    unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
}

/// Lets groups of the mock cluster that lives in this client begin at once: it would wait 3 s for more members to join.
pub(super) fn begin_mock_groups_at_once<C: ClientContext>(client: &Client<C>) {
    /// Enough for the first member's own request to be answered in turn.
    const WAIT_MS: i32 = 50;
    // SAFETY: the client is alive, and with it its cluster; null is not one.
    let cluster = unsafe { sys::rd_kafka_handle_mock_cluster(client.native_ptr()) };
    if !cluster.is_null() {
        // SAFETY: as above.
        unsafe { sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, WAIT_MS) };
    }
}

/// How many members a group has, under either group protocol; 0 for a group that doesn't exist. rust-rdkafka's own look-up
/// sees none of the members of the newer protocol.
pub(super) fn group_members<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<usize, RDKafkaErrorCode> {
    let group = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = client.native_ptr();
    let mut names = [group.as_ptr()];
    // SAFETY: every pointer is checked or made here and destroyed here; results live as long as their event.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), 1, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, milliseconds);
        let members = if event.is_null() {
            Err(RDKafkaErrorCode::OperationTimedOut)
        } else {
            described_group_members(event)
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        members
    }
}

/// SAFETY: `event` must be a live event that `rd_kafka_DescribeConsumerGroups` of one group put into its queue.
unsafe fn described_group_members(
    event: *mut sys::rd_kafka_event_t,
) -> Result<usize, RDKafkaErrorCode> {
    // SAFETY: the result and its description live as long as the event.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        let descriptions =
            sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count != 1 {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let description = *descriptions;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(description);
        match sys::rd_kafka_error_code(error) {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(
                sys::rd_kafka_ConsumerGroupDescription_member_count(description),
            ),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => Ok(0),
            error => Err(error.into()),
        }
    }
}
