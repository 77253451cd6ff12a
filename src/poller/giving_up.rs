//! How partitions go to their next owner: 1 nothing new of them is read. 2 what is in flight is finished, at most until the
//! deadline; partitions that are lost skip this. 3 the last commit. 4 their epochs end. 5 once no commit is open any more, the
//! group hears that they are free.
//!
//! Why 5 waits: while there is no coordinator librdkafka holds a commit back, and sends it later as the member that it is by
//! then. In a generation of its next owner it would be taken, and its offset and note would stand in place of the owner's.

use super::Poller;
use super::assignment::Assigned;
use crate::fault;
use crate::ids::Partition;
use crate::kafka::member::Member;
use crate::observe::recorder::PartitionAlarm;
use crate::sync::Ordering;
use std::time::{Duration, Instant};

/// An open commit may keep a partition from its next owner for so long. librdkafka ends each before: a request after
/// `socket.timeout.ms` (60 s), one that waits for a coordinator after the session.
const OPEN_COMMITS_MAX: Duration = Duration::from_secs(180);

/// Partitions on their way out: once what is in flight is finished they are given up, and once no commit is open any more
/// the group is told.
pub(super) struct Revoking {
    partitions: Vec<Partition>,
    is_given_up: bool,
    /// For what comes next.
    deadline: Instant,
}

impl Revoking {
    /// They are read no more, and have so long to finish.
    pub(super) fn drains(partitions: Vec<Partition>, within: Duration) -> Self {
        Self {
            partitions,
            is_given_up: false,
            deadline: crate::clock::now() + within,
        }
    }

    /// Their epochs have ended.
    pub(super) fn given_up(partitions: Vec<Partition>) -> Self {
        Self {
            partitions,
            is_given_up: true,
            deadline: crate::clock::now() + OPEN_COMMITS_MAX,
        }
    }
}

impl<M: Member> Poller<M> {
    /// Gives partitions up whose work is finished or whose deadline has passed, and tells the group.
    pub(super) fn give_up_drained(&mut self) {
        while let Some(mut revoking) = self.revoking.pop_front() {
            if !revoking.is_given_up && self.are_drained(&revoking) {
                self.commit_and_wait(&revoking.partitions);
                self.give_up(&revoking.partitions);
                revoking = Revoking::given_up(revoking.partitions);
            }
            if !revoking.is_given_up || self.waits_for_commits(&revoking) {
                self.revoking.push_front(revoking);
                return;
            }
            if let Err(why) = self.unassign(&revoking.partitions) {
                tracing::error!(error = why, "giving partitions up");
            }
            // Not before: what went on behind a gap keeps its alarm, for somebody to see it.
            for partition in revoking.partitions {
                let gauges = self.shared.registry.partition(partition);
                // Another core group may have it already.
                if !gauges.assigned.load(Ordering::Relaxed) {
                    gauges.alarm.set(PartitionAlarm::None as i64);
                }
            }
        }
    }

    /// Whether nothing of these partitions is in flight any more, or it may no longer be waited for.
    fn are_drained(&mut self, revoking: &Revoking) -> bool {
        let mut in_flight = 0;
        for partition in &revoking.partitions {
            if let Some(assigned) = &mut self.assigned[partition.index()] {
                assigned.tracker.advance();
                in_flight += assigned.tracker.in_flight();
            }
        }
        let is_late = crate::clock::now() >= revoking.deadline;
        if in_flight > 0 && is_late {
            tracing::warn!(
                in_flight,
                "the revoke deadline has passed; the fence keeps what is in flight harmless"
            );
        }
        in_flight == 0 || is_late
    }

    pub(super) fn has_open_commits(&self) -> bool {
        self.consumer.has_open_commits() && !fault::mutant("open-commits-not-awaited")
    }

    /// Whether partitions that are given up have to wait until commits have their results.
    fn waits_for_commits(&self, revoking: &Revoking) -> bool {
        if !self.has_open_commits() {
            return false;
        }
        let is_late = crate::clock::now() >= revoking.deadline;
        if is_late {
            tracing::error!(
                "a commit has had no result for {OPEN_COMMITS_MAX:?}; the partitions go to their next owner all the same"
            );
        }
        !is_late
    }

    pub(super) fn is_revoking(&self, partition: Partition) -> bool {
        self.revoking
            .iter()
            .any(|revoking| revoking.partitions.contains(&partition))
    }

    pub(super) fn unassign(&mut self, partitions: &[Partition]) -> Result<(), String> {
        self.consumer
            .unassign(partitions)
            .map_err(|error| format!("giving partitions up failed: {error}"))
    }

    /// Drops everything that belongs to these partitions' epochs. Their messages in lanes are dropped where workers find them.
    pub(super) fn give_up(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(assigned) = self.assigned[partition.index()].take() {
                self.bury(*assigned);
            }
        }
        self.count_assigned();
    }

    fn bury(&mut self, assigned: Assigned<M::Queue>) {
        let (partition, epoch) = (assigned.partition, assigned.tenure.epoch);
        self.shared
            .registry
            .partition(partition)
            .assigned
            .store(false, Ordering::Relaxed);
        self.shared.budget.assigned_changed(-1);
        if assigned.may_write {
            self.rate_of(partition).partition_goes();
        }
        self.dead_epochs
            .push(assigned.into_dead(&self.shared.budget));
        // Last: as long as it lives, what workers have in hand is decided by its edges.
        self.end_tenure(partition, epoch);
    }
}
