//! What was in the old lanes, dealt to the new ones: in order, with slots, origins and bytes as they are. Pure moves.

use super::{Duty, Lane, LaneReceiver, lane_of};
use crate::dispatch::Batch;
use crate::ids::RowKey;

/// Takes everything out of a lane whose worker has handed it over: its batches in the order of dispatch, and its parked rows,
/// which are older than all of them.
pub(super) fn empty(
    lane: &mut Lane,
    duty: Duty,
) -> (LaneReceiver, Vec<Batch>, Vec<(RowKey, Batch)>) {
    let Duty {
        lane: receiver,
        carried,
        parked,
    } = duty;
    let mut batches = Vec::from(carried);
    batches.extend(receiver.batches.try_iter());
    batches.push(std::mem::take(&mut lane.open));
    batches.retain(|batch| !batch.rows.is_empty());
    if crate::fault::mutant("lanes-split-out-of-order") {
        batches.reverse();
    }
    // The worker, whose counter this is, stands still.
    lane.recorder.taken.add(lane.recorder.lane_depth());
    (receiver, batches, parked)
}

/// Puts a batch into the lanes that its rows belong to: as it is, if that is one lane. What is left in open batches is sent
/// at the next flush.
pub(super) fn deal(lanes: &mut [Lane], batch: Batch, batch_rows_max: usize) {
    let count = lanes.len();
    let mut owners = batch
        .rows
        .iter()
        .map(|row| lane_of(row.subscription, count));
    let Some(first) = owners.next() else { return };
    if owners.all(|owner| owner == first) {
        let lane = &mut lanes[first];
        if !lane.open.rows.is_empty() {
            lane.flush();
        }
        lane.send(batch);
        return;
    }
    let Batch {
        bytes,
        rows,
        segments,
    } = batch;
    let mut rows = rows.into_iter();
    for segment in segments {
        for row in rows.by_ref().take(segment.rows.len()) {
            let lane = &mut lanes[lane_of(row.subscription, count)];
            lane.open
                .adopt(&segment.origin, segment.dispatched, row, &bytes);
            if lane.open.rows.len() >= batch_rows_max {
                lane.flush();
            }
        }
    }
}
