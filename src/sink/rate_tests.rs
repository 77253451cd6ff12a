//! The bound over any second, with processes, partitions that move, and stalls; on a clock turned by hand.

use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const PARTITIONS: u32 = 24;
const WRITERS: u32 = 4;
const PROCESSES: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_micros(500);
/// The longest that a statement takes without a stall.
const STATEMENT_US_MAX: u64 = 20_000;
/// Every so often some partitions move.
const MOVES: Duration = Duration::from_millis(1_700);

/// A statement of a writer.
struct Statement {
    rows: usize,
    written: Duration,
}

/// A process with its part of the bound, and each writer's statement.
struct Process {
    share: Share,
    statements: Vec<Option<Statement>>,
}

/// Partitions on their way from one process to another, which takes them then.
struct Moving {
    partitions: u32,
    to: usize,
    at: Duration,
}

/// Processes of a group that always have something to write.
struct Group {
    processes: Vec<Process>,
    moving: Vec<Moving>,
    random: SmallRng,
    stalls: bool,
    /// When how many rows were written.
    written: Vec<(Duration, usize)>,
}

impl Group {
    fn new(bound: u32, stalls: bool, seed: u64) -> Self {
        let process = |assigned| Process {
            share: Share {
                pace: pace(Some(bound)),
                assigned,
                writers: WRITERS,
                paid_off: Duration::ZERO,
            },
            statements: (0..WRITERS).map(|_| None).collect(),
        };
        let mut processes: Vec<Process> = (0..PROCESSES).map(|_| process(0)).collect();
        processes[0] = process(PARTITIONS);
        Self {
            processes,
            moving: vec![],
            random: SmallRng::seed_from_u64(seed),
            stalls,
            written: vec![],
        }
    }

    /// Each two seconds Postgres writes nothing for one.
    fn written_at(&mut self, sent: Duration) -> Duration {
        let written = sent + Duration::from_micros(self.random.random_range(200..STATEMENT_US_MAX));
        let stalled_until = Duration::from_secs(written.as_secs() + 1);
        match self.stalls && written.as_secs() % 2 == 1 {
            true => stalled_until,
            false => written,
        }
    }

    fn write(&mut self, now: Duration) {
        for process in 0..PROCESSES {
            for writer in 0..self.processes[process].statements.len() {
                let Process { share, statements } = &mut self.processes[process];
                if let Some(done) = statements[writer].take_if(|own| own.written <= now) {
                    self.written.push((done.written, done.rows));
                }
                if statements[writer].is_some() || share.assigned == 0 {
                    continue;
                }
                let rows = share.rows_max(PARTITIONS);
                let sent = now + share.take(rows, PARTITIONS, now).wait;
                let written = self.written_at(sent);
                self.processes[process].statements[writer] = Some(Statement { rows, written });
            }
        }
    }

    /// Some partitions of one process go, and come to another a little later.
    fn begin_move(&mut self, now: Duration) {
        let (from, to) = (
            self.random.random_range(0..PROCESSES),
            self.random.random_range(0..PROCESSES),
        );
        let has = self.processes[from].share.assigned;
        let partitions = self.random.random_range(0..=has);
        self.processes[from].share.assigned -= partitions;
        let at = now + Duration::from_micros(self.random.random_range(0..20_000));
        self.moving.push(Moving { partitions, to, at });
    }

    fn end_moves(&mut self, now: Duration) {
        let processes = &mut self.processes;
        self.moving.retain(|moving| {
            if moving.at > now {
                return true;
            }
            for _ in 0..moving.partitions {
                processes[moving.to].share.partition_comes(now);
            }
            false
        });
    }

    fn run(&mut self, moves: bool) {
        let (mut now, mut next_move) = (Duration::ZERO, MOVES);
        while now < MINUTE {
            if moves && now >= next_move {
                self.begin_move(now);
                next_move += MOVES;
            }
            self.end_moves(now);
            self.write(now);
            now += STEP;
        }
        self.written.sort_unstable();
    }

    /// The most rows that were written in any second.
    fn most(&self) -> usize {
        let (mut most, mut rows, mut first) = (0, 0, 0);
        for (at, count) in &self.written {
            rows += count;
            while self.written[first].0 + SECOND < *at {
                rows -= self.written[first].1;
                first += 1;
            }
            most = most.max(rows);
        }
        most
    }

    fn rows(&self) -> usize {
        self.written.iter().map(|(_, rows)| rows).sum()
    }
}

/// The rows of a second and of this burst at the bound's pace, and two for each connection.
fn allowed(bound: u32, burst: Duration, processes: u32) -> usize {
    let within = (SECOND + burst).as_micros() * u128::from(pace(Some(bound)));
    let rows = within.div_ceil(SECOND.as_micros()) + u128::from(2 * WRITERS * processes);
    usize::try_from(rows).expect("rows of a second")
}

/// Without a stall, next to nothing of the half that is for what is in flight is used. So it shows here when more is sent
/// than AHEAD allows.
#[test]
fn in_no_second_more_than_the_bound_and_its_burst_while_partitions_move() {
    for (seed, bound) in (0..8).zip([5_000, 5_000, 5_000, 700, 80, 24, 50_000, 1_000_000]) {
        let mut group = Group::new(bound, false, seed);
        group.run(true);
        let burst = AHEAD + Duration::from_micros(STATEMENT_US_MAX);
        let (most, allowed) = (group.most(), allowed(bound, burst, 3));
        assert!(most <= allowed, "{most} rows in a second of {allowed}");
    }
}

#[test]
fn behind_a_stall_no_more_than_the_bound_and_its_burst_is_written() {
    for (seed, bound) in (0..4).zip([5_000, 300, 24, 100_000]) {
        let mut group = Group::new(bound, true, seed);
        group.run(false);
        let (most, allowed) = (group.most(), allowed(bound, BURST, 1));
        assert!(allowed <= bound as usize + 1 + 2 * WRITERS as usize);
        assert!(most <= allowed, "{most} rows in a second of {allowed}");
        let pace = pace(Some(bound)) as usize;
        assert!(most > pace, "the stalls make something pile up");
    }
}

#[test]
fn the_bound_is_reached_with_small_statements() {
    for (seed, bound) in (0..3).zip([5_000, 1_000, 100_000]) {
        let mut group = Group::new(bound, false, seed);
        group.run(false);
        let wanted = 59 * pace(Some(bound)) as usize;
        assert!(wanted >= 53 * bound as usize);
        assert!(group.rows() >= wanted, "{} of {wanted}", group.rows());
        let most_of_one = group.written.iter().map(|(_, rows)| *rows).max();
        assert!(most_of_one <= Some(bound as usize / 80), "{most_of_one:?}");
    }
}

#[test]
fn a_process_takes_the_part_of_its_partitions() {
    let rates = Arc::new(WriteRates::new([Some(1_100), None].into_iter(), PARTITIONS));
    let (bound, free) = (ShardIndex(0), ShardIndex(1));
    (0..PARTITIONS).for_each(|_| rates.share_of(bound).partition_comes());
    (0..18).for_each(|_| rates.share_of(bound).partition_goes());
    let share = &mut rates.share_of(bound).share.lock();
    let (mut now, mut rows) = (SECOND, 0);
    while now < 11 * SECOND {
        now += share.take(10, PARTITIONS, now).wait;
        rows += 10;
    }
    assert!((2_500..=2_500 + 25).contains(&rows), "{rows} rows in 10 s");
    assert!(rates.of(free).is_none());
    assert_eq!(rates.share_of(free).take(1_000_000).wait, Duration::ZERO);
}

#[test]
fn statements_shrink_with_the_part_and_with_each_writer_but_have_a_row() {
    let rates = Arc::new(WriteRates::new([Some(2_200)].into_iter(), PARTITIONS));
    let (shard, first) = (ShardIndex(0), Writer::new(&rates, ShardIndex(0)));
    assert_eq!(first.rows_max(), 1);
    (0..PARTITIONS).for_each(|_| rates.share_of(shard).partition_comes());
    assert_eq!(first.rows_max(), 100);
    let second = Writer::new(&rates, shard);
    assert_eq!((first.rows_max(), second.rows_max()), (50, 50));
    drop(second);
    (0..PARTITIONS / 2).for_each(|_| rates.share_of(shard).partition_goes());
    assert_eq!(first.rows_max(), 50);
    rates.share_of(shard).set_bound(None);
    assert_eq!(first.rows_max(), usize::MAX);
    rates.share_of(shard).set_bound(Some(220));
    assert_eq!(first.rows_max(), 5);
}

#[test]
fn what_was_not_written_is_given_back_and_never_more_than_was_taken() {
    for (before, after) in [(12, 12), (12, 6), (6, 12)] {
        let mut share = Share {
            pace: 1_000,
            assigned: before,
            writers: 1,
            paid_off: Duration::ZERO,
        };
        let taken = share.take(100, PARTITIONS, SECOND);
        let was_ahead = share.paid_off - SECOND;
        while share.assigned < after {
            share.partition_comes(SECOND);
        }
        share.assigned = after;
        share.give_back(100, &taken, PARTITIONS);
        let is_ahead = share.paid_off.saturating_sub(SECOND);
        assert!(share.paid_off >= SECOND, "{before} to {after}");
        if before == after {
            assert!(is_ahead < Duration::from_micros(1) && was_ahead > AHEAD);
        }
    }
}
