//! SIGHUP: the configuration is read again while messages may flow.

use crate::pond::{Pond, Shape};
use crate::workers::{SOON, running, workers};
use serde_json::Value;

#[test]
fn sighup_applies_what_can_change_and_says_what_can_not() {
    let pond = Pond::new("hangup", &Shape::default());
    let consumer = running(&pond, &[]);
    let group = format!("group = \"{}\"", pond.topic);
    pond.reconfigure(&group, "group = \"another\"");
    pond.reconfigure(
        "[consumer]",
        "[rules]\nlinks_per_parent_max = 7\n[consumer]\nin_memory_bytes_max = \"128MiB\"",
    );
    pond.reconfigure("workers = 2", "workers = 3\nwrite_rate_max = 5000");
    consumer.signal("-HUP");
    pond.wait_for("workers are changed", SOON, |_| {
        consumer.has_said("shard.s1.write_rate_max")
    });
    for shard in 0..2 {
        let now = workers(&pond, shard);
        assert_eq!(
            (&now["workers"], &now["configured"]),
            (&3.into(), &3.into())
        );
    }
    assert_eq!(pond.metric("millpond_write_rate_max"), Some(10_000.0));
    // What needs a restart is said again; what was applied is not.
    pond.reconfigure(
        "[rules]\nlinks_per_parent_max = 7",
        "[telemetry]\nlog = \"text\"\n[rules]\nlinks_per_parent_max = 0",
    );
    consumer.signal("-HUP");
    pond.wait_for("lines are text", SOON, |_| {
        consumer.has_said(" key=\"telemetry.log\"")
    });
    pond.reconfigure("links_per_parent_max = 0", "links_per_parent_max = -1");
    consumer.signal("-HUP");
    pond.wait_for("errors are said", SOON, |_| {
        consumer.has_said("nothing is changed")
    });
    let ended = consumer.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
    let lines: Vec<Value> = ended
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let said = |key: &str| -> Vec<(&str, &str, &str)> {
        let of_key = lines.iter().filter(|line| line["key"] == key);
        let text =
            |line: &'_ Value, name: &str| line[name].as_str().unwrap().to_owned().leak() as &str;
        of_key
            .map(|line| (text(line, "level"), text(line, "from"), text(line, "to")))
            .collect()
    };
    assert_eq!(said("shard.s0.workers"), [("INFO", "2", "3")]);
    assert_eq!(said("shard.s1.write_rate_max"), [("INFO", "0", "5000")]);
    assert_eq!(
        said("consumer.in_memory_bytes_max"),
        [("INFO", "256MiB", "128MiB")]
    );
    assert_eq!(
        said("rules.links_per_parent_max"),
        [("INFO", "1000", "7"), ("INFO", "7", "0")]
    );
    let needs_restart = ("WARN", pond.topic.as_str(), "another");
    assert_eq!(said("kafka.group"), [needs_restart, needs_restart]);
    assert!(
        ended.stderr.contains("links_per_parent_max: found -1"),
        "{}",
        ended.stderr
    );
}
