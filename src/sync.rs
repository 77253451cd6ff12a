//! The one door to atomics: loom's in the build that checks the commit ring (`--features loom`), else the standard
//! library's.

#[cfg(feature = "loom")]
pub use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(feature = "loom"))]
pub use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence};

/// A flag that a signal handler sets, or that is there before anything else; never one of loom's.
pub use std::sync::atomic::AtomicBool as SignalFlag;

/// A counter that is there before anything else; never one of loom's.
pub use std::sync::atomic::AtomicU64 as SignalCount;
