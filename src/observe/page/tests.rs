//! The page and its document over HTTP, also with peers.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::document::{Document, Level};
use super::sampler::Sampler;
use super::*;
use crate::config::checked::Secret;
use crate::http::Server;
use crate::ids::{Partition, ShardIndex};
use crate::observe::recorder::{ConnectionState, WorkerRecorder};
use crate::rules::record::{Rule, RuleId, Target};
use crate::rules::table::{Entry, Table};
use crate::sync::Ordering;
use hashbrown::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Two shards of `partitions` each, of which this process has those of the range.
fn registry(partitions: usize, here: std::ops::Range<usize>) -> Registry {
    let shard = |at| ShardIndex(usize::from(at >= partitions));
    let shards = (0..2 * partitions).map(shard).collect();
    let mut registry = Registry::new(1, shards, vec!["a".to_owned(), "b".to_owned()]);
    registry.page.about.topic = "updates".to_owned();
    registry.page.about.apps = vec![(0, 0x7f), (0x80, 0xff)];
    for number in here {
        let partition = &registry.partitions[number];
        partition.assigned.store(true, Ordering::Relaxed);
        partition.watermark.set(100);
        partition.end_offset.set(100);
    }
    let now_ms = crate::clock::running_ms();
    registry.pollers[0].polled_at_ms.set(now_ms);
    registry.pollers[0].partitions.set(1);
    for shard in [ShardIndex(0), ShardIndex(1)] {
        let worker = WorkerRecorder::new(0, shard, 0);
        worker.set_connection_state(ConnectionState::Idle);
        registry.workers.lock().push(Arc::new(worker));
    }
    registry.ready.store(true, Ordering::Relaxed);
    registry
}

/// Partition 3 has 50 messages, the oldest two minutes old.
fn behind(registry: &Registry) {
    let partition = registry.partition(Partition(3));
    partition.end_offset.set(150);
    partition.in_memory_messages.set(20);
    let two_minutes_ago = crate::clock::wall_ms() - 120_000;
    partition.oldest_timestamp_ms.set(two_minutes_ago);
}

fn rules() -> Arc<Rules> {
    let rules = Rules::new(true);
    let rule = Rule {
        id: RuleId::random(),
        target: Target::of("5eb5a37e-b458-11e3-ac11-000c2940e62c", None, None).unwrap(),
        reason: "<b>why</b>".to_owned(),
        author: "ann".to_owned(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        until: None,
        removed: None,
    };
    let entry = Entry {
        rule,
        spans: HashMap::new(),
        skipped: Arc::default(),
        undecided: vec![],
        effective_at: None,
    };
    rules.publish(Table::new(vec![entry], HashMap::new()));
    Arc::new(rules)
}

fn serve(registry: Registry, token: Option<&str>) -> Server {
    let gate = Gate::new(token.map(|token| Secret(token.to_owned())));
    let routes = with_page(Routes::new(), &Arc::new(registry), &rules(), &gate);
    admin::start(SocketAddr::from(([127, 0, 0, 1], 0)), routes).unwrap()
}

/// Head and body.
fn ask(server: &Server, path: &str) -> (String, String) {
    let answer = admin::tests::ask(server, &format!("GET {path}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn status(server: &Server) -> Document {
    serde_json::from_str(&ask(server, "/api/status").1).unwrap()
}

#[test]
fn the_page_may_run_its_own_script_and_nothing_else() {
    let server = serve(registry(1, 0..2), None);
    let (head, body) = ask(&server, "/status");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let inside = |begin, end| body.split_once(begin).unwrap().1.split_once(end).unwrap().0;
    let script = content_hash(inside("<script>", "</script>"));
    let style = content_hash(inside("<style>", "</style>"));
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self';"
    );
    assert!(head.contains(&policy), "{head}");
    assert!(!body.contains("/* scripts */") && !body.contains("/* page.css */"));
    // Nothing comes from elsewhere; a name space is no address.
    let addresses = body.matches("http://").count() + body.matches("https://").count();
    assert_eq!(
        addresses,
        body.matches("http://www.w3.org/2000/svg").count()
    );
    let (head, _) = ask(&server, "/");
    assert!(
        head.starts_with("HTTP/1.1 302") && head.contains("location: /status"),
        "{head}"
    );
}

#[test]
fn the_document_shows_what_the_process_recorded() {
    let registry = registry(4, 0..8);
    behind(&registry);
    registry.partition(Partition(7)).end_offset.set(-1);
    registry.shards[1].write_rate_max.set(500);
    Sampler::default().look(&registry, crate::clock::now());
    let shown = status(&serve(registry, None));
    assert_eq!(
        (shown.topic.as_str(), shown.partitions_of_topic),
        ("updates", 8)
    );
    assert_eq!(shown.partitions.number, (0..8).collect::<Vec<_>>());
    assert_eq!(shown.partitions.lag, [0, 0, 0, 50, 0, 0, 0, -1]);
    assert!((120_000..125_000).contains(&shown.partitions.time_lag_ms[3]));
    let [a, b] = &shown.shards[..] else {
        panic!("two shards")
    };
    assert_eq!((a.lag, a.behind, a.oldest_partition), (50, 1, 3));
    assert_eq!((a.apps.as_str(), b.apps.as_str()), ("00–7f", "80–ff"));
    assert_eq!((b.partitions, b.here, b.bound), ((4, 4), 4, 500));
    assert_eq!(a.connections, [1, 0, 0]);
    assert_eq!(
        (shown.now.lag, shown.now.in_memory, shown.now.assigned),
        (50, 20, 8)
    );
    assert_eq!(shown.history.lag, [50]);
    assert_eq!(
        (shown.rules.active, shown.rules.shown[0].reason.as_str()),
        (1, "<b>why</b>")
    );
    assert_eq!(shown.changes, "open");
    assert!(shown.processes.is_empty());
    let first = &shown.findings[0];
    assert_eq!(
        first.what,
        "Partition 3 of shard a (apps 00–7f) is 2 min behind"
    );
}

#[test]
fn who_needs_the_token_is_told() {
    assert_eq!(
        status(&serve(registry(1, 0..2), Some("secret"))).changes,
        "token"
    );
}

#[test]
fn a_start_that_waits_says_for_what() {
    let registry = Registry::new(1, vec![ShardIndex(0)], vec!["a".to_owned()]);
    registry.page.wait_for("Kafka at k1:9092 does not answer");
    let shown = status(&serve(registry, None));
    assert_eq!(shown.findings[0].id, "starting");
    assert_eq!(shown.findings[0].why, "Kafka at k1:9092 does not answer");
}

#[test]
fn at_720_partitions_the_document_is_small_and_comes_at_once() {
    let registry = registry(360, 0..720);
    let mut sampler = Sampler::default();
    let begin = crate::clock::now();
    for second in 0..1000 {
        sampler.look(&registry, begin + Duration::from_secs(second));
    }
    let server = serve(registry, None);
    // The best of some: the machine may be busy with other tests.
    let asked = (0..5).map(|_| {
        let asked = Instant::now();
        let (_, body) = ask(&server, "/api/status");
        assert!(body.len() < 64 << 10, "{}", body.len());
        asked.elapsed()
    });
    let best = asked.min().unwrap();
    assert!(best < Duration::from_millis(100), "{best:?}");
}

/// Asks until the peers have been asked.
fn joined(server: &Server, is_there: impl Fn(&Document) -> bool) -> Document {
    for _ in 0..100 {
        let shown = status(server);
        if is_there(&shown) {
            return shown;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the peers did not come: {:?}", status(server).processes);
}

#[test]
fn all_processes_of_the_group_are_one_picture() {
    let theirs = registry(4, 4..8);
    theirs.partition(Partition(5)).alarm.set(1);
    let mut theirs = theirs;
    // Another process of the same machine, as far as anybody can tell.
    theirs.page.about.host = "other".to_owned();
    let peer = serve(theirs, None);
    let gone = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut own = registry(4, 0..4);
    own.page.about.peers = vec![peer.address().to_string(), gone.to_string()];
    let server = serve(own, None);
    let shown = joined(&server, |of| {
        of.processes.iter().any(|one| one.process.host == "other")
    });
    assert_eq!(shown.partitions.number, (0..8).collect::<Vec<_>>());
    assert_eq!(shown.partitions.process, [0, 0, 0, 0, 1, 1, 1, 1]);
    let [own, other, away] = &shown.processes[..] else {
        panic!("{:?}", shown.processes)
    };
    assert_eq!((own.address.as_str(), own.level), ("", Level::Info));
    assert_eq!((other.now.assigned, other.level), (4, Level::Bad));
    assert!(!away.error.is_empty());
    let (first, second) = (&shown.findings[0], &shown.findings[1]);
    let address = peer.address();
    assert_eq!(
        first.what,
        format!("{address}: Partition 5 of shard b (apps 80–ff) stands still")
    );
    assert_eq!(second.what, format!("The process at {gone} can't be shown"));
    assert!(
        shown
            .findings
            .iter()
            .all(|finding| finding.level < Level::Good)
    );
    // A peer is asked for itself alone.
    let (_, body) = ask(&server, "/api/status?alone");
    let alone: Document = serde_json::from_str(&body).unwrap();
    assert!(alone.processes.is_empty());
}
