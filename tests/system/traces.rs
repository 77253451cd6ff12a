//! Traces: from a client's span over the edge and Kafka to the worker's batch, as a receiver of the protocol gets them.

use crate::ingest::edge::{APP, Edge, ROW, player, pond};
use crate::ingest::http::put_with;
use crate::pond::Pond;
use crate::receiver::{Received, Receiver, number, text, whole};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
/// Kinds of spans, as the protocol numbers them.
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// The header that names a span.
fn traceparent(one: &Received) -> String {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    format!(
        "00-{}-{}-01",
        hex(&one.span.trace_id),
        hex(&one.span.span_id)
    )
}

/// The one span of that name, once it has come.
fn only(pond: &Pond, receiver: &Receiver, operation: &str) -> Received {
    let name = format!("{operation} {}", pond.topic);
    pond.wait_for(&name, SOON, |_| !receiver.spans(&name).is_empty());
    let mut spans = receiver.spans(&name);
    assert_eq!(spans.len(), 1, "{spans:#?}");
    spans.remove(0)
}

/// It is a root of a trace of its own, of that kind, and has one link, to the send.
fn assert_linked(one: &Received, kind: i32, operation: (&str, &str), send: &Received) {
    let (span, sent) = (&one.span, &send.span);
    assert_eq!(span.kind, kind);
    assert!(span.parent_span_id.is_empty(), "{span:?}");
    assert_ne!(span.trace_id, sent.trace_id);
    assert_eq!(span.links.len(), 1, "{span:?}");
    assert_eq!(
        (&span.links[0].trace_id, &span.links[0].span_id),
        (&sent.trace_id, &sent.span_id)
    );
    let attributes = &span.attributes;
    assert_eq!(text(attributes, "messaging.operation.name"), operation.0);
    assert_eq!(text(attributes, "messaging.operation.type"), operation.1);
    assert_eq!(text(attributes, "messaging.system"), "kafka");
    let of_link = &span.links[0].attributes;
    for key in [
        "messaging.destination.partition.id",
        "messaging.kafka.offset",
    ] {
        assert_eq!(
            format!("{:?}", crate::receiver::attribute(of_link, key)),
            format!("{:?}", crate::receiver::attribute(&sent.attributes, key)),
        );
    }
}

#[test]
fn a_sampled_update_is_followed_from_its_client_to_its_shard() {
    let (pond, receiver) = (pond("traces"), Receiver::start());
    let endpoint = format!("telemetry.otlp_endpoint={}", receiver.url);
    let no_ratio = "telemetry.sample_ratio=0";
    let edge = Edge::start(&pond, &[&endpoint, no_ratio]);
    for (header, body) in [
        (Some(SAMPLED), json!({"app_id": APP, "counts": {"n": 1}})),
        (Some(UNSAMPLED), json!({"app_id": APP, "counts": {"n": 2}})),
        (None, json!({"app_id": APP, "counts": {"n": 3}})),
    ] {
        let header = header.map(|value| format!("traceparent: {value}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        let request = put_with(&player(ROW), &headers, body.to_string().as_bytes());
        assert_eq!(edge.ask(&request).status, 200);
    }
    // The client's span is the parent, and the record carries the send's.
    let send = only(&pond, &receiver, "send");
    assert_eq!(send.span.kind, PRODUCER);
    assert_eq!(traceparent(&send)[..36], SAMPLED[..36]);
    assert_eq!(
        send.span.parent_span_id,
        [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]
    );
    assert_eq!(
        text(&send.span.attributes, "messaging.kafka.message.key"),
        ROW
    );
    assert_eq!(whole(&send.span.attributes, "messaging.kafka.offset"), 0);
    assert!(send.span.end_time_unix_nano >= send.span.start_time_unix_nano);
    assert_eq!(text(&send.resource, "service.name"), "millpond-ingest");
    let records = pond.updates();
    assert_eq!(records[0].header("traceparent"), traceparent(&send));
    assert_eq!(records[1].header("traceparent"), UNSAMPLED);
    assert_eq!(records[2].headers(), 0);
    edge.stop();

    let base = receiver.url.as_str();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", base),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=pond"),
        ("OTEL_SERVICE_NAME", "tested"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=ci"),
    ];
    let run = ["run", "--until-caught-up", "--set", no_ratio];
    // Its spans come at the end at the latest: the queue is flushed.
    pond.start(&run, &environment).wait(SOON).json();
    assert_linked(
        &only(&pond, &receiver, "poll"),
        CLIENT,
        ("poll", "receive"),
        &send,
    );
    let process = only(&pond, &receiver, "process");
    assert_linked(&process, CONSUMER, ("process", "process"), &send);
    for attributes in [&process.span.attributes, &process.span.links[0].attributes] {
        let delay_s = number(attributes, "millpond.produced_to_applied");
        assert!((0.0..60.0).contains(&delay_s), "{delay_s}");
    }
    assert_eq!(text(&process.resource, "service.name"), "tested");
    assert_eq!(text(&process.resource, "deployment.environment.name"), "ci");
    assert!(
        process.head.contains("x-tenant: pond\r\n"),
        "{}",
        process.head
    );
}

#[test]
fn by_the_ratio_all_batches_are_traced_and_a_receiver_that_is_away_costs_spans_only() {
    let (pond, receiver) = (pond("ratio"), Receiver::start());
    pond.load(&["--messages", "3000"]);
    let run = |endpoint: &str| {
        let endpoint = format!("telemetry.otlp_endpoint={endpoint}");
        let ratio = "telemetry.sample_ratio=1";
        let run = [
            "run",
            "--until-caught-up",
            "--set",
            &endpoint,
            "--set",
            ratio,
        ];
        let ended = pond.start(&run, &[]).wait(SOON);
        ended.json();
        ended.stderr
    };
    run(&receiver.url);
    let spans = |operation: &str| receiver.spans(&format!("{operation} {}", pond.topic));
    for operation in ["poll", "process"] {
        let spans = spans(operation);
        let messages = spans.iter().map(|one| {
            assert!(one.span.links.is_empty());
            whole(&one.span.attributes, "messaging.batch.message_count")
        });
        assert_eq!(messages.sum::<i64>(), 3000, "{operation}");
    }
    let applied = spans("process").into_iter();
    let applied = applied.map(|one| whole(&one.span.attributes, "millpond.applied"));
    assert_eq!(applied.sum::<i64>(), 3000);
    let commits = spans("commit");
    assert!(!commits.is_empty());
    for commit in commits {
        assert_eq!(commit.span.kind, CLIENT);
        assert_eq!(
            text(&commit.span.attributes, "messaging.operation.type"),
            "settle"
        );
    }
    pond.load(&["--messages", "1000", "--seed", "2"]);
    let said = run("http://127.0.0.1:1");
    assert!(said.contains("spans"), "{said}");
    pond.assert_exact();
}
