//! Which Postgres programs to run: those installed, of the highest version; else fetched ones.

use super::EmbeddedError;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and its kin put each major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The oldest server that Millpond works with.
const MAJOR_MIN: u32 = 13;

/// A folder with `postgres` and `initdb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub directory: PathBuf,
    /// Such as 15.14; a beta's is that of its release.
    pub version: (u32, u32),
}

impl Binaries {
    /// Installed ones if there are any, else fetched ones. `say` is told before something takes long.
    pub fn find(say: impl FnOnce(&str)) -> Result<Self, EmbeddedError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        match Self::installed(std::env::split_paths(&path), Path::new(VERSIONS)) {
            Some(found) => Ok(found),
            None => fetched(say),
        }
    }

    /// The highest version in these folders and in `versions/*/bin`; of equal ones the first.
    fn installed(path: impl Iterator<Item = PathBuf>, versions: &Path) -> Option<Self> {
        let versions = std::fs::read_dir(versions).into_iter().flatten().flatten();
        let folders = path.chain(versions.map(|version| version.path().join("bin")));
        let found = folders.filter_map(Self::of_folder);
        found.reduce(|best, next| {
            if next.version > best.version {
                next
            } else {
                best
            }
        })
    }

    /// What a folder holds; `None` without both programs, or with ones that are too old or don't run.
    pub(super) fn of_folder(folder: PathBuf) -> Option<Self> {
        // A link may lead to where the libraries and other files beside the programs are.
        let directory = folder.join("postgres").canonicalize().ok()?;
        let directory = directory.parent()?.to_owned();
        if !directory.join("initdb").exists() {
            return None;
        }
        let said = Command::new(directory.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let version = version(&String::from_utf8_lossy(&said.stdout))?;
        (version.0 >= MAJOR_MIN).then_some(Self { directory, version })
    }
}

/// Of `postgres (PostgreSQL) 15.14 (Debian …)`, `… 18beta1`.
fn version(said: &str) -> Option<(u32, u32)> {
    let number = said.split_whitespace().nth(2)?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().and_then(|minor| minor.parse().ok());
    Some((major, minor.unwrap_or(0)))
}

#[cfg(feature = "embedded-postgres")]
fn fetched(say: impl FnOnce(&str)) -> Result<Binaries, EmbeddedError> {
    super::fetch::fetched(say)
}

#[cfg(not(feature = "embedded-postgres"))]
fn fetched(_say: impl FnOnce(&str)) -> Result<Binaries, EmbeddedError> {
    let why = "; this millpond was built without the feature embedded-postgres, so it fetches none";
    Err(EmbeddedError::NoBinaries {
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn program(folder: &Path, name: &str, says: &str) {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn server(folder: &Path, version: &str) {
        program(
            folder,
            "postgres",
            &format!("postgres (PostgreSQL) {version}"),
        );
        program(folder, "initdb", "");
    }

    #[test]
    fn the_highest_version_wins_by_number_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        let path = || [at("first"), at("second"), at("absent")].into_iter();
        assert_eq!(Binaries::installed(path(), &at("versions")), None);
        server(&at("first"), "14.9");
        server(&at("second"), "14.9");
        let found = Binaries::installed(path(), &at("versions")).unwrap();
        assert_eq!(found.directory, at("first"));
        server(&at("versions/9.6/bin"), "9.6.24");
        server(&at("versions/14/bin"), "14.10 (Debian 14.10-1)");
        let found = Binaries::installed(path(), &at("versions")).unwrap();
        assert_eq!(found.directory, at("versions/14/bin"));
        assert_eq!(found.version, (14, 10));
    }

    #[test]
    fn folders_without_both_programs_and_old_servers_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        program(&at("client"), "initdb", "");
        program(&at("half"), "postgres", "postgres (PostgreSQL) 17.5");
        server(&at("old"), "12.22");
        server(&at("broken"), "what?");
        for folder in ["client", "half", "old", "broken"] {
            assert_eq!(Binaries::of_folder(at(folder)), None, "{folder}");
        }
    }

    #[test]
    fn a_link_leads_to_the_programs_own_folder() {
        let root = tempfile::tempdir().unwrap();
        let (real, links) = (root.path().join("real"), root.path().join("links"));
        server(&real, "16.2");
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(real.join("postgres"), links.join("postgres")).unwrap();
        let found = Binaries::of_folder(links).unwrap();
        assert_eq!(found.directory, real.canonicalize().unwrap());
    }

    #[test]
    fn versions_are_read_from_what_servers_say() {
        let says = |number: &str| version(&format!("postgres (PostgreSQL) {number}"));
        assert_eq!(says("15.14 (Debian 15.14-0+deb12u1)"), Some((15, 14)));
        assert_eq!(says("18beta1"), Some((18, 0)));
        assert_eq!(says("17"), Some((17, 0)));
        assert_eq!(version("postgres"), None);
    }
}
