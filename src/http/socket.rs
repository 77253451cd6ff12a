//! A connection's socket as hyper sees it, and what drives hyper. hyper polls; our reads and writes block, so whatever
//! they wait for happens within the poll.

use super::connection::Connection;
use crate::sync::{AtomicBool, Ordering};
use hyper::rt::ReadBufCursor;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Bytes of one read: most requests are smaller, and the buffer is on the thread's stack.
pub(super) const READ_BYTES: usize = 8192;

pub(super) struct Socket<'a> {
    connection: &'a Connection,
    /// Whether hyper, since it last wrote, has had the chance to write all it has before it is kept in a read.
    yielded: bool,
}

impl<'a> Socket<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            yielded: false,
        }
    }
}

impl hyper::rt::Read for Socket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.yielded {
            self.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        let mut bytes = [0; READ_BYTES];
        let room = into.remaining().min(READ_BYTES);
        let count = self.connection.read(&mut bytes[..room])?;
        into.put_slice(&bytes[..count]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Socket<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.yielded = false;
        Poll::Ready(self.connection.write(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.end_writing();
        Poll::Ready(Ok(()))
    }
}

/// Runs hyper's side of a connection to its end. One that is pending and was not woken would wait for ever, since nobody
/// else could wake it: that is an end, too.
pub(super) fn drive(protocol: impl Future<Output = hyper::Result<()>>) -> hyper::Result<()> {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let mut protocol = pin!(protocol);
    loop {
        if let Poll::Ready(result) = protocol.as_mut().poll(&mut context) {
            return result;
        }
        if !woken.0.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
    }
}
