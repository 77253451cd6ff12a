//! Against small servers that answer as they are told.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::net::{TcpListener, TcpStream};
use std::thread::{JoinHandle, sleep, spawn};

const TIMEOUT: Duration = Duration::from_millis(500);
const REQUEST: &[u8] = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

/// Pieces of an answer, with a moment between them.
type Pieces = &'static [&'static str];

/// What a request came to: the answer's status and body, or the error's text.
type Came = Result<(u16, Vec<u8>), String>;

fn answered(status: u16, body: &[u8]) -> Came {
    Ok((status, body.to_vec()))
}

/// Somebody who gives each connection in turn these answers to its requests, and then closes it.
fn server(connections: &'static [&'static [Pieces]]) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = spawn(move || {
        for answers in connections {
            let (stream, _) = listener.accept().unwrap();
            give(stream, answers);
        }
    });
    (address, serving)
}

fn give(mut stream: TcpStream, answers: &[Pieces]) {
    for answer in answers {
        stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
        for piece in *answer {
            stream.write_all(piece.as_bytes()).unwrap();
            sleep(Duration::from_millis(20));
        }
    }
}

/// Sends a request as soon as a connection is free, and waits for what it comes to.
fn exchange(clients: &mut Clients<u8>) -> Came {
    let deadline = clock::now() + TIMEOUT * 4;
    while !clients.has_free() {
        assert!(clock::now() < deadline, "a connection is free soon");
        clients.wait(TIMEOUT, |news| {
            assert!(matches!(news, News::NotConnected(_)), "{news:?}");
        });
    }
    clients
        .send(REQUEST, 7)
        .map_err(|error| error.to_string())?;
    let mut came = None;
    while came.is_none() {
        assert!(clock::now() < deadline, "it ends soon");
        clients.wait(TIMEOUT, |news| match news {
            News::Answered(7, answer) => came = Some(answered(answer.status, answer.body)),
            News::Lost(7, error) => came = Some(Err(error.to_string())),
            other => panic!("{other:?}"),
        });
    }
    came.unwrap()
}

fn error_after(connections: &'static [&'static [Pieces]]) -> String {
    let (address, serving) = server(connections);
    let mut clients = Clients::connect(address, 1, TIMEOUT).unwrap();
    let error = exchange(&mut clients).unwrap_err();
    drop(clients);
    serving.join().unwrap();
    error
}

#[test]
fn answers_come_one_after_the_other_whole_however_they_are_cut() {
    let (address, serving) = server(&[&[
        &["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"],
        &[
            "HTTP/1.1 503 Busy\r\nContent-",
            "Length: 5\r\n\r\nla",
            "ter",
        ],
        &["HTTP/1.1 204 None\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"],
    ]]);
    let mut clients = Clients::connect(address, 1, TIMEOUT).unwrap();
    assert_eq!(exchange(&mut clients), answered(200, b"{}"));
    assert_eq!(exchange(&mut clients), answered(503, b"later"));
    assert_eq!(exchange(&mut clients), answered(204, b""));
    assert!(
        !clients.has_free() && clients.is_cut_off(),
        "it is not used again"
    );
    serving.join().unwrap();
}

#[test]
fn several_requests_are_under_way_at_once_and_each_answer_finds_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Clients::connect(listener.local_addr().unwrap(), 3, TIMEOUT).unwrap();
    let mut streams: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
    for ticket in 0..3_u8 {
        clients.send(REQUEST, ticket).unwrap();
    }
    assert!(clients.busy() == 3 && !clients.has_free());
    for (number, stream) in streams.iter_mut().enumerate().rev() {
        stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
        stream.write_all(answer.as_bytes()).unwrap();
    }
    let mut came = Vec::new();
    while clients.busy() > 0 {
        clients.wait(TIMEOUT, |news| match news {
            News::Answered(ticket, answer) => came.push((ticket, answer.body.to_vec())),
            other => panic!("{other:?}"),
        });
    }
    came.sort();
    assert_eq!(came, [(0, vec![b'0']), (1, vec![b'1']), (2, vec![b'2'])]);
}

#[test]
fn a_long_request_is_sent_and_a_long_answer_is_taken_and_one_without_end_is_not() {
    let length = 20_000;
    let request = vec![b'r'; 8 << 20];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Clients::connect(listener.local_addr().unwrap(), 1, TIMEOUT * 10).unwrap();
    let bytes = request.len();
    let serving = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut vec![0; bytes]).unwrap();
        let head = format!("HTTP/1.1 400 Bad\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; length]).unwrap();
        stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
        stream.write_all(&vec![b'x'; 100_000]).unwrap_or_default();
        // The client tries again, and is let in.
        let _ = listener.accept();
    });
    clients.send(&request, 7).unwrap();
    let mut came = None;
    while came.is_none() {
        clients.wait(TIMEOUT, |news| match news {
            News::Answered(7, answer) => came = Some(answer.body.len()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(came, Some(length));
    let error = exchange(&mut clients).unwrap_err();
    assert_eq!(error, "the answer is broken: too long");
    serving.join().unwrap();
}

#[test]
fn what_is_no_answer_of_ours_is_said() {
    assert_eq!(
        error_after(&[&[&["SSH-2.0-OpenSSH_9.2\r\n"]]]),
        "the answer is broken: not HTTP"
    );
    assert_eq!(
        error_after(&[&[&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]]]),
        "the answer is broken: no Content-Length"
    );
    assert_eq!(
        error_after(&[&[&["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc"]]]),
        "the answer is broken: more than its length"
    );
    let closed = "the server closed the connection without an answer";
    assert_eq!(error_after(&[&[&[]]]), closed);
    assert_eq!(
        error_after(&[&[&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]]]),
        closed
    );
}

#[test]
fn silence_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Clients::connect(listener.local_addr().unwrap(), 1, TIMEOUT).unwrap();
    let began = Instant::now();
    let error = exchange(&mut clients).unwrap_err();
    assert_eq!(error, format!("no answer within {TIMEOUT:?}"));
    assert!((TIMEOUT..TIMEOUT * 4).contains(&began.elapsed()));
}

#[test]
fn a_connection_that_the_server_closed_is_made_anew_before_it_is_used() {
    const OK: Pieces = &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
    let (address, serving) = server(&[&[OK], &[], &[OK]]);
    let mut clients = Clients::connect(address, 1, TIMEOUT).unwrap();
    assert_eq!(exchange(&mut clients), answered(200, b""));
    // Closed after its answer, then closed at once; the third takes the request.
    for _ in 0..15 {
        clients.wait(Duration::from_millis(20), |news| panic!("{news:?}"));
    }
    assert_eq!(exchange(&mut clients), answered(200, b""));
    serving.join().unwrap();
}

#[test]
fn a_server_that_is_away_is_tried_again_until_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = Clients::connect(address, 2, TIMEOUT).unwrap();
    drop(listener);
    let mut failures = 0;
    let deadline = clock::now() + TIMEOUT * 4;
    while failures < 4 {
        assert!(clock::now() < deadline);
        clients.wait(TIMEOUT, |news: News<'_, u8>| {
            assert!(matches!(news, News::NotConnected(_)), "{news:?}");
            failures += 1;
        });
    }
    assert!(clients.is_cut_off() && !clients.has_free());
    let _listener = TcpListener::bind(address).unwrap();
    while !clients.has_free() {
        assert!(clock::now() < deadline);
        clients.wait(TIMEOUT, |_| {});
    }
    assert!(!clients.is_cut_off());
}
