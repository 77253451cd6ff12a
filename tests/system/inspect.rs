//! What looks from outside agrees with Kafka's own tools.

use crate::child::{Ended, Process};
use crate::pond::{Pond, Shape, environment};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// The timestamp of the first message; each next one is a second later.
const FIRST_MS: i64 = 1_700_000_000_000;
const MESSAGES: i64 = 40;

/// Values as nobody hopes for: null, empty, with line ends, quotes, NUL, and bytes that are no text.
const VALUES: [Option<&[u8]>; 7] = [
    Some(b"{\"a\":1}"),
    None,
    Some(b""),
    Some(b"two\nlines\r\n\ttab \\ \"quoted\" /slash"),
    Some(b"\xff\xfe\x00\x80 odd \xc3\xa9 \xc3"),
    Some("東京 \u{1f40e}".as_bytes()),
    Some(b"\x01\x1b[31m\x7f"),
];
const KEYS: [Option<&[u8]>; 4] = [Some(b"k"), None, Some(b"k\xf0\"y"), Some(b"a,b=c")];

/// Onto two partitions in turn, with headers on every third.
fn produce_odd_ones(pond: &Pond) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", environment("MILLPOND_TEST_KAFKA"))
        .create()
        .unwrap();
    let all = VALUES.iter().cycle().zip(KEYS.iter().cycle());
    for (number, (value, key)) in (0..MESSAGES).zip(all) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&pond.topic)
            .partition(i32::try_from(number % 2).unwrap())
            .timestamp(FIRST_MS + number * 1000);
        (record.key, record.payload) = (*key, *value);
        if number % 3 == 0 {
            let header = |key, value| Header { key, value };
            let headers = OwnedHeaders::new()
                .insert(header("traceparent", Some(b"00-1-2-01".as_slice())))
                .insert(header("odd", Some(b"\xfe,=".as_slice())))
                .insert(header("empty", Some(b"".as_slice())))
                .insert(header("none", None::<&[u8]>));
            record.headers = Some(headers);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(SOON).unwrap();
}

/// What kcat prints of the topic.
fn kcat(pond: &Pond, arguments: &[&str]) -> Vec<u8> {
    let brokers = environment("MILLPOND_TEST_KAFKA");
    let ran = Command::new("kcat")
        .args(["-C", "-q", "-e", "-b", &brokers, "-t", &pond.topic])
        .args(arguments)
        .output()
        .expect("kcat is installed (tests/install)");
    assert!(ran.status.success(), "{ran:?}");
    ran.stdout
}

/// What inspect prints, byte by byte.
fn inspect(pond: &Pond, arguments: &[&str]) -> Vec<u8> {
    let ran = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(["inspect", "-e", "--config", pond.config.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    ran.stdout
}

/// JSON lines, with U+FFFD for what is no text.
fn json_lines(text: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(serde_json::from_str);
    lines
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn inspect_prints_byte_by_byte_what_kcat_prints() {
    let shape = Shape {
        partitions: 2,
        ..Shape::default()
    };
    let pond = Pond::new("kcat", &shape);
    produce_odd_ones(&pond);
    let format = r"%t|%p|%o|%T|%K:%k|%S:%s|%R|%h|100%%\t\x41\n";
    let since = format!("s@{}", FIRST_MS + 7_500);
    let until = format!("e@{}", FIRST_MS + 30_000);
    for (offsets, expected) in [
        (vec![], 20),
        (vec!["-o", "beginning"], 20),
        (vec!["-o", "end"], 0),
        (vec!["-o", "5"], 15),
        (vec!["-o", "-3"], 3),
        (vec!["-o", &since], 16),
        (vec!["-o", &since, "-o", &until], 11),
        (vec!["-c", "4"], 4),
    ] {
        let kcat = kcat(&pond, &[&["-p", "0", "-f", format], &*offsets].concat());
        let inspect = inspect(
            &pond,
            &[&["--partition", "0", "-f", format], &*offsets].concat(),
        );
        assert_eq!(
            inspect,
            kcat,
            "{offsets:?}\n{}",
            String::from_utf8_lossy(&inspect)
        );
        let lines = kcat.windows(6).filter(|window| window == b"100%\tA");
        assert_eq!(lines.count(), expected, "{offsets:?}");
    }
    let sorted = |mut lines: Vec<Value>| {
        lines.sort_by_key(|line| (line["partition"].as_i64(), line["offset"].as_i64()));
        lines
    };
    let (kcat, inspect) = (kcat(&pond, &["-J"]), inspect(&pond, &["-J"]));
    let (kcat, inspect) = (sorted(json_lines(&kcat)), sorted(json_lines(&inspect)));
    assert_eq!(inspect.len(), 40);
    assert_eq!(inspect, kcat);
    assert!(
        pond.committed().iter().all(Option::is_none),
        "nothing was committed"
    );
}

/// Groups as inspect counts them: what they are grouped by, and how many messages they have.
fn groups(ended: &Ended, name: &str) -> Vec<(String, i64)> {
    assert!(ended.status.success(), "{}", ended.stderr);
    let lines = json_lines(ended.stdout.as_bytes());
    let group = |line: &Value| {
        let name = line[name].as_str().unwrap_or("(none)").to_owned();
        (name, line["messages"].as_i64().unwrap())
    };
    lines.iter().map(group).collect()
}

const APPS: [&str; 3] = [
    "5eb5a37e-b458-11e3-ac11-000c2940e62c",
    "00000000-0000-0000-0000-000000000001",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
];

/// App `at` has 10, 20 or 30 updates; of each ten of them the level is 0 to 9.
fn produce_three_apps(pond: &Pond) {
    for (app, tens) in APPS.iter().zip(1..) {
        let update = |number: i64| {
            let key = format!("00000000-0000-0000-0000-{:012}", number % 5);
            // The id in other spellings, too.
            let app = match number % 3 {
                0 => app.to_uppercase(),
                1 => app.replace('-', ""),
                _ => (*app).to_owned(),
            };
            let value = format!(
                r#"{{"app_id":"{app}","subscription_id":"{key}","tags":{{"level":{},"first.name":"J\u006fn"}}}}"#,
                number % 10
            );
            (key, value)
        };
        let updates: Vec<(String, String)> = (0..tens * 10).map(update).collect();
        pond.produce_to(pond.partition_of(app), &updates);
    }
    pond.produce_to(0, &[("k".to_owned(), "no json".to_owned())]);
}

#[test]
fn filters_and_groups_count_what_was_produced() {
    let pond = Pond::new("groups", &Shape::default());
    produce_three_apps(&pond);
    let counted = |arguments: &[&str], name: &str| {
        let ended = pond.command(&[&["inspect", "-e", "-J"], arguments].concat());
        groups(&ended, name)
    };
    let by_app = [(APPS[2], 30), (APPS[1], 20), (APPS[0], 10), ("(none)", 1)];
    let by_app = by_app.map(|(app, count)| (app.to_owned(), count)).to_vec();
    assert_eq!(counted(&["--group-by", "app"], "app_id"), by_app);
    let by_row = counted(
        &["--app", APPS[1], "--group-by", "subscription"],
        "subscription_id",
    );
    assert_eq!(by_row.len(), 5);
    assert!(by_row.iter().all(|(_, count)| *count == 4), "{by_row:?}");
    let total = |arguments: &[&str]| {
        let groups = counted(&[arguments, &["--every", "1h"]].concat(), "");
        groups.iter().map(|(_, count)| count).sum::<i64>()
    };
    assert_eq!(total(&[]), 61);
    for (condition, expected) in [
        (["tags.level", ">", "6"], 18),
        (["tags.level", "!=", "3"], 55),
        (["tags.\"first.name\"", "=", "Jon"], 60),
        (["app_id", "=", APPS[0]], 10),
        (["subscription_id", "~", "-0+2$"], 12),
        (["value", "~", "^no"], 1),
        (["size", "<", "10"], 1),
        (["timestamp", ">", "-1h"], 61),
        (["timestamp", "<", "-1h"], 0),
    ] {
        assert_eq!(
            total(&[&["--where"], &condition[..]].concat()),
            expected,
            "{condition:?}"
        );
    }
    let level = [
        "--where",
        "tags.level",
        ">",
        "6",
        "--where",
        "tags.level",
        "<",
        "8",
    ];
    assert_eq!(total(&[&["--app", APPS[2]], &level[..]].concat()), 3);
    refused(&pond);
    follows_until_interrupted(&pond, &by_app);
}

/// Each is refused with an example that is right.
fn refused(pond: &Pond) {
    for (arguments, hint) in [
        (vec!["-o", "start"], "s@-15m"),
        (vec!["--where", "tags..x", "=", "1"], "tags.first_name"),
        (vec!["--where", "tags.x", "is", "1"], "= != < > ~"),
        (vec!["-f", "%q"], "%p %o %k"),
        (vec!["--group-by", "tags."], "app, subscription or a PATH"),
        (vec!["--partition", "12"], "0 to 11"),
        (vec!["--app", "x"], APPS[0]),
        (vec!["--every", "0s"], "10s, 1m or 1h"),
    ] {
        let ended = pond.command(&[&["inspect", "-e"], &*arguments].concat());
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(
            ended.stderr.contains(hint),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}

fn follows_until_interrupted(pond: &Pond, by_app: &[(String, i64)]) {
    let following = pond.start(&["inspect", "-J", "--group-by", "app"], &[]);
    pond.wait_for("it has read all", SOON, |_| {
        following.has_said("no more messages for now")
    });
    following.signal("-INT");
    assert_eq!(groups(&following.wait(SOON), "app_id"), by_app);
}

/// Partition, committed offset, end and lag, as kafka-consumer-groups prints them.
fn consumer_groups(pond: &Pond) -> Vec<[String; 4]> {
    let ran = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services"))
        .args(["kafka-tool", &environment("MILLPOND_TEST_DIR")])
        .args(["consumer.group.ConsumerGroupCommand", "--describe"])
        .args(["--bootstrap-server", &environment("MILLPOND_TEST_KAFKA")])
        .args(["--group", &pond.topic])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.filter(|cells| cells.len() > 5 && cells[1] == pond.topic);
    let mut rows: Vec<[String; 4]> = ours
        .map(|cells| [2, 3, 4, 5].map(|at| cells[at].to_owned()))
        .collect();
    rows.sort_by_key(|[partition, ..]| partition.parse::<i32>().unwrap());
    assert!(!rows.is_empty(), "{ran:?}");
    rows
}

/// The same by `millpond lag`, of partitions that the group has committed.
fn lag(pond: &Pond) -> Vec<[String; 4]> {
    let lags = pond.good(&["lag", "--format", "json"]).json();
    let names = ["partition", "current_offset", "log_end_offset", "lag"];
    let rows = lags.as_array().unwrap().iter();
    let known = rows.filter(|row| !row["current_offset"].is_null());
    known
        .map(|row| names.map(|name| row[name].to_string()))
        .collect()
}

/// Shows a consumer that is at work.
fn assert_top_shows(pond: &Pond, consumer: &mut Process) {
    let mut shown = String::new();
    // Workers leave their counts of rows once a second, and a picture is made of these once a second.
    pond.wait_for("the rows are counted", SOON, |pond| {
        shown = pond.good(&["top", "--once"]).stdout;
        shown.contains("HOTTEST ROWS")
    });
    println!("{shown}");
    assert!(consumer.is_running());
    let lines: Vec<&str> = shown.lines().collect();
    let version = format!(
        "millpond {} at 127.0.0.1:{}",
        env!("CARGO_PKG_VERSION"),
        pond.admin_port
    );
    assert_eq!(lines[0], version);
    let line = |start: &str| lines.iter().find(|line| line.starts_with(start)).unwrap();
    line("ready ");
    assert!(line("process ").ends_with("partitions 12"));
    for (shard, apps) in [("s0", "00-7f"), ("s1", "80-ff")] {
        let cells: Vec<&str> = line(shard).split_whitespace().collect();
        assert_eq!(cells[1..3], [apps, "yes"], "{cells:?}");
        let connections = cells[9]
            .split('/')
            .map(|count| count.parse::<u32>().unwrap());
        assert_eq!(connections.sum::<u32>(), 2, "{cells:?}");
    }
    assert!(line("HOTTEST ROWS").contains("DB-TIME"));
    assert!(!shown.contains('\x1b'), "no escape codes");
}

#[test]
fn lag_agrees_with_kafkas_own_tool_and_top_shows_the_consumer() {
    let pond = Pond::new("behind", &Shape::default());
    pond.load(&["--messages", "3000", "--apps", "6"]);
    let mut consumer = pond.start(&["run"], &[]);
    pond.wait_for("all is committed", SOON, |pond| {
        pond.metric("millpond_messages_total") == Some(3000.0)
            && lag(pond).iter().all(|row| row[3] == "0")
    });
    assert_top_shows(&pond, &mut consumer);
    assert!(consumer.terminate(SOON).status.success());
    let nobody = pond.command(&["top", "--once"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        nobody.stderr.contains("no consumer answers at"),
        "{}",
        nobody.stderr
    );
    pond.load(&["--messages", "500", "--apps", "6"]);
    let ours = lag(&pond);
    let behind: i64 = ours.iter().map(|row| row[3].parse::<i64>().unwrap()).sum();
    assert!((1..=500).contains(&behind), "{ours:?}");
    assert_eq!(ours, consumer_groups(&pond));
}
