//! Updates arrive: each as the messages that it should be, by every way that HTTP allows, and from there in the rows.

use super::edge::{APP, Edge, ROW, contents, player, pond, value};
use super::http::{Answer, Gone, put, put_with, request};
use crate::pond::Pond;
use millpond::ids::{AppId, SubscriptionId};
use serde_json::{Value, json};
use std::time::Duration;

const ADDRESS: &str = "Jon.Snow@Example.COM";
/// No answer comes so late, and none that is not asked for so early.
const QUIET: Duration = Duration::from_millis(300);

/// By the rule that the README publishes.
fn email_id(address: &str) -> String {
    let app = AppId::parse(APP.as_bytes()).unwrap();
    SubscriptionId::of_email(app, address).to_string()
}

fn assert_taken(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), json!({"success": true}));
}

/// An update of that row, with what the body says.
fn update(row: &str, fields: &Value) -> (String, Value) {
    let mut value = json!({"app_id": APP, "subscription_id": row});
    let fields = fields.as_object().unwrap().clone();
    value.as_object_mut().unwrap().extend(fields);
    (row.to_owned(), value)
}

#[test]
fn updates_mirrors_and_emails_are_the_right_messages_and_the_right_rows() {
    let pond = pond("messages");
    let edge = Edge::start(&pond, &[]);
    let email = email_id(ADDRESS);
    assert_eq!(email, email_id("jon.snow@example.com"));

    // The id in any usual form; tags and counts of every kind, up to the ends of their range.
    let fields = json!({
        "tags": {"first_name": "Jon", "vip": null, "age": 17, "x": -1.5, "is": true, "gone": "", "é": "\"\\\n"},
        "counts": {"most": i64::MAX, "least": i64::MIN, "one": 1},
    });
    let mut body = fields.clone();
    body["app_id"] = APP.to_uppercase().into();
    let path = player(&ROW.to_uppercase());
    assert_taken(&edge.ask(&put(&path, &body.to_string())));

    let path = player(ROW) + "/email";
    let body = json!({"app_id": APP, "email": ADDRESS});
    let answer = edge.ask(&put(&path, &body.to_string()));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), json!({"success": true, "id": email}));

    let mirrored = json!({"tags": {"cart": "full"}, "counts": {"sessions": 2}});
    let mut body = mirrored.clone();
    body["app_id"] = APP.into();
    body["mirror_to"] = email.clone().into();
    assert_taken(&edge.ask(&put(&player(ROW), &body.to_string())));
    // Nothing to change makes the row and moves its fence.
    let bare = "00000000-0000-4000-8000-000000000001";
    edge.good(bare, &json!({"app_id": APP}).to_string());

    let messages = pond.updates();
    let home = pond.partition_of(APP);
    assert!(messages.iter().all(|message| message.partition == home));
    let found: Vec<(String, Value)> = messages
        .iter()
        .map(|message| (message.key.clone().unwrap(), value(message)))
        .collect();
    let identity = json!({"device_type": "email", "identifier": ADDRESS});
    let expected = [
        update(ROW, &fields),
        update(&email, &identity),
        update(ROW, &json!({"parent_id": email})),
        update(ROW, &mirrored),
        update(&email, &mirrored),
        update(bare, &json!({})),
    ];
    assert_eq!(found, expected);
    edge.stop();

    let summary = pond.catch_up();
    assert_eq!(
        (&summary["messages"], &summary["dead_lettered"]),
        (&6.into(), &0.into()),
        "{summary}"
    );
    pond.assert_exact();
    assert_rows(&pond, &email);
}

/// The row is linked to its email's, and both hold the mirrored update.
fn assert_rows(pond: &Pond, email: &str) {
    let query = "SELECT parent_id::text, device_type, identifier, tags::text, counts::text FROM subscription \
                 WHERE subscription_id = $1::text::uuid";
    let row = |id: &str| -> Vec<Value> {
        let row = pond.shard(0).query_one(query, &[&id]).unwrap();
        let text = |at: usize| row.get::<_, Option<String>>(at);
        let json = |at: usize| serde_json::from_str(&text(at).unwrap()).unwrap();
        let texts = (0..3).map(|at| text(at).map_or(Value::Null, Value::String));
        texts.chain((3..5).map(json)).collect()
    };
    let tags = json!({"first_name": "Jon", "age": 17, "x": -1.5, "is": true, "é": "\"\\\n", "cart": "full"});
    let counts = json!({"most": i64::MAX, "least": i64::MIN, "one": 1, "sessions": 2});
    assert_eq!(
        row(ROW),
        [json!(email), Value::Null, Value::Null, tags, counts]
    );
    let (tags, counts) = (json!({"cart": "full"}), json!({"sessions": 2}));
    assert_eq!(
        row(email),
        [Value::Null, json!("email"), json!(ADDRESS), tags, counts]
    );
}

/// A PUT whose answer and message can be told from others.
fn numbered(number: usize) -> Vec<u8> {
    numbered_with(number, &[])
}

fn numbered_with(number: usize, headers: &[&str]) -> Vec<u8> {
    let body = json!({"app_id": APP, "tags": {"n": number}});
    put_with(&player(ROW), headers, body.to_string().as_bytes())
}

/// The numbers that arrived, in the order of the topic.
fn arrived(pond: &Pond) -> Vec<u64> {
    let messages = pond.updates();
    messages
        .iter()
        .map(|message| value(message)["tags"]["n"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_connection_serves_request_after_request_and_ten_at_once_in_their_order() {
    let pond = pond("connections");
    let edge = Edge::start(&pond, &[]);
    let mut client = edge.client();
    for number in 0..5 {
        assert_taken(&client.ask(&numbered(number)).unwrap());
    }
    // Ten in one write, of which one is refused and two are emails: each answer is in its place.
    let mut all = Vec::new();
    for number in 5..15 {
        all.extend(match number {
            7 => put(&player(ROW), "{}"),
            9 | 12 => {
                let address = format!("{number}@example.com");
                let body = json!({"app_id": APP, "email": address});
                put(&(player(ROW) + "/email"), &body.to_string())
            }
            _ => numbered(number),
        });
    }
    client.send(&all).unwrap();
    for number in 5..15 {
        let answer = client.answer().unwrap();
        match number {
            7 => assert_eq!(
                (answer.status, answer.reason().as_str()),
                (400, "missing-id")
            ),
            9 | 12 => assert_eq!(
                answer.json()["id"],
                email_id(&format!("{number}@example.com"))
            ),
            _ => assert_taken(&answer),
        }
    }
    // One that closes by its own wish ends the connection, whatever follows it.
    let last = [numbered_with(15, &["Connection: close"]), numbered(16)].concat();
    client.send(&last).unwrap();
    let (answers, gone) = client.rest(QUIET * 10);
    assert_eq!((answers.len(), gone), (1, Gone::Closed));
    assert_eq!(answers[0].header("connection"), Some("close"));
    edge.stop();
    let numbers: Vec<u64> = pond
        .updates()
        .iter()
        .filter_map(|message| value(message)["tags"]["n"].as_u64())
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 8, 10, 11, 13, 14, 15]);
    assert_eq!(pond.updates().len(), numbers.len() + 4);
}

#[test]
fn every_form_of_a_good_request_is_taken() {
    let pond = pond("forms");
    let edge = Edge::start(&pond, &[]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let forms: [&[&str]; 6] = [
        &[
            "content-length: *",
            "HOST: edge",
            "CONTENT-TYPE:application/json",
        ],
        &[
            "Host:edge",
            "Content-Type: Application/JSON; charset=utf-8",
            "Content-Length:*\t ",
        ],
        &[
            "Host: [::1]:8080",
            "Content-Type: application/json",
            "Content-Length: 00*",
        ],
        &[
            "Host: edge",
            "Content-Type: application/json",
            "Content-Length: *",
            "traceparent: @",
        ],
        &[
            "Host: edge",
            "Content-Type: application/json",
            "Content-Length: *",
            "X-Empty:",
            "Accept: */*",
        ],
        &[
            "Host: edge",
            "Content-Type: application/json",
            "Content-Length: *",
            "Connection: keep-alive",
        ],
    ];
    for (number, headers) in forms.iter().enumerate() {
        let body = json!({"app_id": APP, "tags": {"n": number}}).to_string();
        let fill = |header: &&str| {
            let length = body.len().to_string();
            header
                .replace("th: *", &format!("th: {length}"))
                .replace("h:*", &format!("h:{length}"))
                .replace("00*", &format!("00{length}"))
                .replace('@', trace)
        };
        let headers: Vec<String> = headers.iter().map(fill).collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let line = format!("PUT {} HTTP/1.1", player(ROW));
        assert_taken(&edge.ask(&request(&line, &headers, body.as_bytes())));
    }
    edge.stop();
    assert_eq!(arrived(&pond), [0, 1, 2, 3, 4, 5]);
    let messages = pond.updates();
    for (number, message) in messages.iter().enumerate() {
        match number {
            3 => assert_eq!(message.header("traceparent"), trace),
            _ => assert_eq!(message.headers(), 0),
        }
    }
}

#[test]
fn an_old_client_and_one_that_asks_first_are_served() {
    let pond = pond("old");
    let edge = Edge::start(&pond, &[]);
    // HTTP/1.0: no Host, and the connection ends.
    let body = json!({"app_id": APP, "tags": {"n": 0}}).to_string();
    let length = format!("Content-Length: {}", body.len());
    let line = format!("PUT {} HTTP/1.0", player(ROW));
    let old = request(
        &line,
        &["Content-Type: application/json", &length],
        body.as_bytes(),
    );
    let mut client = edge.client();
    client.send(&old).unwrap();
    let (answers, gone) = client.rest(QUIET * 10);
    assert_eq!((answers.len(), gone), (1, Gone::Closed));
    assert_taken(&answers[0]);

    // Expect: the body is sent once it is asked for; one that comes unasked is fine too.
    let whole = numbered_with(1, &["Expect: 100-continue"]);
    let head = whole.len() - json!({"app_id": APP, "tags": {"n": 1}}).to_string().len();
    let mut client = edge.client();
    client.send(&whole[..head]).unwrap();
    let interim = client.answer().unwrap();
    assert_eq!((interim.status, interim.body.as_str()), (100, ""));
    assert_eq!(client.answer_within(QUIET).unwrap_err(), Gone::Silent);
    client.send(&whole[head..]).unwrap();
    assert_taken(&client.answer().unwrap());
    client
        .send(&numbered_with(2, &["Expect: 100-continue"]))
        .unwrap();
    let mut answer = client.answer().unwrap();
    if answer.status == 100 {
        answer = client.answer().unwrap();
    }
    assert_taken(&answer);

    // A request in pieces, a byte each.
    for byte in numbered(3) {
        client.send(&[byte]).unwrap();
    }
    assert_taken(&client.answer().unwrap());
    // One whose sender has said all that it has to say.
    client.send(&numbered(4)).unwrap();
    client.end_writing();
    let (answers, gone) = client.rest(QUIET * 10);
    assert_eq!((answers.len(), gone), (1, Gone::Closed));
    assert_taken(&answers[0]);
    edge.stop();
    assert_eq!(arrived(&pond), [0, 1, 2, 3, 4]);
}

#[test]
fn where_the_queue_is_enough_the_answer_is_202_and_the_message_arrives() {
    let pond = pond("queue");
    let edge = Edge::start(&pond, &["ingest.acknowledge=queue"]);
    let mut client = edge.client();
    for number in 0..100 {
        let answer = client.ask(&numbered(number)).unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let body = json!({"app_id": APP, "email": ADDRESS});
    let answer = client.ask(&put(&(player(ROW) + "/email"), &body.to_string()));
    assert_eq!(answer.unwrap().status, 202);
    // What was accepted outlives the end.
    edge.stop();
    let numbers: Vec<Value> = contents(&pond)
        .iter()
        .map(|(_, value)| value["tags"]["n"].clone())
        .collect();
    assert_eq!(numbers.len(), 102);
    assert!((0..100).all(|number| numbers.contains(&json!(number))));
}
