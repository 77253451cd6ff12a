//! What is done to the broker. Seen by a question about the group that is not answered.

use super::{World, pause};
use crate::services::{Harm, Trouble};
use rand::rngs::SmallRng;
use std::time::Duration;

/// Of a broker that works, an answer comes in a tenth of it.
const SILENT: Duration = Duration::from_secs(1);

pub fn killed(world: &World, random: &mut SmallRng) -> Option<String> {
    let killed = Trouble::begin("kafka", Harm::Killed);
    pause(random, 1200..2500);
    let silent = world.checker.unanswered_for();
    let start = killed.end();
    let seen = format!(
        "no answer for {:.1} s, and {:.1} s more to start",
        silent.as_secs_f64(),
        start.as_secs_f64()
    );
    (silent >= SILENT).then_some(seen)
}

pub fn frozen(world: &World, random: &mut SmallRng) -> Option<String> {
    let frozen = Trouble::begin("kafka", Harm::Frozen);
    pause(random, 1500..6000);
    let silent = world.checker.unanswered_for();
    frozen.end();
    (silent >= SILENT).then(|| format!("no answer for {:.1} s", silent.as_secs_f64()))
}
