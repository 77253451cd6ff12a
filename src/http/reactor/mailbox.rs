//! How other threads reach an event loop: they put something into its mailbox, and rouse the loop if it sleeps.
//!
//! The loop, before it sleeps, clears `awake` and then looks whether there is mail; whoever sends puts the mail in and
//! then sets `awake`, and makes the system call only if it was clear. All of it is sequentially consistent, so either the
//! loop sees the mail, or the sender sees that the loop is about to sleep. Under load the loop is awake, and an answer
//! costs no system call.

use crate::sync::{AtomicBool, Ordering};
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Poll, Token, Waker};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::task::Wake;

/// The loop's own token; connections have those above.
pub(super) const MAIL: Token = Token(0);

/// Both ends of a queue.
type Queue<T> = (Sender<T>, Receiver<T>);

/// One for each loop. Both queues are bounded by the connections: a connection is in them a few times at most.
pub(super) struct Mailbox {
    arrivals: Queue<(TcpStream, SocketAddr)>,
    woken: Queue<usize>,
    awake: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    /// Of the loop that sleeps in this poll.
    pub(super) fn new(poll: &Poll) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            arrivals: unbounded(),
            woken: unbounded(),
            awake: AtomicBool::new(true),
            waker: Waker::new(poll.registry(), MAIL)?,
        }))
    }

    /// A connection for the loop.
    pub(super) fn arrives(&self, stream: TcpStream, peer: SocketAddr) {
        self.arrivals
            .0
            .send((stream, peer))
            .expect("it has both ends");
        self.rouse();
    }

    /// Makes the loop look around.
    pub(super) fn rouse(&self) {
        if !self.awake.swap(true, Ordering::SeqCst) {
            // Fails only without the descriptor, which is ours.
            let _ = self.waker.wake();
        }
    }

    /// The loop is about to sleep: whether it may.
    pub(super) fn may_sleep(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        self.arrivals.1.is_empty() && self.woken.1.is_empty()
    }

    /// The loop doesn't sleep any more.
    pub(super) fn is_awake(&self) {
        self.awake.store(true, Ordering::SeqCst);
    }

    /// Connections that came by now.
    pub(super) fn arrived(&self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        self.arrivals.1.try_iter().take(self.arrivals.1.len())
    }

    /// Connections with news by now. One that has news all the time takes its turn like others.
    pub(super) fn news(&self) -> impl Iterator<Item = usize> {
        self.woken.1.try_iter().take(self.woken.1.len())
    }
}

/// Says that a connection has news.
pub(super) struct Bell {
    /// The connection's.
    pub token: usize,
    /// Its loop's.
    pub mailbox: Arc<Mailbox>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The receiver lives as long as the mailbox.
        let _ = self.mailbox.woken.0.send(self.token);
        self.mailbox.rouse();
    }
}
