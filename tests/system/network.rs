//! The network between the consumer and its services is bad, under the load of [`crate::faults::trial`] and judged as there. A
//! service's own clients, which load and compare, take the direct way.
//!
//! - [`postgres`]: one shard's connections are cut, silent, slow, narrow
//! - [`kafka`]: the broker's are
//! - [`link`]: a consumer in a network namespace of its own, whose link is taken away

mod kafka;
mod link;
mod postgres;

use crate::pond::{Pond, environment};
use crate::proxy::Manner;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// How long something is left as it is once it was seen.
const HARM: Duration = Duration::from_secs(2);

const STILL: Manner = Manner {
    stands_still: true,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    bytes_per_second: None,
    slice: None,
    close_delay: Duration::ZERO,
};

/// Where the server of a shard really listens.
fn postgres_address(pond: &Pond, shard: usize) -> SocketAddr {
    let address = pond.address(shard);
    let port = address
        .split(' ')
        .find_map(|word| word.strip_prefix("port="));
    SocketAddr::from(([127, 0, 0, 1], port.unwrap().parse().unwrap()))
}

/// The same shard at another address.
fn postgres_at(pond: &Pond, shard: usize, other: SocketAddr) -> String {
    let (own, real) = (pond.address(shard), postgres_address(pond, shard));
    own.replace(
        &format!("host=127.0.0.1 port={}", real.port()),
        &format!("host={} port={}", other.ip(), other.port()),
    )
}

/// Where the broker's door for those who come through a proxy really is.
fn kafka_address() -> SocketAddr {
    environment("MILLPOND_TEST_KAFKA_PROXIED_LISTENS")
        .to_socket_addrs()
        .unwrap()
        .next()
        .unwrap()
}

/// The address that the broker tells those who come by that door: the proxy's.
fn kafka_told() -> String {
    environment("MILLPOND_TEST_KAFKA_PROXIED")
}

fn kafka_told_port() -> u16 {
    let told = kafka_told();
    told.rsplit(':').next().unwrap().parse().unwrap()
}
