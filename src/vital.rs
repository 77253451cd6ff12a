//! Threads whose work nobody else does. Without one of them the process would look alive and be idle, so its panic ends the
//! process at once, by SIGABRT: what was in flight is read again. Pollers, workers and the rules' thread are watched by the
//! pipeline instead, which still commits what is finished, and leaves the group.

use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle};

thread_local! {
    static IS_VITAL: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread's panic ends the process.
pub fn is_here() -> bool {
    IS_VITAL.get()
}

/// Starts such a thread.
///
/// # Errors
/// The system has no thread left.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(move || {
        let _vital = Vital::begin();
        work()
    })
}

/// On the stack of such a thread.
struct Vital;

impl Vital {
    fn begin() -> Self {
        IS_VITAL.set(true);
        Self
    }
}

impl Drop for Vital {
    /// The panic's own hook has said what happened.
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
