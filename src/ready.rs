//! Which partitions want a visit, and the one place where a poller sleeps.
//!
//! librdkafka's callbacks mark a partition when its queue turns from empty to not empty, completions mark one that was left
//! unread for want of room, and shutdown wakes without marking. The poller takes the marks, visits, and sleeps when
//! there are none.

use crate::ids::Partition;
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};
use std::{sync::OnceLock, thread::Thread, time::Duration};

/// A bit for each partition of the topic, and the sleeping poller.
#[derive(Debug)]
pub struct ReadySet {
    words: Box<[AtomicU64]>,
    /// True from before the poller looks at the words for the last time until it is awake again.
    sleeping: AtomicBool,
    poller: OnceLock<Thread>,
}

impl ReadySet {
    /// No marks, for that many partitions.
    pub fn new(partitions: usize) -> Self {
        Self {
            words: (0..partitions.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            sleeping: AtomicBool::new(false),
            poller: OnceLock::new(),
        }
    }

    /// Says that the calling thread is the poller that sleeps here.
    pub fn owned_by_this_thread(&self) {
        self.poller
            .set(std::thread::current())
            .expect("a ready set has one poller");
    }

    /// Asks for a visit to the partition. From any thread.
    pub fn mark(&self, partition: Partition) {
        let bit = 1 << (partition.index() % 64);
        if self.words[partition.index() / 64].fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.wake();
        }
    }

    /// Wakes the poller if it sleeps. From any thread.
    pub fn wake(&self) {
        // Pairs with the fence in `sleep`: either the poller sees what was done before, or it is seen sleeping.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed)
            && let Some(poller) = self.poller.get()
        {
            poller.unpark();
        }
    }

    /// Takes all marks, in the order of partitions, into `visits`.
    pub fn take(&self, visits: &mut Vec<Partition>) {
        visits.clear();
        for (word, base) in self.words.iter().zip((0i32..).step_by(64)) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                visits.push(Partition(
                    base + i32::try_from(bits.trailing_zeros()).expect("at most 63"),
                ));
                bits &= bits - 1;
            }
        }
    }

    /// Sleeps until a mark, a wake-up, or `most`. Only the poller may call it.
    pub fn sleep(&self, most: Duration) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`.
        fence(Ordering::SeqCst);
        if self
            .words
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
        {
            std::thread::park_timeout(most);
        }
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn marks_are_taken_once_and_in_order() {
        let ready = ReadySet::new(200);
        for partition in [130, 3, 64, 3, 199] {
            ready.mark(Partition(partition));
        }
        let mut visits = vec![Partition(7)];
        ready.take(&mut visits);
        assert_eq!(visits, [3, 64, 130, 199].map(Partition));
        ready.take(&mut visits);
        assert_eq!(visits, []);
    }

    #[test]
    fn a_mark_ends_the_sleep() {
        let ready = Arc::new(ReadySet::new(64));
        ready.owned_by_this_thread();
        let marker = std::thread::spawn({
            let ready = ready.clone();
            move || {
                for round in 0..200 {
                    ready.mark(Partition(round % 64));
                    std::thread::yield_now();
                }
            }
        });
        let (mut visits, mut seen) = (Vec::new(), 0);
        while seen == 0 || !marker.is_finished() {
            ready.sleep(Duration::from_secs(20));
            ready.take(&mut visits);
            seen += visits.len();
            if marker.is_finished() {
                break;
            }
        }
        marker.join().expect("the marker ends");
        assert!(seen > 0);
    }
}
