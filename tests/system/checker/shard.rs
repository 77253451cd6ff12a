//! One shard: nothing is committed before it is applied, and no row's fence goes back.
//!
//! What is committed is asked for first, the rows after that: a row only moves on, so one that is behind a message below the
//! committed offset was behind it when that was committed. Unless the message is a dead letter, which was in its topic by
//! then too, and so is found when the topic is read afterwards.

use super::group::Group;
use super::letters::Letters;
use super::log::{Log, Waiting};
use super::rows::Rows;
use super::{Looks, Shared};
use millpond::config::Config;
use millpond::ids::{Position, RowKey, ShardIndex};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two turns.
const PAUSE: Duration = Duration::from_millis(200);
/// Rows that a turn asks for at most, and rows that it looks at once more besides.
const ROWS: usize = 2000;
const AGAIN: usize = 100;
const ANSWER: Duration = Duration::from_secs(1);

pub(super) fn watch(config: &Config, shard: usize, address: &str, looks: Looks, shared: &Shared) {
    let of_shard = |partition: &i32| {
        let partition = millpond::ids::Partition(*partition);
        config.partitioner.shard_of_partition(partition) == ShardIndex(shard)
    };
    let all = i32::try_from(config.partitioner.partitions()).unwrap();
    let own: Vec<i32> = (0..all).filter(of_shard).collect();
    let own = own[0]..own[own.len() - 1] + 1;
    let mut watch = Watch {
        name: config.shards[shard].name.clone(),
        group: Group::of(&config.kafka, all),
        log: Log::open(config, own, looks.one_row_in).unwrap(),
        rows: Rows::of(address),
        letters: Letters::open(&config.kafka).unwrap(),
        fences: HashMap::new(),
        known: Vec::new(),
        next: 0,
        suspects: Vec::new(),
    };
    while !shared.is_over() {
        std::thread::sleep(PAUSE);
        if let Err(error) = watch.log.read_on() {
            return shared.report(format!("{}: the log can't be read: {error}", watch.name));
        }
        watch.compare(shared);
        watch.look_for_letters(shared);
    }
}

struct Watch {
    name: String,
    group: Group,
    log: Log,
    rows: Rows,
    letters: Letters,
    /// As they were seen last.
    fences: HashMap<RowKey, Position>,
    /// The same rows in the order in which they were met, and which one is the next to be looked at again.
    known: Vec<RowKey>,
    next: usize,
    /// Committed, not applied; each must be a dead letter. With the fence that was found.
    suspects: Vec<(Waiting, Option<Position>)>,
}

impl Watch {
    fn compare(&mut self, shared: &Shared) {
        let Some(committed) = self.group.committed(ANSWER) else {
            return;
        };
        let mut due = self.log.take_committed(&committed);
        if due.len() > ROWS {
            self.log.put_back(due.split_off(ROWS));
        }
        let mut rows: Vec<RowKey> = due.iter().filter_map(|waiting| waiting.row).collect();
        rows.extend(self.known_again());
        rows.sort_unstable();
        rows.dedup();
        let Some(found) = self.rows.fences(&rows) else {
            return self.log.put_back(due);
        };
        for row in &rows {
            self.look_back(*row, found.get(row).copied(), shared);
        }
        let spared = shared.spared.lock().unwrap();
        due.retain(|waiting| waiting.row.is_none_or(|row| !spared.contains(&row.app)));
        for waiting in due {
            let fence = waiting.row.and_then(|row| found.get(&row).copied());
            match fence {
                Some(fence) if fence >= waiting.position => {
                    shared.compared.fetch_add(1, Ordering::Relaxed);
                }
                fence => self.suspects.push((waiting, fence)),
            }
        }
    }

    /// Some of the known rows, others each time.
    fn known_again(&mut self) -> Vec<RowKey> {
        let count = AGAIN.min(self.known.len());
        let rows = self.known.iter().cycle().skip(self.next).take(count);
        let rows = rows.copied().collect();
        self.next = (self.next + count) % self.known.len().max(1);
        rows
    }

    fn look_back(&mut self, row: RowKey, now: Option<Position>, shared: &Shared) {
        let before = match now {
            Some(now) => self.fences.insert(row, now),
            None => self.fences.remove(&row),
        };
        match before {
            None if now.is_some() => self.known.push(row),
            Some(_) if before > now => shared.report(format!(
                "{}: the fence of row {row:?} went back from {before:?} to {now:?}",
                self.name
            )),
            _ => {}
        }
    }

    fn look_for_letters(&mut self, shared: &Shared) {
        if self.suspects.is_empty() || !self.letters.read_on() {
            return;
        }
        for (waiting, fence) in std::mem::take(&mut self.suspects) {
            let (partition, offset) = (waiting.partition, waiting.position.offset);
            if self.letters.has(partition, offset) {
                shared.compared.fetch_add(1, Ordering::Relaxed);
            } else {
                shared.report(format!(
                    "{}: offset {offset} of partition {partition} is committed, but no dead letter, and not applied: its row \
                     {:?} is at {fence:?}",
                    self.name, waiting.row
                ));
            }
        }
    }
}
