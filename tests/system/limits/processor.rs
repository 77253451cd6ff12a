//! The kernel gives the consumer a few percent of one core, so that it is late for everything, and then all of it again.

use super::cgroup::Group;
use super::files::processor;
use crate::faults::trial::{Load, Trial, pond};
use crate::pond::SHARDS;
use std::time::Duration;

/// Of one core.
const SHARE: f64 = 0.03;
/// How long it has no more.
const STARVED: Duration = Duration::from_secs(6);
/// A member that loses its session is given its partitions again at most so often in that time; each takes two rebalances or three.
const REBALANCES_MAX: f64 = 12.0;

#[test]
fn a_consumer_with_too_little_of_the_processor_goes_on_after() {
    let group = match Group::new("cpu", "starved") {
        Ok(group) => group,
        Err(why) => {
            println!("too little CPU: skipped, since no control group can be made here: {why}");
            return;
        }
    };
    let load = Load {
        seconds: 10,
        ..Load::default()
    };
    let pond = pond("starved", "");
    let consumer = group.run(&pond, &[]);
    let mut trial = Trial::begin(pond, &load);
    trial.wait_for("both shards are applied to", |now| {
        SHARDS
            .iter()
            .all(|shard| crate::faults::trial::applied(now, shard) > 1000.0)
    });
    let rebalances = |trial: &Trial| trial.reading().sum("millpond_rebalances_total").unwrap();
    let (before, spent) = (rebalances(&trial), processor(&consumer));
    group.limit_processor(Some(SHARE));
    std::thread::sleep(STARVED);
    let spent = (processor(&consumer) - spent).as_secs_f64() / STARVED.as_secs_f64();
    let throttled = group.throttled();
    group.limit_processor(None);
    assert!(throttled > 10, "it wanted more: {throttled}");
    assert!(spent < 4.0 * SHARE, "it had {spent} of a core");
    let recovery = trial.recover();
    let rebalances = rebalances(&trial) - before;
    assert!(rebalances <= REBALANCES_MAX, "{rebalances} rebalances");
    let observed = format!(
        "it had {:.1} % of a core for {STARVED:?}, and waited {throttled} times for more; {rebalances} rebalances",
        spent * 100.0
    );
    trial.conclude("too little CPU", &observed, recovery, consumer);
}
