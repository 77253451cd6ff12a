//! The thread that looks after the way to Kafka: asks for the leaders of partitions that are out of reach, and notices what
//! only a restart, or somebody who corrects the configuration, can mend.

use super::hand_over::HandOver;
use super::reach::Reaches;
use crate::kafka::client::KafkaError;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often it looks: a partition that is back is used again within as much.
const LOOK: Duration = Duration::from_millis(250);
/// How long Kafka may take to say who leads.
const LEADERS: Duration = Duration::from_secs(2);

/// Looks until `end` is closed; an error is for good.
pub fn watch(hand_over: &HandOver, reaches: &Reaches, end: &Receiver<()>) -> Result<(), String> {
    let mut complained = false;
    loop {
        if let Some(why) = hand_over.broken() {
            return Err(format!(
                "the producer can't go on: {why}; restart the process"
            ));
        }
        if reaches.has_lost() {
            match hand_over.leaders(LEADERS) {
                Ok(Some(leaders)) => {
                    check_count(leaders.len(), reaches)?;
                    for (partition, has_leader) in leaders.into_iter().enumerate() {
                        reaches.found(partition, has_leader);
                    }
                    if complained {
                        tracing::info!("Kafka answers again");
                    }
                    complained = false;
                }
                Ok(None) => {
                    return Err("there is no such topic; `millpond init` makes it".to_owned());
                }
                Err(error @ (KafkaError::Refused { .. } | KafkaError::Settings { .. })) => {
                    return Err(error.to_string());
                }
                Err(error) => {
                    if !complained {
                        tracing::warn!(error = %error, "Kafka can't be reached; requests are answered 503 until it can");
                    }
                    complained = true;
                }
            }
        }
        match end.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(()),
        }
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
