//! A TCP proxy between a process and a service, which does to connections what bad networks do. What it does is changed while
//! it runs, and is done to the connections that are there as well as to new ones.
//!
//! A thread accepts, and two carry for each connection, one each way ([`carry`]). All end with the proxy.

mod carry;
mod tests;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// More at a time are turned away: a client that connects in a circle must not take all threads.
const CONNECTIONS_MAX: usize = 64;
/// How often it is looked for a new connection, and for the end.
const LOOK: Duration = Duration::from_millis(5);
/// Reads and writes look that often whether their connection is over.
const WAIT: Duration = Duration::from_millis(50);
const CONNECT: Duration = Duration::from_secs(5);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connects to the service.
    Up,
    /// Back.
    Down,
}

/// How one way carries. As it is made, at once and whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Nothing is read and nothing passed on, and nobody is told.
    pub stands_still: bool,
    /// Before each chunk that is read, and up to as much more as the second says.
    pub delay: Duration,
    pub jitter: Duration,
    /// Of each connection.
    pub bytes_per_second: Option<u32>,
    /// Passed on in pieces of so many bytes, with a pause after each.
    pub slice: Option<(usize, Duration)>,
    /// Before the other side hears that this one has closed.
    pub close_delay: Duration,
}

/// How connections are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides are told that the other one has closed.
    Cut,
    /// Both sides get an RST.
    Reset,
}

/// Ends when dropped, with all connections.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// A manner has changed, or connections are over.
    changed: Condvar,
    /// Bytes that were passed on, by way.
    carried: [AtomicU64; 2],
    made: AtomicU64,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    manners: [Manner; 2],
    /// After so many bytes more all connections end so.
    left: [Option<(u64, End)>; 2],
    links: Vec<Weak<Link>>,
}

/// Two connections, of which one is the other's continuation. Its sockets are closed with the last of its threads.
struct Link {
    client: TcpStream,
    service: TcpStream,
    over: AtomicBool,
    /// Stands still for ever, whatever the manner.
    stranded: AtomicBool,
}

impl Link {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn end(&self, end: End) {
        self.over.store(true, Ordering::Relaxed);
        for stream in [&self.client, &self.service] {
            // It may have ended by itself.
            let _ = match end {
                End::Cut => stream.shutdown(Shutdown::Both),
                // Sent when the socket is closed. That it reads no more wakes the thread which waits for it.
                End::Reset => socket2::SockRef::from(stream)
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| stream.shutdown(Shutdown::Read)),
            };
        }
    }
}

impl Proxy {
    /// Listens on a port of its own.
    pub fn to(service: SocketAddr) -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), service)
    }

    /// Listens on an address that somebody knows already.
    pub fn on(address: SocketAddr, service: SocketAddr) -> Self {
        Self::begin(address, service, None)
    }

    /// Goes on in another network namespace, in which the service is. `namespace` is its file.
    pub fn into(namespace: File, address: SocketAddr, service: SocketAddr) -> Self {
        Self::begin(address, service, Some(namespace))
    }

    fn begin(address: SocketAddr, service: SocketAddr, namespace: Option<File>) -> Self {
        let listener =
            TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            carried: Default::default(),
            made: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let acceptor = std::thread::Builder::new().name("proxy".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                if let Some(namespace) = namespace {
                    enter(&namespace);
                }
                accept(&listener, service, &shared);
            }
        });
        Self {
            shared,
            address,
            acceptor: Some(acceptor.unwrap()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on that way is carried so.
    pub fn set(&self, way: Way, manner: Manner) {
        self.shared.lock().manners[way as usize] = manner;
        self.shared.changed.notify_all();
    }

    /// Both ways are carried so.
    pub fn set_both(&self, manner: Manner) {
        self.set(Way::Up, manner);
        self.set(Way::Down, manner);
    }

    /// Ends all connections; how many there were.
    pub fn end_all(&self, end: End) -> usize {
        self.shared.end_all(end)
    }

    /// All connections end when so many bytes more have gone that way: in the middle of what is sent. Once.
    pub fn end_after(&self, way: Way, bytes: u64, end: End) {
        self.shared.lock().left[way as usize] = Some((bytes, end));
    }

    /// Whether an end that was asked for is still to come.
    pub fn end_is_due(&self) -> bool {
        self.shared.lock().left.iter().any(Option::is_some)
    }

    /// The connections that are there stand still for ever; new ones are as good as the manner says.
    pub fn strand(&self) {
        for link in self.shared.links() {
            link.stranded.store(true, Ordering::Relaxed);
        }
    }

    /// Connections that are there.
    pub fn connections(&self) -> usize {
        self.shared.links().len()
    }

    /// Connections that were ever made.
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// Bytes that were passed on that way.
    pub fn carried(&self, way: Way) -> u64 {
        self.shared.carried[way as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let links = self.lock().links.iter().filter_map(Weak::upgrade).collect();
        // Those that have been ended are a moment from being closed.
        let mut links: Vec<Arc<Link>> = links;
        links.retain(|link| !link.is_over());
        links
    }

    fn end_all(&self, end: End) -> usize {
        let links = self.links();
        for link in &links {
            link.end(end);
        }
        self.changed.notify_all();
        links.len()
    }

    /// How that way is to be carried, once it does not stand still. `None`: the connection is over.
    fn manner(&self, link: &Link, way: Way) -> Option<Manner> {
        let mut state = self.lock();
        while !link.is_over() {
            let manner = state.manners[way as usize];
            if !manner.stands_still && !link.stranded.load(Ordering::Relaxed) {
                return Some(manner);
            }
            state = self.changed.wait_timeout(state, WAIT).unwrap().0;
        }
        None
    }

    /// Waits that long. `None`: the connection is over.
    fn pause(&self, link: &Link, time: Duration) -> Option<()> {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !link.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(());
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        None
    }

    /// Takes bytes off what may go that way before the end: how many of them may go, and the end that comes with them.
    fn spend(&self, way: Way, bytes: usize) -> (usize, Option<End>) {
        let mut state = self.lock();
        let Some((left, end)) = &mut state.left[way as usize] else {
            return (bytes, None);
        };
        match usize::try_from(*left) {
            Ok(left) if left <= bytes => {
                let end = *end;
                state.left[way as usize] = None;
                (left, Some(end))
            }
            _ => {
                *left -= bytes as u64;
                (bytes, None)
            }
        }
    }
}

/// The calling thread opens its sockets in that namespace from now on.
fn enter(namespace: &File) {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn accept(listener: &TcpListener, service: SocketAddr, shared: &Arc<Shared>) {
    let mut carriers: Vec<JoinHandle<()>> = Vec::new();
    while !shared.over.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        carriers.retain(|carrier| !carrier.is_finished());
        if carriers.len() / 2 >= CONNECTIONS_MAX {
            continue;
        }
        // A client whose service is away sees its connection closed.
        if let Ok(link) = connect(client, service) {
            let link = Arc::new(link);
            let mut state = shared.lock();
            state.links.retain(|link| link.strong_count() > 0);
            state.links.push(Arc::downgrade(&link));
            drop(state);
            let made = shared.made.fetch_add(1, Ordering::Relaxed);
            for way in [Way::Up, Way::Down] {
                let (shared, link) = (shared.clone(), link.clone());
                let random = SmallRng::seed_from_u64(made * 2 + way as u64);
                carriers.push(std::thread::spawn(move || {
                    carry::carry(&shared, &link, way, random);
                }));
            }
        }
    }
    shared.end_all(End::Cut);
    for carrier in carriers {
        let _ = carrier.join();
    }
}

fn connect(client: TcpStream, service: SocketAddr) -> io::Result<Link> {
    let service = TcpStream::connect_timeout(&service, CONNECT)?;
    for stream in [&client, &service] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
    }
    Ok(Link {
        client,
        service,
        over: AtomicBool::new(false),
        stranded: AtomicBool::new(false),
    })
}
