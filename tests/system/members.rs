//! Processes of a group come and go while messages flow.

use crate::child::Process;
use crate::pond::{Pond, Shape, free_port};
use crate::reading::Reading;
use std::time::Duration;

const CAUGHT_UP: Duration = Duration::from_secs(120);
/// A member that is told to leave has left by then.
const LEFT: Duration = Duration::from_secs(30);

fn pond(name: &str, partitions: u32) -> Pond {
    let shape = Shape {
        partitions,
        ..Shape::default()
    };
    Pond::new(name, &shape)
}

#[test]
fn two_then_three_then_two_members_leave_every_row_exact_and_no_partition_stuck() {
    come_and_go(&pond("members", 48));
}

#[test]
fn the_new_group_protocol_does_the_same() {
    let pond = pond("members-848", 48);
    // The broker has the times of the session now.
    pond.reconfigure(
        "\"session.timeout.ms\" = \"3000\"\n\"heartbeat.interval.ms\" = \"500\"",
        "\"group.protocol\" = \"consumer\"",
    );
    come_and_go(&pond);
}

fn come_and_go(pond: &Pond) {
    let load = pond.start(
        &[
            "load",
            "--messages",
            "240000",
            "--rows",
            "20000",
            "--rate",
            "12000",
            "--broken",
            "100",
        ],
        &[],
    );
    // Each needs an admin address of its own.
    let member = || {
        let listen = format!("admin.listen=127.0.0.1:{}", free_port());
        pond.start(&["run", "--set", &listen], &[])
    };
    let (first, second) = (member(), member());
    std::thread::sleep(Duration::from_secs(5));
    let third = member();
    std::thread::sleep(Duration::from_secs(5));
    let ended = third.terminate(LEFT);
    assert!(ended.status.success(), "{}", ended.stderr);
    load.wait(CAUGHT_UP).json();
    let mut last = pond.start(
        &[
            "run",
            "--until-caught-up",
            "--set",
            "admin.listen=127.0.0.1:0",
        ],
        &[],
    );
    if !last.ends_within(CAUGHT_UP) {
        let lag = pond.command(&["lag"]).stdout;
        let said = [first, second, last].map(|member| member.kill().stderr);
        panic!("not caught up:\n{lag}\n{}", said.join("\n"));
    }
    let caught_up = last.wait(CAUGHT_UP);
    assert!(caught_up.status.success(), "{}", caught_up.stderr);
    for process in [first, second] {
        let ended = process.terminate(LEFT);
        assert!(ended.status.success(), "{}", ended.stderr);
        println!("{}", ended.stdout.trim());
    }
    let verdict = pond.assert_exact();
    println!("{verdict}");
    assert_eq!(verdict["dead_letters"], 100);
}

/// A run as the static member of that name.
fn member(pond: &Pond, name: &str, port: u16) -> Process {
    let (instance, listen) = (
        format!("group.instance.id={name}"),
        format!("admin.listen=127.0.0.1:{port}"),
    );
    pond.start(&["run", "-X", &instance, "--set", &listen], &[])
}

fn figure(port: u16, metric: &str) -> f64 {
    Reading::take(port)
        .and_then(|now| now.sum(metric))
        .unwrap_or(0.0)
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    const PARTITIONS: f64 = 12.0;
    let pond = pond("static", 12);
    pond.reconfigure(
        "\"session.timeout.ms\" = \"3000\"",
        "\"session.timeout.ms\" = \"20000\"",
    );
    pond.load(&["--messages", "20000", "--rows", "1000"]);
    let ports = [free_port(), free_port()];
    let first = member(&pond, "first", ports[0]);
    let second = member(&pond, "second", ports[1]);
    let assigned = |port| figure(port, "millpond_assigned_partitions");
    let both_have_theirs =
        |_: &Pond| assigned(ports[0]) == PARTITIONS / 2.0 && assigned(ports[1]) == PARTITIONS / 2.0;
    pond.wait_for("each has a half", CAUGHT_UP, both_have_theirs);
    let rebalances = figure(ports[1], "millpond_rebalances_total");
    first.terminate(LEFT);
    pond.load(&["--messages", "20000", "--rows", "1000", "--seed", "7"]);
    let first = member(&pond, "first", ports[0]);
    pond.wait_for("the first has its half again", CAUGHT_UP, both_have_theirs);
    assert_eq!(figure(ports[1], "millpond_rebalances_total"), rebalances);
    // A name that is given twice by mistake: the older one ends, and says why.
    let twin = member(&pond, "second", free_port());
    let fenced = second.wait(CAUGHT_UP);
    assert_eq!(fenced.status.code(), Some(1), "{}", fenced.stderr);
    assert!(
        fenced.stderr.contains("group.instance.id"),
        "{}",
        fenced.stderr
    );
    for process in [first, twin] {
        assert!(process.terminate(LEFT).status.success());
    }
    // Static members leave with the end of their sessions; one that is not static waits for that.
    pond.catch_up();
    pond.assert_exact();
}
