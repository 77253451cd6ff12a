//! Whatever is dispatched, taken, carried, parked and moved in whatever order: each row's messages are finished in order, each
//! once, and no slot is lost. By chance in one thread, then with real ones.

use super::change::{LaneChange, Outcome};
use super::*;
use crate::commit::{Claim, Tracker};
use crate::dispatch::{Arrival, Dispatch, Headers, Origin};
use crate::fault;
use crate::ids::{AppId, Partition, ShardIndex};
use crate::ready::ReadySet;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

const ROWS: u8 = 12;
const LANE_ROWS: usize = 5;
const SHARD: ShardIndex = ShardIndex(0);
const SEEDS: u64 = 400;

/// Two partitions of one shard. A row's messages all come from one of them.
struct Source {
    trackers: Vec<(Tracker, Arc<Origin>)>,
    offset: i64,
}

/// By row, the offsets that were finished, in that order.
type Finished = BTreeMap<u8, Vec<i64>>;

/// What stands for a worker.
struct Hand {
    post: Post,
    lane: Option<LaneReceiver>,
    carried: VecDeque<Batch>,
    parked: Vec<(RowKey, Batch)>,
    recorder: Arc<WorkerRecorder>,
}

impl Source {
    fn new(slots: u32) -> Self {
        let ready = Arc::new(ReadySet::new(2));
        let of = |at| {
            let tracker = Tracker::new(slots);
            let origin = Origin::new(Partition(at), tracker.ring().clone(), ready.clone());
            (tracker, Arc::new(origin))
        };
        Self {
            trackers: vec![of(0), of(1)],
            offset: 0,
        }
    }

    /// Dispatches a message of the row, if there is room; its offset.
    fn dispatch(&mut self, dispatch: &mut Dispatch, row: u8) -> Option<i64> {
        let (tracker, origin) = &mut self.trackers[usize::from(row % 2)];
        tracker.advance();
        if tracker.free() == 0 {
            return None;
        }
        self.offset += 1;
        let offset = self.offset;
        let slot = tracker.claim(Claim {
            offset,
            ..Claim::default()
        });
        let arrival = Arrival {
            subscription: SubscriptionId([row; 16]),
            offset,
            leader_epoch: 0,
            timestamp_ms: 7,
            key: &[row],
            value: &offset.to_le_bytes(),
            headers: &Headers::default(),
        };
        dispatch.dispatch(SHARD, origin, crate::clock::now(), slot, &arrival);
        Some(offset)
    }

    fn in_flight(&mut self) -> u64 {
        let trackers = self.trackers.iter_mut();
        trackers
            .map(|(tracker, _)| {
                tracker.advance();
                tracker.in_flight()
            })
            .sum()
    }
}

impl Hand {
    fn new((lane, post): (Option<LaneReceiver>, Post), recorder: &Arc<WorkerRecorder>) -> Self {
        Self {
            post,
            lane,
            carried: VecDeque::new(),
            parked: Vec::new(),
            recorder: recorder.clone(),
        }
    }

    fn take(&mut self) -> Option<Batch> {
        let lane = self.lane.as_ref()?;
        let batch = self.carried.pop_front();
        let batch =
            batch.or_else(|| lane.batches.try_iter().find(|batch| !batch.rows.is_empty()))?;
        self.recorder.taken.add(batch.rows.len() as u64);
        Some(batch)
    }

    fn carry(&mut self) {
        if let Some(lane) = &self.lane {
            let next = lane.batches.try_iter().find(|batch| !batch.rows.is_empty());
            self.carried.extend(next);
        }
    }

    /// Finishes a batch, but for messages of the row that is locked, or wait behind one that was.
    fn finish(&mut self, batch: Batch, locked: Option<u8>, finished: &mut Finished) {
        let Batch {
            bytes,
            rows,
            segments,
        } = batch;
        let mut rows = rows.into_iter();
        for segment in segments {
            for row in rows.by_ref().take(segment.rows.len()) {
                let number = row.subscription.0[0];
                assert_eq!(row.key(&bytes), [number]);
                assert_eq!(row.value(&bytes), row.offset.to_le_bytes());
                let key = RowKey {
                    app: AppId([0; 16]),
                    subscription: row.subscription,
                };
                let at = self.parked.iter().position(|(parked, _)| *parked == key);
                if at.is_some() || locked == Some(number) {
                    let at = at.unwrap_or_else(|| {
                        self.parked.push((key, Batch::default()));
                        self.parked.len() - 1
                    });
                    let (_, parked) = &mut self.parked[at];
                    parked.adopt(&segment.origin, segment.dispatched, row, &bytes);
                    continue;
                }
                finished.entry(number).or_default().push(row.offset);
                segment.origin.complete([row.slot]);
            }
        }
    }

    fn release(&mut self, finished: &mut Finished) {
        if let Some((_, batch)) = self.parked.pop() {
            self.finish(batch, None, finished);
        }
    }

    fn hand_over(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.post.hand_over(Duty {
                lane,
                carried: std::mem::take(&mut self.carried),
                parked: std::mem::take(&mut self.parked),
            });
        }
    }

    /// False when it is dismissed.
    fn look(&mut self) -> bool {
        if self.lane.is_some() {
            if self.post.hears_question() {
                self.hand_over();
            }
            return true;
        }
        match self.post.next_duty_now() {
            NextDuty::Begins(duty) => {
                self.lane = Some(duty.lane);
                self.carried = duty.carried;
                self.parked = duty.parked;
                true
            }
            NextDuty::NotYet => true,
            NextDuty::Never => false,
        }
    }
}

fn recorder(lane: usize) -> Arc<WorkerRecorder> {
    Arc::new(WorkerRecorder::new(0, SHARD, lane))
}

fn begin(workers: usize) -> (Dispatch, Vec<Hand>) {
    let recorders: Vec<_> = (0..workers).map(recorder).collect();
    let (dispatch, mut ends) = Dispatch::new(std::slice::from_ref(&recorders), LANE_ROWS);
    let ends = ends.remove(0).into_iter();
    let hands = ends.zip(&recorders);
    let hand = |((lane, post), recorder)| Hand::new((Some(lane), post), recorder);
    (dispatch, hands.map(hand).collect())
}

/// Asks for another number of lanes; those who join are behind the others.
fn ask(
    dispatch: &Dispatch,
    hands: &mut Vec<Hand>,
    workers: usize,
) -> crossbeam_channel::Receiver<Outcome> {
    let (reply, replied) = crossbeam_channel::bounded(1);
    let mut joining = Vec::new();
    for lane in hands.len()..workers {
        let recorder = recorder(lane);
        let (lane, post) = joining_lane(&recorder);
        joining.push(lane);
        hands.push(Hand::new((None, post), &recorder));
    }
    let change = LaneChange {
        shard: SHARD,
        workers,
        joining,
        reply,
    };
    dispatch.changer().ask(change).expect("it runs");
    replied
}

/// What is wrong with the order, if anything.
fn judge(sent: &Finished, finished: &Finished) -> Result<(), String> {
    for (row, offsets) in sent {
        let found = finished.get(row);
        if found != Some(offsets) {
            return Err(format!("row {row}: {offsets:?} were finished as {found:?}"));
        }
    }
    Ok(())
}

/// A change from beginning to end, or given up half-way as one worker does not answer.
fn change(
    dispatch: &mut Dispatch,
    hands: &mut Vec<Hand>,
    source: &mut Source,
    sent: &mut Finished,
    random: &mut SmallRng,
) {
    let before = hands.len();
    let workers = random.random_range(1..=8);
    let replied = ask(dispatch, hands, workers);
    dispatch.change_lanes();
    let silent = random
        .random_bool(0.3)
        .then(|| random.random_range(0..before));
    for (at, hand) in hands.iter_mut().enumerate() {
        if silent != Some(at) {
            hand.look();
        }
        // The poller goes on meanwhile.
        let row = random.random_range(0..ROWS);
        if let Some(offset) = source.dispatch(dispatch, row) {
            sent.entry(row).or_default().push(offset);
        }
        dispatch.change_lanes();
    }
    if silent.is_some() {
        // Given up, by the deadline in earnest; here as at the end of the poller.
        std::thread::sleep(change::HAND_OVER_MAX);
        dispatch.change_lanes();
        let refused = replied.try_recv().expect("an answer").expect_err("refused");
        assert_eq!(refused.joining.len(), workers.saturating_sub(before));
        assert!(refused.why.contains("lane"), "{}", refused.why);
    } else {
        let changed = replied.try_recv().expect("an answer").expect("done");
        assert_eq!(changed.before, before);
    }
    hands.retain_mut(Hand::look);
    let expected = if silent.is_some() { before } else { workers };
    assert_eq!(hands.len(), expected);
    assert!(hands.iter().all(|hand| hand.lane.is_some()));
}

/// One story; what was wrong in it.
fn story(seed: u64) -> Result<(), String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut dispatch, mut hands) = begin(random.random_range(1..=8));
    let mut source = Source::new(64);
    let (mut sent, mut finished) = (Finished::new(), Finished::new());
    // Few seeds wait for the deadline.
    let mut refusals = 1;
    for _ in 0..300 {
        let at = random.random_range(0..hands.len());
        match random.random_range(0..40) {
            0..=19 => {
                let row = random.random_range(0..ROWS);
                if let Some(offset) = source.dispatch(&mut dispatch, row) {
                    sent.entry(row).or_default().push(offset);
                }
            }
            20..=22 => dispatch.flush(),
            23..=26 => hands[at].carry(),
            27..=33 => {
                let locked = random
                    .random_bool(0.2)
                    .then(|| random.random_range(0..ROWS));
                if let Some(batch) = hands[at].take() {
                    hands[at].finish(batch, locked, &mut finished);
                }
            }
            34..=36 => hands[at].release(&mut finished),
            _ if refusals > 0 || !seed.is_multiple_of(20) => {
                let mut draw = SmallRng::seed_from_u64(random.random());
                if seed.is_multiple_of(20) {
                    refusals -= 1;
                    change(&mut dispatch, &mut hands, &mut source, &mut sent, &mut draw);
                } else {
                    change_whole(&mut dispatch, &mut hands, draw.random_range(1..=8));
                }
            }
            _ => {}
        }
    }
    dispatch.flush();
    for hand in &mut hands {
        while !hand.parked.is_empty() {
            hand.release(&mut finished);
        }
        while let Some(batch) = hand.take() {
            hand.finish(batch, None, &mut finished);
        }
        assert_eq!(hand.recorder.lane_depth(), 0);
    }
    judge(&sent, &finished)?;
    match source.in_flight() {
        0 => Ok(()),
        lost => Err(format!("{lost} slots are lost")),
    }
}

/// A change in which everybody answers.
fn change_whole(dispatch: &mut Dispatch, hands: &mut Vec<Hand>, workers: usize) {
    let replied = ask(dispatch, hands, workers);
    dispatch.change_lanes();
    hands.iter_mut().for_each(|hand| assert!(hand.look()));
    dispatch.change_lanes();
    let changed = replied.try_recv().expect("an answer");
    assert!(changed.is_ok(), "{changed:?}");
    hands.retain_mut(Hand::look);
    assert_eq!(hands.len(), workers);
}

#[test]
fn rows_keep_their_order_and_nothing_is_lost_however_lanes_change() {
    for seed in 0..SEEDS {
        story(seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn lanes_that_are_split_out_of_order_are_noticed() {
    fault::in_tests::BROKEN.set(Some("lanes-split-out-of-order"));
    let noticed = (1..50).find_map(|seed| story(seed).err());
    fault::in_tests::BROKEN.set(None);
    assert!(noticed.is_some_and(|wrong| wrong.contains("were finished as")));
}

#[test]
fn a_change_that_does_not_fit_and_one_at_the_end_are_refused() {
    let (mut dispatch, mut hands) = begin(2);
    let replied = ask(&dispatch, &mut hands, 3);
    // Another change came first.
    let (reply, first) = crossbeam_channel::bounded(1);
    dispatch.change_lanes();
    hands.iter_mut().for_each(|hand| assert!(hand.look()));
    dispatch.change_lanes();
    assert!(replied.try_recv().expect("an answer").is_ok());
    let late = LaneChange {
        shard: SHARD,
        workers: 5,
        joining: vec![joining_lane(&recorder(2)).0],
        reply,
    };
    dispatch.changer().ask(late).expect("it runs");
    dispatch.change_lanes();
    let refused = first.try_recv().expect("an answer").expect_err("refused");
    assert_eq!(refused.why, "there are 3 workers by now; ask again");
    hands.retain_mut(Hand::look);
    let replied = ask(&dispatch, &mut hands, 1);
    dispatch.change_lanes();
    hands[0].look();
    dispatch.change_no_more();
    let refused = replied.try_recv().expect("an answer").expect_err("refused");
    assert_eq!(refused.why, "the consumer is stopping");
    assert!(
        hands
            .iter_mut()
            .all(|hand| hand.look() && !hand.post.hears_question())
    );
    assert!(hands.iter().all(|hand| hand.lane.is_some()));
    let (reply, _) = crossbeam_channel::bounded(1);
    let late = LaneChange {
        shard: SHARD,
        workers: 1,
        joining: Vec::new(),
        reply,
    };
    assert!(dispatch.changer().ask(late).is_err());
}

/// What a worker's thread does, until it is dismissed or the lane ends.
fn work(mut hand: Hand, finished: &Mutex<Finished>) {
    loop {
        if !hand.look() {
            return;
        }
        let Some(lane) = &hand.lane else {
            std::thread::yield_now();
            continue;
        };
        if hand.carried.is_empty() {
            match lane.batches.recv_timeout(Duration::from_secs(10)) {
                Ok(batch) => hand
                    .carried
                    .extend(Some(batch).filter(|batch| !batch.rows.is_empty())),
                Err(_) => return,
            }
        }
        if let Some(batch) = hand.carried.pop_front() {
            hand.recorder.taken.add(batch.rows.len() as u64);
            hand.finish(batch, None, &mut finished.lock());
        }
    }
}

#[test]
fn threads_keep_the_order_of_rows_while_their_number_changes() {
    let (mut dispatch, hands) = begin(3);
    let mut source = Source::new(512);
    let (mut sent, finished) = (Finished::new(), Mutex::new(Finished::new()));
    let mut random = SmallRng::seed_from_u64(7);
    let (mut workers, mut changes) = (3, 0);
    std::thread::scope(|scope| {
        for hand in hands {
            scope.spawn(|| work(hand, &finished));
        }
        let mut waiting: Option<crossbeam_channel::Receiver<Outcome>> = None;
        let mut asked = workers;
        while source.offset < 30_000 || changes < 50 || waiting.is_some() {
            for _ in 0..random.random_range(0..40) {
                let row = random.random_range(0..ROWS);
                if let Some(offset) = source.dispatch(&mut dispatch, row) {
                    sent.entry(row).or_default().push(offset);
                }
            }
            dispatch.flush();
            dispatch.change_lanes();
            match waiting.as_ref().map(|replied| replied.try_recv()) {
                Some(Err(_)) => {}
                Some(Ok(outcome)) => {
                    waiting = None;
                    if outcome.is_ok() {
                        (workers, changes) = (asked, changes + 1);
                    }
                }
                None => {
                    asked = random.random_range(1..=6);
                    let mut joining = Vec::new();
                    // Their numbers begin where those that are there end.
                    let mut all: Vec<Hand> = Vec::new();
                    let (reply, replied) = crossbeam_channel::bounded(1);
                    for lane in workers..asked {
                        let recorder = recorder(lane);
                        let (lane, post) = joining_lane(&recorder);
                        joining.push(lane);
                        all.push(Hand::new((None, post), &recorder));
                    }
                    let change = LaneChange {
                        shard: SHARD,
                        workers: asked,
                        joining,
                        reply,
                    };
                    dispatch.changer().ask(change).expect("it runs");
                    waiting = Some(replied);
                    for hand in all {
                        scope.spawn(|| work(hand, &finished));
                    }
                }
            }
        }
        dispatch.flush();
        drop(dispatch);
    });
    judge(&sent, &finished.lock()).expect("the order is kept");
    assert_eq!(source.in_flight(), 0);
}
