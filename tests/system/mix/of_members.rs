//! What is done to members of the group.

use super::fleet::{Member, ends_well, is_up};
use super::{Harm, World, pause, within};
use crate::reading::Reading;
use rand::Rng;
use rand::rngs::SmallRng;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;
/// A group that is in trouble otherwise may take that long to deal its partitions.
const DEALT: Duration = Duration::from_secs(30);

fn read(port: u16, metric: &str) -> Option<f64> {
    Reading::take(port)?.sum(metric)
}

pub fn killed(world: &World, place: usize, random: &mut SmallRng) -> Option<String> {
    let member = world.fleet.take(place);
    let had = read(member.port, "millpond_assigned_partitions").unwrap_or(0.0);
    let ended = member.process.kill();
    assert_eq!(
        ended.status.signal(),
        Some(SIGKILL),
        "it was running until it was killed: {}",
        ended.stderr
    );
    pause(random, 0..2000);
    world.fleet.start(place);
    (had > 0.0).then(|| format!("it had {had} partitions"))
}

/// The session is 3 seconds.
pub fn stopped(
    world: &World,
    place: usize,
    random: &mut SmallRng,
    harm: &Harm<'_>,
) -> Option<String> {
    let member = world.fleet.take(place);
    let rebalances = |port| read(port, "millpond_rebalances_total");
    let before = rebalances(member.port);
    member.process.signal("-STOP");
    pause(random, 3500..6000);
    member.process.signal("-CONT");
    harm.over();
    let has_lost = || rebalances(member.port) > before;
    let seen = before.is_some() && within(DEALT, has_lost);
    world.fleet.put_back(place, member);
    seen.then(|| "its partitions were lost or dealt anew".to_owned())
}

pub fn told(world: &World, place: usize, random: &mut SmallRng) -> Option<String> {
    let member = world.fleet.take(place);
    is_up(&member);
    let told = Instant::now();
    member.process.signal("-TERM");
    ends_well(member);
    let took = told.elapsed().as_secs_f64();
    pause(random, 0..2000);
    world.fleet.start(place);
    Some(format!("it ended {took:.2} s later"))
}

pub fn joins(world: &World, random: &mut SmallRng) -> Option<String> {
    let member = world.fleet.stranger();
    let assigned =
        || read(member.port, "millpond_assigned_partitions").filter(|count| *count > 0.0);
    let seen = within(DEALT, || assigned().is_some());
    let had = assigned().unwrap_or(0.0);
    pause(random, 0..2000);
    if random.random() {
        member.process.kill();
    } else {
        member.process.signal("-TERM");
        ends_well(member);
    }
    seen.then(|| format!("it had {had} partitions"))
}

/// So fast that the group hardly ever stops rebalancing: some are told to go, some die.
pub fn storm(world: &World, random: &mut SmallRng, harm: &Harm<'_>) -> Option<String> {
    let mut strangers: Vec<Option<Member>> = (0..world.storm.members).map(|_| None).collect();
    let (mut leaving, [mut started, mut told, mut killed]) = (Vec::new(), [0; 3]);
    let (mut rebalances, mut last) = (0.0, f64::MAX);
    let mut look = || {
        let now = world.sum("millpond_rebalances_total", &[]);
        // A member of the fleet that is gone takes its count along.
        rebalances += f64::max(0.0, now - last);
        last = now;
        rebalances > 0.0
    };
    let until = Instant::now() + world.storm.time;
    while Instant::now() < until {
        pause(random, 0..500);
        let place = random.random_range(0..strangers.len());
        match strangers[place].take() {
            None => {
                started += 1;
                strangers[place] = Some(world.fleet.stranger());
            }
            Some(member) if random.random() && Reading::take(member.port).is_some() => {
                told += 1;
                member.process.signal("-TERM");
                leaving.push(member);
            }
            Some(member) => {
                killed += 1;
                member.process.kill();
            }
        }
        look();
    }
    for member in strangers.into_iter().flatten() {
        member.process.kill();
    }
    harm.over();
    for member in leaving {
        ends_well(member);
    }
    within(DEALT, look).then(|| {
        format!("{started} came, {told} were told to go, {killed} died; {rebalances} rebalances of the others")
    })
}
