//! One seed from beginning to end: who goes on next, and what goes wrong.
//!
//! Trouble, then somebody acts (all is mended, processes start anew and go on behind what is gone), then trouble again
//! in which logs may still lose their ends, then calm. At the end every row is compared with the model.

use super::database::{Database, Sent, Statement};
use super::group::Group;
use super::process::{Process, Shape};
use super::rules::{RulesTopic, late_record};
use super::topic::{Entry, Topic};
use super::truth::Truth;
use super::world::{Chance, Counts, Met, PARTITIONS, SHARDS, Shared, World};
use crate::clock::turned;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Steps until everything must have been applied once nothing bad happens any more.
const CALM_STEPS_MAX: u64 = 100_000;
/// Entries that are written in each time of trouble.
const ENTRIES: usize = 100;
/// Steps of a time of trouble, after all entries are written.
const TROUBLE_STEPS: u64 = 2000;

/// Children that a parent may have at most, whatever the limit is.
const LINKS_PER_PARENT_MAX: usize = 3;

/// Lines of the story that are shown.
const STORY_LINES: usize = 400;

/// A seed's run.
pub struct Run {
    world: Shared,
    /// What the schedule draws from; the world's chance is for what happens within a step.
    chance: Chance,
    processes: Vec<Process>,
    shape: Shape,
    members: usize,
    joined: usize,
    /// Whether logs may lose their beginnings, and partitions stand still where records are gone.
    loses: bool,
    steps: u64,
}

impl Run {
    /// The beginning.
    pub fn new(seed: u64, tells: bool) -> Self {
        turned::stop();
        let mut chance = Chance::new(seed);
        let shape = Shape::new(&mut chance);
        let world = World {
            chance: Chance::new(!seed),
            met: [0; Met::ALL.len()],
            topic: Topic::new(chance.of(1..=6)),
            group: Group::new(),
            databases: (0..SHARDS).map(|_| Database::default()).collect(),
            rules: RulesTopic::default(),
            truth: Truth::new(chance.of(1..=LINKS_PER_PARENT_MAX)),
            story: tells.then(Vec::new),
        };
        Self {
            world: Rc::new(RefCell::new(world)),
            members: chance.of(1..=3),
            chance,
            processes: Vec::new(),
            shape,
            joined: 0,
            loses: true,
            steps: 0,
        }
    }

    /// Runs to the end: what was met, and how many steps it took. Panics where a guarantee is broken.
    pub fn run(&mut self) -> (Counts, u64) {
        self.trouble();
        self.somebody_acts();
        self.loses = false;
        self.trouble();
        self.calm_down();
        self.until("everything is applied and committed", Self::is_drained);
        self.until("memory is given back", |run| {
            run.processes.iter().all(Process::holds_nothing)
        });
        let world = &mut *self.world.borrow_mut();
        let skipped = world.truth.judge(
            &world.topic,
            &world.databases,
            &world.rules,
            &world.group.notes,
        );
        world.met[Met::Skipped as usize] += skipped;
        (world.met, self.steps)
    }

    /// The last lines of what happened, if it was told.
    pub fn story(&self) -> String {
        let world = self.world.borrow();
        let story = world.story.as_deref().unwrap_or_default();
        story[story.len().saturating_sub(STORY_LINES)..].join("\n")
    }

    fn trouble(&mut self) {
        self.set_calm(false);
        let (mut entries, mut steps) = (0, 0);
        while entries < ENTRIES || steps < TROUBLE_STEPS {
            match self.chance.of(0..=99) {
                0..=1 => entries += self.write(),
                2..=4 => self.world_turns(),
                _ => self.step(),
            }
            steps += 1;
        }
    }

    /// Somebody goes on: the coordinator, a commit on its way, or one part of a process.
    fn step(&mut self) {
        self.steps += 1;
        let jumps = self.chance.once_in(400);
        let ms = self.chance.of(0..=if jumps { 3000 } else { 4 });
        turned::forward(Duration::from_millis(ms as u64));
        let number = self.chance.of(0..=19);
        match number {
            0 => self.coordinate(),
            1 => self.commit_arrives(),
            _ => {
                let count = self.processes.len();
                if count == 0 {
                    return self.start_missing();
                }
                let at = self.chance.of(0..=count - 1);
                let process = &mut self.processes[at];
                match number {
                    2 => process.look_up(&mut self.chance),
                    3 => process.deliver_letter(&mut self.chance),
                    4..=6 => process.keep_rules(&mut self.chance),
                    _ => process.step(&mut self.chance),
                }
            }
        }
    }

    fn write(&mut self) -> usize {
        let partition = self.chance.of(0..=PARTITIONS - 1);
        self.write_to(partition)
    }

    fn write_to(&mut self, partition: usize) -> usize {
        let count = self.chance.of(1..=8);
        let world = &mut *self.world.borrow_mut();
        for _ in 0..count {
            let number = world.truth.next();
            if let Some(update) = world.topic.write(partition, number, &mut self.chance) {
                world.truth.add(update);
            }
        }
        count
    }

    fn coordinate(&mut self) {
        let world = &mut *self.world.borrow_mut();
        if self.chance.strikes(12) || world.group.needs_rebalance() {
            world.group.rebalance(&mut self.chance);
        }
        world.group.hand_over();
        for member in world.group.dead() {
            if self.chance.calm || self.chance.once_in(4) {
                world.group.expire(member);
            }
        }
        for member in world.group.unaware() {
            if self.chance.calm || self.chance.once_in(4) {
                world.group.tell_lost(member);
            }
        }
    }

    fn commit_arrives(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let Some(member) = self.chance.pick(&world.group.committing()).copied() else {
            return;
        };
        let answered = !self.chance.strikes(10);
        let found = self.chance.calm || self.chance.once_in(25);
        if world.group.is_cut_off(member, found) {
            return;
        }
        if self.chance.strikes(10) {
            return world.group.cut_off(member);
        }
        let arrived = world.group.take_commit(member, answered);
        let committed = world.group.committed.clone();
        world.tell(|| format!("commit of {member}: {arrived:?}: {committed:?}"));
        match (arrived.taken, answered) {
            (true, false) => world.meet(Met::CommitUnanswered),
            (false, _) => world.meet(Met::CommitRefused),
            _ => {}
        }
        if arrived.gone {
            world.meet(Met::CommitLate);
        }
        if arrived.held_back {
            world.meet(Met::CommitHeldBack);
        }
    }

    /// Trouble comes or goes.
    fn world_turns(&mut self) {
        let shard = self.chance.of(0..=SHARDS - 1);
        // Mostly it goes: where everything is broken at once, nothing happens.
        let ends = !self.chance.once_in(4);
        match self.chance.of(0..=36) {
            0 => self.world.borrow_mut().databases[shard].dead = !ends,
            1 | 33 | 34 => self.world.borrow_mut().databases[shard].slow = !ends,
            2 => self.world.borrow_mut().databases[shard].refusing = !ends,
            3 => self.world.borrow_mut().databases[shard].lock_table(!ends),
            4 => self.lock_row(shard, ends),
            5 | 12 | 13 | 16 => self.late_statement(shard),
            17..=19 => self.late_transaction(shard),
            20 => self.lock_parents(shard),
            21 => self.world.borrow_mut().databases[shard].defers = !ends,
            22 => self.change_limit(),
            6 => self.kill(),
            // Long enough for the breaker.
            14 | 15 | 35 | 36 => {
                self.world.borrow_mut().databases[shard].strict = self.chance.once_in(2)
            }
            23..=26 => self.resize(),
            7 => self.start_missing(),
            8 => self.one_stops(),
            9 => self.expire_one(),
            10 if self.loses => self.lose_beginning(),
            11 => self.lose_end(),
            27 | 28 => {
                let world = &mut *self.world.borrow_mut();
                world.rules.change(&world.truth, &mut self.chance);
            }
            29..=32 => late_record(&self.world, &mut self.chance),
            _ => {}
        }
    }

    /// All processes are told another limit.
    fn change_limit(&mut self) {
        let limit = self.chance.of(1..=LINKS_PER_PARENT_MAX);
        self.world.borrow_mut().truth.set_limit(limit);
    }

    fn lock_row(&mut self, shard: usize, ends: bool) {
        let world = &mut *self.world.borrow_mut();
        let database = &mut world.databases[shard];
        if ends {
            database.locked.clear();
            return;
        }
        let mut rows: Vec<_> = database.rows.keys().copied().collect();
        rows.retain(|row| !database.holds_row(*row));
        database.locked.extend(self.chance.pick(&rows));
    }

    /// Somebody locks the counts of some parents' children, or lets them go.
    fn lock_parents(&mut self, shard: usize) {
        let world = &mut *self.world.borrow_mut();
        let database = &mut world.databases[shard];
        if !database.locked_parents.is_empty() {
            return database.locked_parents.clear();
        }
        let mut parents: Vec<_> = database.parents.keys().copied().collect();
        parents.retain(|parent| !self.chance.once_in(4) && !database.holds_parent(*parent));
        database.locked_parents.extend(parents);
    }

    /// A statement whose sender has given up takes effect, or never will.
    fn late_statement(&mut self, shard: usize) {
        let world = &mut *self.world.borrow_mut();
        let Some(sent) = take_late(&mut world.databases[shard], false, &mut self.chance) else {
            return;
        };
        if !self.chance.once_in(3)
            && let Ok(reply) = world.execute(shard, None, &sent)
            && reply.has_written()
        {
            world.meet(Met::LateWrite);
        }
    }

    /// A transaction whose client is gone commits, if it was told to; or the server ends it.
    fn late_transaction(&mut self, shard: usize) {
        let world = &mut *self.world.borrow_mut();
        let Some(sent) = take_late(&mut world.databases[shard], true, &mut self.chance) else {
            return;
        };
        let commits = matches!(sent.statement, Statement::Commit(..)) && !self.chance.once_in(3);
        if commits && world.execute(shard, None, &sent).is_ok() {
            world.meet(Met::LateLink);
        } else {
            world.meet(Met::LinkAbandoned);
        }
        if let Some(open) = sent.transaction {
            world.databases[shard].abort(open);
        }
    }

    fn kill(&mut self) {
        if !self.processes.is_empty() {
            let at = self.chance.of(0..=self.processes.len() - 1);
            self.processes.swap_remove(at).kill(&mut self.chance);
        }
    }

    fn start_missing(&mut self) {
        while self.processes.len() < self.members {
            self.joined += 1;
            self.processes
                .push(Process::start(&self.world, self.joined, &self.shape));
        }
    }

    fn resize(&mut self) {
        if !self.processes.is_empty() {
            let at = self.chance.of(0..=self.processes.len() - 1);
            self.processes[at].resize(&mut self.chance);
        }
    }

    fn one_stops(&mut self) {
        let ended = self.processes.iter().position(Process::has_ended);
        if let Some(at) = ended {
            self.processes.swap_remove(at).kill(&mut self.chance);
        } else if let Some(process) = self.chance.pick(&self.processes) {
            process.stop();
        }
    }

    fn expire_one(&mut self) {
        if let Some(process) = self.chance.pick(&self.processes) {
            self.world.borrow_mut().group.expire(process.member);
        }
    }

    /// Retention takes the beginning of a log, read or not.
    fn lose_beginning(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let partition = self.chance.of(0..=PARTITIONS - 1);
        let log = &mut world.topic.logs[partition];
        let (from, to) = (
            log.first,
            i64::try_from(self.chance.of(0..=log.entries.len())).expect("small"),
        );
        if to <= from {
            return;
        }
        log.first = to;
        let line = move || format!("partition {partition} begins at {to} now");
        let index = |offset| usize::try_from(offset).expect("not negative");
        world.truth.lose(&log.entries[index(from)..index(to)]);
        world.tell(line);
        world.meet(Met::RecordsGone);
    }

    /// A leader that lacked the end of a log takes over. Where partitions go on behind that, others often write there at once,
    /// and the group moves.
    fn lose_end(&mut self) {
        let partition = self.chance.of(0..=PARTITIONS - 1);
        let lost = self.chance.of(1..=15);
        if self.cut(partition, lost) && !self.loses && self.chance.once_in(2) {
            let owner = self.world.borrow().group.owner[partition];
            if let Some(owner) = owner {
                self.world.borrow_mut().group.expire(owner);
            }
            self.write_to(partition);
        }
    }

    /// False if the log is too short for that.
    fn cut(&self, partition: usize, lost: usize) -> bool {
        let world = &mut *self.world.borrow_mut();
        let log = &mut world.topic.logs[partition];
        let keeps = log.entries.len().saturating_sub(lost);
        let cut = i64::try_from(keeps).expect("small");
        if cut <= log.first {
            return false;
        }
        let gone = log.cut(keeps);
        world.truth.lose(&gone);
        world.truth.cut(partition, cut);
        world.tell(|| format!("partition {partition} is cut at {cut}"));
        world.meet(Met::Truncated);
        true
    }

    fn set_calm(&mut self, calm: bool) {
        self.chance.calm = calm;
        self.world.borrow_mut().chance.calm = calm;
    }

    /// Nothing bad happens any more, and what is broken is mended.
    fn calm_down(&mut self) {
        self.set_calm(true);
        for database in &mut self.world.borrow_mut().databases {
            (database.dead, database.slow, database.refusing) = (false, false, false);
            (database.table_locked, database.strict) = (false, false);
            database.locked.clear();
            database.locked_parents.clear();
            database.abort_abandoned();
        }
        self.until("those that were told to stop have", |run| {
            let mut processes = run.processes.iter();
            processes.all(|process| !process.is_told_to_stop() || process.has_ended())
        });
        while let Some(at) = self.processes.iter().position(Process::has_ended) {
            self.processes.swap_remove(at).kill(&mut self.chance);
        }
        self.start_missing();
    }

    /// All processes are stopped and started anew, told to go on behind what is gone.
    fn somebody_acts(&mut self) {
        self.calm_down();
        self.processes.iter().for_each(Process::stop);
        self.until("all have stopped", |run| {
            run.processes.iter().all(Process::has_ended)
        });
        while let Some(process) = self.processes.pop() {
            process.kill(&mut self.chance);
        }
        self.world.borrow_mut().truth.goes_on_behind_gaps = true;
        self.start_missing();
        self.until("all partitions are read", |run| {
            let world = run.world.borrow();
            (0..PARTITIONS).all(|at| {
                let committed = committed(&world.group, at);
                let owner = world.group.owner[at];
                owner.is_some_and(|owner| world.group.has(owner, at))
                    && committed <= world.topic.logs[at].end()
            })
        });
    }

    fn is_drained(&self) -> bool {
        let world = self.world.borrow();
        let last = |at: usize| {
            let entries = &world.topic.logs[at].entries;
            entries
                .iter()
                .rposition(|entry| matches!(entry, Entry::Message(_)))
        };
        let is_committed = |at: usize| {
            let committed = committed(&world.group, at);
            last(at).is_none_or(|last| committed > i64::try_from(last).expect("small"))
        };
        (0..PARTITIONS).all(is_committed) && world.truth.all_finished(&world.rules)
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..CALM_STEPS_MAX / 50 {
            if is_so(self) {
                return;
            }
            (0..50).for_each(|_| self.step());
            if self.chance.once_in(40) {
                // A breaker lets one update through from time to time.
                turned::forward(Duration::from_secs(60));
            }
        }
        let world = self.world.borrow();
        panic!(
            "after {CALM_STEPS_MAX} calm steps it is not so that {what}: {}; committed {:?}",
            world.truth.unfinished(&world.rules),
            world.group.committed
        );
    }
}

fn committed(group: &Group, partition: usize) -> i64 {
    group.committed[partition].map_or(0, |committed| committed.offset)
}

/// One of the statements whose connection is gone, within transactions or not; none if it would have to wait.
fn take_late(database: &mut Database, of_transaction: bool, chance: &mut Chance) -> Option<Sent> {
    let late = 0..database.late.len();
    let fitting = late.filter(|at| database.late[*at].transaction.is_some() == of_transaction);
    let at = *chance.pick(&fitting.collect::<Vec<_>>())?;
    let waits = database.must_wait(&database.late[at].clone());
    (!waits).then(|| database.late.swap_remove(at))
}
