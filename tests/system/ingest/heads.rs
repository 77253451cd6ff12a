//! Heads that are broken, that two readers could understand in two ways, or that are too large. Each is refused and ends
//! its connection, so that what follows it is never taken for a request; and nothing of it is in the topic.

use super::edge::{APP, Edge, ROW, contents, player, pond};
use super::http::{Gone, put, put_with, request};
use serde_json::json;
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(5);
/// Shorter than what an edge listens to somebody that it has refused.
const AT_ONCE: Duration = Duration::from_millis(700);
const JSON: &str = "Content-Type: application/json";
/// Follows each broken request, and must not be seen.
const HIDDEN: &str = "00000000-0000-4000-8000-000000000666";

/// A request that is refused before its body counts.
struct Broken {
    bytes: Vec<u8>,
    status: u16,
    reason: &'static str,
}

fn bad(bytes: Vec<u8>) -> Broken {
    Broken {
        bytes,
        status: 400,
        reason: "bad-request",
    }
}

fn body() -> String {
    json!({"app_id": APP}).to_string()
}

fn line() -> String {
    format!("PUT {} HTTP/1.1", player(ROW))
}

/// A request with these headers besides the usual ones, and `*` in them for the body's length.
fn with(headers: &[&str]) -> Vec<u8> {
    let length = body().len().to_string();
    let headers: Vec<String> = headers
        .iter()
        .map(|header| header.replace('*', &length))
        .collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let headers = [&["Host: edge", JSON], &headers[..]].concat();
    request(&line(), &headers, body().as_bytes())
}

/// Which bytes are the body?
fn lengths() -> Vec<Broken> {
    let shapes: &[&[&str]] = &[
        &["Content-Length: *", "Content-Length: 7"],
        &["Content-Length: 7", "Content-Length: *"],
        &["Content-Length: *, 7"],
        &["Content-Length: 7, *"],
        &["Content-Length: -*"],
        &["Content-Length: +*"],
        &["Content-Length: * *"],
        &["Content-Length: 0x*"],
        &["Content-Length: *e0"],
        &["Content-Length: *.0"],
        &["Content-Length: *;"],
        &["Content-Length: \"*\""],
        &["Content-Length:"],
        &["Content-Length: x"],
        &["Content-Length: ٤٢"],
        &["Content-Length : *"],
        &["Content-Length\t: *"],
        &["Content-Length:\r\n *"],
        &["X: a\r\n b", "Content-Length: *"],
        &["X: a\r\n\tContent-Length: 7", "Content-Length: *"],
        &["X: a\nContent-Length: 7", "Content-Length: *"],
        &["X: a\rContent-Length: 7", "Content-Length: *"],
        &["X: a\n\nContent-Length: 7", "Content-Length: *"],
        &["Content-Length: *\n"],
        &["Transfer-Encoding : chunked", "Content-Length: *"],
        &["Transfer-Encoding:\r\n chunked", "Content-Length: *"],
        &["Content-Length: *", "Transfer-Encoding: identity"],
        &["Content-Length: *", "Transfer-Encoding: xchunked"],
        &["Content-Length: *", "Transfer-Encoding: chunked, identity"],
    ];
    shapes.iter().map(|headers| bad(with(headers))).collect()
}

/// No body is taken whose length is not announced.
fn unannounced() -> Vec<Broken> {
    let shapes: &[&[&str]] = &[
        &[],
        &["X-Content-Length: *"],
        &["Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked", "Content-Length: *"],
        &["Content-Length: *", "Transfer-Encoding: chunked"],
        &["Content-Length: *", "Transfer-Encoding: Chunked"],
        &["Content-Length: *", "transfer-encoding:\tchunked"],
        &["Content-Length: *", "Transfer-Encoding: gzip, chunked"],
    ];
    let refused = |headers: &&[&str]| Broken {
        bytes: with(headers),
        status: 411,
        reason: "length-required",
    };
    shapes.iter().map(refused).collect()
}

/// Headers and lines that no writer of HTTP/1.1 writes.
fn shapeless() -> Vec<Broken> {
    let headers: &[&[&str]] = &[
        &["Content-Length: *", "Host: other"],
        &["Content-Length: *", "Host: edge"],
        &["Content-Length: *", "no colon"],
        &["Content-Length: *", ": no name"],
        &["Content-Length: *", "a name: x"],
        &["Content-Length: *", "näme: x"],
        &["Content-Length: *", "X: a\0b"],
        &["Content-Length: *", "X: a\u{1}b"],
        &["Content-Length: *", "X\u{7f}: a"],
    ];
    let mut all: Vec<Broken> = headers.iter().map(|headers| bad(with(headers))).collect();
    let length = format!("Content-Length: {}", body().len());
    let of_line = |line: &str| request(line, &["Host: edge", JSON, &length], body().as_bytes());
    let path = player(ROW);
    for line in [
        format!("PUT {path}"),
        format!("PUT {path} HTTP/2.0"),
        format!("PUT {path} HTTP/1.10"),
        format!("PUT {path} HTTP/1"),
        format!("PUT {path} http/1.1"),
        format!("PUT {path} HTTP/1.1 x"),
        format!("PUT  {path} HTTP/1.1"),
        format!("PUT {path}  HTTP/1.1"),
        format!("PUT\t{path}\tHTTP/1.1"),
        format!("PUT {path} x HTTP/1.1"),
        format!(" PUT {path} HTTP/1.1"),
        format!("PUT {path}\0 HTTP/1.1"),
        format!("P\0T {path} HTTP/1.1"),
        format!("{path} HTTP/1.1"),
        "PRI * HTTP/2.0".to_owned(),
    ] {
        all.push(bad(of_line(&line)));
    }
    let no_host = request(&line(), &[JSON, &length], body().as_bytes());
    all.push(bad(no_host));
    let space_first = request(&line(), &[" Host: edge", JSON, &length], body().as_bytes());
    all.push(bad(space_first));
    let unix_lines = String::from_utf8(of_line(&line())).unwrap();
    all.push(bad(unix_lines.replace("\r\n", "\n").into_bytes()));
    all.push(bad(unix_lines.replace("\r\n", "\r").into_bytes()));
    all.push(bad(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()
    ));
    all.push(bad(b"\0\0\0\0\r\n\r\n".to_vec()));
    all
}

fn too_large() -> Vec<Broken> {
    let of = |status, reason, bytes| Broken {
        bytes,
        status,
        reason,
    };
    let body = |headers: &[&str]| of(413, "too-large", with(headers));
    let head = |bytes| of(431, "head-too-large", bytes);
    let long = format!("X: {}", "x".repeat(100_000));
    let many: Vec<String> = (0..1000).map(|at| format!("X-{at}: x")).collect();
    let many: Vec<&str> = [
        &["Content-Length: *"],
        &many.iter().map(String::as_str).collect::<Vec<_>>()[..],
    ]
    .concat();
    let path = format!("PUT /{} HTTP/1.1", "x".repeat(100_000));
    vec![
        body(&["Content-Length: 65537"]),
        body(&["Content-Length: 65537", "Expect: 100-continue"]),
        body(&["Content-Length: 4294967297"]),
        body(&["Content-Length: 9223372036854775807"]),
        head(with(&["Content-Length: *", &long])),
        head(with(&many)),
        head(request(&path, &["Host: edge"], b"")),
        head("x".repeat(200_000).into_bytes()),
    ]
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(160)])
        .escape_debug()
        .to_string()
}

/// What differs from one refusal and the end of the connection.
fn differs(edge: &Edge, case: &Broken) -> Option<String> {
    let hidden = put(&player(HIDDEN), &body());
    let mut client = edge.client();
    let _ = client.send(&[&case.bytes[..], &hidden].concat());
    let (answers, gone) = client.rest(QUIET);
    let wrong = match &answers[..] {
        [] => format!("no answer, {gone:?}"),
        [answer] if answer.status != case.status => format!("{}: {}", answer.status, answer.body),
        [answer] if answer.reason() != case.reason => answer.body.clone(),
        [_] if !matches!(gone, Gone::Closed | Gone::Reset) => format!("then {gone:?}"),
        [answer] if answer.header("connection") != Some("close") => {
            "no connection: close".to_owned()
        }
        [answer] if case.status == 413 && answer.json()["limit"] != 65536 => answer.body.clone(),
        [_] => return None,
        more => format!("{} answers: {more:?}", more.len()),
    };
    let (status, reason) = (case.status, case.reason);
    Some(format!(
        "{}\n  is {wrong}\n  not {status} {reason}",
        shown(&case.bytes)
    ))
}

#[test]
fn a_head_that_is_broken_or_says_two_things_is_refused_with_its_connection() {
    let pond = pond("heads");
    let edge = Edge::start(&pond, &[]);
    let cases: Vec<Broken> = [lengths(), unannounced(), shapeless(), too_large()]
        .into_iter()
        .flatten()
        .collect();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| differs(&edge, case))
        .collect();
    println!("{} heads refused", cases.len());
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );

    // A body longer than announced: what is left over is no request.
    let mut client = edge.client();
    let more = [put(&player(ROW), &body()), b"more\r\n\r\n".to_vec()].concat();
    client.send(&more).unwrap();
    let (answers, _) = client.rest(QUIET);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 400]);
    assert_eq!(answers[1].reason(), "bad-request");
    // Shorter than announced: never whole, so never a request.
    let mut client = edge.client();
    let whole = put_with(&player(ROW), &[], body().as_bytes());
    client.send(&whole[..whole.len() - 1]).unwrap();
    client.end_writing();
    let (answers, gone) = client.rest(QUIET);
    assert!(
        answers.iter().all(|answer| answer.status == 400),
        "{answers:?}"
    );
    assert!(matches!(gone, Gone::Closed | Gone::Reset), "{gone:?}");
    edge.stop();
    assert_eq!(contents(&pond).len(), 1);
}

/// Sends a head that never ends, for as long as it is listened to; how many bytes that were, and how long it took.
fn flood(edge: &Edge) -> (usize, Duration) {
    let mut client = edge.client();
    client.send(format!("{}\r\n", line()).as_bytes()).unwrap();
    let chunk = format!("X: {}\r\n", "x".repeat(8000)).repeat(8);
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < QUIET && client.send(chunk.as_bytes()).is_ok() {
        sent += chunk.len();
    }
    (sent, began.elapsed())
}

/// Nobody may make the edge hold a head that never ends, or listen to it for long, or to nobody else meanwhile.
#[test]
fn an_endless_head_is_refused_while_it_is_sent_and_holds_up_nobody() {
    let pond = pond("endless");
    let edge = Edge::start(&pond, &["ingest.threads=1"]);
    let memory = edge.memory_kib();
    let (served, slowest) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            for _ in 0..3 {
                let (sent, took) = flood(&edge);
                println!("{sent} bytes of an endless head in {took:.1?}");
                assert!(took < QUIET, "it is still listened to");
            }
        });
        let (mut served, mut slowest) = (0, Duration::ZERO);
        while !flood.is_finished() {
            let asked = Instant::now();
            edge.good(ROW, &body());
            slowest = slowest.max(asked.elapsed());
            served += 1;
        }
        (served, slowest)
    });
    let grown = edge.memory_kib().saturating_sub(memory);
    println!("{served} others meanwhile, the slowest in {slowest:.0?}; {grown} KiB more memory");
    assert!(slowest < AT_ONCE, "somebody waited for {slowest:?}");
    assert!(grown < 4096, "{grown} KiB");
    edge.stop();
    assert_eq!(contents(&pond).len(), served);
}
