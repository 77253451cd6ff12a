//! Shutdown: 1 stop reading; nothing new gets a slot. 2 drain: workers finish, at most until the deadline. 3 commit and wait;
//! afterwards nothing is committed. 4 drop queues, leave the group.

use super::{DRAIN_LOOK, Poller};
use crate::ids::Partition;
use crate::kafka::member::Member;

impl<M: Member> Poller<M> {
    /// Steps 1 to 4 of the shutdown.
    pub fn close(mut self) {
        self.dispatch.change_no_more();
        self.dispatch.flush();
        let deadline = crate::clock::now() + self.settings.drain_deadline;
        let all: Vec<Partition> = self
            .assigned
            .iter()
            .flatten()
            .map(|assigned| assigned.partition)
            .collect();
        while crate::clock::now() < deadline {
            // The membership is kept alive, and what the group says is no longer answered.
            let _ = self.consumer.poll_events();
            self.recorder.polled_at_ms.set(crate::clock::running_ms());
            for assigned in self.assigned.iter_mut().flatten() {
                assigned.tracker.advance();
            }
            if self
                .assigned
                .iter()
                .flatten()
                .all(|assigned| assigned.tracker.in_flight() == 0)
            {
                break;
            }
            crate::clock::sleep(DRAIN_LOOK);
        }
        self.commit_and_wait(&all);
        self.update_gauges();
        self.give_up(&all);
        let Self {
            consumer,
            dispatch,
            lookup,
            ..
        } = self;
        // The look-up thread holds the client too.
        lookup.stop();
        drop(dispatch);
        consumer.close();
    }
}
