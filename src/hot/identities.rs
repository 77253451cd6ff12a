//! Who a hot row is: its identifier and its parent, asked of its shard. Only for the few rows that somebody looks at or that
//! are warned of; what was learned holds for a minute.
//!
//! A shard may be away, or frozen in the middle of its answer, and a blocking connection has no time limit of its own. So each
//! question is asked on a thread of its own, at most one a shard: while one is under way no other begins, and whoever wants an
//! answer waits until a deadline and goes on without. A thread that is stuck ends with the process. After a question that
//! failed the shard is left in peace for [`FAILURE_HOLDS`].

use crate::clock;
use crate::ids::{RowKey, ShardIndex, SubscriptionId};
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// How long an answer is believed.
const ANSWER_HOLDS: Duration = Duration::from_secs(60);
/// How long a shard that could not be asked is left in peace.
const FAILURE_HOLDS: Duration = Duration::from_secs(10);
/// Answers kept for a shard. Hot rows are few; more means that somebody asks for ever other ones.
const KEPT_MAX: usize = 10_000;

/// What the shard says of a row.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// A person's address or a device's token. Never in a log.
    pub identifier: Option<String>,
    /// The row that it is linked to.
    pub parent: Option<SubscriptionId>,
}

impl Identity {
    /// The identifier as logs may show it: the same one gives the same text, and the text gives nobody away who isn't known
    /// already.
    pub fn identifier_hash(&self) -> Option<String> {
        let hash = |identifier: &String| format!("{:016x}", xxh3_64(identifier.as_bytes()));
        self.identifier.as_ref().map(hash)
    }
}

/// An identity may end up in a log by mistake, so it shows its hash only.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("identifier_hash", &self.identifier_hash())
            .field("parent", &self.parent)
            .finish()
    }
}

/// Asks a shard: for each row in order who it is, `None` where there is no such row; or what is wrong, for people.
pub type Ask = dyn Fn(ShardIndex, &[RowKey]) -> Result<Vec<Option<Identity>>, String> + Send + Sync;

/// What is known of some rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// For each row in order; `None` where there is no such row, or nobody could say.
    pub identities: Vec<Option<Identity>>,
    /// Why some are not known.
    pub why_not: Option<String>,
}

/// Whoever is asked, and what was answered lately. The default knows nobody.
#[derive(Default)]
pub struct Identities {
    ask: Option<Arc<Ask>>,
    shards: Vec<Arc<OfShard>>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identities of {} shards", self.shards.len())
    }
}

#[derive(Default)]
struct OfShard {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    known: HashMap<RowKey, (Instant, Option<Identity>)>,
    is_asking: bool,
    failed: Option<(Instant, String)>,
}

impl Identities {
    /// Asks that one.
    pub fn new(shards: usize, ask: Arc<Ask>) -> Self {
        Self {
            ask: Some(ask),
            shards: (0..shards).map(|_| Arc::default()).collect(),
        }
    }

    /// Who these rows are, as far as it is known by then.
    pub fn of(&self, shard: ShardIndex, keys: &[RowKey], until: Instant) -> Known {
        let Some(ask) = &self.ask else {
            return Known {
                identities: vec![None; keys.len()],
                why_not: None,
            };
        };
        let of_shard = &self.shards[shard.0];
        let mut state = of_shard.state.lock();
        loop {
            let now = clock::now();
            let missing = state.missing(keys, now);
            if missing.is_empty() {
                return state.known(keys, now, None);
            }
            if !state.is_asking {
                if let Some(why) = state.failed_lately(now) {
                    return state.known(keys, now, Some(why));
                }
                state.is_asking = true;
                if let Err(error) = begin(ask.clone(), of_shard.clone(), shard, missing) {
                    state.is_asking = false;
                    state.failed = Some((now, format!("no thread: {error}")));
                    continue;
                }
            }
            if of_shard.answered.wait_until(&mut state, until).timed_out() {
                let why = "the shard has not answered yet".to_owned();
                return state.known(keys, now, Some(why));
            }
        }
    }
}

/// Says that nobody asks any more, also when asking panicked.
struct Asking(Arc<OfShard>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.state.lock().is_asking = false;
        self.0.answered.notify_all();
    }
}

fn begin(
    ask: Arc<Ask>,
    of_shard: Arc<OfShard>,
    shard: ShardIndex,
    keys: Vec<RowKey>,
) -> std::io::Result<()> {
    let asking = move || {
        let asking = Asking(of_shard);
        // Stands where nothing else is said: a panic is a failure, too.
        let failed = Some((clock::now(), "asking failed".to_owned()));
        asking.0.state.lock().failed = failed;
        let answer = ask(shard, &keys);
        asking.0.state.lock().learn(&keys, answer, clock::now());
    };
    let thread = std::thread::Builder::new().name("mp-hot-ask".to_owned());
    thread.spawn(asking).map(drop)
}

impl State {
    fn missing(&self, keys: &[RowKey], now: Instant) -> Vec<RowKey> {
        let is_missing = |key: &&RowKey| self.fresh(key, now).is_none();
        keys.iter().filter(is_missing).copied().collect()
    }

    fn fresh(&self, key: &RowKey, now: Instant) -> Option<&Option<Identity>> {
        let (at, identity) = self.known.get(key)?;
        (now.saturating_duration_since(*at) < ANSWER_HOLDS).then_some(identity)
    }

    fn failed_lately(&self, now: Instant) -> Option<String> {
        let (at, why) = self.failed.as_ref()?;
        (now.saturating_duration_since(*at) < FAILURE_HOLDS).then(|| why.clone())
    }

    fn known(&self, keys: &[RowKey], now: Instant, why_not: Option<String>) -> Known {
        let identity = |key| self.fresh(key, now).cloned().flatten();
        Known {
            identities: keys.iter().map(identity).collect(),
            why_not,
        }
    }

    fn learn(
        &mut self,
        keys: &[RowKey],
        answer: Result<Vec<Option<Identity>>, String>,
        now: Instant,
    ) {
        match answer {
            Err(why) => self.failed = Some((now, why)),
            Ok(identities) => {
                self.failed = None;
                self.known
                    .retain(|_, (at, _)| now.saturating_duration_since(*at) < ANSWER_HOLDS);
                if self.known.len() + keys.len() > KEPT_MAX {
                    self.known.clear();
                }
                let answers = keys.iter().zip(identities);
                self.known
                    .extend(answers.map(|(key, identity)| (*key, (now, identity))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AppId;
    use crate::sync::{AtomicUsize, Ordering};
    use crossbeam_channel::{Receiver, bounded};

    fn row(number: u8) -> RowKey {
        RowKey {
            app: AppId([1; 16]),
            subscription: SubscriptionId([number; 16]),
        }
    }

    fn identity(key: &RowKey) -> Identity {
        Identity {
            identifier: Some(format!("{}@b.c", key.subscription.0[0])),
            parent: None,
        }
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(10)
    }

    #[test]
    fn an_answer_is_kept_and_a_row_that_is_not_there_is_no_failure() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let identities = Identities::new(
            2,
            Arc::new(move |shard, keys| {
                assert_eq!(shard, ShardIndex(1));
                counter.fetch_add(keys.len(), Ordering::SeqCst);
                let of = |key: &RowKey| (*key != row(9)).then(|| identity(key));
                Ok(keys.iter().map(of).collect())
            }),
        );
        for _ in 0..2 {
            let known = identities.of(ShardIndex(1), &[row(1), row(9)], soon());
            assert_eq!(known.identities, [Some(identity(&row(1))), None]);
            assert_eq!(known.why_not, None);
        }
        identities.of(ShardIndex(1), &[row(1), row(2)], soon());
        assert_eq!(asked.load(Ordering::SeqCst), 3, "each row once");
    }

    /// Answers once it is told to.
    fn frozen(thaw: Receiver<()>, asked: Arc<AtomicUsize>) -> Identities {
        Identities::new(
            1,
            Arc::new(move |_, keys| {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = thaw.recv();
                Ok(keys.iter().map(|key| Some(identity(key))).collect())
            }),
        )
    }

    #[test]
    fn a_frozen_shard_holds_nobody_and_is_not_asked_twice() {
        let (thawing, thaw) = bounded::<()>(0);
        let asked = Arc::new(AtomicUsize::new(0));
        let identities = frozen(thaw, asked.clone());
        for _ in 0..3 {
            let until = clock::now() + Duration::from_millis(20);
            let known = identities.of(ShardIndex(0), &[row(1)], until);
            assert_eq!(known.identities, [None]);
            assert!(known.why_not.is_some());
        }
        drop(thawing);
        let known = identities.of(ShardIndex(0), &[row(1)], soon());
        assert_eq!(known.identities, [Some(identity(&row(1)))]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_shard_that_is_away_is_left_in_peace_and_the_reason_said() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let identities = Identities::new(
            1,
            Arc::new(move |_, _| {
                counter.fetch_add(1, Ordering::SeqCst);
                Err("nobody listens".to_owned())
            }),
        );
        for _ in 0..3 {
            let known = identities.of(ShardIndex(0), &[row(1)], soon());
            assert_eq!(known.why_not.as_deref(), Some("nobody listens"));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn asking_that_panics_is_a_failure_like_others() {
        let identities = Identities::new(1, Arc::new(|_, _| panic!("as this test wants it")));
        let known = identities.of(ShardIndex(0), &[row(1)], soon());
        assert_eq!(known.why_not.as_deref(), Some("asking failed"));
    }

    #[test]
    fn what_is_printed_of_an_identity_holds_no_identifier() {
        let identity = identity(&row(7));
        assert!(!format!("{identity:?}").contains("7@b.c"));
        let hash = identity.identifier_hash().expect("it has one");
        assert_eq!(hash.len(), 16);
        assert_ne!(
            Some(hash),
            super::tests::identity(&row(8)).identifier_hash()
        );
    }
}
