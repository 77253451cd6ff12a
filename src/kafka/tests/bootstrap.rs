//! Clients that know no broker.

use super::*;
use crate::kafka::bootstrap::Bootstrap;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Instant;

#[test]
fn a_client_that_knows_no_broker_is_told_of_those_that_are_configured() {
    let broker = broker("bootstrap");
    let mut config = ClientConfig::new();
    config.set("group.id", "nobody");
    let client: BaseConsumer = config.create().unwrap();
    let bootstrap = Bootstrap::of(&broker.kafka);
    let asked = |wait| client.fetch_metadata(None, wait);
    assert!(asked(Duration::from_millis(200)).is_err(), "it knows none");
    let until = Instant::now() + TIMEOUT;
    while asked(Duration::from_millis(200)).is_err() {
        assert!(Instant::now() < until, "it does not find its way back");
        bootstrap.keep(client.client());
    }
    // What it has learned is left alone.
    std::thread::sleep(Duration::from_millis(1100));
    bootstrap.keep(client.client());
    assert_eq!(asked(TIMEOUT).unwrap().brokers().len(), 1);
}
