//! Control groups, where one can be made: as root, in the tree of version 1 or 2. Removed when dropped, after what is in it.

use crate::child::{Process, binary};
use crate::pond::Pond;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

pub struct Group {
    path: PathBuf,
    /// Version 1, where each kind has a tree of its own.
    is_old: bool,
}

impl Group {
    /// For `memory` or `cpu`. `Err`: why there is none.
    pub fn new(kind: &str, name: &str) -> Result<Self, String> {
        let root = Path::new(ROOT);
        let is_old = !root.join("cgroup.controllers").exists();
        let name = format!("millpond-{name}-{}", std::process::id());
        let path = if is_old {
            root.join(kind)
        } else {
            root.to_owned()
        }
        .join(name);
        if is_old && !root.join(kind).exists() {
            return Err(format!("{ROOT}/{kind} is not there"));
        }
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = Self { path, is_old };
        let file = if is_old {
            "cgroup.procs"
        } else {
            group.limit_file(kind)
        };
        match group.path.join(file).exists() {
            true => Ok(group),
            false => Err(format!("{ROOT} hands no {kind} on")),
        }
    }

    fn limit_file(&self, kind: &str) -> &'static str {
        match (kind, self.is_old) {
            ("memory", true) => "memory.limit_in_bytes",
            ("memory", false) => "memory.max",
            (_, true) => "cpu.cfs_quota_us",
            (_, false) => "cpu.max",
        }
    }

    fn write(&self, file: &str, value: &str) {
        let path = self.path.join(file);
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{value} to {path:?}: {error}"));
    }

    fn read(&self, file: &str) -> String {
        let path = self.path.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// A number of a file of names and numbers.
    fn number(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |number| number.trim().parse().unwrap())
    }

    /// Memory of its processes, with what the kernel holds for them; none of it may go elsewhere.
    pub fn limit_memory(&self, bytes: f64) {
        let bytes = format!("{bytes:.0}");
        let swap = if self.is_old {
            "memory.memsw.limit_in_bytes"
        } else {
            "memory.swap.max"
        };
        // Of the old two, neither may be above the other meanwhile.
        let of_swap = if self.is_old { &bytes } else { "0" };
        let has_swap = self.path.join(swap).exists();
        if has_swap && self.is_old {
            self.write(swap, "-1");
        }
        self.write(self.limit_file("memory"), &bytes);
        if has_swap {
            self.write(swap, of_swap);
        }
    }

    /// The most that they had is counted anew, where that can be.
    pub fn forget_peak(&self) {
        if self.is_old {
            self.write("memory.max_usage_in_bytes", "0");
        }
    }

    /// The most that they had so far.
    pub fn memory_peak(&self) -> Option<u64> {
        let file = if self.is_old {
            "memory.max_usage_in_bytes"
        } else {
            "memory.peak"
        };
        let text = std::fs::read_to_string(self.path.join(file)).ok()?;
        text.trim().parse().ok()
    }

    /// How many processes the kernel has killed.
    pub fn killed(&self) -> u64 {
        let file = if self.is_old {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        self.number(file, "oom_kill")
    }

    /// So much of one core's time; `None` for all.
    pub fn limit_processor(&self, share: Option<f64>) {
        const PERIOD_US: f64 = 100_000.0;
        let quota = share.map(|share| (PERIOD_US * share).round());
        let value = match (self.is_old, quota) {
            (true, None) => "-1".to_owned(),
            (true, Some(quota)) => quota.to_string(),
            (false, None) => format!("max {PERIOD_US}"),
            (false, Some(quota)) => format!("{quota} {PERIOD_US}"),
        };
        self.write(self.limit_file("cpu"), &value);
    }

    /// How often it had to wait for the next period.
    pub fn throttled(&self) -> u64 {
        self.number("cpu.stat", "nr_throttled")
    }

    /// A consumer that is in it from its beginning.
    pub fn run(&self, pond: &Pond, arguments: &[&str]) -> Process {
        let join = format!(
            "echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"",
            self.path.display()
        );
        let (binary, config) = (binary(), pond.config.to_str().unwrap());
        let begin = ["-c", &join, &binary, "run", "--config", config];
        Process::of("sh", &[&begin, arguments].concat(), &[])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was killed leaves it a moment later.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{} stays", self.path.display());
    }
}
