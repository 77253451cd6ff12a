//! Counts allocations by thread and by who asks for them, in test builds (feature `allocations`): what proves that the path of a
//! message has none of ours. Off until [`begin`]; C code's own are not seen.

#![expect(unsafe_code, reason = "an allocator can't be without")]

use backtrace::{resolve, trace};
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Frames that are looked at; deeper ones don't tell who asked.
const FRAMES: usize = 48;

/// Crates that keep things for others, as the standard library does: whoever called them asked.
const CONTAINERS: [&str; 4] = ["allocator-api2", "backtrace", "bytes", "hashbrown"];

type Stack = [usize; FRAMES];
/// By thread and stack.
type Counts = HashMap<(String, Stack), u64>;

static IS_ON: AtomicBool = AtomicBool::new(false);
/// Under a mutex that allocates nothing: one of parking_lot's would come here with a lock of its own in its hand.
static COUNTS: LazyLock<Mutex<Counts>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Counting allocates too.
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
}

/// An allocator that counts what another one is asked for.
pub struct Counting<A>(pub A);

// SAFETY: all is done by the inner allocator.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the inner allocator's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { self.0.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(at, layout) }
    }
}

fn count() {
    if !IS_ON.load(Ordering::Relaxed) || IS_COUNTING.replace(true) {
        return;
    }
    let mut stack = [0; FRAMES];
    let mut depth = 0;
    trace(|frame| {
        stack[depth] = frame.ip() as usize;
        depth += 1;
        depth < FRAMES
    });
    let thread = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    *counts().entry((thread, stack)).or_default() += 1;
    IS_COUNTING.set(false);
}

fn counts() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts from now on.
pub fn begin() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Ends counting, and writes a JSON line for each thread and place: the innermost line of code that is of no container.
pub fn write(to: &mut impl Write) -> std::io::Result<()> {
    IS_ON.store(false, Ordering::Relaxed);
    let mut by_place: HashMap<(String, Place), u64> = HashMap::new();
    for ((thread, stack), times) in counts().drain() {
        let place = Place::of(&stack);
        *by_place.entry((thread, place)).or_default() += times;
    }
    for ((thread, place), times) in by_place {
        let Place { owner, line } = place;
        let thread = thread.trim();
        writeln!(
            to,
            "{}",
            json!({"thread": thread, "crate": owner, "line": line, "times": times})
        )?;
    }
    Ok(())
}

/// A line of code, and the crate that it is of; both are empty where nothing is known.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    owner: String,
    line: String,
}

impl Place {
    fn of(stack: &Stack) -> Self {
        let mut found = None;
        for ip in stack.iter().take_while(|ip| **ip != 0) {
            resolve(*ip as *mut _, |symbol| {
                let place = symbol
                    .filename()
                    .zip(symbol.lineno())
                    .and_then(|(file, line)| Self::at(&file.to_string_lossy(), line));
                found = found.take().or(place);
            });
        }
        found.unwrap_or_default()
    }

    /// `None` for a container's line.
    fn at(file: &str, line: u32) -> Option<Self> {
        let (owner, file) = match file.split_once("/registry/src/") {
            // index/crate-1.2.3/src/lib.rs
            Some((_, path)) => {
                let (package, file) = path.split_once('/')?.1.split_once('/')?;
                (package.rsplit_once('-')?.0, file)
            }
            None if file.contains("/library/") => return None,
            None if ["src/allocations.rs", "src/main.rs"]
                .iter()
                .any(|own| file.ends_with(own)) =>
            {
                return None;
            }
            None => (
                "millpond",
                file.rsplit_once("src/").map_or(file, |(_, file)| file),
            ),
        };
        let is_container = CONTAINERS.contains(&owner);
        (!is_container).then(|| Self {
            owner: owner.to_owned(),
            line: format!("{file}:{line}"),
        })
    }
}
