//! Which applied updates are logged: one in N with its weight, and all of those that somebody watches.

use crate::clock;
use crate::ids::{AppId, RowKey, SubscriptionId};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Watched at a time: a worker compares each update with all of them.
pub const WATCHED_MAX: usize = 16;
/// How long something is watched unless somebody says otherwise.
pub const WATCH_DEFAULT: Duration = Duration::from_secs(600);
/// The longest: what nobody looks at any more must not fill disks.
pub const WATCH_MAX: Duration = Duration::from_secs(86_400);

/// Whose updates are watched: an app's, a subscription's wherever it is, or one row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of this app only.
    pub app: Option<AppId>,
    /// Of this subscription only.
    pub subscription: Option<SubscriptionId>,
}

impl Target {
    /// Whether the row's updates are meant.
    pub fn is(&self, row: &RowKey) -> bool {
        self.app.is_none_or(|app| app == row.app)
            && self
                .subscription
                .is_none_or(|subscription| subscription == row.subscription)
    }
}

/// Something watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Whose updates.
    pub target: Target,
    /// Until when.
    pub until: Instant,
    /// Lines so far.
    pub logged: Arc<AtomicU64>,
}

/// Sixteen are watched.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// What is logged of applied updates, for all workers of the process; may change while they work.
#[derive(Debug, Default)]
pub struct Applied {
    /// One in so many is logged; 0 for none.
    every: AtomicU64,
    /// Whether anything is watched: all that a worker looks at while nothing is.
    is_watching: AtomicBool,
    watched: Mutex<Vec<Watched>>,
}

impl Applied {
    /// One in so many from now on; 0 for none.
    pub fn set_every(&self, every: u64) {
        self.every.store(every, Ordering::Relaxed);
    }

    /// One in so many is logged; 0 for none.
    pub fn every(&self) -> u64 {
        self.every.load(Ordering::Relaxed)
    }

    /// What is watched now, asked once in a batch.
    pub fn watched(&self) -> Vec<Watched> {
        match self.is_watching.load(Ordering::Relaxed) {
            true => self.look(),
            false => Vec::new(),
        }
    }

    #[cold]
    fn look(&self) -> Vec<Watched> {
        let mut watched = self.watched.lock();
        self.forget_over(&mut watched);
        watched.clone()
    }

    fn forget_over(&self, watched: &mut Vec<Watched>) {
        let now = clock::now();
        watched.retain(|one| one.until > now);
        self.is_watching
            .store(!watched.is_empty(), Ordering::Relaxed);
    }

    /// Watches from now on, for so long. What is watched already gets the new end.
    pub fn watch(&self, target: Target, during: Duration) -> Result<Watched, Full> {
        let mut watched = self.watched.lock();
        self.forget_over(&mut watched);
        let until = clock::now() + during;
        if let Some(known) = watched.iter_mut().find(|one| one.target == target) {
            known.until = until;
            return Ok(known.clone());
        }
        if watched.len() >= WATCHED_MAX {
            return Err(Full);
        }
        let one = Watched {
            target,
            until,
            logged: Arc::default(),
        };
        watched.push(one.clone());
        self.is_watching.store(true, Ordering::Relaxed);
        Ok(one)
    }

    /// Watches it no longer. Whether it was watched.
    pub fn unwatch(&self, target: Target) -> bool {
        let mut watched = self.watched.lock();
        let before = watched.len();
        watched.retain(|one| one.target != target);
        let was_watched = watched.len() < before;
        self.forget_over(&mut watched);
        was_watched
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn row(app: u8, subscription: u8) -> RowKey {
        RowKey {
            app: AppId([app; 16]),
            subscription: SubscriptionId([subscription; 16]),
        }
    }

    fn target(app: Option<u8>, subscription: Option<u8>) -> Target {
        Target {
            app: app.map(|app| AppId([app; 16])),
            subscription: subscription.map(|subscription| SubscriptionId([subscription; 16])),
        }
    }

    #[test]
    fn a_target_is_an_app_a_subscription_or_a_row() {
        let is = |of: Target| [row(1, 1), row(1, 2), row(2, 1)].map(|row| of.is(&row));
        assert_eq!(is(target(Some(1), None)), [true, true, false]);
        assert_eq!(is(target(None, Some(1))), [true, false, true]);
        assert_eq!(is(target(Some(1), Some(1))), [true, false, false]);
    }

    #[test]
    fn what_is_watched_ends_by_itself() {
        clock::turned::stop();
        let applied = Applied::default();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        applied.watch(target(Some(1), None), minutes(10)).unwrap();
        applied.watch(target(Some(2), None), minutes(5)).unwrap();
        applied.watch(target(Some(1), None), minutes(20)).unwrap();
        let watched = |applied: &Applied| -> Vec<Target> {
            let watched = applied.watched();
            watched.iter().map(|one| one.target).collect()
        };
        assert_eq!(
            watched(&applied),
            [target(Some(1), None), target(Some(2), None)]
        );
        clock::turned::forward(minutes(5));
        assert_eq!(watched(&applied), [target(Some(1), None)]);
        clock::turned::forward(minutes(15));
        assert_eq!(watched(&applied), []);
        assert!(!applied.is_watching.load(Ordering::Relaxed));
    }

    #[test]
    fn no_more_than_sixteen_are_watched() {
        let applied = Applied::default();
        for app in 0..16 {
            applied
                .watch(target(Some(app), None), WATCH_DEFAULT)
                .unwrap();
        }
        let one_more = applied.watch(target(Some(16), None), WATCH_DEFAULT);
        assert_eq!(one_more.unwrap_err(), Full);
        assert!(applied.unwatch(target(Some(3), None)));
        assert!(!applied.unwatch(target(Some(3), None)));
        assert!(applied.watch(target(Some(16), None), WATCH_MAX).is_ok());
    }
}
