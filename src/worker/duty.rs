//! A worker's part of a change of lanes: between two turns it hands over what it is responsible for, and waits for another
//! duty (`lanes/README.md`).

use super::{IDLE, Worker};
use crate::lanes::{Duty, NextDuty};
use crate::sink::shard::ShardSession;

impl<S: ShardSession> Worker<S> {
    /// Hands over everything but the connection. Nothing is in flight.
    pub(super) fn hand_over(&mut self) {
        let Some(lane) = self.lane.take() else { return };
        self.recorder.parked.set(0);
        self.post.hand_over(Duty {
            lane,
            carried: std::mem::take(&mut self.carried),
            parked: self.parking.hand_over(),
        });
    }

    /// Waits for a duty for a while. False when there will be none.
    pub(super) fn wait_for_duty(&mut self) -> bool {
        let next = self.post.next_duty(IDLE);
        self.begins(next)
    }

    /// Whether a worker that has no lane yet will not get one any more.
    pub(super) fn is_dismissed(&mut self) -> bool {
        if self.lane.is_some() {
            return false;
        }
        let next = self.post.next_duty_now();
        !self.begins(next)
    }

    fn begins(&mut self, next: NextDuty) -> bool {
        match next {
            NextDuty::Begins(duty) => self.take_over(duty),
            NextDuty::NotYet => {}
            NextDuty::Never => return false,
        }
        true
    }

    fn take_over(&mut self, duty: Duty) {
        let Duty {
            lane,
            carried,
            parked,
        } = duty;
        self.lane = Some(lane);
        self.carried = carried;
        self.parking.take_over(parked);
        let parked = i64::try_from(self.parking.messages()).unwrap_or(i64::MAX);
        self.recorder.parked.set(parked);
    }
}
