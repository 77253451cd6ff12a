//! Whether the group has caught up with what was in the topic at the start (`--until-caught-up`).

use super::RunError;
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::observe::Registry;
use crate::worker::SinkKind;
use std::time::{Duration, Instant};

/// Each question ends by then; it is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two questions for the group's commits.
const ASK_INTERVAL: Duration = Duration::from_millis(300);

/// The end offsets at the start, and who knows how far the group is.
pub struct Target {
    admin: Admin,
    topic: String,
    /// The group whose commits count; `None`: this process alone reads, and its own progress counts.
    group: Option<String>,
    /// First and end offset of each partition.
    extents: Vec<(i64, i64)>,
    asked: Option<Instant>,
}

impl Target {
    /// Reads where the topic ends now.
    pub fn read(config: &Config, sink: SinkKind) -> Result<Self, RunError> {
        let kafka = &config.kafka;
        let read = || {
            let admin = Admin::connect(kafka)?;
            let firsts = admin.start_offsets(&kafka.topic, TIMEOUT)?;
            let ends = admin.end_offsets(&kafka.topic, TIMEOUT)?;
            Ok((admin, firsts.into_iter().zip(ends).collect()))
        };
        let (admin, extents) = read().map_err(|error: crate::kafka::KafkaError| {
            RunError(format!("reading end offsets: {error}"))
        })?;
        let group = (sink == SinkKind::Postgres).then(|| kafka.group.clone());
        Ok(Self {
            admin,
            topic: kafka.topic.clone(),
            group,
            extents,
            asked: None,
        })
    }

    /// Whether everything before the end offsets is finished, on all partitions.
    pub fn is_reached(&mut self, registry: &Registry) -> bool {
        if self.asked.is_some_and(|at| at.elapsed() < ASK_INTERVAL) {
            return false;
        }
        self.asked = Some(crate::clock::now());
        let finished: Vec<Option<i64>> = match &self.group {
            None => registry
                .partitions
                .iter()
                .map(|partition| Some(partition.watermark.get()))
                .collect(),
            Some(group) => match self.admin.committed_offsets(group, &self.topic, TIMEOUT) {
                Ok(offsets) => offsets,
                Err(error) => {
                    tracing::warn!(error = %error, "asking for the group's committed offsets");
                    return false;
                }
            },
        };
        // A partition that was empty at the start needs no commit.
        let reached = |((first, end), finished): (&(i64, i64), &Option<i64>)| {
            first == end || finished.is_some_and(|finished| finished >= *end)
        };
        self.extents.iter().zip(&finished).all(reached)
    }
}
