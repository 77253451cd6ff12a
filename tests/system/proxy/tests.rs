//! What the proxy does to a connection, seen from its two ends.

use super::{End, Manner, Proxy, Way};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What is waited for comes within this time, or never.
const SOON: Duration = Duration::from_secs(20);
/// What must not come has this long to come.
const NEVER: Duration = Duration::from_millis(150);

/// A service, a proxy to it, and both ends of a connection through it.
fn connection() -> (Proxy, TcpStream, TcpStream) {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::to(service.local_addr().unwrap());
    let (client, server) = through(&proxy, &service);
    (proxy, client, server)
}

fn through(proxy: &Proxy, service: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    let (mut server, _) = service.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(SOON)).unwrap();
    }
    // Once a byte has come through, the proxy knows of the connection.
    client.write_all(b"0").unwrap();
    assert_eq!(receive(&mut server, 1), b"0");
    (client, server)
}

fn receive(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut received = vec![0; bytes];
    stream.read_exact(&mut received).unwrap();
    received
}

/// Whether nothing comes for a while.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(NEVER)).unwrap();
    let came = stream.read(&mut [0]);
    stream.set_read_timeout(Some(SOON)).unwrap();
    came.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[test]
fn bytes_and_the_end_pass_both_ways() {
    let (proxy, mut client, mut server) = connection();
    client.write_all(b"question").unwrap();
    assert_eq!(receive(&mut server, 8), b"question");
    server.write_all(b"answer").unwrap();
    assert_eq!(receive(&mut client, 6), b"answer");
    assert_eq!((proxy.connections(), proxy.made()), (1, 1));
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end is passed on");
}

#[test]
fn what_stands_still_passes_nothing_until_it_moves_again() {
    let (proxy, mut client, mut server) = connection();
    let still = Manner {
        stands_still: true,
        ..Manner::default()
    };
    proxy.set(Way::Down, still);
    client.write_all(b"q").unwrap();
    assert_eq!(receive(&mut server, 1), b"q", "the other way goes on");
    server.write_all(b"a").unwrap();
    assert!(is_silent(&mut client));
    proxy.set(Way::Down, Manner::default());
    assert_eq!(receive(&mut client, 1), b"a", "nothing was lost");
}

#[test]
fn a_stranded_connection_stays_silent_and_a_new_one_does_not() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::to(service.local_addr().unwrap());
    let (mut old, _server) = through(&proxy, &service);
    proxy.strand();
    let (mut client, mut server) = through(&proxy, &service);
    client.write_all(b"n").unwrap();
    assert_eq!(receive(&mut server, 1), b"n");
    assert!(is_silent(&mut old));
    proxy.end_all(End::Reset);
    assert!(old.read(&mut [0]).is_err(), "it ends when it is ended");
}

#[test]
fn a_cut_is_an_end_and_a_reset_an_error_for_both_sides() {
    let (proxy, mut client, mut server) = connection();
    assert_eq!(proxy.end_all(End::Cut), 1);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);

    let (proxy, mut client, mut server) = connection();
    assert_eq!(proxy.end_all(End::Reset), 1);
    for end in [&mut client, &mut server] {
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn an_answer_is_cut_in_its_middle() {
    let (proxy, mut client, mut server) = connection();
    proxy.end_after(Way::Down, 3, End::Cut);
    server.write_all(b"answer").unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"ans");
    assert!(!proxy.end_is_due(), "once");
}

#[test]
fn a_slow_way_takes_its_time_and_loses_nothing() {
    let bytes: Vec<u8> = (0..=255).cycle().take(2000).collect();
    let delay = Duration::from_millis(100);
    let manners = [
        Manner {
            delay,
            jitter: delay,
            ..Manner::default()
        },
        Manner {
            bytes_per_second: Some(20_000),
            ..Manner::default()
        },
        Manner {
            slice: Some((10, Duration::from_micros(500))),
            ..Manner::default()
        },
    ];
    for manner in manners {
        let (proxy, mut client, mut server) = connection();
        proxy.set(Way::Up, manner);
        let began = Instant::now();
        client.write_all(&bytes).unwrap();
        assert_eq!(receive(&mut server, bytes.len()), bytes, "{manner:?}");
        // The last pause comes after the last byte.
        assert!(began.elapsed() > delay * 3 / 4, "{manner:?}");
        assert_eq!(proxy.carried(Way::Up), 2001);
    }
}

#[test]
fn a_slow_close_is_heard_of_later() {
    let (proxy, mut client, mut server) = connection();
    proxy.set(
        Way::Down,
        Manner {
            close_delay: 2 * NEVER,
            ..Manner::default()
        },
    );
    // Its thread may be in a read that it began in the old manner.
    server.write_all(b"a").unwrap();
    assert_eq!(receive(&mut client, 1), b"a");
    drop(server);
    let closed = Instant::now();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(closed.elapsed() > NEVER);
}

#[test]
fn a_service_that_is_away_closes_the_connection() {
    let address = SocketAddr::from(([127, 0, 0, 1], crate::pond::free_port()));
    let proxy = Proxy::to(address);
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    // An end or an RST, as the system likes.
    assert!(client.read(&mut [0]).unwrap_or(0) == 0);
    assert_eq!(proxy.made(), 0);
}
