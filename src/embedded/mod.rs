//! A private Postgres for demonstrations, from binaries that are installed or fetched. Its directory and its processes end
//! with the process that started it, however that ends. (The private Kafka is [`crate::kafka::mock`].)

// Which binaries.
pub mod binaries;
#[cfg(feature = "embedded-postgres")]
mod fetch;
// Under which user.
mod account;
// The server itself.
pub mod server;

pub use binaries::Binaries;
pub use server::Server;

use std::io;
use std::path::PathBuf;

/// Why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No server is installed, and none can be fetched.
    #[error(
        "no Postgres server was found on PATH or in /usr/lib/postgresql/*/bin{why}; install one (Debian: apt-get install \
         postgresql), or name a running one with --postgres URL"
    )]
    NoBinaries {
        /// After "; ": why none was fetched.
        why: String,
    },
    /// A file or a process could not be made.
    #[error("{doing}: {source}")]
    System {
        /// What was tried, with its path.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server did not come up.
    #[error("Postgres of {binaries} did not start in {directory}; it said:\n{said}")]
    NotStarted {
        /// Where its programs are.
        binaries: PathBuf,
        /// Where it should have run.
        directory: PathBuf,
        /// The end of its log.
        said: String,
    },
}

/// For `map_err`: what was tried.
fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedError {
    let doing = doing.into();
    move |source| EmbeddedError::System { doing, source }
}
