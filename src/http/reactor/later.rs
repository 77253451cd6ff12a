//! An answer that comes from elsewhere: somebody promises a value, a connection waits for it.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

enum State<T> {
    Promised(Option<Waker>),
    Kept(T),
    /// Nobody will keep it; or it was taken.
    Empty,
}

/// To be kept once, from any thread. Dropped, it is broken, and its [`Later`] ends with `None`.
pub struct Promise<T>(Option<Arc<Mutex<State<T>>>>);

/// What was promised.
pub struct Later<T>(Arc<Mutex<State<T>>>);

/// A promise, and what waits for it.
pub fn promise<T>() -> (Promise<T>, Later<T>) {
    let state = Arc::new(Mutex::new(State::Promised(None)));
    (Promise(Some(state.clone())), Later(state))
}

impl<T> Promise<T> {
    /// Keeps it.
    pub fn keep(mut self, value: T) {
        self.settle(State::Kept(value));
    }

    fn settle(&mut self, settled: State<T>) {
        let Some(state) = self.0.take() else {
            return;
        };
        let before = std::mem::replace(&mut *state.lock(), settled);
        if let State::Promised(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.settle(State::Empty);
    }
}

impl<T> Future for Later<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Promised(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => match std::mem::replace(&mut *state, State::Empty) {
                State::Kept(value) => Poll::Ready(Some(value)),
                _ => Poll::Ready(None),
            },
        }
    }
}
