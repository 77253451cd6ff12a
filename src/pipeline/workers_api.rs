//! `/api/workers`: how many workers each shard has, and another number of them.

use super::control::{Control, ControlError, ShardChange};
use crate::http::{Method, Request, Response, Routes, StatusCode};
use crate::ids::ShardIndex;
use crate::observe::changes::WorkerChange;
use crate::observe::gate::Gate;
use crate::observe::recorder::{ConnectionState, WorkerRecorder};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The path.
pub const PATH: &str = "/api/workers";

/// What GET answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workers {
    /// By the start of their ranges.
    pub shards: Vec<ShardWorkers>,
}

/// A shard's workers in this process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardWorkers {
    /// Its name.
    pub shard: String,
    /// Workers in each core group, as configured.
    pub configured: Option<usize>,
    /// Workers now, over all core groups.
    pub workers: usize,
    /// Each core group.
    pub groups: Vec<GroupWorkers>,
    /// The last change, done or refused.
    pub last_change: Option<WorkerChange>,
}

/// A shard's workers in one core group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupWorkers {
    /// Which one.
    pub group: usize,
    /// Workers now.
    pub workers: usize,
    /// Each of them.
    pub lanes: Vec<LaneState>,
}

/// One worker and its lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneState {
    /// Its number.
    pub lane: usize,
    /// Messages waiting in it.
    pub depth: u64,
    /// Messages waiting for rows that somebody else holds locked.
    pub parked: i64,
    /// What the connection does: `idle`, `busy` or `down`.
    pub connection: String,
}

/// What PUT takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWorkers {
    /// How many, in each core group.
    pub workers: usize,
    /// The shard; all of them without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
}

/// What PUT answers when all was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangedWorkers {
    /// By shard and core group.
    pub changes: Vec<ShardChange>,
}

/// With the path.
pub fn with_workers(routes: Routes, control: &Arc<Control>, gate: &Gate) -> Routes {
    let (for_get, for_put, gate) = (control.clone(), control.clone(), gate.clone());
    routes
        .with(Method::GET, PATH, move |_| {
            Response::json(StatusCode::OK, &for_get.workers())
        })
        .with(Method::PUT, PATH, move |request| {
            match gate.admit(request) {
                Ok(()) => put(&for_put, request),
                Err(refusal) => refusal,
            }
        })
}

fn put(control: &Control, request: &Request) -> Response {
    let asked: NewWorkers = match serde_json::from_slice(request.body()) {
        Ok(asked) => asked,
        Err(error) => {
            return Response::text(
                StatusCode::BAD_REQUEST,
                format_args!(
                    r#"the body is to be {{"workers": N}} or {{"workers": N, "shard": "a"}}: {error}"#
                ),
            );
        }
    };
    match control.set_workers(asked.shard.as_deref(), asked.workers) {
        Err(ControlError::Bad(why)) => Response::text(StatusCode::BAD_REQUEST, why),
        Err(ControlError::NotNow(why)) => Response::text(StatusCode::SERVICE_UNAVAILABLE, why),
        Ok(changes) if changes.iter().any(|one| one.change.refused.is_some()) => {
            let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
            Response::text(StatusCode::CONFLICT, lines.join("\n"))
        }
        Ok(changes) => Response::json(StatusCode::OK, &ChangedWorkers { changes }),
    }
}

impl Control {
    /// The workers of all shards.
    pub fn workers(&self) -> Workers {
        let registry = &self.registry;
        let workers = registry.workers_on_duty();
        let names = registry.shard_names.iter().enumerate();
        let shards = names.map(|(index, name)| {
            let of_shard = workers.iter().filter(|of| of.shard.0 == index);
            let of_shard: Vec<&WorkerRecorder> = of_shard.map(|of| &**of).collect();
            let groups = (0..registry.pollers.len()).map(|group| {
                let of_group = of_shard.iter().filter(|of| of.group == group);
                let mut lanes: Vec<LaneState> = of_group.map(|of| state(of)).collect();
                lanes.sort_by_key(|lane| lane.lane);
                GroupWorkers {
                    group,
                    workers: lanes.len(),
                    lanes,
                }
            });
            ShardWorkers {
                configured: self.configured_workers(name),
                workers: of_shard.len(),
                groups: groups.collect(),
                last_change: registry.changes.last(ShardIndex(index)),
                shard: name.clone(),
            }
        });
        Workers {
            shards: shards.collect(),
        }
    }

    /// As the configuration said when it was read last; `None` while that changes.
    fn configured_workers(&self, shard: &str) -> Option<usize> {
        let key = format!("shard.{shard}.workers");
        let values = self.values.try_lock()?;
        let value = values.iter().find(|value| value.key == key)?;
        value.value.parse().ok()
    }
}

fn state(worker: &WorkerRecorder) -> LaneState {
    let connection = match worker.connection_state() {
        ConnectionState::Idle => "idle",
        ConnectionState::Busy => "busy",
        ConnectionState::Down => "down",
    };
    LaneState {
        lane: worker.lane,
        depth: worker.lane_depth(),
        parked: worker.parked.get(),
        connection: connection.to_owned(),
    }
}
