//! The poller's side of a partition's commit ring: claims a slot for each message, passes finished ones, knows the
//! watermark and what is in memory. One owner; nothing here is shared.

use super::ring::{Ring, Slot};
use std::collections::VecDeque;
use std::sync::Arc;

/// What the tracker keeps about a message in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its Kafka timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// When it was dispatched, by [`crate::clock::running_ms`].
    pub dispatched_ms: i64,
    /// Bytes of its key, value and headers.
    pub bytes: u32,
}

/// The slots of one partition and epoch, as the poller sees them.
#[derive(Debug)]
pub struct Tracker {
    ring: Arc<Ring>,
    /// Claims of the slots from tail to head. Takes memory for as many as there were at once.
    entries: VecDeque<Claim>,
    /// Slots that may be claimed at once; at most the ring's capacity.
    limit: u64,
    /// Claimed so far; the next slot's number.
    head: u64,
    /// Passed so far: finished, with all before.
    tail: u64,
    /// Bytes of the messages between tail and head.
    bytes: u64,
    /// Everything below is finished; `None` until the first message was.
    watermark: Option<i64>,
    /// The highest offset claimed; offsets of one epoch only rise.
    claimed: Option<i64>,
    /// The newest Kafka timestamp passed; 0 for none.
    applied_timestamp_ms: i64,
}

impl Tracker {
    /// An empty tracker with a new ring for at most `limit` messages at once.
    pub fn new(limit: u32) -> Self {
        let ring = Arc::new(Ring::new(limit));
        Self {
            entries: VecDeque::new(),
            ring,
            limit: u64::from(limit),
            head: 0,
            tail: 0,
            bytes: 0,
            watermark: None,
            claimed: None,
            applied_timestamp_ms: 0,
        }
    }

    /// The shared side.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Slots that can be claimed now, as of the last [`advance`](Self::advance).
    pub fn free(&self) -> u64 {
        self.limit - self.in_flight()
    }

    /// Messages claimed and not passed.
    pub fn in_flight(&self) -> u64 {
        self.head - self.tail
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a slot for a message. Panics without a free one, and when the offset doesn't rise: both would break the
    /// watermark, and ending the process loses nothing.
    pub fn claim(&mut self, claim: Claim) -> Slot {
        assert!(self.free() > 0, "no slot, no dispatch");
        assert!(
            self.claimed.is_none_or(|before| before < claim.offset),
            "offsets of an epoch rise"
        );
        self.claimed = Some(claim.offset);
        self.entries.push_back(claim);
        self.bytes += u64::from(claim.bytes);
        let slot = Slot::of(self.head);
        self.head += 1;
        slot
    }

    /// Passes what is finished, contiguously from the oldest on. Returns how many messages that were.
    pub fn advance(&mut self) -> u64 {
        let before = self.tail;
        while self.tail < self.head {
            let count = self.ring.take_finished(self.tail, self.head - self.tail);
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let passed = self.entries.pop_front().expect("as many as slots");
                self.bytes -= u64::from(passed.bytes);
                self.watermark = Some(passed.offset + 1);
                self.applied_timestamp_ms = self.applied_timestamp_ms.max(passed.timestamp_ms);
            }
            self.tail += count;
        }
        #[cfg(any(feature = "faults", test))]
        self.commit_highest_if_broken();
        self.tail - before
    }

    /// Says that the partition is left unread until room is made: true if there is still none, and a completion will wake
    /// the poller; false if room was made meanwhile.
    pub fn wait_for_room(&mut self, has_room: impl Fn(&Self) -> bool) -> bool {
        self.ring.announce_wait();
        self.advance();
        !has_room(self)
    }

    /// The next offset that may be committed; `None` until a message was finished.
    pub fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// The oldest message that is not finished.
    pub fn oldest(&self) -> Option<&Claim> {
        self.entries.front()
    }

    /// The newest Kafka timestamp among finished messages; 0 for none.
    pub fn applied_timestamp_ms(&self) -> i64 {
        self.applied_timestamp_ms
    }

    /// The deliberately broken build: the highest finished offset instead of the contiguous prefix.
    #[cfg(any(feature = "faults", test))]
    fn commit_highest_if_broken(&mut self) {
        if crate::fault::mutant("commit-highest") {
            let claims = (self.tail..self.head).zip(&self.entries);
            let highest = claims
                .filter(|(sequence, _)| self.ring.is_finished(*sequence))
                .last();
            if let Some((_, claim)) = highest {
                self.watermark = Some(claim.offset + 1);
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Operation {
        /// Claim a slot for an offset this far behind the last one.
        Claim {
            gap: u8,
        },
        /// Complete some of the slots in flight, picked by these numbers.
        Complete {
            picks: Vec<prop::sample::Index>,
        },
        Advance,
        Wait,
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let operation = prop_oneof![
            6 => (1..4u8).prop_map(|gap| Operation::Claim { gap }),
            3 => prop::collection::vec(any::<prop::sample::Index>(), 1..9).prop_map(|picks| Operation::Complete { picks }),
            2 => Just(Operation::Advance),
            1 => Just(Operation::Wait),
        ];
        prop::collection::vec(operation, 1..400)
    }

    fn claim(offset: i64) -> Claim {
        Claim {
            offset,
            timestamp_ms: offset * 10,
            dispatched_ms: 1,
            bytes: 100,
        }
    }

    proptest! {
        #[test]
        fn the_watermark_is_that_of_a_plain_set(limit in 1..200u32, operations in operations()) {
            let mut tracker = Tracker::new(limit);
            // The model: offset → finished, for all ever claimed; the tokens in flight beside it.
            let mut model: BTreeMap<i64, bool> = BTreeMap::new();
            let mut slots: Vec<(i64, Slot)> = Vec::new();
            let mut offset = 0;
            for operation in operations {
                match operation {
                    Operation::Claim { gap } if tracker.free() > 0 => {
                        offset += i64::from(gap);
                        slots.push((offset, tracker.claim(claim(offset))));
                        model.insert(offset, false);
                    }
                    Operation::Claim { .. } => {}
                    Operation::Complete { picks } => {
                        let mut run = Vec::new();
                        for pick in picks {
                            if !slots.is_empty() {
                                let (offset, slot) = slots.swap_remove(pick.index(slots.len()));
                                model.insert(offset, true);
                                run.push(slot);
                            }
                        }
                        let _ = tracker.ring().complete(run);
                    }
                    Operation::Advance => { tracker.advance(); }
                    Operation::Wait => { tracker.wait_for_room(|tracker| tracker.free() > 0); }
                }
                tracker.advance();
                let prefix = model.iter().take_while(|(_, finished)| **finished).last().map(|(offset, _)| offset + 1);
                    prop_assert_eq!(tracker.watermark(), prefix);
                    let unfinished = model.iter().find(|(_, finished)| !**finished).map(|(offset, _)| *offset);
                    prop_assert_eq!(tracker.oldest().map(|claim| claim.offset), unfinished);
                    prop_assert!(tracker.in_flight() <= u64::from(limit));
                prop_assert_eq!(tracker.bytes(), tracker.in_flight() * 100);
            }
        }
    }

    #[test]
    fn a_lost_slot_holds_the_watermark() {
        let mut tracker = Tracker::new(8);
        let first = tracker.claim(claim(5));
        drop(tracker.claim(claim(6)));
        let third = tracker.claim(claim(7));
        let _ = tracker.ring().complete([first, third]);
        assert_eq!(tracker.advance(), 1);
        assert_eq!(tracker.watermark(), Some(6));
        assert_eq!(tracker.in_flight(), 2);
    }

    #[test]
    fn a_completion_wakes_a_waiting_poller_once() {
        let mut tracker = Tracker::new(2);
        let (first, second) = (tracker.claim(claim(0)), tracker.claim(claim(1)));
        assert!(tracker.wait_for_room(|tracker| tracker.free() > 0));
        assert!(tracker.ring().complete([first]));
        assert!(!tracker.ring().complete([second]));
        assert_eq!(tracker.advance(), 2);
    }

    #[test]
    #[should_panic(expected = "no slot, no dispatch")]
    fn nothing_is_claimed_beyond_the_limit() {
        let mut tracker = Tracker::new(3);
        for offset in 0..4 {
            drop(tracker.claim(claim(offset)));
        }
    }

    #[test]
    #[should_panic(expected = "offsets of an epoch rise")]
    fn an_offset_that_comes_twice_in_an_epoch_is_refused() {
        let mut tracker = Tracker::new(4);
        drop(tracker.claim(claim(9)));
        drop(tracker.claim(claim(9)));
    }
}
