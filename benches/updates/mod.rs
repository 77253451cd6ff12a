//! The updates that hot_path and instructions work on, and the way into a lane.

use millpond::commit::{Claim, Slot, Tracker};
use millpond::dispatch::{Arrival, Dispatch, Headers, Origin};
use millpond::ids::{ShardIndex, SubscriptionId};
use std::iter;
use std::sync::Arc;

/// What stands behind the two ids of an update.
pub const TYPICAL: &str = r#""tags":{"first_name":"Jon"}"#;

/// A message's row, key and value.
pub type Message = (SubscriptionId, String, String);

/// Messages for as many rows.
pub fn messages(count: usize) -> Vec<Message> {
    (0..count)
        .map(|number| (row(number), row(number).to_string(), text(TYPICAL, number)))
        .collect()
}

/// Ids as random ones are: no two alike, spread over the lanes.
pub fn row(number: usize) -> SubscriptionId {
    let spread = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    SubscriptionId(spread.to_be_bytes())
}

pub fn text(fields: &str, number: usize) -> String {
    let (app, row) = ("5eb5a37e-b458-11e3-ac11-000c2940e62c", row(number));
    format!(r#"{{"app_id":"{app}","subscription_id":"{row}",{fields}}}"#)
}

/// The next slots of a partition, one for each of its messages.
pub fn claims(tracker: &mut Tracker, offset: &mut i64) -> impl Iterator<Item = Slot> {
    iter::repeat_with(|| {
        *offset += 1;
        tracker.claim(Claim {
            offset: *offset,
            timestamp_ms: *offset,
            dispatched_ms: *offset,
            bytes: 170,
        })
    })
}

/// The poller's part: for each message a slot, and the copy into the open batch of its lane.
pub fn dispatch_all(
    dispatch: &mut Dispatch,
    messages: &[Message],
    (tracker, origin): (&mut Tracker, &Arc<Origin>),
    offset: &mut i64,
) {
    let (now, headers) = (millpond::clock::now(), Headers::default());
    for (subscription, key, value) in messages {
        let slot = claims(tracker, offset).next().expect("has no end");
        let arrival = Arrival {
            subscription: *subscription,
            offset: *offset,
            leader_epoch: 0,
            timestamp_ms: *offset,
            key: key.as_bytes(),
            value: value.as_bytes(),
            headers: &headers,
        };
        dispatch.dispatch(ShardIndex(0), origin, now, slot, &arrival);
    }
    dispatch.flush();
}
