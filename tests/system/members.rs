//! Processes of a group come and go while messages flow.

use crate::pond::{Pond, Shape, free_port};
use std::time::Duration;

const CAUGHT_UP: Duration = Duration::from_secs(120);

#[test]
fn two_then_three_then_two_members_leave_every_row_exact_and_no_partition_stuck() {
    let pond = Pond::new(
        "members",
        &Shape {
            partitions: 48,
            ..Shape::default()
        },
    );
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
    let ended = third.terminate(Duration::from_secs(30));
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
        let ended = process.terminate(Duration::from_secs(30));
        assert!(ended.status.success(), "{}", ended.stderr);
        println!("{}", ended.stdout.trim());
    }
    let verdict = pond.assert_exact();
    println!("{verdict}");
    assert_eq!(verdict["dead_letters"], 100);
}
