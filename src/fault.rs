//! Named crash points and deliberately broken behaviour, for tests of the guarantees. Only with `--features faults`; in
//! every other build the functions are constants, but that tests within this crate break guarantees too (`in_tests`).
//!
//! `MILLPOND_TEST_CRASH=point` ends the process, as kill -9 would, the first time that it reaches the point:
//! `between-statements` and `after-write` of a batch, `before-own-commit` of one that a program writes, `before-links` and
//! `after-links` of the commit of links, `before-refuse` and `after-refuse` of an update, `before-dead-letter` and
//! `after-dead-letter` of a letter, `before-commit` and `after-commit` of offsets, `before-edge` of a rule's edge;
//! `MILLPOND_TEST_PANIC=point` has the thread panic there, at a crash point or at one of the [`panic_point`]s;
//! `MILLPOND_TEST_MUTANT=name` breaks one guarantee, so that a test can show that it would notice.

#[cfg(feature = "faults")]
use std::sync::OnceLock;

/// Ends the process here, without any clean-up, if this crash point was asked for.
#[cfg(feature = "faults")]
pub fn crash_point(name: &str) {
    static ASKED: OnceLock<Option<String>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| std::env::var("MILLPOND_TEST_CRASH").ok());
    if asked.as_deref() == Some(name) {
        std::process::abort();
    }
    panic_point(name);
}

/// Ends the process here if this crash point was asked for; never in this build.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn crash_point(_name: &str) {}

/// Panics here if that was asked for.
#[cfg(feature = "faults")]
pub fn panic_point(name: &str) {
    static ASKED: OnceLock<Option<String>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| std::env::var("MILLPOND_TEST_PANIC").ok());
    assert!(asked.as_deref() != Some(name), "as the test asked: {name}");
}

/// Panics here if that was asked for; never in this build.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn panic_point(_name: &str) {}

/// Whether this guarantee was asked to be broken.
#[cfg(all(feature = "faults", not(test)))]
pub fn mutant(name: &str) -> bool {
    static ASKED: OnceLock<Option<String>> = OnceLock::new();
    ASKED
        .get_or_init(|| std::env::var("MILLPOND_TEST_MUTANT").ok())
        .as_deref()
        == Some(name)
}

/// Whether the calling thread's test asked for this guarantee to be broken.
#[cfg(test)]
pub fn mutant(name: &str) -> bool {
    in_tests::BROKEN.get() == Some(name)
}

/// Which guarantee is broken, for tests within this crate: each thread has its own.
#[cfg(test)]
pub mod in_tests {
    use std::cell::Cell;

    thread_local! {
        /// The mutant's name.
        pub static BROKEN: Cell<Option<&'static str>> = const { Cell::new(None) };
    }
}

/// Whether this guarantee was asked to be broken; never in this build.
#[cfg(not(any(feature = "faults", test)))]
#[inline]
pub const fn mutant(_name: &str) -> bool {
    false
}
