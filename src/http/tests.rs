//! Both servers as clients see them, through plain sockets: every limit and every way to end a connection.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Limits, Request, Response, Server, StatusCode, header, reactor};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const LIMITS: Limits = Limits {
    connections_max: 4,
    head_bytes_max: 8192,
    body_bytes_max: 1000,
    head_deadline: Duration::from_secs(10),
    request_deadline: Duration::from_secs(10),
    idle_deadline: Duration::from_secs(10),
    write_deadline: Duration::from_secs(10),
};
const SHORT: Duration = Duration::from_millis(200);
const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Answers with what it got.
fn echo(request: Request) -> Response {
    match request.path() {
        "/panic" => panic!("as asked"),
        "/slow" => std::thread::sleep(SHORT),
        _ => {}
    }
    let body = String::from_utf8_lossy(request.body());
    Response::text(
        StatusCode::OK,
        format_args!(
            "{} {} {:?} <{body}>",
            request.method(),
            request.path(),
            request.query()
        ),
    )
}

/// Both servers.
#[derive(Clone, Copy)]
enum Kind {
    Threads,
    EventLoops,
}

enum Running {
    Threads(Server),
    EventLoops(reactor::Server),
}

impl Kind {
    fn start(self, limits: Limits) -> Running {
        self.start_with(limits, echo)
    }

    fn start_with(
        self,
        limits: Limits,
        handler: impl Fn(Request) -> Response + Clone + Send + Sync + 'static,
    ) -> Running {
        match self {
            Self::Threads => {
                Running::Threads(Server::start(ANY_PORT, limits, "test", handler).unwrap())
            }
            Self::EventLoops => {
                let setup = reactor::Setup {
                    listen: ANY_PORT,
                    limits,
                    threads: 2,
                    name: "test",
                    tls: None,
                    screen: Box::new(|_, _| Ok(())),
                    handler: Box::new(move |request| later(request, handler.clone())),
                    refuse: Box::new(|status, line| {
                        let response = Response::text(status, line);
                        let retry = header::HeaderValue::from_static("1");
                        match status {
                            StatusCode::SERVICE_UNAVAILABLE => {
                                response.with_header(header::RETRY_AFTER, retry)
                            }
                            _ => response,
                        }
                    }),
                };
                Running::EventLoops(reactor::Server::start(setup).unwrap())
            }
        }
    }
}

/// Answers every other way: at once, or from another thread; the one that panics, at once.
fn later(
    request: Request,
    handler: impl Fn(Request) -> Response + Send + 'static,
) -> reactor::Answer {
    if request.path() == "/panic" {
        return reactor::Answer::Now(handler(request));
    }
    let (promise, later) = reactor::promise();
    std::thread::spawn(move || promise.keep(handler(request)));
    reactor::Answer::Later(Box::pin(async { later.await.unwrap() }))
}

impl Running {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Threads(server) => server.address(),
            Self::EventLoops(server) => server.address(),
        }
    }

    fn stop(self, within: Duration) -> usize {
        match self {
            Self::Threads(server) => server.stop(within),
            Self::EventLoops(server) => server.stop(within),
        }
    }
}

/// Each test, with each server.
macro_rules! with_both {
    ($($name:ident)*) => {
        mod threads {
            $(#[test] fn $name() { super::$name(super::Kind::Threads) })*
        }
        mod event_loops {
            $(#[test] fn $name() { super::$name(super::Kind::EventLoops) })*
        }
    };
}

with_both! {
    a_connection_is_kept_for_the_next_request
    pipelined_requests_are_answered_in_order
    an_answer_does_not_wait_for_the_rest_of_a_half_sent_request
    chunked_bodies_and_bodies_in_pieces_arrive_whole
    a_client_that_expects_100_continue_gets_it_before_it_sends_the_body
    a_head_that_trickles_is_cut_with_408
    a_body_that_trickles_is_cut_with_408
    an_idle_connection_is_closed_without_a_word
    too_large_a_head_is_answered_431
    too_large_a_body_is_answered_413_whether_announced_or_found
    what_is_no_request_is_answered_400
    a_connection_beyond_the_limit_is_answered_503_and_room_is_made_by_closing_one
    a_handler_that_panics_is_one_request_s_failure
    a_client_that_does_not_read_is_cut_at_the_write_deadline
    stopping_closes_idle_connections_and_lets_a_request_under_way_be_answered
    stopping_cuts_at_its_deadline_what_is_left
}

struct Client(TcpStream);

impl Client {
    fn of(server: &Running) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    fn get(&mut self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.answer()
    }

    /// One answer: its head, and its body as far as its content-length says.
    fn answer(&mut self) -> String {
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            answer.push(self.byte().expect("the connection ended within a head"));
        }
        let length = answer
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        for _ in 0..length.map_or(0, |length| length.parse::<usize>().unwrap()) {
            answer.push(self.byte().expect("the connection ended within a body"));
        }
        answer
    }

    fn byte(&mut self) -> Option<char> {
        let mut byte = [0];
        (self.0.read(&mut byte).unwrap() == 1).then(|| char::from(byte[0]))
    }

    /// What comes before the server closes.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        rest
    }
}

fn a_connection_is_kept_for_the_next_request(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    assert!(
        client
            .get("/one?a=b")
            .ends_with("GET /one Some(\"a=b\") <>\n")
    );
    assert!(client.get("/two").ends_with("GET /two None <>\n"));
}

fn pipelined_requests_are_answered_in_order(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    let requests = (0..40)
        .map(|n| format!("PUT /{n} HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbody"));
    client.send(&requests.collect::<String>());
    for n in 0..40 {
        assert!(
            client
                .answer()
                .ends_with(&format!("PUT /{n} None <body>\n"))
        );
    }
}

fn an_answer_does_not_wait_for_the_rest_of_a_half_sent_request(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    client.send("GET /one HTTP/1.1\r\nhost: test\r\n\r\nGET /two HT");
    assert!(client.answer().ends_with("GET /one None <>\n"));
    client.send("TP/1.1\r\nhost: test\r\n\r\n");
    assert!(client.answer().ends_with("GET /two None <>\n"));
}

fn chunked_bodies_and_bodies_in_pieces_arrive_whole(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    client.send("PUT / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    std::thread::sleep(SHORT);
    client.send("2\r\nde\r\n0\r\n\r\n");
    assert!(client.answer().ends_with("<abcde>\n"));
    client.send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nab");
    std::thread::sleep(SHORT);
    client.send("cde");
    assert!(client.answer().ends_with("<abcde>\n"));
}

fn a_client_that_expects_100_continue_gets_it_before_it_sends_the_body(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    client
        .send("PUT / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(client.answer(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert!(client.answer().ends_with("<abc>\n"));
}

fn a_head_that_trickles_is_cut_with_408(kind: Kind) {
    let server = kind.start(Limits {
        head_deadline: SHORT,
        ..LIMITS
    });
    let mut client = Client::of(&server);
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\n");
    let mut trickling = Client(client.0.try_clone().unwrap());
    let trickle = std::thread::spawn(move || {
        while trickling.0.write_all(b"a").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    assert!(
        client
            .answer()
            .starts_with("HTTP/1.1 408 Request Timeout\r\n")
    );
    assert!(began.elapsed() >= SHORT && began.elapsed() < SHORT * 5);
    assert_eq!(client.byte(), None);
    client.0.shutdown(Shutdown::Both).unwrap();
    trickle.join().unwrap();
}

fn a_body_that_trickles_is_cut_with_408(kind: Kind) {
    let server = kind.start(Limits {
        request_deadline: SHORT,
        ..LIMITS
    });
    let mut client = Client::of(&server);
    client.send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nabc");
    let rest = client.rest();
    assert!(
        rest.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{rest}"
    );
    assert!(rest.ends_with("the body took too long\n"), "{rest}");
}

fn an_idle_connection_is_closed_without_a_word(kind: Kind) {
    let server = kind.start(Limits {
        idle_deadline: SHORT,
        ..LIMITS
    });
    assert_eq!(Client::of(&server).rest(), "");
    let mut client = Client::of(&server);
    client.get("/");
    assert_eq!(client.rest(), "");
}

fn too_large_a_head_is_answered_431(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    client.send(&format!(
        "GET / HTTP/1.1\r\nhost: test\r\nlong: {}",
        "a".repeat(9000)
    ));
    assert!(client.rest().starts_with("HTTP/1.1 431 "));
}

fn too_large_a_body_is_answered_413_whether_announced_or_found(kind: Kind) {
    let server = kind.start(LIMITS);
    for request in [
        "content-length: 1001\r\n\r\n".to_owned(),
        format!("content-length: 100000\r\n\r\n{}", "a".repeat(100_000)),
        format!(
            "transfer-encoding: chunked\r\n\r\n3ea\r\n{}\r\n0\r\n\r\n",
            "a".repeat(1002)
        ),
    ] {
        let mut client = Client::of(&server);
        client.send(&format!("PUT / HTTP/1.1\r\nhost: test\r\n{request}"));
        let rest = client.rest();
        assert!(
            rest.starts_with("HTTP/1.1 413 Payload Too Large\r\n"),
            "{rest}"
        );
        assert!(rest.contains("connection: close\r\n"), "{rest}");
    }
}

fn what_is_no_request_is_answered_400(kind: Kind) {
    let server = kind.start(LIMITS);
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ] {
        let mut client = Client::of(&server);
        client.send(request);
        let rest = client.rest();
        assert!(rest.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{rest}");
    }
}

fn a_connection_beyond_the_limit_is_answered_503_and_room_is_made_by_closing_one(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut clients = (0..4).map(|_| Client::of(&server)).collect::<Vec<_>>();
    clients
        .iter_mut()
        .for_each(|client| assert!(client.get("/").starts_with("HTTP/1.1 200 OK\r\n")));
    let mut refused = Client::of(&server);
    refused.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    let rest = refused.rest();
    assert!(
        rest.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{rest}"
    );
    assert!(rest.contains("connection: close\r\n"), "{rest}");
    assert!(rest.contains("retry-after: 1\r\n"), "{rest}");
    clients.pop();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !Client::of(&server)
        .get("/")
        .starts_with("HTTP/1.1 200 OK\r\n")
    {
        assert!(
            Instant::now() < deadline,
            "a closed connection's place is not given on"
        );
    }
}

fn a_handler_that_panics_is_one_request_s_failure(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    client.send("GET /panic HTTP/1.1\r\nhost: test\r\n\r\n");
    assert!(
        client
            .rest()
            .starts_with("HTTP/1.1 500 Internal Server Error\r\n")
    );
    assert!(
        Client::of(&server)
            .get("/")
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
}

fn a_client_that_does_not_read_is_cut_at_the_write_deadline(kind: Kind) {
    let large = "a".repeat(64 * 1024 * 1024);
    let (done, is_done) = mpsc::channel();
    let limits = Limits {
        write_deadline: SHORT,
        ..LIMITS
    };
    let server = kind.start_with(limits, move |_| {
        done.send(()).unwrap();
        Response::text(StatusCode::OK, &large)
    });
    let mut client = Client::of(&server);
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    is_done.recv().unwrap();
    std::thread::sleep(SHORT * 2);
    let mut received = Vec::new();
    // The cut shows as an early end or as a reset.
    let _ = client.0.read_to_end(&mut received);
    assert!(received.len() < 64 * 1024 * 1024);
}

fn stopping_closes_idle_connections_and_lets_a_request_under_way_be_answered(kind: Kind) {
    let server = kind.start(LIMITS);
    let address = server.address();
    let mut silent = Client::of(&server);
    let mut idle = Client::of(&server);
    idle.get("/");
    let mut busy = Client::of(&server);
    busy.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n");
    let mut halfway = Client::of(&server);
    halfway.send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\nabc");
    std::thread::sleep(SHORT / 2);
    let stopping = std::thread::spawn(move || server.stop(Duration::from_secs(10)));
    assert_eq!(silent.rest(), "");
    assert_eq!(idle.rest(), "");
    halfway.send("def");
    for answered in [busy.rest(), halfway.rest()] {
        assert!(answered.starts_with("HTTP/1.1 200 OK\r\n"), "{answered}");
        assert!(answered.contains("connection: close\r\n"), "{answered}");
    }
    drop((silent, idle, busy, halfway));
    assert_eq!(stopping.join().unwrap(), 0);
    assert!(TcpStream::connect(address).is_err());
}

fn stopping_cuts_at_its_deadline_what_is_left(kind: Kind) {
    let server = kind.start(LIMITS);
    let mut client = Client::of(&server);
    client.send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\nabc");
    std::thread::sleep(SHORT);
    assert_eq!(server.stop(SHORT), 1);
    // The cut shows as an end or as a reset.
    let mut received = Vec::new();
    let _ = client.0.read_to_end(&mut received);
    assert!(!received.starts_with(b"HTTP/1.1 200"));
}
