//! What is finished: committed in the background from time to time, waited for at revoke and close, and shown in the gauges.
//! Only the poller commits, and only epochs that it still has; one commit at a time, as librdkafka may send one that it held
//! back after a later one.

use super::Poller;
use crate::fault;
use crate::ids::Partition;
use crate::kafka::consumer::{Commit, CommitError};
use crate::kafka::member::Member;
use std::time::Duration;

/// How often the gauges of partitions are brought up to date.
const GAUGES_INTERVAL: Duration = Duration::from_millis(200);
/// Before a commit that failed is sent again for a ceiling's sake.
const CEILING_RETRY: Duration = Duration::from_millis(50);
/// Every partition is visited this often even if nothing marked it: a missed callback costs a second, not a partition.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<M: Member> Poller<M> {
    /// Commits in the background what is newly finished, and brings the gauges up to date. Whether a commit was due.
    pub(super) fn commit_when_due(&mut self) -> bool {
        let now = crate::clock::now();
        if now >= self.sweep_due {
            self.sweep_due = now + SWEEP_INTERVAL;
            self.mark_all();
            self.say_held();
        }
        if now >= self.gauges_due {
            self.gauges_due = now + GAUGES_INTERVAL;
            self.update_gauges();
        }
        if now < self.commits_due || self.has_open_commits() {
            return false;
        }
        self.commits_due = now + self.settings.commit_interval.unwrap_or(GAUGES_INTERVAL);
        let offsets = self.committable();
        if offsets.is_empty() || self.settings.commit_interval.is_none() {
            return true;
        }
        let commits: Vec<Commit> = offsets
            .into_iter()
            .filter_map(|(partition, offset)| {
                let assigned = self.assigned[partition.index()].as_mut()?;
                let note = assigned.tenure.note(now);
                Some(Commit {
                    partition,
                    place: assigned.ground.place(offset),
                    note,
                })
            })
            .collect();
        fault::crash_point("before-commit");
        self.tracing.commit_begins(commits.len());
        match self.consumer.commit(&commits) {
            Ok(()) => {
                self.recorder.commits.add(1);
                for commit in commits {
                    if let Some(assigned) = &mut self.assigned[commit.partition.index()] {
                        assigned.committed = commit.place.offset;
                    }
                }
            }
            Err(error) => self.commit_failed(&error),
        }
        true
    }

    /// The last commits did not arrive, or may not have: all are sent again.
    pub(super) fn commit_failed(&mut self, error: &CommitError) {
        self.recorder.commit_failures.add(1);
        self.tracing.commit_ends(Some(error));
        if error.is_of_a_rebalance() {
            tracing::info!("the group is rebalancing: offsets are committed again afterwards");
        } else {
            tracing::warn!(error = %error, "an offset commit failed and is sent again");
        }
        let now = crate::clock::now();
        for assigned in self.assigned.iter_mut().flatten() {
            assigned.commit_again();
            assigned.tenure.ask_again();
            if assigned.tenure.wants_ceiling(now) {
                // Dispatch waits for it, or soon will.
                self.commits_due = self.commits_due.min(now + CEILING_RETRY);
            }
        }
    }

    /// What is finished beyond the last commit, or waits for a ceiling. A partition with nothing in flight is finished up to the
    /// consumer's position, which is past control records too, so that its lag reaches 0.
    fn committable(&mut self) -> Vec<(Partition, i64)> {
        let positions = self.consumer.positions().unwrap_or_default();
        for (partition, position) in positions {
            if let Some(assigned) = &mut self.assigned[partition.index()] {
                assigned.reached(position);
            }
        }
        let mut offsets = Vec::new();
        let now = crate::clock::now();
        for assigned in self.assigned.iter_mut().flatten() {
            assigned.tracker.advance();
            let finished = assigned.finished();
            let is_due = finished > assigned.committed || assigned.tenure.wants_ceiling(now);
            if is_due && finished >= 0 && assigned.tenure.may_commit() {
                offsets.push((assigned.partition, finished));
            }
        }
        offsets
    }

    pub(super) fn commit_and_wait(&mut self, partitions: &[Partition]) {
        if self.settings.commit_interval.is_none() {
            return;
        }
        self.committable();
        let mut commits = Vec::new();
        for partition in partitions {
            let Some(assigned) = &mut self.assigned[partition.index()] else {
                continue;
            };
            // Sent even if nothing is newly finished: the next owner may begin to decide where this one ended.
            let offset = assigned.finished();
            if offset >= 0 && assigned.tenure.may_commit() {
                commits.push(Commit {
                    partition: *partition,
                    place: assigned.ground.place(offset),
                    note: assigned.tenure.last_note(),
                });
            }
        }
        if commits.is_empty() {
            return;
        }
        self.recorder.commits.add(1);
        let within = self.settings.commit_deadline;
        self.tracing.commit_begins(commits.len());
        let done = self.consumer.commit_and_wait(&commits, within);
        let error = done
            .as_ref()
            .err()
            .map(|error| error as &dyn std::error::Error);
        self.tracing.commit_ends(error);
        // What came of earlier ones was heard there, too.
        for assigned in self.assigned.iter_mut().flatten() {
            assigned.tenure.ask_again();
        }
        if let Err(error) = done {
            self.recorder.commit_failures.add(1);
            tracing::warn!(error = %error, "the last commit failed; what it held is read again and the fence refuses it");
            // It may have been an earlier one that failed, with partitions that stay.
            for assigned in self.assigned.iter_mut().flatten() {
                assigned.commit_again();
            }
        }
    }

    pub(super) fn update_gauges(&mut self) {
        self.dead_epochs
            .retain(|dead| dead.is_held(&self.shared.budget));
        for assigned in self.assigned.iter_mut().flatten() {
            assigned.tracker.advance();
            let end_offset = self.consumer.end_offset(assigned.partition);
            assigned.update_gauges(
                self.shared.registry.partition(assigned.partition),
                end_offset,
            );
        }
    }
}
