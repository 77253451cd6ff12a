//! The consumer is in a network namespace of its own. All that it reaches is at the other end of one cable, which can be taken
//! away: then no packet comes back, no RST and no ACK, and only the limits on its sockets tell that anything is wrong.

use super::{HARM, kafka_address, kafka_told, kafka_told_port, postgres_address, postgres_at};
use crate::child::{Process, binary};
use crate::faults::trial::{Load, Trial, applied, down, pond};
use crate::pond::{Pond, SHARDS, environment};
use crate::proxy::Proxy;
use crate::reading::Reading;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

/// How much a statement may have to wait in a narrow link's queue, in tc's words.
const NARROW: &str = "rate 400kbit burst 16kb latency 2s";

/// How long a connection may be silent: half of the defaults.
const LIMITS: &str =
    "tcp_user_timeout=5000 keepalives_idle=5 keepalives_interval=1 keepalives_retries=3";
const DOWN: Duration = Duration::from_secs(10);

/// A namespace and a cable into it. Taken away when dropped.
struct Cable {
    namespace: String,
    outer: String,
    inner: String,
    /// What networks are measured with: no machine has an address there.
    net: u32,
}

impl Cable {
    /// `Err`: why there can't be one here.
    fn lay() -> Result<Self, String> {
        let id = std::process::id();
        let cable = Self {
            namespace: format!("millpond-{id}"),
            outer: format!("mpo{id}"),
            inner: format!("mpi{id}"),
            net: u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (id % (1 << 13)) * 8,
        };
        let Self {
            namespace,
            outer,
            inner,
            ..
        } = &cable;
        let [kafka, other, consumer] = [cable.kafka(), cable.other(), cable.consumer()];
        for command in [
            format!("ip netns add {namespace}"),
            format!("ip link add {outer} type veth peer name {inner} netns {namespace}"),
            format!("ip address add {kafka}/29 dev {outer}"),
            format!("ip address add {other}/29 dev {outer}"),
            format!("ip link set {outer} up"),
            format!("ip -n {namespace} address add {consumer}/29 dev {inner}"),
            format!("ip -n {namespace} link set lo up"),
            format!("ip -n {namespace} link set {inner} up"),
            // So that a rule can come before the one by which its own packets arrive.
            format!("ip -n {namespace} rule add pref 100 lookup local"),
            format!("ip -n {namespace} rule delete pref 0"),
        ] {
            run(&command)?;
        }
        Ok(cable)
    }

    fn address(&self, number: u32) -> IpAddr {
        Ipv4Addr::from(self.net + number).into()
    }

    /// Where the consumer finds Kafka and the first shard.
    fn kafka(&self) -> IpAddr {
        self.address(1)
    }

    /// Where it finds the second shard.
    fn other(&self) -> IpAddr {
        self.address(2)
    }

    fn consumer(&self) -> IpAddr {
        self.address(3)
    }

    /// Does something inside.
    fn inside(&self, command: &str) {
        run(&command.replace("NAMESPACE", &self.namespace)).unwrap();
    }

    fn set(&self, state: &str) {
        run(&format!("ip link set {} {state}", self.outer)).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // As far as it came to be.
        let _ = run(&format!("ip link delete {}", self.outer));
        let _ = run(&format!("ip netns delete {}", self.namespace));
    }
}

fn run(command: &str) -> Result<(), String> {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// What listens at the outer end of the cable, and the admin address at the outside.
struct Doors(#[expect(dead_code, reason = "they listen")] [Proxy; 4]);

/// Starts a consumer at the other end of the cable.
fn start(pond: &Pond, cable: &Cable) -> (Doors, Process) {
    let kafka = SocketAddr::new(cable.kafka(), kafka_told_port());
    let shards = [cable.kafka(), cable.other()].map(|address| SocketAddr::new(address, 0));
    let admin = SocketAddr::from(([127, 0, 0, 1], pond.admin_port));
    let namespace = File::open(format!("/run/netns/{}", cable.namespace)).unwrap();
    let doors = [
        Proxy::on(kafka, kafka_address()),
        Proxy::on(shards[0], postgres_address(pond, 0)),
        Proxy::on(shards[1], postgres_address(pond, 1)),
        Proxy::into(namespace, admin, admin),
    ];
    let there = [0, 1].map(|shard| {
        let at = postgres_at(pond, shard, doors[shard + 1].address());
        format!("{at} sslmode=disable {LIMITS}")
    });
    let settings =
        "[kafka.librdkafka]\n\"socket.timeout.ms\" = \"4000\"\n\"broker.address.family\" = \"v4\"";
    let config = pond.detour(&[
        (&environment("MILLPOND_TEST_KAFKA"), &kafka_told()),
        ("[kafka.librdkafka]", settings),
        (&pond.address(0), &there[0]),
        (&pond.address(1), &there[1]),
    ]);
    // The name that the broker tells means the outer end there.
    let hosts = config.with_file_name("hosts");
    std::fs::write(&hosts, format!("{} localhost\n", cable.kafka())).unwrap();
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    let [hosts, config] = [&hosts, &config].map(|path| path.to_str().unwrap());
    let binary = binary();
    let consumer = Process::of(
        "ip",
        &[
            "netns",
            "exec",
            &cable.namespace,
            "sh",
            "-c",
            script,
            "sh",
            hosts,
            &binary,
            "run",
            "--config",
            config,
        ],
        &[],
    );
    (Doors(doors), consumer)
}

/// Waits until both of a shard's connections are given up; how long that took.
fn until_given_up(trial: &Trial, shard: &str) -> Duration {
    let began = Instant::now();
    trial.wait_for("its connections are given up", |now| {
        down(now, shard) == 2.0
    });
    began.elapsed()
}

fn go_on(trial: &Trial, shards: &[&str]) {
    let before = trial.reading();
    trial.wait_for("the shards go on", |now| {
        let on = |shard: &&str| applied(now, shard) > applied(&before, shard) + 100.0;
        shards.iter().all(on)
    });
}

#[test]
fn a_black_hole_a_link_that_is_down_and_a_narrow_one_are_got_over() {
    let cable = match Cable::lay() {
        Ok(cable) => cable,
        Err(why) => {
            println!("link down: skipped, since no network namespace can be made here: {why}");
            return;
        }
    };
    let pond = pond("network-link", "");
    let (doors, consumer) = start(&pond, &cable);
    let load = Load {
        seconds: 40,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::with(pond, &load, consumer);

    // Nothing that the second shard sends arrives any more, not even that it has something.
    let hole = format!("pref 10 from {} blackhole", cable.other());
    cable.inside(&format!("ip -n NAMESPACE rule add {hole}"));
    let given_up = until_given_up(&trial, "s1");
    trial.assert_goes_on("s0", HARM);
    cable.inside(&format!("ip -n NAMESPACE rule delete {hole}"));
    go_on(&trial, &["s1"]);

    // Longer than a session.
    cable.set("down");
    let began = Instant::now();
    let assigned = |now: &Reading| now.sum("millpond_assigned_partitions");
    trial.wait_for("the session is over", |now| assigned(now) == Some(0.0));
    // Longer than a connection may be silent, too. Who has nothing to write finds that out later.
    std::thread::sleep(DOWN.saturating_sub(began.elapsed()));
    cable.set("up");
    trial.wait_for("it is a member again", |now| assigned(now) == Some(12.0));
    go_on(&trial, &SHARDS);

    let narrow = narrow(&cable, &trial);
    let recovery = trial.recover();
    let observed = format!(
        "given up after {:.1} s in a black hole; partitions lost and assigned anew without a link for {DOWN:?}; {narrow}",
        given_up.as_secs_f64()
    );
    trial.conclude("link down and narrow", &observed, recovery, consumer);
    drop(doors);
}

/// Less leaves the consumer than there is to write, until it is behind. What was seen.
fn narrow(cable: &Cable, trial: &Trial) -> String {
    let queue = format!(
        "tc -n {} qdisc add dev {} root tbf {NARROW}",
        cable.namespace, cable.inner
    );
    if let Err(why) = run(&queue) {
        return format!("narrow link skipped, since there is no such queue here: {why}");
    }
    trial.wait_for("the consumer falls behind", |now| {
        now.sum("millpond_time_lag_seconds") > Some(1.0)
    });
    cable.inside(&format!(
        "tc -n NAMESPACE qdisc delete dev {} root",
        cable.inner
    ));
    format!("behind with {NARROW}")
}
