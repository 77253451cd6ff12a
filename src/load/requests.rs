//! The requests that bring a run's messages through the HTTP edge: the same rows with the same tags and counts, in the order
//! of the messages' numbers. Pure, as the traffic is.
//!
//! A request is `PUT` of an update or of an email. Device and unknown keys, which some generated messages have, have no place
//! in it, and a broken message can't be asked for: the edge refuses it.

use super::clothesly::{Asked, open_body, random};
use super::traffic::{Traffic, push_id};
use crate::ids::{RowKey, SubscriptionId};

/// A request of a run. Meant to be used again, so that generating doesn't allocate.
#[derive(Debug, Default)]
pub struct Request {
    /// What it asks for.
    pub path: Vec<u8>,
    /// JSON.
    pub body: Vec<u8>,
    /// Messages that it brings into the topic: 1 or 2.
    pub messages: u64,
}

impl Request {
    fn of(&mut self, subscription: SubscriptionId, rest: &str, messages: u64) {
        self.path.clear();
        self.path.extend_from_slice(b"/api/v1/players/");
        push_id(&mut self.path, subscription.0);
        self.path.extend_from_slice(rest.as_bytes());
        self.messages = messages;
    }
}

impl Traffic {
    /// Writes the request that brings the message with that number. `false`: the request for the one before it brings it too.
    pub fn write_request(&self, number: u64, request: &mut Request) -> bool {
        assert_eq!(self.options.broken, 0, "the edge refuses broken messages");
        request.body.clear();
        let mut random = random(self.options.seed, number);
        let row = match &self.clothesly {
            None => self.row(self.pick_row(&mut random)),
            Some(own) => {
                let others = own.other_rows(self.options.apps);
                match own.write_body(number, others, &mut request.body) {
                    Asked::Nothing => return false,
                    Asked::SetEmail(row) => {
                        request.of(row.subscription, "/email", 2);
                        return true;
                    }
                    Asked::Update { row, mirrored } => {
                        request.of(row.subscription, "", 1 + u64::from(mirrored));
                        return true;
                    }
                    Asked::Other(index) => self.row_of_many(index),
                }
            }
        };
        self.write_update_body(row, &mut random, &mut request.body);
        request.of(row.subscription, "", 1);
        true
    }

    fn write_update_body(
        &self,
        row: RowKey,
        random: &mut rand::rngs::SmallRng,
        json: &mut Vec<u8>,
    ) {
        open_body(row.app, json);
        self.write_changes(random, json);
        json.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ids::AppId;
    use crate::load::{Message, Scenario, TrafficOptions};
    use crate::partitioner::Partitioner;
    use serde_json::{Value, json};

    fn traffic(scenario: Scenario) -> Traffic {
        let partitioner =
            Partitioner::new(24, 2, std::array::from_fn(|byte| u16::from(byte >= 0x80)));
        let options = TrafficOptions {
            seed: 7,
            scenario,
            messages: 4_000,
            apps: 50,
            rows: 2_000,
            linked: None,
            counts_share: 0.2,
            broken: 0,
            broken_reasons: vec![],
            value_bytes_max: 1_000,
            value_bytes_min: 0,
        };
        Traffic::new(options, partitioner)
    }

    /// What the edge is to produce for a request, as its contract says.
    fn produced(request: &Request) -> Vec<Value> {
        let path = String::from_utf8(request.path.clone()).unwrap();
        let caller = path.strip_prefix("/api/v1/players/").unwrap();
        let mut body: Value = serde_json::from_slice(&request.body).unwrap();
        let app = body["app_id"].as_str().unwrap().to_owned();
        if let Some(caller) = caller.strip_suffix("/email") {
            let email = body["email"].as_str().unwrap();
            let parent = SubscriptionId::of_email(AppId::parse(app.as_bytes()).unwrap(), email);
            return vec![
                json!({"app_id": app, "subscription_id": parent.to_string(), "device_type": "email", "identifier": email}),
                json!({"app_id": app, "subscription_id": caller, "parent_id": parent.to_string()}),
            ];
        }
        let mirror_to = body.as_object_mut().unwrap().remove("mirror_to");
        let rows = std::iter::once(json!(caller)).chain(mirror_to);
        let for_row = |row| {
            let mut update = body.clone();
            update["subscription_id"] = row;
            update
        };
        rows.map(for_row).collect()
    }

    /// How many messages each request brings; panics where they are not those that go straight into the topic.
    fn messages_by_request(scenario: Scenario) -> Vec<u64> {
        let traffic = traffic(scenario);
        let incident = (scenario == Scenario::Clothesly).then(|| traffic.row(0).app.to_string());
        let (mut message, mut request) = (Message::default(), Request::default());
        let mut sizes = vec![];
        for number in 0..traffic.options().messages {
            if !traffic.write_request(number, &mut request) {
                assert_eq!(sizes.last(), Some(&2), "message {number}");
                continue;
            }
            for (update, number) in produced(&request).iter().zip(number..) {
                traffic.write(number, &mut message);
                let mut expected: Value = serde_json::from_slice(&message.value).unwrap();
                if incident.as_deref() != expected["app_id"].as_str() {
                    for key in ["device_type", "identifier", "sdk"] {
                        expected.as_object_mut().unwrap().remove(key);
                    }
                }
                assert_eq!(*update, expected, "message {number}");
            }
            sizes.push(request.messages);
        }
        assert_eq!(sizes.iter().sum::<u64>(), traffic.options().messages);
        sizes
    }

    #[test]
    fn each_request_brings_its_message_but_for_the_device_and_unknown_keys() {
        for scenario in [Scenario::Uniform, Scenario::Zipf, Scenario::Hot] {
            assert_eq!(messages_by_request(scenario), [1; 4_000]);
        }
    }

    #[test]
    fn the_incident_s_pairs_become_set_email_and_mirrored_updates() {
        let sizes = messages_by_request(Scenario::Clothesly);
        let pairs = sizes.iter().filter(|size| **size == 2).count();
        assert!((1_700..1_950).contains(&pairs), "{pairs} of 2,000");
    }
}
