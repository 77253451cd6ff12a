//! What a message in hand becomes: a row in a lane's batch, a dead letter, or an alarm.

use super::assignment::Assigned;
use super::{Poller, QUANTUM};
use crate::commit::{Claim, Tracker};
use crate::config::checked::OnLostRecords;
use crate::dispatch::{Arrival, OpenSlot};
use crate::ids::Partition;
use crate::kafka::consumer::stops_partition;
use crate::kafka::dead_letters::DeadLetter;
use crate::kafka::member::{Member, Queue, Record};
use crate::observe::recorder::PartitionAlarm;
use crate::update::{Envelope, judge, judge_for};
use std::time::Instant;

impl<M: Member> Poller<M> {
    /// Reads a ready partition, at most a quantum and as far as it has room. True when there may be more to do at once.
    pub(super) fn visit(&mut self, partition: Partition) -> bool {
        if self.is_revoking(partition) {
            return false;
        }
        let Some(mut assigned) = self.assigned[partition.index()].take() else {
            return false;
        };
        let busy = self.visit_assigned(&mut assigned);
        self.assigned[partition.index()] = Some(assigned);
        if busy {
            self.ready.mark(partition);
        }
        busy
    }

    fn visit_assigned(&mut self, assigned: &mut Assigned<M::Queue>) -> bool {
        assigned.tracker.advance();
        if !self.ask_about_ground(assigned) && assigned.held.is_empty() {
            return false;
        }
        let share = self.shared.budget.share();
        // What was held back came from a read that may have left more.
        let mut more = !assigned.held.is_empty();
        if !more && !assigned.stopped {
            let most = match assigned.readable(share) {
                0 if assigned.waits_for_room(share) => return false,
                0 => assigned.readable(share),
                most => most,
            };
            assigned.held.extend(assigned.queue.read(most.min(QUANTUM)));
            more = assigned.held.len() == most.min(QUANTUM);
        }
        let (now, now_ms) = (crate::clock::now(), crate::clock::running_ms());
        let (mut messages, mut bytes) = (0, 0);
        while let Some(message) = assigned.held.front() {
            let offset = message.offset();
            if message.error().is_none() && !assigned.ground.bears(message.leader_epoch()) {
                assigned.held.clear();
                more = true;
                break;
            }
            if message.error().is_none() && !assigned.tenure.admits(offset) {
                // A new ceiling, or what was waited for, marks the partition again.
                self.wait_for_tenure(&mut assigned.tenure, offset);
                more = false;
                break;
            }
            self.headers.clear();
            message.for_each_header(|name, value| self.headers.push(name, value));
            let length = message_bytes(message) + self.headers.length() as u64;
            let has_room =
                |tracker: &Tracker| Assigned::<M::Queue>::has_room(tracker, length, share);
            let no_room = !has_room(&assigned.tracker) && assigned.tracker.wait_for_room(has_room);
            if no_room || self.process_is_full(assigned) {
                // A completion marks the partition again.
                more = false;
                break;
            }
            let message = assigned.held.pop_front().expect("just seen");
            messages += 1;
            bytes += length;
            if self.headers.length() > 0 {
                self.tracing
                    .receives(&self.headers, assigned.partition, &message);
            }
            self.receive(assigned, &message, length, (now, now_ms));
            if assigned.stopped {
                // What lies behind a gap must not be applied before somebody has decided about the gap.
                assigned.held.clear();
                more = false;
            }
        }
        if messages > 0 && self.recorder.received.get() == 0 {
            self.recorder
                .first_message_at_us
                .set(self.shared.registry.elapsed_us());
        }
        assigned.has_read(messages, bytes);
        self.recorder.received.add(messages);
        self.recorder.received_bytes.add(bytes);
        more
    }

    /// Where the log may have been cut off below the beginning, the client begins again and asks the broker. False if it
    /// couldn't yet; the partition is visited again before long.
    fn ask_about_ground(&self, assigned: &mut Assigned<M::Queue>) -> bool {
        let Some(from) = assigned.ground.doubted().filter(|_| !assigned.stopped) else {
            return true;
        };
        match self.consumer.validate(assigned.partition, from) {
            Ok(()) => {
                assigned.held.clear();
                assigned.ground.is_asked();
                true
            }
            // It has not begun at all, as librdkafka waits for commits and for partitions that it gives up; or it has come to
            // an end with an error, which is all that counts of what is there.
            Err(error) => {
                assigned.held.extend(assigned.queue.read(QUANTUM));
                assigned.held.retain(|message| message.error().is_some());
                tracing::debug!(partition = assigned.partition.0, error = %error, "asking whether the log was cut off");
                false
            }
        }
    }

    /// The incident's consumer: one limit for all partitions of the process.
    fn process_is_full(&self, visited: &Assigned<M::Queue>) -> bool {
        self.settings.in_memory_max_per_process.is_some_and(|max| {
            let others = self.assigned.iter().flatten();
            let in_flight = others
                .map(|assigned| assigned.tracker.in_flight())
                .sum::<u64>();
            in_flight + visited.tracker.in_flight() >= max
        })
    }

    /// The message's headers are in `self.headers`.
    fn receive(
        &mut self,
        assigned: &mut Assigned<M::Queue>,
        message: &impl Record,
        length: u64,
        (now, now_ms): (Instant, i64),
    ) {
        if message.error().is_some() {
            self.receive_error(assigned, message);
            return;
        }
        assigned.received_message(message.offset(), message.leader_epoch());
        assigned.tenure.dispatched(message.offset());
        let slot = assigned.tracker.claim(Claim {
            offset: message.offset(),
            timestamp_ms: message.timestamp_ms(),
            dispatched_ms: now_ms,
            bytes: u32::try_from(length).unwrap_or(u32::MAX),
        });
        let (key, value) = (message.key(), message.value());
        let bytes_max = self.settings.message_max_bytes;
        let judged = match &self.settings.table {
            None => judge(key, value, bytes_max),
            Some(table) => judge_for(table, key, value, bytes_max),
        };
        match judged {
            Ok(Envelope {
                subscription,
                key,
                value,
            }) => {
                let shard = self
                    .settings
                    .partitioner
                    .shard_of_partition(assigned.partition);
                let arrival = Arrival {
                    subscription,
                    offset: message.offset(),
                    leader_epoch: message.leader_epoch(),
                    timestamp_ms: message.timestamp_ms(),
                    key,
                    value,
                    headers: &self.headers,
                };
                self.dispatch
                    .dispatch(shard, &assigned.origin, now, slot, &arrival);
            }
            Err(rejection) => {
                self.recorder.dead_lettered.add(1);
                self.dead_letters.send(DeadLetter {
                    partition: assigned.partition,
                    offset: message.offset(),
                    timestamp_ms: message.timestamp_ms(),
                    key: message.key().map(Into::into),
                    value: message.value().map(Into::into),
                    headers: self.headers.to_vec(),
                    reason: rejection.reason,
                    sqlstate: None,
                    message: rejection.message,
                    receipt: OpenSlot::boxed(assigned.origin.clone(), slot),
                });
            }
        }
    }

    /// An error in place of a message takes no slot. Those that say that records are gone or unreadable stop the partition.
    fn receive_error(&mut self, assigned: &mut Assigned<M::Queue>, message: &impl Record) {
        let Some(error) = message.error() else { return };
        assigned.received_error();
        self.recorder.errors.add(1);
        let explanation = message
            .value()
            .map(String::from_utf8_lossy)
            .unwrap_or_default();
        let alarm = stops_partition(error);
        if alarm == PartitionAlarm::None {
            tracing::warn!(partition = assigned.partition.0, error = %error, %explanation, "fetching");
            return;
        }
        assigned.stopped = true;
        self.shared
            .registry
            .partition(assigned.partition)
            .alarm
            .set(alarm as i64);
        let cut = message.cut_at();
        assigned.skips_gap = alarm == PartitionAlarm::RecordsLost
            && self.settings.on_lost_records == OnLostRecords::Skip;
        if let Some(cut) = cut.filter(|_| assigned.skips_gap) {
            assigned.goes_back_to(cut);
        }
        tracing::error!(
            partition = assigned.partition.0,
            offset = message.offset(),
            error = %error,
            %explanation,
            cut,
            "records that were not applied yet are gone or can't be read; {}",
            what_follows(alarm, assigned.skips_gap, cut.is_some())
        );
    }
}

/// For whoever has to act.
fn what_follows(alarm: PartitionAlarm, skips: bool, is_cut: bool) -> &'static str {
    match (alarm, skips, is_cut) {
        (_, true, true) => {
            "going on where the log was cut off, once what was read before is finished"
        }
        (_, true, false) => "going on behind them once what was read before is finished",
        (PartitionAlarm::RecordsLost, false, true) => {
            "the partition stands still: its log was cut off, and written anew by a leader that lacked its end. Set \
             consumer.on_lost_records = \"skip\" and restart to go on at the cut"
        }
        (PartitionAlarm::RecordsLost, false, false) => {
            "the partition stands still. Bring them back, or set consumer.on_lost_records = \"skip\" and restart to go on \
             behind them"
        }
        _ => {
            "the partition stands still. Let a replica lead that is whole; if there is none, stop the group and move its offset \
             behind the batch with Kafka's own tools, which leaves the batch's updates out"
        }
    }
}

fn message_bytes(message: &impl Record) -> u64 {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| bytes.len() as u64);
    length(message.key()) + length(message.value())
}
