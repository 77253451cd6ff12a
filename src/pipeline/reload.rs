//! SIGHUP: the configuration is read again, and what can change while running does. Of everything else that differs it is said
//! that it needs a restart, each time until that comes.

use super::control::{Control, Running};
use super::group;
use crate::config::{Config, Loaded, Value};
use crate::ids::ShardIndex;
use crate::observe::{Registry, log};
use std::collections::BTreeMap;

/// What became of one key that differs.
#[derive(Debug, PartialEq, Eq)]
enum Applied {
    /// It holds from now on.
    Now,
    /// It holds for each partition from its next assignment on.
    AtAssignment,
    /// Nothing does but a restart.
    NeedsRestart,
    /// It could have been, and was not; the next SIGHUP tries again.
    Refused(String),
}

impl Control {
    /// Applies what can be applied of a configuration that was read again, and logs what became of each key that differs from
    /// what was read before. What was set otherwise meanwhile (`workers set`) stays until its key changes.
    pub fn reload(&self, loaded: &Loaded) {
        let running = match self.running() {
            Ok(running) => running,
            Err(why) => {
                tracing::warn!(%why, "SIGHUP: nothing is changed");
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "SIGHUP: configuration");
        }
        let mut values = self.values.lock();
        let differing = differing(&values, &loaded.values);
        if differing.is_empty() {
            tracing::info!("SIGHUP: nothing differs in the configuration");
        }
        for (key, from, to) in differing {
            let applied = match to {
                Some(_) => self.apply(&running, &key, &loaded.config),
                None => Applied::NeedsRestart,
            };
            say(&key, from.as_ref(), to.as_ref(), &applied);
            if let (Applied::Now | Applied::AtAssignment, Some(to)) = (applied, to) {
                remember(&mut values, to);
            }
        }
    }

    fn apply(&self, running: &Running, key: &str, config: &Config) -> Applied {
        let Running {
            budget,
            slots,
            tunables,
            ..
        } = running;
        match key {
            "consumer.in_memory_bytes_max" => {
                budget.set_bytes_max(config.consumer.in_memory_bytes_max);
                slots.set(group::slots(config));
            }
            "consumer.in_memory_max_per_partition" => {
                slots.set(group::slots(config));
                return Applied::AtAssignment;
            }
            "rules.links_per_parent_max" => {
                tunables.set_links_per_parent_max(config.rules.links_per_parent_max);
            }
            "telemetry.log" => log::set_form(config.telemetry.log),
            "telemetry.level" => {
                let level = &config.telemetry.level;
                // The new one may leave nothing of what is said about it afterwards.
                tracing::info!(level, "SIGHUP: another level from now on");
                if let Err(error) = log::set_level(level) {
                    return Applied::Refused(error.to_string());
                }
            }
            "telemetry.applied_sample" => {
                let applied = &self.registry.telemetry.applied;
                applied.set_every(config.telemetry.applied_sample);
            }
            _ => return self.apply_of_shard(running, key, config),
        }
        Applied::Now
    }

    fn apply_of_shard(&self, running: &Running, key: &str, config: &Config) -> Applied {
        let name_and_key = key
            .strip_prefix("shard.")
            .and_then(|rest| rest.split_once('.'));
        let Some((name, key)) = name_and_key else {
            return Applied::NeedsRestart;
        };
        // A shard that is new is none of ours.
        let (Ok(index), Some(shard)) = (
            self.shard(name),
            config.shards.iter().find(|shard| shard.name == name),
        ) else {
            return Applied::NeedsRestart;
        };
        match key {
            "write_rate_max" => {
                running
                    .rates
                    .share_of(index)
                    .set_bound(shard.write_rate_max);
                show_bound(&self.registry, index, shard.write_rate_max);
                Applied::Now
            }
            "workers" => {
                let changes = self.change_workers(running, &[index], shard.workers);
                let refused = changes
                    .into_iter()
                    .filter(|change| change.change.refused.is_some());
                let refused: Vec<String> = refused.map(|change| change.to_string()).collect();
                match refused.is_empty() {
                    true => Applied::Now,
                    false => Applied::Refused(refused.join("; ")),
                }
            }
            _ => Applied::NeedsRestart,
        }
    }
}

/// A key with its value before and after; `None` where it is not there.
type Differing = (String, Option<Value>, Option<Value>);

/// The keys whose values differ, by name.
fn differing(before: &[Value], after: &[Value]) -> Vec<Differing> {
    let by_key = |values: &[Value]| -> BTreeMap<String, Value> {
        let pairs = values
            .iter()
            .map(|value| (value.key.clone(), value.clone()));
        pairs.collect()
    };
    let (before, mut after) = (by_key(before), by_key(after));
    let mut differing: Vec<Differing> = Vec::new();
    for (key, from) in before {
        match after.remove(&key) {
            Some(to) if to.says_the_same(&from) => {}
            to => differing.push((key, Some(from), to)),
        }
    }
    differing.extend(after.into_iter().map(|(key, to)| (key, None, Some(to))));
    differing.sort_by(|one, other| one.0.cmp(&other.0));
    differing
}

fn remember(values: &mut Vec<Value>, value: Value) {
    match values.iter_mut().find(|known| known.key == value.key) {
        Some(known) => *known = value,
        None => values.push(value),
    }
}

/// Values as they may be shown: what is secret is hidden in them already.
fn say(key: &str, from: Option<&Value>, to: Option<&Value>, applied: &Applied) {
    let shown = |value: Option<&Value>| value.map_or("(nothing)", |value| &value.value).to_owned();
    let (from, to) = (shown(from), shown(to));
    match applied {
        Applied::Now => tracing::info!(key, from, to, "SIGHUP: changed"),
        Applied::AtAssignment => tracing::info!(
            key,
            from,
            to,
            "SIGHUP: changed; it holds for each partition from its next assignment on"
        ),
        Applied::NeedsRestart => {
            tracing::warn!(key, from, to, "SIGHUP: not changed; this needs a restart")
        }
        Applied::Refused(why) => tracing::warn!(
            key,
            from,
            to,
            why,
            "SIGHUP: not changed; the next SIGHUP tries again"
        ),
    }
}

/// Lets the metrics have the bound on a shard's rows per second.
pub(super) fn show_bound(registry: &Registry, shard: ShardIndex, rows_per_second: Option<u32>) {
    let bound = i64::from(rows_per_second.unwrap_or(0));
    registry.shards[shard.0].write_rate_max.set(bound);
}
