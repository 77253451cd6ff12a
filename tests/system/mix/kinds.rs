//! Which faults there are, what each needs for itself while it is done, and which one comes next.

use super::tally::Outcome;
use super::{Size, World, of_kafka, of_members, of_operators, of_postgres};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use std::collections::HashSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MemberKilled,
    MemberStopped,
    MemberTold,
    MemberJoins,
    Storm,
    WorkersChanged,
    BackendsEnded,
    StatementsCancelled,
    PostgresKilled,
    PostgresFrozen,
    TableLocked,
    RowsLocked,
    ReadOnly,
    NoConnections,
    Deadlocks,
    BrokerKilled,
    BrokerFrozen,
    Rule,
    Poison,
}

const ALL: [Kind; 19] = [
    Kind::MemberKilled,
    Kind::MemberStopped,
    Kind::MemberTold,
    Kind::MemberJoins,
    Kind::Storm,
    Kind::WorkersChanged,
    Kind::BackendsEnded,
    Kind::StatementsCancelled,
    Kind::PostgresKilled,
    Kind::PostgresFrozen,
    Kind::TableLocked,
    Kind::RowsLocked,
    Kind::ReadOnly,
    Kind::NoConnections,
    Kind::Deadlocks,
    Kind::BrokerKilled,
    Kind::BrokerFrozen,
    Kind::Rule,
    Kind::Poison,
];

/// What one fault at a time has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    Member(usize),
    Shard(usize),
    Broker,
    Rules,
    Poison,
    Stranger,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::MemberKilled => "consumer kill -9",
            Self::MemberStopped => "consumer stopped past its session",
            Self::MemberTold => "consumer SIGTERM",
            Self::MemberJoins => "consumer joins and leaves",
            Self::Storm => "consumers come and go all the time",
            Self::WorkersChanged => "another number of workers",
            Self::BackendsEnded => "Postgres backends terminated",
            Self::StatementsCancelled => "statements cancelled",
            Self::PostgresKilled => "Postgres kill -9",
            Self::PostgresFrozen => "Postgres frozen",
            Self::TableLocked => "table locked",
            Self::RowsLocked => "rows locked",
            Self::ReadOnly => "Postgres read-only",
            Self::NoConnections => "no connections left",
            Self::Deadlocks => "deadlocks with another client",
            Self::BrokerKilled => "broker kill -9",
            Self::BrokerFrozen => "broker frozen",
            Self::Rule => "rule added and removed",
            Self::Poison => "messages that can't be applied",
        }
    }
}

/// A kind, and the member or shard that it is done to.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    pub kind: Kind,
    at: usize,
}

impl Chosen {
    pub const fn needs(self) -> Needs {
        match self.kind {
            Kind::MemberKilled | Kind::MemberStopped | Kind::MemberTold | Kind::WorkersChanged => {
                Needs::Member(self.at)
            }
            Kind::MemberJoins | Kind::Storm => Needs::Stranger,
            Kind::BackendsEnded
            | Kind::StatementsCancelled
            | Kind::PostgresKilled
            | Kind::PostgresFrozen
            | Kind::TableLocked
            | Kind::RowsLocked
            | Kind::ReadOnly
            | Kind::NoConnections
            | Kind::Deadlocks => Needs::Shard(self.at),
            Kind::BrokerKilled | Kind::BrokerFrozen => Needs::Broker,
            Kind::Rule => Needs::Rules,
            Kind::Poison => Needs::Poison,
        }
    }

    /// Does it, looks whether it bites, and takes it back.
    pub fn run(self, world: &World, random: &mut SmallRng) -> Outcome {
        let (harm, at) = (world.harm(self.kind.name()), self.at);
        let seen = match self.kind {
            Kind::MemberKilled => of_members::killed(world, at, random),
            Kind::MemberStopped => of_members::stopped(world, at, random, &harm),
            Kind::MemberTold => of_members::told(world, at, random),
            Kind::MemberJoins => of_members::joins(world, random),
            Kind::Storm => of_members::storm(world, random, &harm),
            Kind::WorkersChanged => of_operators::workers(world, at, random),
            Kind::BackendsEnded => of_postgres::backends_ended(world, at),
            Kind::StatementsCancelled => of_postgres::statements_cancelled(world, at),
            Kind::PostgresKilled => of_postgres::killed(world, at, random),
            Kind::PostgresFrozen => of_postgres::frozen(world, at, random),
            Kind::TableLocked => of_postgres::table_locked(world, at, random),
            Kind::RowsLocked => of_postgres::rows_locked(world, at, random),
            Kind::ReadOnly => of_postgres::read_only(world, at, random),
            Kind::NoConnections => of_postgres::no_connections(world, at, random),
            Kind::Deadlocks => of_postgres::deadlocks(world, at, random),
            Kind::BrokerKilled => of_kafka::killed(world, random),
            Kind::BrokerFrozen => of_kafka::frozen(world, random),
            Kind::Rule => of_operators::rule(world, random, &harm),
            Kind::Poison => of_operators::poison(world, &harm),
        };
        let (kind, after) = (self.kind.name(), world.checker.fault_begun_for(harm.number));
        match &seen {
            Some(seen) => println!("{kind} ({at}), {:.1} s: {seen}", after.as_secs_f64()),
            None => println!("{kind} ({at}), {:.1} s: not seen", after.as_secs_f64()),
        }
        Outcome {
            kind,
            is_observed: seen.is_some(),
        }
    }
}

/// All kinds in an order of chance, again and again: so each comes as often as the others.
pub struct Bag {
    left: Vec<Kind>,
    kept: usize,
    members: usize,
}

impl Bag {
    pub fn new(size: &Size) -> Self {
        Self {
            left: Vec::new(),
            kept: size.kept,
            members: size.members,
        }
    }

    /// The next one whose needs nobody else has.
    pub fn next(&mut self, busy: &HashSet<Needs>, random: &mut SmallRng) -> Option<Chosen> {
        if self.left.is_empty() {
            self.left = ALL.to_vec();
            self.left.shuffle(random);
        }
        for place in (0..self.left.len()).rev() {
            let kind = self.left[place];
            let at = match (Chosen { kind, at: 0 }).needs() {
                // One that is kept may stand still for a while, and nothing else.
                Needs::Member(_) if kind != Kind::MemberStopped => {
                    random.random_range(self.kept..self.members)
                }
                Needs::Member(_) => random.random_range(0..self.members),
                _ => random.random_range(0..2),
            };
            let chosen = Chosen { kind, at };
            if !busy.contains(&chosen.needs()) {
                self.left.remove(place);
                return Some(chosen);
            }
        }
        None
    }
}
