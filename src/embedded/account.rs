//! The account that a server runs under: Postgres refuses to run as root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// In order of preference: the server's own, then one that owns nothing.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// Whether we are root. Without /proc we can't tell, and Postgres will.
pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A user that is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its number.
    pub user: u32,
    /// Its group's.
    pub group: u32,
}

impl Account {
    /// The account for a server; `None` for our own, which is not root.
    pub fn for_server() -> Option<Self> {
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        is_root().then(|| Self::among(&accounts))
    }

    /// The best one of a passwd file.
    fn among(accounts: &str) -> Self {
        /// What "nobody" is on every Linux, should the file not say.
        const NOBODY: Account = Account {
            user: 65534,
            group: 65534,
        };
        let find = |name: &&str| accounts.lines().find_map(|line| Self::of_line(line, name));
        NAMES.iter().find_map(find).unwrap_or(NOBODY)
    }

    /// `name:password:user:group:…`
    fn of_line(line: &str, name: &str) -> Option<Self> {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        Some(Self {
            user: fields.nth(1)?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    }

    /// Lets a command run under the account, without our other groups.
    pub fn takes(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_account_is_preferred_and_nobody_is_always_there() {
        let nobody = "root:x:0:0::/:/bin/sh\nnobody:x:99:98::/:/bin/false\n";
        let account = |user, group| Account { user, group };
        assert_eq!(Account::among(nobody), account(99, 98));
        let postgres = format!("{nobody}postgres:x:101:104::/var:/bin/bash\n");
        assert_eq!(Account::among(&postgres), account(101, 104));
        assert_eq!(
            Account::among("+::::::\nnobody:x:?\n"),
            account(65534, 65534)
        );
    }
}
