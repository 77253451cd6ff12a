//! Whatever clients send: the edge lives on, and the topic holds what it answered 200 for and nothing else.
//!
//! `MILLPOND_TEST_FUZZ_SECONDS` (60) is how long, `MILLPOND_TEST_SEED` what is sent: the same each time unless it is given, so that
//! a run that is to pass finds nothing new. Look for something new with other seeds, and longer.

use super::edge::{APP, Edge, ROW, SOON, pond, value};
use super::http::{Answer, Client, Gone, put};
use super::model::{self, Content};
use super::mutate::{Case, Mutator};
use crate::pond::Pond;
use millpond::ids::Partition;
use millpond::update::{self, Place};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// It found a `#` in a request line that was taken.
const SEED: u64 = 15_442_007_473_837_828_237;
const CLIENTS: u64 = 4;
/// A connection whose client has said everything has ended by then.
const ENDED_BY: Duration = Duration::from_secs(8);
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a client was told.
#[derive(Default)]
struct Book {
    connections: u64,
    /// Must be there.
    promised: Vec<Content>,
    /// May be there.
    possible: Vec<Content>,
    /// By status and reason.
    answers: BTreeMap<String, u64>,
}

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

#[test]
fn whatever_is_sent_the_edge_lives_and_keeps_its_word() {
    let time = Duration::from_secs(variable("MILLPOND_TEST_FUZZ_SECONDS", 60));
    let seed = variable("MILLPOND_TEST_SEED", SEED);
    println!("MILLPOND_TEST_SEED={seed}");
    let pond = pond("fuzz");
    let mut edge = Edge::start(&pond, &[]);
    let files = edge.open_files();
    let until = Instant::now() + time;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let address = edge.address;
            std::thread::spawn(move || send_until(until, address, seed, client))
        })
        .collect();
    let books = clients.into_iter().map(|client| client.join());
    let books: Vec<Book> = books.map(|book| book.expect("see above")).collect();
    assert!(edge.is_running(), "it ended");
    let asked = Instant::now();
    edge.good(ROW, &json!({"app_id": APP}).to_string());
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    pond.wait_for("all connections are given back", SOON, |_| {
        edge.open_files() <= files + 2
    });
    edge.stop();
    judge(&pond, books);
}

fn send_until(until: Instant, address: SocketAddr, seed: u64, client: u64) -> Book {
    let mut mutator = Mutator::new(seed.wrapping_add(client), &client.to_string());
    let mut book = Book::default();
    while Instant::now() < until {
        let case = mutator.next_case();
        let Ok(mut client) = Client::connect(address) else {
            // No port is free for a moment.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        book.connections += 1;
        send(&mut client, &case);
        let (answers, gone) = match case.leaves {
            true => (Vec::new(), Gone::Closed),
            false => {
                client.end_writing();
                client.rest(ENDED_BY)
            }
        };
        if let Err(wrong) = book.enter(&case, answers, gone) {
            let shown = case.bytes.escape_ascii();
            panic!(
                "MILLPOND_TEST_SEED={seed}: {wrong}, sent, cut at {:?}: {shown}",
                case.cuts
            );
        }
    }
    book
}

fn send(client: &mut Client, case: &Case) {
    let mut from = 0;
    for cut in &case.cuts {
        let _ = client.send(&case.bytes[from..*cut]);
        std::thread::sleep(Duration::from_micros(200));
        from = *cut;
    }
    let _ = client.send(&case.bytes[from..]);
}

impl Book {
    /// An error: the edge said what it must not say.
    fn enter(&mut self, case: &Case, answers: Vec<Answer>, gone: Gone) -> Result<(), String> {
        if matches!(gone, Gone::Silent | Gone::Torn) {
            return Err(format!("{gone:?} after {answers:?}"));
        }
        let requests = model::read(&case.bytes);
        let mut requests = requests.iter();
        for answer in answers.iter().filter(|answer| answer.status >= 200) {
            let messages = requests.next().and_then(|request| request.messages());
            let counted = match answer.status {
                200 => "200".to_owned(),
                status => format!("{status} {}", answer.reason()),
            };
            *self.answers.entry(counted).or_default() += 1;
            match answer.status {
                200 => self
                    .promised
                    .extend(messages.ok_or("200 for what is no request")?),
                504 => self.possible.extend(messages.unwrap_or_default()),
                400..500 | 503 => {}
                _ => return Err(format!("{answer:?}")),
            }
        }
        let unanswered = requests.filter_map(|request| request.messages());
        self.possible.extend(unanswered.flatten());
        Ok(())
    }
}

/// Every message of the topic is one that the consumer applies, was promised or possible, and no promised one is missing.
fn judge(pond: &Pond, books: Vec<Book>) {
    let config = pond.configuration();
    let mut found: HashMap<Content, i64> = HashMap::new();
    let messages = pond.updates();
    for message in &messages {
        let (key, text) = (message.key.as_deref(), message.value.as_deref());
        let bytes_max = config.consumer.message_max_bytes;
        let envelope = update::judge(key.map(str::as_bytes), text.map(str::as_bytes), bytes_max);
        let envelope = envelope.unwrap_or_else(|why| panic!("{why:?}: {key:?} {text:?}"));
        let place = Place {
            subscription: envelope.subscription,
            partition: Partition(message.partition),
            partitioner: Some(&config.partitioner),
        };
        let decoded = update::decode(envelope.value, &place);
        let decoded = decoded.unwrap_or_else(|why| panic!("{why:?}: {text:?}"));
        assert_eq!(decoded.unknown_keys, 0, "{text:?}");
        let content = (
            key.unwrap().to_owned(),
            model::plain(value(message)).to_string(),
        );
        *found.entry(content).or_default() += 1;
    }
    let last = (
        ROW.to_owned(),
        json!({"app_id": APP, "subscription_id": ROW}).to_string(),
    );
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    let (mut connections, mut promised) = (0, vec![last]);
    let mut possible: HashMap<Content, i64> = HashMap::new();
    for book in books {
        connections += book.connections;
        promised.extend(book.promised);
        book.possible
            .into_iter()
            .for_each(|content| *possible.entry(content).or_default() += 1);
        book.answers
            .into_iter()
            .for_each(|(answer, times)| *answers.entry(answer).or_default() += times);
    }
    println!(
        "{connections} connections, {} messages, of which {} promised: {answers:?}",
        messages.len(),
        promised.len()
    );
    for content in promised {
        let left = found
            .get_mut(&content)
            .unwrap_or_else(|| panic!("lost: {content:?}"));
        assert!(*left > 0, "lost: {content:?}");
        *left -= 1;
    }
    for (content, left) in found {
        let allowed = possible.get(&content).copied().unwrap_or(0);
        assert!(
            left <= allowed,
            "{left} of {content:?} that nobody was told of"
        );
    }
    assert!(answers.len() > 10, "the mutations reach few places");
}

#[test]
fn the_model_reads_what_is_good_and_refuses_what_is_not() {
    let body = json!({"app_id": APP, "tags": {"a": 1}}).to_string();
    let good = put(&super::edge::player(ROW), &body);
    let value = json!({"app_id": APP, "subscription_id": ROW, "tags": {"a": 1}}).to_string();
    let twice = [&good[..], &good].concat();
    let read: Vec<_> = model::read(&twice)
        .iter()
        .map(|request| request.messages())
        .collect();
    let message = Some(vec![(ROW.to_owned(), value)]);
    assert_eq!(read, [message.clone(), message]);
    let text = String::from_utf8(good).unwrap();
    for (from, to) in [
        ("\r\n", "\n"),
        ("Host: edge", "Host: edge\r\nTransfer-Encoding: chunked"),
        ("Host: edge", "Host: edge\r\n folded"),
        ("Host: edge", "Host: edge\r\nHost: edge"),
        ("Host: edge", "Host : edge"),
        ("Content-Length: ", "Content-Length: 7\r\nContent-Length: "),
        ("Content-Length: ", "Content-Length: +"),
        ("Content-Length: ", "Content-Length: 9"),
        ("HTTP/1.1", "HTTP/2.0"),
    ] {
        let broken = text.replace(from, to);
        assert!(model::read(broken.as_bytes()).is_empty(), "{broken}");
    }
}
