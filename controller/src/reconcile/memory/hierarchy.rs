//! The hierarchy of control groups that has the memory controller, in the two versions that kernels have.
//!
//! Files and their meaning: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.

use super::{MemoryError, PARENT};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How often a group is made anew whose parent another daemon removes at the same time.
const ATTEMPTS: u32 = 3;

#[derive(Debug)]
pub(super) struct Hierarchy {
    version: Version,
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Hierarchy {
    /// The one that this process sees.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let has_memory = |root: &Path| {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().any(|controller| controller == "memory")
        };
        hierarchies(&mounts).find(|hierarchy| hierarchy.version == Version::One || has_memory(&hierarchy.root))
    }

    /// Sees whether groups can be made, and leaves nothing behind.
    pub(super) fn try_out(&self) -> Result<(), MemoryError> {
        self.prepare()?;
        self.remove_parent_if_empty();
        Ok(())
    }

    /// Makes what groups are in, and lets them have the controller.
    fn prepare(&self) -> Result<(), MemoryError> {
        let parent = self.root.join(PARENT);
        make(&parent)?;
        if self.version == Version::Two {
            for above in [&self.root, &parent] {
                write(&above.join("cgroup.subtree_control"), "+memory")?;
            }
        }
        Ok(())
    }

    pub(super) fn group(&self, name: &str) -> PathBuf {
        self.root.join(PARENT).join(name)
    }

    /// The names of all groups.
    pub(super) fn groups(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(PARENT)).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Gives the group the limit, and puts the process into it. What it has used before that is not counted.
    pub(super) fn confine(&self, group: &Path, pid: u32, bytes: u64) -> Result<(), MemoryError> {
        for attempt in 1.. {
            self.prepare()?;
            match make(group) {
                Err(MemoryError::Group { cause, .. })
                    if cause.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        let bytes = bytes.to_string();
        match self.version {
            Version::One => {
                // The limit with swap is never below the one without.
                write_if_present(&group.join("memory.memsw.limit_in_bytes"), "-1")?;
                write(&group.join("memory.limit_in_bytes"), &bytes)?;
                write_if_present(&group.join("memory.memsw.limit_in_bytes"), &bytes)?;
            }
            Version::Two => {
                // A proxy that is swapped out is slower than one that is started anew.
                write_if_present(&group.join("memory.swap.max"), "0")?;
                write_if_present(&group.join("memory.oom.group"), "1")?;
                write(&group.join("memory.max"), &bytes)?;
            }
        }
        write(&group.join("cgroup.procs"), &pid.to_string())
    }

    /// Takes the limit of a group away.
    pub(super) fn lift(&self, group: &Path) -> Result<(), MemoryError> {
        match self.version {
            Version::One => {
                write_if_present(&group.join("memory.memsw.limit_in_bytes"), "-1")?;
                write(&group.join("memory.limit_in_bytes"), "-1")
            }
            Version::Two => {
                write_if_present(&group.join("memory.swap.max"), "max")?;
                write(&group.join("memory.max"), "max")
            }
        }
    }

    /// How often the kernel has ended a process of the group.
    pub(super) fn kills(&self, group: &Path) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }

    /// The bytes that a group uses, if the kernel says so.
    pub(super) fn usage(&self, group: &Path) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
    }

    /// Removes a group; says whether it was there.
    pub(super) fn remove(&self, group: &Path) -> Result<bool, MemoryError> {
        let removed = match fs::remove_dir(group) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed("remove the control group", group)(error)),
        };
        if removed {
            self.remove_parent_if_empty();
        }
        Ok(removed)
    }

    fn remove_parent_if_empty(&self) {
        // It is not, while any daemon has a group.
        let _ = fs::remove_dir(self.root.join(PARENT));
    }
}

/// The hierarchies that may have the memory controller, out of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn hierarchies(mounts: &str) -> impl Iterator<Item = Hierarchy> {
    mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let root = PathBuf::from(place.split(' ').nth(4)?);
        let mut kind = kind.split(' ');
        let (file_system, options) = (kind.next()?, kind.nth(1)?);
        let version = match file_system {
            "cgroup2" => Version::Two,
            "cgroup" if options.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        Some(Hierarchy { version, root })
    })
}

fn make(group: &Path) -> Result<(), MemoryError> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("make the control group", group)(error))
        }
        _ => Ok(()),
    }
}

/// Files of control groups take each value by one write(2).
fn write(file: &Path, value: &str) -> Result<(), MemoryError> {
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut opened| io::Write::write_all(&mut opened, value.as_bytes()))
        .map_err(failed("write to", file))
}

fn write_if_present(file: &Path, value: &str) -> Result<(), MemoryError> {
    if file.exists() { write(file, value) } else { Ok(()) }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MemoryError {
    move |cause| MemoryError::Group { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_among_the_mounts() {
        let mounts = "\
24 1 0:22 / /proc rw,nosuid - proc proc rw
30 1 0:26 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw shared:7 - cgroup2 cgroup2 rw,nsdelegate
";
        let found: Vec<_> = hierarchies(mounts).map(|found| (found.version, found.root)).collect();
        let expected = [(Version::One, "/sys/fs/cgroup/memory"), (Version::Two, "/sys/fs/cgroup/unified")];
        assert_eq!(found, expected.map(|(version, root)| (version, PathBuf::from(root))));
        assert_eq!(hierarchies("").count(), 0);
    }

    /// A directory stands for the hierarchy: that the kernel takes what is written there is for a test with a real one.
    #[test]
    fn the_second_version_is_told_by_its_own_files() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy { version: Version::Two, root: root.path().to_owned() };
        let group = hierarchy.group("ringlb-web");
        fs::create_dir_all(&group).unwrap();
        let parent = root.path().join(PARENT);
        for file in [root.path().join("cgroup.subtree_control"), parent.join("cgroup.subtree_control")] {
            fs::write(file, "").unwrap();
        }
        for file in ["memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs"] {
            fs::write(group.join(file), "").unwrap();
        }
        fs::write(group.join("memory.events"), "low 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n").unwrap();
        hierarchy.confine(&group, 4711, 64 << 20).unwrap();
        let written = |file: &Path| fs::read_to_string(file).unwrap();
        assert_eq!(written(&parent.join("cgroup.subtree_control")), "+memory");
        let files = ["memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs"];
        assert_eq!(files.map(|file| written(&group.join(file))), ["67108864", "0", "1", "4711"]);
        assert_eq!((hierarchy.kills(&group), hierarchy.groups()), (2, vec!["ringlb-web".to_owned()]));
    }
}
