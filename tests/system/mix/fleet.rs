//! The members of the group: each in a place of its own, with an admin address of its own in each life.

use super::within;
use crate::checker::Members;
use crate::child::{Ended, Process};
use crate::pond::{Pond, free_port};
use crate::reading::Reading;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// A member that is told to stop has ended by then, whatever is away: several times its drain deadline.
const ENDED: Duration = Duration::from_secs(60);

pub struct Member {
    pub process: Process,
    pub port: u16,
}

/// All members.
pub struct Fleet {
    config: PathBuf,
    /// Those who answer, for everybody who looks.
    answering: Members,
    places: Vec<Mutex<Option<Member>>>,
}

impl Fleet {
    pub fn begin(pond: &Pond, members: usize, answering: Members) -> Self {
        let fleet = Self {
            config: pond.config.clone(),
            answering,
            places: (0..members).map(|_| Mutex::default()).collect(),
        };
        for place in 0..members {
            fleet.start(place);
        }
        fleet
    }

    /// A member that has no place in the fleet.
    pub fn stranger(&self) -> Member {
        let port = free_port();
        let listen = format!("admin.listen=127.0.0.1:{port}");
        let process = Process::start(&self.config, &["run", "--set", &listen], &[]);
        Member { process, port }
    }

    /// Fills the place.
    pub fn start(&self, place: usize) {
        let member = self.stranger();
        self.answers(&member, true);
        *self.places[place].lock().unwrap() = Some(member);
    }

    /// Empties the place. One at a time has to do with a place.
    pub fn take(&self, place: usize) -> Member {
        let member = self.places[place].lock().unwrap().take();
        let member = member.expect("each place is full but while a fault has it");
        self.answers(&member, false);
        member
    }

    pub fn put_back(&self, place: usize, member: Member) {
        self.answers(&member, true);
        *self.places[place].lock().unwrap() = Some(member);
    }

    fn answers(&self, member: &Member, does: bool) {
        let (id, mut all) = (member.process.id(), self.answering.lock().unwrap());
        match does {
            true => all.insert(id, member.port),
            false => all.remove(&id),
        };
    }

    /// The admin ports of those who answer.
    pub fn ports(&self) -> Vec<u16> {
        self.answering.lock().unwrap().values().copied().collect()
    }

    /// The process and the port of a place's member, if it is there.
    pub fn at(&self, place: usize) -> Option<(u32, u16)> {
        let member = self.places[place].lock().unwrap();
        member
            .as_ref()
            .map(|member| (member.process.id(), member.port))
    }

    /// All are told to stop.
    pub fn end(self) {
        let members: Vec<Member> = (self.places.iter())
            .filter_map(|place| place.lock().unwrap().take())
            .collect();
        for member in &members {
            self.answers(member, false);
            is_up(member);
            member.process.signal("-TERM");
        }
        for member in members {
            ends_well(member);
        }
    }
}

/// Waits until a member that was started a moment ago takes signals as it should.
pub fn is_up(member: &Member) {
    let is_up = within(ENDED, || Reading::take(member.port).is_some());
    assert!(is_up, "it does not answer: {}", member.process.said());
}

/// Waits for the end of a member that was told to stop.
pub fn ends_well(member: Member) -> Ended {
    let ended = member.process.wait(ENDED);
    assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    ended
}
