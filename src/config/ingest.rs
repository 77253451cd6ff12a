//! The edge's settings, from written to checked.

use super::check::{listen, seconds};
use super::checked::{Acknowledge, Ingest, Secret};
use super::reader::Reader;
use std::path::PathBuf;

pub(super) fn ingest(read: &mut Reader<'_>) -> Ingest {
    let tokens = read.list("ingest.tokens");
    let sendable =
        |token: &String| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    if !tokens.iter().all(sendable) {
        read.refuse(
            "ingest.tokens",
            "one of them can't be sent in a header; \
             allowed are visible ASCII characters without spaces",
        );
    }
    let listen = listen(read, "ingest.listen");
    if tokens.is_empty() && !listen.ip().is_loopback() {
        read.refuse(
            "ingest.listen",
            format!(
                "found {listen}, which others can reach, but ingest.tokens is empty, so anyone \
                 could write; add tokens, or listen on 127.0.0.1"
            ),
        );
    }
    Ingest {
        listen,
        tokens: tokens.into_iter().map(Secret).collect(),
        body_max_bytes: read.bytes(
            "ingest.body_max_bytes",
            1 << 10..=16 << 20,
            "with less, ordinary updates are refused; each connection may hold that much",
        ),
        acknowledge: read.choice(
            "ingest.acknowledge",
            [
                ("broker", Acknowledge::Broker),
                ("queue", Acknowledge::Queue),
            ],
        ),
        threads: Some(read.whole::<usize>("ingest.threads", 0..=64, "0 is one a core, 4 at most"))
            .filter(|threads| *threads > 0),
        connections_max: read.whole(
            "ingest.connections_max",
            1..=1 << 20,
            "each is a file, and holds up to its head and body",
        ),
        in_flight_max: read.whole(
            "ingest.in_flight_max",
            1..=10_000_000,
            "that many updates are in memory while Kafka is slow; more are refused",
        ),
        delivery_timeout: seconds(
            read,
            "ingest.delivery_timeout_s",
            1..=300,
            "clients wait that long for an answer",
        ),
        tags_max: read.whole("ingest.tags_max", 1..=100_000, "a row keeps them all"),
        name_max_bytes: read.whole("ingest.name_max_bytes", 1..=65_536, "rows keep them"),
        value_max_bytes: read.whole("ingest.value_max_bytes", 1..=1 << 20, "rows keep them"),
        tls: tls(read),
        admin_listen: super::check::listen(read, "ingest.admin_listen"),
    }
}

/// Both files or none.
fn tls(read: &mut Reader<'_>) -> Option<(PathBuf, PathBuf)> {
    let [certificate, key] = ["ingest.tls_certificate_file", "ingest.tls_key_file"];
    match (read.text(certificate), read.text(key)) {
        (certificate, key) if certificate.is_empty() && key.is_empty() => None,
        (_, missing) if missing.is_empty() => {
            read.refuse(key, "missing; a certificate is of no use without its key");
            None
        }
        (missing, _) if missing.is_empty() => {
            read.refuse(
                certificate,
                "missing; a key is of no use without its certificate",
            );
            None
        }
        (certificate, key) => Some((certificate.into(), key.into())),
    }
}
