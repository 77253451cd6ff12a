//! Every interleaving of a poller and two workers over small rings, by loom. Run with
//! `cargo test --release --lib --features loom loom_`.

use super::tracker::{Claim, Tracker};
use crate::sync::{AtomicU64, Ordering};
use loom::sync::{Arc, mpsc};
use loom::thread;

fn claim(offset: i64) -> Claim {
    Claim {
        offset,
        timestamp_ms: 0,
        dispatched_ms: 0,
        bytes: 1,
    }
}

/// Two workers complete one slot each while the poller looks: whatever it passes must have been applied before.
fn watermark_passes_only_what_is_applied(limit: u32) {
    loom::model(move || {
        let mut tracker = Tracker::new(limit);
        let applied = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let workers: Vec<_> = (0..2)
            .map(|offset| {
                let slot = tracker.claim(claim(offset));
                let (ring, applied) = (tracker.ring().clone(), applied.clone());
                thread::spawn(move || {
                    applied[usize::try_from(offset).expect("small")].store(1, Ordering::Relaxed);
                    let _ = ring.complete([slot]);
                })
            })
            .collect();
        let passed = tracker.advance();
        for offset in 0..passed {
            assert_eq!(
                applied[usize::try_from(offset).expect("small")].load(Ordering::Relaxed),
                1
            );
        }
        for worker in workers {
            worker.join().expect("the worker ends");
        }
        tracker.advance();
        assert_eq!(tracker.watermark(), Some(2));
    });
}

#[test]
fn loom_the_watermark_passes_only_what_is_applied_at_capacity_2() {
    watermark_passes_only_what_is_applied(2);
}

#[test]
fn loom_the_watermark_passes_only_what_is_applied_at_capacity_3() {
    watermark_passes_only_what_is_applied(3);
}

#[test]
fn loom_the_watermark_passes_only_what_is_applied_at_capacity_4() {
    watermark_passes_only_what_is_applied(4);
}

/// A poller that finds no room must see room at its second look, or be woken.
#[test]
fn loom_no_wake_up_is_lost() {
    loom::model(|| {
        let mut tracker = Tracker::new(2);
        let slots = [tracker.claim(claim(0)), tracker.claim(claim(1))];
        let (wake, woken) = mpsc::channel();
        let workers: Vec<_> = slots
            .into_iter()
            .map(|slot| {
                let (ring, wake) = (tracker.ring().clone(), wake.clone());
                thread::spawn(move || {
                    if ring.complete([slot]) {
                        wake.send(()).expect("the poller listens");
                    }
                })
            })
            .collect();
        if tracker.wait_for_room(|tracker| tracker.free() > 0) {
            woken.recv().expect("a completion wakes the poller");
            // Either slot may have been the one; only the oldest makes room, and the other wakes nobody again. So the
            // poller, once woken, announces its wait again before it sleeps.
            while tracker.advance() == 0 && tracker.wait_for_room(|tracker| tracker.free() > 0) {
                woken.recv().expect("the other completion wakes it");
            }
        }
        for worker in workers {
            worker.join().expect("the worker ends");
        }
        tracker.advance();
        assert_eq!(tracker.watermark(), Some(2));
    });
}

/// A slot is used again while another worker still completes into the same word.
#[test]
fn loom_a_slot_used_again_belongs_to_its_new_message() {
    loom::model(|| {
        let mut tracker = Tracker::new(2);
        let (first, second) = (tracker.claim(claim(0)), tracker.claim(claim(1)));
        let ring = tracker.ring().clone();
        let one = thread::spawn(move || {
            let _ = ring.complete([first]);
        });
        let ring = tracker.ring().clone();
        let two = thread::spawn(move || {
            let _ = ring.complete([second]);
        });
        one.join().expect("the worker ends");
        tracker.advance();
        // Slot 0 is free again: its new message is not finished just because the old one was.
        let third = tracker.claim(claim(2));
        two.join().expect("the worker ends");
        tracker.advance();
        assert_eq!(tracker.watermark(), Some(2));
        let ring = tracker.ring().clone();
        let three = thread::spawn(move || {
            let _ = ring.complete([third]);
        });
        let seen = tracker.advance();
        assert!(seen <= 1);
        three.join().expect("the worker ends");
        tracker.advance();
        assert_eq!(tracker.watermark(), Some(3));
    });
}
