//! The shared side of a partition's commit ring: one bit per slot, set by workers with one atomic OR per word and cleared
//! by the poller. README.md has the protocol; the numbers below are its steps.

use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};
use crossbeam_utils::CachePadded;

const WORD_BITS: u32 = u64::BITS;

/// The right to finish one message: claimed by the poller, moved with the message, consumed by [`Ring::complete`].
///
/// Dropping it instead holds the partition's watermark below its message.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped slot holds the partition's watermark for ever"]
pub struct Slot(u32);

/// The finished slots of one partition and epoch. See README.md.
#[derive(Debug)]
pub struct Ring {
    /// Bit `sequence mod capacity`: finished, and not yet passed by the poller. At least one word.
    words: Box<[AtomicU64]>,
    /// Slots, a power of two.
    capacity: u32,
    /// The poller found no room and sleeps until a completion wakes it.
    waiting: CachePadded<AtomicBool>,
    /// Whether the epoch still owns its partition.
    live: CachePadded<AtomicBool>,
}

impl Slot {
    /// The slot of a dense sequence number; only the low bits matter, as no two slots in flight share them.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sequence numbers wrap; a ring has at most 2^20 slots"
    )]
    pub(super) fn of(sequence: u64) -> Self {
        Self(sequence as u32)
    }
}

impl Ring {
    /// A live ring with room for `limit` slots, rounded up to a power of two. All unfinished.
    pub fn new(limit: u32) -> Self {
        assert!((1..=1 << 20).contains(&limit), "a ring has 1 to 2^20 slots");
        let capacity = limit.next_power_of_two();
        let words = (0..capacity.div_ceil(WORD_BITS))
            .map(|_| AtomicU64::new(0))
            .collect();
        Self {
            words,
            capacity,
            waiting: CachePadded::new(AtomicBool::new(false)),
            live: CachePadded::new(AtomicBool::new(true)),
        }
    }

    /// How many slots it has.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Marks messages finished. True when the poller waits for room and the caller must wake it for this partition.
    ///
    /// Cheapest when the slots come in the order of their claims: one atomic operation per word.
    #[must_use = "true means that the poller sleeps until the caller wakes it"]
    pub fn complete(&self, slots: impl IntoIterator<Item = Slot>) -> bool {
        let (mut word, mut bits) = (0, 0);
        for Slot(sequence) in slots {
            let index = sequence & (self.capacity - 1);
            let of_slot = (index / WORD_BITS) as usize;
            if of_slot != word && bits != 0 {
                self.mark(word, bits);
                bits = 0;
            }
            word = of_slot;
            bits |= 1 << (index % WORD_BITS);
        }
        if bits != 0 {
            self.mark(word, bits);
        }
        // Step 2: pairs with the fence in `announce_wait`.
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::Relaxed)
    }

    fn mark(&self, word: usize, bits: u64) {
        // Release: pairs with the Acquire in `take_finished`.
        let before = self.words[word].fetch_or(bits, Ordering::Release);
        assert_eq!(before & bits, 0, "a slot was completed twice");
    }

    /// Takes off the finished slots from `tail` on, at most up to the end of its word and at most `most`: their number.
    pub(super) fn take_finished(&self, tail: u64, most: u64) -> u64 {
        let Slot(sequence) = Slot::of(tail);
        let index = sequence & (self.capacity - 1);
        let bit = index % WORD_BITS;
        let word = &self.words[(index / WORD_BITS) as usize];
        // Acquire: pairs with the Release in `mark`.
        let ones = (word.load(Ordering::Acquire) >> bit).trailing_ones();
        let count = u64::from(ones)
            .min(most)
            .min(u64::from(self.capacity - index));
        if count > 0 {
            let passed = (u64::MAX >> (u64::from(WORD_BITS) - count)) << bit;
            word.fetch_and(!passed, Ordering::Relaxed);
        }
        count
    }

    /// Whether any message at all is marked as finished; only for the broken build that commits the highest.
    #[cfg(any(feature = "faults", test))]
    pub(super) fn is_finished(&self, sequence: u64) -> bool {
        let Slot(sequence) = Slot::of(sequence);
        let index = sequence & (self.capacity - 1);
        self.words[(index / WORD_BITS) as usize].load(Ordering::Acquire) >> (index % WORD_BITS) & 1
            == 1
    }

    /// The poller's announcement that it will sleep until room is made; it must look once more afterwards.
    pub(super) fn announce_wait(&self) {
        self.waiting.store(true, Ordering::Relaxed);
        // Pairs with the fence in `complete`.
        fence(Ordering::SeqCst);
    }

    /// Gives the epoch up: from now on workers drop its messages where they find them.
    pub fn kill(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Whether the epoch still owns its partition. A worker that reads a stale `true` is harmless: the fence decides.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }
}
