//! The configuration as a whole: a text, variables and flags in, values or problems out.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::checked::{OnMissingRow, PostgresTls, Secret};
use super::*;

mod shards;
mod tables;

const ONE_SHARD: &str = "[[shard]]\nname = \"a\"\napps = \"00-ff\"\n\
                         postgres = \"host=127.0.0.1 dbname=millpond user=millpond\"\n";

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn load_text(text: &str) -> Loaded {
    load(&Sources::of_text(text)).unwrap()
}

/// One shard, with these lines before it.
fn load_with(lines: &str) -> Result<Loaded, ConfigError> {
    load(&Sources::of_text(&format!("{lines}\n{ONE_SHARD}")))
}

fn problems_of(sources: &Sources) -> Vec<String> {
    let error = load(sources).expect_err("this must be refused");
    error.problems.iter().map(Problem::to_string).collect()
}

/// The one problem of a file with these lines.
fn problem_of(lines: &str) -> String {
    let problems = problems_of(&Sources::of_text(&format!("{lines}\n{ONE_SHARD}")));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

/// The value and origin that `config show` prints.
fn shown(loaded: &Loaded, key: &str) -> (String, String) {
    let value = loaded.values.iter().find(|value| value.key == key).unwrap();
    (value.value.clone(), value.origin.to_string())
}

fn two_shards(apps_a: &str, apps_b: &str) -> String {
    format!(
        "[[shard]]\nname = \"a\"\napps = \"{apps_a}\"\npostgres = \"host=localhost\"\n\
         [[shard]]\nname = \"b\"\napps = \"{apps_b}\"\npostgres = \"host=localhost\"\n"
    )
}

#[test]
fn the_example_holds_every_setting_at_its_default() {
    let example = load_text(EXAMPLE);
    let defaults = load_text(ONE_SHARD);
    assert_eq!(example.warnings, []);
    for (example, default) in example.values.iter().zip(&defaults.values) {
        assert_eq!(
            (&example.key, &example.value),
            (&default.key, &default.value)
        );
        let in_file = matches!(example.origin, Origin::File { .. });
        assert!(
            in_file || example.key == "shard.a.postgres_password",
            "{}",
            example.key
        );
    }
    assert_eq!(example.values.len(), defaults.values.len());
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let mut sources = Sources::of_text(&format!("[consumer]\nbatch_rows_max = 2\n{ONE_SHARD}"));
    let key = "consumer.batch_rows_max";
    let shown_now = |sources: &Sources| shown(&load(sources).unwrap(), key);
    assert_eq!(
        shown(&load_text(ONE_SHARD), key),
        ("1000".into(), "default".into())
    );
    assert_eq!(shown_now(&sources), ("2".into(), "(text):2".into()));
    sources.environment = pairs(&[("MILLPOND_CONSUMER_BATCH_ROWS_MAX", "3")]);
    let variable = "environment MILLPOND_CONSUMER_BATCH_ROWS_MAX".to_owned();
    assert_eq!(shown_now(&sources), ("3".into(), variable));
    sources.flags = pairs(&[(key, "4"), (key, "5")]);
    assert_eq!(shown_now(&sources), ("5".into(), "flag --set".into()));
    assert_eq!(load(&sources).unwrap().config.consumer.batch_rows_max, 5);
}

#[test]
fn lists_come_from_file_variable_and_flag() {
    let groups = |sources: &Sources| load(sources).unwrap().config.consumer.core_groups;
    let mut sources = Sources::of_text(&format!(
        "[consumer]\ncore_groups = [\"0\", \"1\"]\n{ONE_SHARD}"
    ));
    assert_eq!(groups(&sources), [vec![0], vec![1]]);
    sources.environment = pairs(&[("MILLPOND_CONSUMER_CORE_GROUPS", "0-1,4")]);
    assert_eq!(groups(&sources), [vec![0, 1, 4]]);
    sources.flags = pairs(&[("consumer.core_groups", r#"["2", "3"]"#)]);
    assert_eq!(groups(&sources), [vec![2], vec![3]]);
    for auto in ["auto", r#"["auto"]"#] {
        sources.flags = pairs(&[("consumer.core_groups", auto)]);
        assert_eq!(groups(&sources), crate::cores::nodes().unwrap());
    }
}

#[test]
fn zero_is_no_bound_where_the_setting_says_so() {
    let config = load_with("[rules]\nlinks_per_parent_max = 0")
        .unwrap()
        .config;
    assert_eq!(config.rules.links_per_parent_max, None);
    assert_eq!(config.shards[0].write_rate_max, None);
    let config = load_text(ONE_SHARD).config;
    assert_eq!(config.rules.links_per_parent_max, Some(1000));
}

#[test]
fn the_dead_letter_topic_follows_the_topic_unless_named() {
    let topic = |lines: &str| load_with(lines).unwrap().config.kafka.dead_letter_topic;
    assert_eq!(topic("[kafka]\ntopic = \"t\""), "t.dlq");
    assert_eq!(
        topic("[kafka]\ntopic = \"t\"\ndead_letter_topic = \"d\""),
        "d"
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
    let problem = problem_of("[consumer]\n\nbatch_row_max = 5");
    assert_eq!(
        problem,
        "(text):3: `consumer.batch_row_max` is no setting; did you mean `consumer.batch_rows_max`?"
    );
    assert!(problem_of("brokers = \"b:1\"").contains("did you mean `kafka.brokers`?"));
    assert!(problem_of("[zzz]\nqqq = 1").contains("millpond config example"));
}

#[test]
fn an_unknown_variable_or_flag_is_refused_with_the_nearest_name() {
    let mut sources = Sources::of_text(ONE_SHARD);
    sources.environment = pairs(&[
        ("MILLPOND_KAFKA_BROKER", "b:1"),
        ("MILLPOND_SHARD_B_WORKERS", "1"),
        ("MILLPOND_TEST_KAFKA", "b:1"),
        ("MILLPOND_CONFIG", "f"),
        ("MILLPOND_SERVICE_HOST", "10.0.0.1"),
        ("MILLPOND_ADMIN_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ]);
    sources.flags = pairs(&[("kafka.topik", "t"), ("shard.b.workers", "1")]);
    let problems = problems_of(&sources);
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems[0].contains("did you mean `MILLPOND_KAFKA_BROKERS`?"));
    assert!(problems[1].contains("did you mean `MILLPOND_SHARD_A_WORKERS`?"));
    assert!(
        problems[2]
            .starts_with("flag --set: `kafka.topik` is no setting; did you mean `kafka.topic`?")
    );
    assert!(problems[3].contains("shards are given as [[shard]] in the file"));
}

#[test]
fn every_value_out_of_bounds_is_reported_at_once() {
    let text = format!(
        "[kafka]\npartitions = 0\npartition_by = \"row\"\ntopic = \"a b\"\nbrokers = \"\"\nincarnation = 0\n\
         [consumer]\nbatch_rows_max = \"many\"\nin_memory_bytes_max = \"1KB\"\ncore_groups = [\"0-1\", \"1\"]\n\
         [admin]\nlisten = \"localhost\"\n[telemetry]\nsample_ratio = 1.5\notlp_endpoint = \"collector\"\n{ONE_SHARD}"
    );
    let problems = problems_of(&Sources::of_text(&text));
    let names: Vec<&str> = problems
        .iter()
        .map(|problem| problem.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "kafka.topic",
            "kafka.brokers",
            "kafka.partition_by",
            "kafka.incarnation",
            "kafka.partitions",
            "consumer.core_groups",
            "consumer.in_memory_bytes_max",
            "consumer.batch_rows_max",
            "admin.listen",
            "telemetry.otlp_endpoint",
            "telemetry.sample_ratio",
        ]
    );
    assert!(problems[7].starts_with(
        "(text):8: consumer.batch_rows_max: found many, allowed is 1 to 30000 rows: a statement holds"
    ));
}

#[test]
fn numbers_are_accepted_up_to_their_bounds_and_not_beyond() {
    for (key, min, max) in [
        ("kafka.partitions", "1", "100000"),
        ("kafka.incarnation", "1", "2147483647"),
        ("consumer.in_memory_max_per_partition", "1", "1048576"),
        ("consumer.batch_rows_max", "1", "30000"),
        ("consumer.batch_linger_ms", "0", "1000"),
        ("consumer.commit_interval_ms", "10", "60000"),
        ("consumer.drain_deadline_s", "1", "300"),
        ("consumer.revoke_deadline_s", "1", "60"),
        ("shard.a.workers", "1", "64"),
        ("rules.links_per_parent_max", "0", "2147483647"),
        ("telemetry.applied_sample", "0", "1000000000"),
        ("telemetry.sample_ratio", "0", "1"),
    ] {
        let loads = |value: &str| {
            let mut sources = Sources::of_text(ONE_SHARD);
            sources.flags = pairs(&[(key, value)]);
            load(&sources).is_ok()
        };
        assert!(loads(min) && loads(max), "{key}");
        let beyond = |bound: &str, step: i64| (bound.parse::<i64>().unwrap() + step).to_string();
        assert!(!loads(&beyond(min, -1)) && !loads(&beyond(max, 1)), "{key}");
    }
}

#[test]
fn relations_between_settings_are_held() {
    let two = two_shards("00-7f", "80-ff");
    for (text, expected) in [
        (
            format!("[kafka]\npartitions = 7\n{two}"),
            "found 7, which can't be divided evenly between 2 shards; nearest is 6 or 8",
        ),
        (format!("[kafka]\npartitions = 1\n{two}"), "nearest is 2"),
        (
            format!("[kafka]\npartition_by = \"any\"\n{two}"),
            "but there are 2 shards",
        ),
        (
            format!("[kafka]\ndead_letter_topic = \"subscription-updates\"\n{two}"),
            "is the topic of updates",
        ),
        (
            format!(
                "[consumer]\nin_memory_bytes_max = \"1MiB\"\nmessage_max_bytes = \"2MiB\"\n{two}"
            ),
            "consumer.message_max_bytes: found 2MiB, more than consumer.in_memory_bytes_max (1MiB)",
        ),
        (
            format!("[ingest]\nbody_max_bytes = \"1MiB\"\n{two}"),
            "ingest.body_max_bytes: found 1MiB, more than consumer.message_max_bytes (262144)",
        ),
        (
            format!("[kafka.librdkafka]\n\"max.poll.interval.ms\" = 9999\n{two}"),
            "consumer.revoke_deadline_s: found 5, more than half",
        ),
    ] {
        let problems = problems_of(&Sources::of_text(&text));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains(expected), "{}", problems[0]);
    }
    assert!(load_with("[kafka]\npartition_by = \"any\"").is_ok());
}

#[test]
fn the_edge_wants_tokens_unless_on_loopback() {
    assert!(problem_of("[ingest]\nlisten = \"0.0.0.0:8080\"").contains("so anyone could write"));
    assert!(problem_of("[ingest]\ntokens = [\"two words\"]").contains("can't be sent in a header"));
    let loaded = load_with("[ingest]\nlisten = \"0.0.0.0:8080\"\ntokens = [\"t0k\"]").unwrap();
    assert_eq!(loaded.config.ingest.tokens, [Secret("t0k".into())]);
    assert!(load_with("[admin]\nlisten = \"0.0.0.0:9464\"").is_ok());
}

#[test]
fn peers_are_addresses_and_not_too_many() {
    let peers = |peers: &str| format!("[admin]\npeers = [{peers}]");
    let loaded = load_with(&peers("\"box-2:9464\", \"[::1]:9464\"")).unwrap();
    assert_eq!(loaded.config.admin.peers, ["box-2:9464", "[::1]:9464"]);
    for wrong in ["box", ":9464", "box:0", "http://box:9464", "box:9464/x"] {
        let problem = problem_of(&peers(&format!("\"{wrong}\"")));
        assert!(problem.contains("allowed is host:port"), "{problem}");
    }
    let many = vec!["\"box:9464\""; 65].join(", ");
    assert!(problem_of(&peers(&many)).contains("found 65, allowed are 64"));
}

#[test]
fn no_secret_is_ever_shown() {
    let mut sources = Sources::of_text(
        "[ingest]\ntokens = [\"hunter2\"]\n[admin]\ntoken = \"hunter2\"\n\
         [kafka.librdkafka]\n\"sasl.password\" = \"hunter2\"\n\
         \"sasl.oauthbearer.assertion.private.key.passphrase\" = \"hunter2\"\n\
         [[shard]]\nname = \"a\"\napps = \"00-7f\"\npostgres = \"host=localhost password=hunter2\"\n\
         [[shard]]\nname = \"b\"\napps = \"80-ff\"\npostgres = \"host=localhost user=me\"\n",
    );
    sources.environment = pairs(&[("MILLPOND_SHARD_B_POSTGRES_PASSWORD", "hunter2")]);
    let loaded = load(&sources).unwrap();
    let printed = format!("{}{:?}{loaded:?}", table(&loaded.values), loaded.warnings);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(shown(&loaded, "ingest.tokens").0, "(hidden)");
    assert_eq!(
        shown(&loaded, "shard.b.postgres").0,
        "host=localhost user=me"
    );
    assert_eq!(shown(&loaded, "shard.a.postgres_password").0, "\"\"");
    let warned = |start: &str| loaded.warnings.iter().any(|it| it.text.starts_with(start));
    assert!(warned("shard.a.postgres: holds the password"));
    assert!(warned("kafka.librdkafka.sasl.password: stands where"));

    let text = two_shards("00-7f", "80-ff").replace("localhost", "localhost passwrd=hunter2");
    let problems = problems_of(&Sources::of_text(&text));
    assert!(
        problems[0].contains("unknown option `passwrd`"),
        "{problems:?}"
    );
    assert!(!problems.concat().contains("hunter2"), "{problems:?}");
}

#[test]
fn librdkafka_settings_pass_through_in_order_and_can_be_overridden() {
    let mut sources = Sources::of_text(&format!(
        "[kafka.librdkafka]\n\"security.protocol\" = \"ssl\"\nlinger.ms = 5\n\"check.crcs\" = true\n{ONE_SHARD}"
    ));
    sources.environment = pairs(&[("MILLPOND_KAFKA_LIBRDKAFKA_SASL_PASSWORD", "secret")]);
    sources.librdkafka = pairs(&[("linger.ms", "10"), ("client.id", "me")]);
    let loaded = load(&sources).unwrap();
    let expected = [
        ("security.protocol", "ssl"),
        ("linger.ms", "10"),
        ("check.crcs", "true"),
        ("sasl.password", "secret"),
        ("client.id", "me"),
    ];
    assert_eq!(loaded.config.kafka.librdkafka, pairs(&expected));
    assert_eq!(
        shown(&loaded, "kafka.librdkafka.linger.ms"),
        ("10".into(), "flag -X".into())
    );
}

#[test]
fn librdkafka_settings_that_undo_a_guarantee_are_refused_with_the_reason() {
    for (name, reason) in [
        ("enable.auto.commit", "only Millpond commits"),
        ("enable.auto.offset.store", "only Millpond commits"),
        ("auto.offset.reset", "`kafka.start`"),
        ("isolation.level", "aborted transaction"),
        ("enable.idempotence", "twice"),
        ("acks", "could be lost"),
        ("request.required.acks", "could be lost"),
        ("partitioner", "wrong shard"),
        ("group.id", "`kafka.group`"),
        ("bootstrap.servers", "`kafka.brokers`"),
        ("metadata.broker.list", "`kafka.brokers`"),
        ("enable.partition.eof", "positions"),
    ] {
        let mut sources = Sources::of_text(ONE_SHARD);
        sources.librdkafka = pairs(&[(name, "x")]);
        let problems = problems_of(&sources);
        let start = format!("flag -X: kafka.librdkafka.{name} can't be set: ");
        assert!(
            problems[0].starts_with(&start) && problems[0].contains(reason),
            "{problems:?}"
        );
    }
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let mut sources = Sources::of_text("");
    sources.file = File::At("no/such/millpond.toml".into());
    assert_eq!(
        problems_of(&sources)[0],
        "no/such/millpond.toml: there is no such file; make one with `millpond config example > millpond.toml`, \
         or name another with --config"
    );
}

#[test]
fn words_become_their_meaning() {
    let config = load_with("[consumer]\non_missing_row = \"skip\"")
        .unwrap()
        .config;
    assert_eq!(config.consumer.on_missing_row, OnMissingRow::Skip);
    assert!(
        problem_of("[consumer]\non_missing_row = \"drop\"")
            .ends_with("found drop, allowed is \"insert\" or \"skip\"")
    );
    assert_eq!(config.shards[0].postgres.tls, PostgresTls::Disable);
}
