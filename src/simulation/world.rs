//! What all parts of a simulated run share: the seeded chance, and how often each kind of event was met.

use super::database::Database;
use super::group::Group;
use super::rules::RulesTopic;
use super::topic::Topic;
use super::truth::Truth;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Shards, and as many databases.
pub const SHARDS: usize = 2;
/// Partitions of the topic; even between the shards.
pub const PARTITIONS: usize = 4;

macro_rules! met {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Kinds of events that a run should meet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Met { $($(#[$doc])* $name,)* }

        impl Met {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

met! {
    /// A message behind a compacted offset.
    Gap,
    /// A record of an aborted transaction was passed over.
    Aborted,
    /// A message came again.
    DuplicateDelivery,
    /// An error came in place of a message, and passed.
    FetchError,
    /// Partitions were revoked.
    Revoked,
    /// Partitions were given up with messages in flight.
    GivenUpInFlight,
    /// A member was declared dead and goes on for a while.
    Lost,
    /// A write to a row of a partition came from a member that had lost it.
    ZombieWrite,
    /// A statement returned after its partition was given up.
    StaleCompletion,
    /// A look-up was answered after its partition was given up.
    StaleAnswer,
    /// A commit was refused.
    CommitRefused,
    /// A commit arrived, and nobody was told.
    CommitUnanswered,
    /// A commit was processed after its sender was gone.
    CommitLate,
    /// A commit was held back by its client until that was a member of another generation.
    CommitHeldBack,
    /// The end of a log was cut off.
    Truncated,
    /// A broker was asked whether a log was cut off below where an epoch began.
    CutInDoubt,
    /// And it was: others had written behind the cut.
    CutFoundLate,
    /// The beginning of a log was gone before it was read.
    RecordsGone,
    /// A partition stopped with an alarm.
    Stopped,
    /// A statement took effect, but its connection broke before the answer.
    AmbiguousWrite,
    /// A connection broke before its statement took effect.
    BrokenBefore,
    /// A statement took effect after its connection had broken or its client was dead.
    LateWrite,
    /// A statement failed and could be sent again at once.
    TryAgain,
    /// A statement took too long.
    TimedOut,
    /// A row was locked.
    LockedRow,
    /// A table was locked.
    LockedTable,
    /// A shard was slow.
    SlowShard,
    /// A shard was dead.
    DeadShard,
    /// A shard refused everything.
    RefusingShard,
    /// The fence held a row back.
    HeldByFence,
    /// A row was made by somebody else in between.
    RowThere,
    /// A row was linked to its first parent.
    Linked,
    /// A row was linked to another parent.
    LinkMoved,
    /// A row was unlinked.
    Unlinked,
    /// A link was over the limit.
    LinkRefused,
    /// A row that is to be linked had to be made first.
    LinkedRowMissing,
    /// A parent had no room for all, so its children were counted first.
    NoRoom,
    /// A link that was refused before was remembered.
    LinkRemembered,
    /// A parent's count was locked by somebody.
    LockedParent,
    /// A statement waited for a transaction that links.
    WaitedForLink,
    /// It gave up waiting.
    WaitedTooLong,
    /// A transaction that links couldn't write a row.
    LinkDataError,
    /// A transaction that links failed at its commit.
    DeferredError,
    /// A commit of links took effect, but its connection broke before the answer.
    AmbiguousLink,
    /// A commit of links took effect after its connection had broken or its client was dead.
    LateLink,
    /// A transaction that links lost its connection, and came to nothing.
    LinkAbandoned,
    /// A commit of links came from a member that had lost a partition of it.
    ZombieLink,
    /// An update was refused by the database.
    Refused,
    /// A shard stopped because its database refused too much; by steps.
    BreakerOpen,
    /// An update that was refused before was remembered.
    Remembered,
    /// A dead letter was delivered.
    Lettered,
    /// A dead letter was delivered twice.
    LetteredAgain,
    /// A dead letter went with its process.
    LetterDropped,
    /// A dead letter was delivered after its partition was given up.
    StaleReceipt,
    /// A shard has another number of workers in a process.
    Resized,
    /// The same, and messages moved to other lanes.
    ResizedFullLanes,
    /// The number of workers stayed as it was, since one was busy.
    ResizeRefused,
    /// A record of the rules topic landed when its sender was gone.
    LateEdge,
    /// An update was skipped by a rule; counted at the end.
    Skipped,
    /// A process was killed.
    Killed,
    /// A process was told to stop, and did.
    ClosedCleanly,
}

/// How often each kind was met, by its number.
pub type Counts = [u64; Met::ALL.len()];

/// The world of one seed.
pub struct World {
    /// What decides everything.
    pub chance: Chance,
    /// What was met.
    pub met: Counts,
    /// The logs.
    pub topic: Topic,
    /// The coordinator.
    pub group: Group,
    /// The shards.
    pub databases: Vec<Database>,
    /// The rules topic.
    pub rules: RulesTopic,
    /// What should be.
    pub truth: Truth,
    /// What happened, for people; kept when one seed is run alone.
    pub story: Option<Vec<String>>,
}

/// The world, as each part of it holds it. Never borrowed while a coroutine is suspended.
pub type Shared = Rc<RefCell<World>>;

/// Seeded chance. When the world is calm, nothing bad happens any more.
pub struct Chance {
    /// The seeded generator.
    pub rng: SmallRng,
    /// Whether bad things have come to an end.
    pub calm: bool,
}

impl Chance {
    /// Of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            calm: false,
        }
    }

    /// Something bad that happens once in `many` times.
    pub fn strikes(&mut self, many: u32) -> bool {
        !self.calm && self.once_in(many)
    }

    /// True once in `many` times.
    pub fn once_in(&mut self, many: u32) -> bool {
        self.rng.random_range(0..many) == 0
    }

    /// A number of the range.
    pub fn of(&mut self, range: RangeInclusive<usize>) -> usize {
        self.rng.random_range(range)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.rng.random_range(0..from.len())])
    }
}

impl World {
    /// Adds a line to the story.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(line());
        }
    }

    /// Counts an event.
    pub fn meet(&mut self, what: Met) {
        self.met[what as usize] += 1;
        self.tell(|| format!("    {what:?}"));
    }
}
