//! The accepting thread: waits for connections and hands each on, until it is told to stop.

use crate::fault;
use crate::sync::{AtomicBool, Ordering};
use crate::vital;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The pause after a failed accept: what is missing (descriptors, memory) does not come back at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The pause between attempts to wake the accepting thread.
const WAKE_RETRY: Duration = Duration::from_millis(10);

/// A listening socket and its thread.
pub(super) struct Acceptor {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Listens; `each` gets every connection, on the thread `<name>-accept`.
    ///
    /// # Errors
    /// The address can't be listened on, or there is no thread for it.
    pub(super) fn start(
        listen: SocketAddr,
        name: &str,
        mut each: impl FnMut(TcpStream, SocketAddr) + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (until, name) = (stopping.clone(), name.to_owned());
        let thread = vital::spawn(format!("{name}-accept"), move || {
            accept(&listener, &name, &until, &mut each);
        })?;
        Ok(Self {
            address,
            stopping,
            thread: Some(thread),
        })
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listening socket; nothing is accepted any more.
    pub(super) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.stopping.store(true, Ordering::Relaxed);
        self.wake(&thread);
        thread.join().expect("the accepting thread does not panic");
    }

    /// The thread waits in accept, so it gets a connection.
    fn wake(&self, thread: &JoinHandle<()>) {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            match address {
                SocketAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                SocketAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            }
        }
        while !thread.is_finished() {
            drop(TcpStream::connect_timeout(&address, WAKE_RETRY));
            thread::sleep(WAKE_RETRY);
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(
    listener: &TcpListener,
    name: &str,
    until: &AtomicBool,
    each: &mut impl FnMut(TcpStream, SocketAddr),
) {
    let mut failing = false;
    loop {
        let accepted = listener.accept();
        if until.load(Ordering::Relaxed) {
            return;
        }
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                fault::panic_point("accept");
                each(stream, peer);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(error = %error, "{name}: no connection can be accepted; trying again");
                }
                failing = true;
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}
