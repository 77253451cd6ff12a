//! Rows keep their order and their bytes on the way through a lane.

use super::*;
use crate::commit::{Claim, Tracker};

fn arrival<'a>(row: u8, offset: i64, value: &'a [u8], headers: &'a Headers) -> Arrival<'a> {
    let subscription = SubscriptionId([row; 16]);
    Arrival {
        subscription,
        offset,
        leader_epoch: 0,
        timestamp_ms: 7,
        key: b"key",
        value,
        headers,
    }
}

#[test]
fn messages_of_a_row_stay_in_order_in_one_lane_with_their_bytes() {
    let recorders: Vec<_> = (0..4)
        .map(|lane| Arc::new(WorkerRecorder::new(0, ShardIndex(0), lane)))
        .collect();
    let (mut dispatch, receivers) = Dispatch::new(&[recorders], 8);
    let mut tracker = Tracker::new(256);
    let ready = Arc::new(ReadySet::new(1));
    let origin = Arc::new(Origin::new(Partition(0), tracker.ring().clone(), ready));
    let mut headers = Headers::default();
    headers.push(b"trace", Some(b"parent"));
    headers.push(b"none", None);
    let now = crate::clock::now();
    for offset in 0..200u8 {
        let at = i64::from(offset);
        let slot = tracker.claim(Claim {
            offset: at,
            ..Claim::default()
        });
        dispatch.dispatch(
            ShardIndex(0),
            &origin,
            now,
            slot,
            &arrival(offset % 10, at, &[offset; 3], &headers),
        );
    }
    dispatch.flush();
    let mut seen = 0;
    for (lane, (receiver, _)) in receivers[0].iter().enumerate() {
        let mut last = [-1; 10];
        for batch in receiver.batches.try_iter() {
            assert!(batch.rows.len() <= 8);
            assert_eq!(
                batch
                    .segments
                    .iter()
                    .map(|segment| segment.rows.len())
                    .sum::<usize>(),
                batch.rows.len()
            );
            for row in &batch.rows {
                let number = usize::from(row.subscription.0[0]);
                assert_eq!(lane_of(row.subscription, 4), lane);
                assert!(last[number] < row.offset);
                last[number] = row.offset;
                assert_eq!(row.key(&batch.bytes), b"key");
                assert_eq!(
                    row.value(&batch.bytes),
                    [u8::try_from(row.offset).expect("small"); 3]
                );
                let read = Headers::read(row.headers(&batch.bytes));
                assert_eq!(
                    read,
                    [
                        ("trace".into(), Some(b"parent"[..].into())),
                        ("none".into(), None)
                    ]
                );
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 200);
}
