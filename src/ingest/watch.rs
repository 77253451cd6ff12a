//! The thread that looks after the way to Kafka. While partitions are out of reach it asks Kafka who leads them: an answer brings
//! them back, none takes all others away too, before requests find out one by one. It notices what only a restart, or somebody
//! who corrects the configuration, can mend.

use super::hand_over::HandOver;
use super::reach::Reaches;
use crate::clock;
use crate::kafka::client::KafkaError;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often it looks: a partition that is back is used again within as much.
const LOOK: Duration = Duration::from_millis(250);
/// How long Kafka may take to say who leads.
const LEADERS: Duration = Duration::from_secs(1);

/// Looks until `end` is closed; an error is for good.
pub fn watch(hand_over: &HandOver, reaches: &Reaches, end: &Receiver<()>) -> Result<(), String> {
    let (mut told, mut seen) = (false, false);
    loop {
        if let Some(why) = hand_over.broken() {
            return Err(format!(
                "the producer can't go on: {why}; restart the process"
            ));
        }
        let unreachable = reaches.unreachable(clock::wall_ms());
        if unreachable == 0 && told {
            tracing::info!("Kafka takes updates for all partitions again");
            told = false;
        }
        if unreachable > 0 {
            let why = look(hand_over, reaches, seen)?;
            seen |= why.is_none();
            let unreachable = reaches.unreachable(clock::wall_ms());
            if unreachable > 0 && !told {
                tracing::warn!(
                    unreachable,
                    error = why.unwrap_or_default(),
                    "Kafka takes nothing for some partitions; their requests are answered 503 until it does"
                );
                told = true;
            }
        }
        match end.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(()),
        }
    }
}

/// Asks Kafka for the leaders. Returns why it didn't say, if it didn't; an error is for good. `seen`: it did before, so a topic
/// that is missing now may just not be loaded yet by brokers that are starting.
fn look(hand_over: &HandOver, reaches: &Reaches, seen: bool) -> Result<Option<String>, String> {
    let away = |why: String| {
        (0..reaches.partitions()).for_each(|partition| reaches.found(partition, false));
        Ok(Some(why))
    };
    match hand_over.leaders(LEADERS) {
        Ok(Some(leaders)) => {
            check_count(leaders.len(), reaches)?;
            for (partition, has_leader) in leaders.into_iter().enumerate() {
                reaches.found(partition, has_leader);
            }
            Ok(None)
        }
        Ok(None) if seen => away("the topic is gone".to_owned()),
        Ok(None) => Err("there is no such topic; `millpond init` makes it".to_owned()),
        Err(error @ (KafkaError::Refused { .. } | KafkaError::Settings { .. })) => {
            Err(error.to_string())
        }
        Err(error) => away(error.to_string()),
    }
}

fn check_count(found: usize, reaches: &Reaches) -> Result<(), String> {
    let expected = reaches.partitions();
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "the topic has {found} partitions, kafka.partitions is {expected}; updates would go to other partitions than \
         their apps'. Correct the configuration"
    ))
}
