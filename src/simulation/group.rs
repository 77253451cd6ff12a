//! The group's coordinator: who has which partition, what is committed, and what each member has yet to be told. Partitions
//! move one step at a time, as with cooperative-sticky; a member that is declared dead is told late.

use super::world::{Chance, PARTITIONS};
use crate::ids::{EpochId, Note, OffsetAndEpoch, Partition};
use crate::kafka::consumer::{Commit, CommitError, Event};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the client of a member waits to be answered, or has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These are the member's.
    Assigned(Vec<usize>),
    /// These are to be given up.
    Revoked(Vec<usize>),
    /// These are somebody else's already.
    Lost(Vec<usize>),
}

/// Where a member reads a partition.
#[derive(Debug, Default)]
pub struct Reader {
    /// The next offset to be read; `None` before it is assigned.
    pub next: Option<i64>,
    /// What the client says of its position.
    pub position: Option<OffsetAndEpoch>,
    /// Up to which leader epoch it has read; -1 if it doesn't know.
    pub leader_epoch: i32,
    /// Of which leader it knows that its log holds what was read before; `None`: it has to ask.
    pub leader: Option<i32>,
    /// It has told of an error, and reads no more.
    pub broken: bool,
}

impl Reader {
    fn begin(&mut self, from: OffsetAndEpoch) {
        self.next = Some(from.offset);
        self.leader_epoch = from.leader_epoch;
        self.position = None;
    }
}

/// A commit that is on its way.
#[derive(Debug)]
struct Sent {
    generation: u64,
    /// The client had no coordinator, and sends it as the member that it is by then.
    held_back: bool,
    commits: Vec<Commit>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    /// It counts.
    pub taken: bool,
    /// Its sender was gone by then.
    pub gone: bool,
    /// It was held back until its sender was a member of another generation.
    pub held_back: bool,
}

/// A member, and its client.
#[derive(Default)]
pub struct Membership {
    /// The coordinator counts it in.
    in_group: bool,
    generation: u64,
    changes: VecDeque<Change>,
    awaited: Option<Change>,
    results: Vec<Event>,
    /// Handed over, and not given up.
    granted: BTreeSet<usize>,
    /// What its poller has begun to read.
    pub begun: BTreeMap<usize, Reader>,
    commits: VecDeque<Sent>,
    /// Its client knows no coordinator, and holds its commits back.
    cut_off: bool,
    /// Its process is gone.
    gone: bool,
}

/// The coordinator.
pub struct Group {
    generation: u64,
    /// By partition.
    pub owner: Vec<Option<usize>>,
    target: Vec<Option<usize>>,
    /// By partition.
    pub committed: Vec<Option<OffsetAndEpoch>>,
    /// By partition: what stands beside that.
    pub notes: Vec<Option<Note>>,
    /// By partition: whose notes stood there before.
    past: Vec<BTreeSet<EpochId>>,
    /// By number.
    pub members: BTreeMap<usize, Membership>,
}

impl Group {
    /// Nobody, and nothing committed.
    pub fn new() -> Self {
        Self {
            generation: 1,
            owner: vec![None; PARTITIONS],
            target: vec![None; PARTITIONS],
            committed: vec![None; PARTITIONS],
            notes: vec![None; PARTITIONS],
            past: vec![BTreeSet::new(); PARTITIONS],
            members: BTreeMap::new(),
        }
    }

    /// A member joins.
    pub fn join(&mut self, member: usize) {
        let membership = Membership {
            in_group: true,
            ..Membership::default()
        };
        self.members.insert(member, membership);
    }

    /// Whether the member's poller has the partition, as far as it knows.
    pub fn has(&self, member: usize, partition: usize) -> bool {
        self.members
            .get(&member)
            .is_some_and(|membership| membership.begun.contains_key(&partition))
    }

    /// Decides anew who is to have what, and begins to move it.
    pub fn rebalance(&mut self, chance: &mut Chance) {
        let there: Vec<usize> = self.in_group();
        for partition in 0..PARTITIONS {
            let stays = self.target[partition].is_some_and(|member| there.contains(&member));
            if !stays || chance.once_in(2) {
                self.target[partition] = chance.pick(&there).copied();
            }
        }
        for member in there {
            let moves: Vec<usize> = (0..PARTITIONS)
                .filter(|at| self.owner[*at] == Some(member) && self.target[*at] != Some(member))
                .filter(|at| !self.members[&member].is_leaving(*at))
                .collect();
            let membership = self.members.get_mut(&member).expect("it is there");
            if !moves.is_empty() {
                membership.changes.push_back(Change::Revoked(moves));
            }
        }
    }

    /// Hands partitions that nobody has to those who are to have them.
    pub fn hand_over(&mut self) {
        for member in self.in_group() {
            let free: Vec<usize> = (0..PARTITIONS)
                .filter(|at| self.owner[*at].is_none() && self.target[*at] == Some(member))
                .collect();
            if free.is_empty() {
                continue;
            }
            self.generation += 1;
            for partition in &free {
                self.owner[*partition] = Some(member);
            }
            let membership = self.members.get_mut(&member).expect("it is there");
            membership.changes.push_back(Change::Assigned(free));
        }
    }

    fn in_group(&self) -> Vec<usize> {
        let members = self.members.iter();
        let there = members.filter(|(_, membership)| membership.in_group);
        there.map(|(member, _)| *member).collect()
    }

    /// Whether a partition is to go to nobody, or to somebody who is not there.
    pub fn needs_rebalance(&self) -> bool {
        let there = self.in_group();
        let lacks = |target: &Option<usize>| target.is_none_or(|member| !there.contains(&member));
        self.target.iter().any(lacks)
    }

    /// Whether the partition was handed to the member, which has not given it up.
    pub fn is_granted(&self, member: usize, partition: usize) -> bool {
        let membership = self.members.get(&member);
        membership.is_some_and(|membership| membership.granted.contains(&partition))
    }

    /// The coordinator counts a member out; its client doesn't know yet.
    pub fn expire(&mut self, member: usize) {
        self.owner
            .iter_mut()
            .filter(|owner| **owner == Some(member))
            .for_each(|owner| *owner = None);
        self.generation += 1;
        let Some(membership) = self.members.get_mut(&member) else {
            return;
        };
        membership.in_group = false;
        if membership.gone && membership.commits.is_empty() {
            self.members.remove(&member);
        }
    }

    /// Members that were counted out and don't know. Their clients hear of it when nothing else is to be answered.
    pub fn unaware(&self) -> Vec<usize> {
        let members = self.members.iter();
        let unaware = members.filter(|(_, membership)| {
            let told = membership
                .changes
                .iter()
                .any(|change| matches!(change, Change::Lost(_)));
            !membership.in_group && !membership.gone && !told && membership.awaited.is_none()
        });
        unaware.map(|(member, _)| *member).collect()
    }

    /// The client of a member that was counted out hears of it.
    pub fn tell_lost(&mut self, member: usize) {
        let membership = self.members.get_mut(&member).expect("it is there");
        membership.changes.clear();
        if membership.granted.is_empty() {
            membership.in_group = true;
        } else {
            let lost = membership.granted.iter().copied().collect();
            membership.changes.push_back(Change::Lost(lost));
        }
    }

    /// The process of a member is gone; nobody tells the coordinator.
    pub fn die(&mut self, member: usize) {
        let membership = self.members.get_mut(&member).expect("it is there");
        membership.gone = true;
        membership.begun.clear();
    }

    /// Members whose process is gone, and that are still counted in.
    pub fn dead(&self) -> Vec<usize> {
        let members = self.members.iter();
        let dead = members.filter(|(_, membership)| membership.gone && membership.in_group);
        dead.map(|(member, _)| *member).collect()
    }

    /// The member leaves.
    pub fn leave(&mut self, member: usize) {
        self.die(member);
        self.expire(member);
    }

    /// What the client tells the poller now.
    pub fn poll(&mut self, member: usize) -> Vec<Event> {
        let generation = self.generation;
        let membership = self.members.get_mut(&member).expect("it is there");
        if membership.in_group {
            membership.generation = generation;
        }
        let mut events = std::mem::take(&mut membership.results);
        if membership.awaited.is_none()
            && let Some(change) = membership.changes.pop_front()
        {
            if let Change::Assigned(partitions) = &change {
                membership.granted.extend(partitions);
            }
            membership.awaited = Some(change.clone());
            events.push(change.into_event());
        }
        events
    }

    /// The poller takes a partition's queue.
    pub fn take_queue(&mut self, member: usize, partition: usize) {
        let membership = self.members.get_mut(&member).expect("it is there");
        assert!(
            membership.granted.contains(&partition) && !membership.is_told_to_leave(partition),
            "partition {partition} begins, which the group has not given to member {member}"
        );
        let before = membership.begun.insert(partition, Reader::default());
        assert!(before.is_none(), "partition {partition} begins twice");
    }

    /// The poller answers that something was assigned, and where reading begins. `leaders`: by partition, as the client knows
    /// them; it asks none of them.
    pub fn assign(
        &mut self,
        member: usize,
        starts: &[(Partition, OffsetAndEpoch)],
        leaders: &[i32],
    ) {
        let membership = self.members.get_mut(&member).expect("it is there");
        if let Some(Change::Assigned(_)) = membership.awaited {
            membership.awaited = None;
        }
        for (partition, start) in starts {
            let reader = membership.begun.get_mut(&partition.index());
            let reader = reader.expect("its queue was taken before");
            reader.begin(*start);
            reader.leader = Some(leaders[partition.index()]);
        }
    }

    /// The poller lets a partition begin again, and the broker be asked.
    pub fn validate(&mut self, member: usize, partition: Partition, from: OffsetAndEpoch) {
        let membership = self.members.get_mut(&member).expect("it is there");
        let reader = membership.begun.get_mut(&partition.index());
        let reader = reader.expect("it has begun");
        reader.begin(from);
        reader.leader = None;
    }

    /// Whether the client of a member waits for an answer.
    pub fn awaits_answer(&self, member: usize) -> bool {
        self.members[&member].awaited.is_some()
    }

    /// The poller gives partitions up. The client takes it for the answer that it waits for, whatever they are.
    pub fn unassign(&mut self, member: usize, partitions: &[Partition]) {
        let membership = self.members.get_mut(&member).expect("it is there");
        for partition in partitions {
            membership.begun.remove(&partition.index());
        }
        let (left, is_lost) = match &membership.awaited {
            None | Some(Change::Assigned(_)) => return,
            Some(Change::Revoked(left)) => (left.clone(), false),
            Some(Change::Lost(left)) => (left.clone(), true),
        };
        membership.awaited = None;
        membership.in_group |= is_lost;
        for at in left {
            assert!(
                !membership.begun.contains_key(&at),
                "member {member} still reads partition {at}, and its client takes {partitions:?} for the answer"
            );
            membership.granted.remove(&at);
            if self.owner[at] == Some(member) && !is_lost {
                self.owner[at] = None;
            }
        }
    }

    /// A commit is sent.
    pub fn send_commit(&mut self, member: usize, commits: &[Commit]) {
        let membership = self.members.get_mut(&member).expect("it is there");
        let (generation, commits) = (membership.generation, commits.to_vec());
        membership.commits.push_back(Sent {
            generation,
            held_back: membership.cut_off,
            commits,
        });
    }

    /// The client of a member finds no coordinator for what it has to commit.
    pub fn cut_off(&mut self, member: usize) {
        let membership = self.members.get_mut(&member).expect("it is there");
        membership.cut_off = true;
        for sent in &mut membership.commits {
            sent.held_back = true;
        }
    }

    /// Whether a member's commits are held back; `found`: from now on no more.
    pub fn is_cut_off(&mut self, member: usize, found: bool) -> bool {
        let membership = self.members.get_mut(&member).expect("it is there");
        membership.cut_off &= !found && !membership.gone;
        membership.cut_off
    }

    /// Whether a member's commits have no result yet.
    pub fn has_open_commits(&self, member: usize) -> bool {
        !self.members[&member].commits.is_empty()
    }

    /// Members with commits on their way.
    pub fn committing(&self) -> Vec<usize> {
        let members = self.members.iter();
        let committing = members.filter(|(_, membership)| !membership.commits.is_empty());
        committing.map(|(member, _)| *member).collect()
    }

    /// The oldest commit of a member arrives. `answered`: the sender hears what came of it.
    pub fn take_commit(&mut self, member: usize, answered: bool) -> Arrived {
        let membership = self.members.get_mut(&member).expect("it is there");
        let Some(sent) = membership.commits.pop_front() else {
            return Arrived::default();
        };
        let gone = membership.gone;
        let generation = match sent.held_back {
            true => membership.generation,
            false => sent.generation,
        };
        // What is held back dies with its process.
        let arrives = !(gone && sent.held_back);
        let taken = arrives && membership.in_group && generation == self.generation;
        let arrived = Arrived {
            taken,
            gone,
            held_back: sent.held_back && generation != sent.generation,
        };
        let result = match (taken, answered) {
            (true, true) => Ok(sent.commits.clone()),
            (false, true) => Err(CommitError::stale()),
            (_, false) => Err(CommitError::unanswered()),
        };
        membership.results.push(Event::Committed(result));
        if gone && !membership.in_group && membership.commits.is_empty() {
            self.members.remove(&member);
        }
        if taken {
            for commit in sent.commits {
                let at = commit.partition.index();
                self.committed[at] = Some(commit.place);
                self.note(at, commit.note);
            }
        }
        arrived
    }

    /// Panics where the note is an earlier owner's.
    fn note(&mut self, partition: usize, note: Note) {
        let past = &mut self.past[partition];
        if let Some(before) = self.notes[partition].replace(note)
            && before.epoch != note.epoch
        {
            past.insert(before.epoch);
        }
        assert!(
            !past.contains(&note.epoch),
            "the note of partition {partition} is an earlier owner's again: {note:?}"
        );
    }

    /// Whether all commits of a member have their results: then the worst of them.
    pub fn commit_results(&mut self, member: usize) -> Option<Result<(), CommitError>> {
        let membership = self.members.get_mut(&member).expect("it is there");
        if !membership.commits.is_empty() {
            return None;
        }
        let mut result = Ok(());
        let is_result = |event: &mut Event| matches!(event, Event::Committed(_));
        for event in membership.results.extract_if(.., is_result) {
            if let Event::Committed(Err(error)) = event {
                result = Err(error);
            }
        }
        Some(result)
    }
}

impl Membership {
    /// Whether the partition is on its way out, told or not.
    fn is_leaving(&self, partition: usize) -> bool {
        let mut changes = self.changes.iter().chain(&self.awaited);
        changes.any(|change| change.takes(partition))
    }

    fn is_told_to_leave(&self, partition: usize) -> bool {
        let mut awaited = self.awaited.iter();
        awaited.any(|change| change.takes(partition))
    }
}

impl Change {
    fn takes(&self, partition: usize) -> bool {
        match self {
            Self::Assigned(_) => false,
            Self::Revoked(partitions) | Self::Lost(partitions) => partitions.contains(&partition),
        }
    }

    fn into_event(self) -> Event {
        let named = |partitions: Vec<usize>| {
            let number = |at| Partition(i32::try_from(at).expect("few"));
            partitions.into_iter().map(number).collect()
        };
        match self {
            Self::Assigned(partitions) => Event::Assigned(named(partitions)),
            Self::Revoked(partitions) => Event::Revoked(named(partitions)),
            Self::Lost(partitions) => Event::Lost(named(partitions)),
        }
    }
}
