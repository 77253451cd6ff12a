//! A receiver of OTLP over HTTP: takes what the exporter sends, as the protocol's own definitions decode it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A span, and who sent it.
#[derive(Clone, Debug)]
pub struct Received {
    pub span: Span,
    /// The resource's attributes.
    pub resource: Vec<KeyValue>,
    /// The request's head.
    pub head: String,
}

/// Takes spans until the test ends.
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let receiving = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let receiving = receiving.clone();
                std::thread::spawn(move || while serve(&stream, &receiving).is_some() {});
            }
        });
        Self { url, received }
    }

    /// What came so far of spans of that name.
    pub fn spans(&self, name: &str) -> Vec<Received> {
        let received = self.received.lock().unwrap();
        let named = received.iter().filter(|one| one.span.name == name);
        named.cloned().collect()
    }
}

/// Answers one request; `None` when there is no further one.
fn serve(mut stream: &TcpStream, received: &Mutex<Vec<Received>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    let length = head.split_once("content-length: ")?.1;
    let length = length.split_once("\r\n")?.0.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(&*body).expect("the protocol's message");
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default().attributes;
        let spans = of_resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        received.lock().unwrap().extend(spans.map(|span| Received {
            span,
            resource: resource.clone(),
            head: head.clone(),
        }));
    }
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes()).ok()
}

/// An attribute's value.
pub fn attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|one| one.key == name)?;
    found.value.as_ref()?.value.as_ref()
}

/// The same as text.
pub fn text<'a>(attributes: &'a [KeyValue], name: &str) -> &'a str {
    match attribute(attributes, name) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{name}: {other:?} in {attributes:?}"),
    }
}

/// The same as a whole number.
pub fn whole(attributes: &[KeyValue], name: &str) -> i64 {
    match attribute(attributes, name) {
        Some(Value::IntValue(number)) => *number,
        other => panic!("{name}: {other:?} in {attributes:?}"),
    }
}

/// The same as a number.
pub fn number(attributes: &[KeyValue], name: &str) -> f64 {
    match attribute(attributes, name) {
        Some(Value::DoubleValue(number)) => *number,
        other => panic!("{name}: {other:?} in {attributes:?}"),
    }
}
