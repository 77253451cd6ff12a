//! The binary: allocator, parse, run, exit code.

#[cfg(feature = "allocations")]
mod allocations;
#[cfg(target_os = "linux")]
#[path = "kafka/guard.rs"]
mod guard;

#[cfg(not(feature = "allocations"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "allocations")]
#[global_allocator]
static ALLOCATOR: allocations::Counting<mimalloc::MiMalloc> =
    allocations::Counting(mimalloc::MiMalloc);

#[cfg(not(feature = "allocations"))]
fn main() -> std::process::ExitCode {
    millpond::cli::main()
}

/// With `MILLPOND_TEST_ALLOCATIONS=FILE` writes who allocated there.
#[cfg(feature = "allocations")]
fn main() -> std::process::ExitCode {
    let Some(file) = std::env::var_os("MILLPOND_TEST_ALLOCATIONS") else {
        return millpond::cli::main();
    };
    let mut file = std::fs::File::create(file).expect("a file that can be made");
    allocations::begin();
    let code = millpond::cli::main();
    allocations::write(&mut file).expect("room for the counts");
    code
}
