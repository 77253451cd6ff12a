//! The thread that carries bytes one way over one connection.

use super::{End, Link, Manner, Shared, Way};
use rand::Rng;
use rand::rngs::SmallRng;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

const CHUNK_BYTES: usize = 64 * 1024;
/// A narrow way is carried in pieces that take about this long.
const PIECES_PER_SECOND: u32 = 50;

/// Carries until the connection is over, or nothing more comes that way.
pub fn carry(shared: &Shared, link: &Link, way: Way, mut random: SmallRng) {
    let (from, to) = match way {
        Way::Up => (&link.client, &link.service),
        Way::Down => (&link.service, &link.client),
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    // What stands still is not read from either, so that the sender's window fills up.
    while let Some(manner) = shared.manner(link, way) {
        match read(from, &mut chunk) {
            Got::Nothing => {}
            Got::Bytes(count) => {
                if pass_on(shared, link, way, to, &chunk[..count], &mut random).is_none() {
                    return;
                }
            }
            Got::End => {
                if shared.pause(link, manner.close_delay).is_some() {
                    let _ = to.shutdown(Shutdown::Write);
                }
                return;
            }
            Got::Broken => return link.end(End::Reset),
        }
    }
}

enum Got {
    Nothing,
    Bytes(usize),
    End,
    Broken,
}

fn read(mut from: &TcpStream, chunk: &mut [u8]) -> Got {
    match from.read(chunk) {
        Ok(0) => Got::End,
        Ok(count) => Got::Bytes(count),
        Err(error) if waits(&error) => Got::Nothing,
        Err(_) => Got::Broken,
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Passes a chunk on in the manner of the moment. `None`: the connection is over.
fn pass_on(
    shared: &Shared,
    link: &Link,
    way: Way,
    to: &TcpStream,
    chunk: &[u8],
    random: &mut SmallRng,
) -> Option<()> {
    let manner = shared.manner(link, way)?;
    shared.pause(link, manner.delay + manner.jitter.mul_f64(random.random()))?;
    let mut rest = chunk;
    while !rest.is_empty() {
        // It may have come to stand still since the chunk was read.
        let manner = shared.manner(link, way)?;
        let (size, end) = shared.spend(way, piece(&manner, rest.len()));
        let (now, later) = rest.split_at(size);
        // Counted before, so that who has received them finds them counted.
        shared.carried[way as usize].fetch_add(size as u64, Ordering::Relaxed);
        write(link, to, now)?;
        if let Some(end) = end {
            shared.end_all(end);
            return None;
        }
        shared.pause(link, after(&manner, size))?;
        rest = later;
    }
    Some(())
}

/// How many of so many bytes go at once.
fn piece(manner: &Manner, bytes: usize) -> usize {
    let slice = manner.slice.map_or(bytes, |(slice, _)| slice);
    let narrow = manner.bytes_per_second.map_or(bytes, |rate| {
        usize::try_from(rate / PIECES_PER_SECOND).unwrap()
    });
    bytes.min(slice).min(narrow).max(1)
}

/// How long it is waited after so many bytes.
fn after(manner: &Manner, bytes: usize) -> Duration {
    let pause = manner.slice.map_or(Duration::ZERO, |(_, pause)| pause);
    let narrow = manner.bytes_per_second.map_or(Duration::ZERO, |rate| {
        Duration::from_secs_f64(bytes as f64 / f64::from(rate))
    });
    pause.max(narrow)
}

fn write(link: &Link, mut to: &TcpStream, mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() {
        if link.is_over() {
            return None;
        }
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if waits(&error) => {}
            Err(_) => {
                link.end(End::Reset);
                return None;
            }
        }
    }
    Some(())
}
