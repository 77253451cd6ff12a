//! Keeps the rules topic: one thread of the process ("mp-rules") reads it to its end and on, publishes a table at each change,
//! and writes what pollers and the admin address order. It belongs to no core group.
//!
//! Woken by records, and every 20 ms for orders and delivery reports. Ends with the run; what is unwritten then is not decided.
//!
//! - [`keeper`]: the thread's work
//! - [`writer`]: records on their way to the topic
//! - [`api`]: what `/api/rules` answers

pub mod api;
mod keeper;
mod writer;

use super::RunError;
use super::end::has_ended_by;
use crate::config::Config;
use crate::config::checked::{Kafka, PartitionBy};
use crate::observe::Registry;
use crate::rules::Rules;
use crate::rules::state::Scope;
use crate::sync::{AtomicBool, Ordering};
use crate::worker::SinkKind;
use crossbeam_channel::Sender;
use keeper::Keeper;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long a throw-away group waits for the rules that are there.
const FIRST_READ: Duration = Duration::from_secs(10);
/// Before the topic is opened again after an error.
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// The rules of a process: what its threads meet at.
pub fn rules(sink: SinkKind) -> Arc<Rules> {
    Arc::new(Rules::new(sink == SinkKind::Postgres))
}

/// The running thread.
pub struct RulesThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RulesThread {
    /// Starts it. A sink that does not decode needs none. For a throw-away group it waits until what is there was read;
    /// partitions of others wait for that by themselves.
    pub fn start(
        config: &Arc<Config>,
        sink: SinkKind,
        rules: &Arc<Rules>,
        registry: &Arc<Registry>,
    ) -> Result<Self, RunError> {
        let stop = Arc::new(AtomicBool::new(false));
        if sink == SinkKind::Discard {
            return Ok(Self { stop, thread: None });
        }
        let by_app = config.kafka.partition_by == PartitionBy::App;
        let scope = Scope {
            partitioner: by_app.then(|| config.partitioner.clone()),
            incarnation: config.kafka.incarnation,
        };
        let (told, is_read) = crossbeam_channel::bounded(1);
        let (kafka, until) = (config.kafka.clone(), stop.clone());
        let shared = (rules.clone(), registry.clone());
        let thread = Builder::new()
            .name("mp-rules".to_owned())
            .spawn(move || keep(&kafka, &scope, &shared, (&until, &told)))
            .map_err(|error| RunError(format!("no thread for the rules: {error}")))?;
        if !rules.decides() && is_read.recv_timeout(FIRST_READ).is_err() {
            tracing::warn!("the rules are not read yet; until they are, nothing is skipped");
        }
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Whether it has ended, which it never does by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends it; left behind at the deadline, which loses nothing.
    pub fn stop(self, deadline: Instant) {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread else { return };
        if has_ended_by(&thread, deadline) && thread.join().is_err() {
            tracing::error!("the thread that keeps the rules topic has panicked");
        }
    }
}

/// The thread's work. Kafka may be away when it begins.
fn keep(
    kafka: &Kafka,
    scope: &Scope,
    (rules, registry): &(Arc<Rules>, Arc<Registry>),
    (stop, told): (&AtomicBool, &Sender<()>),
) {
    while !stop.load(Ordering::Acquire) {
        match Keeper::new(kafka, scope.clone(), rules.clone(), registry.clone()) {
            Ok(keeper) => return keeper.run(stop, told),
            Err(error) => {
                tracing::warn!(error = %error, "opening the rules topic; trying again");
                std::thread::sleep(OPEN_AGAIN);
            }
        }
    }
}
