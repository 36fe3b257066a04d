//! What processes may do here.

use std::path::Path;

// include/uapi/linux/capability.h
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Whether root may do here what it may on a machine of its own: raise limits.
pub(super) fn may_raise_limits() -> bool {
    set_of(Path::new("/proc/self"), "CapEff") & CAP_SYS_RESOURCE != 0
}

/// A set of capabilities of the process whose directory that is.
pub(super) fn set_of(process: &Path, name: &str) -> u64 {
    u64::from_str_radix(&line_of(process, name), 16).unwrap()
}

/// A line of its status (proc_pid_status(5)).
pub(super) fn line_of(process: &Path, name: &str) -> String {
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap().to_owned()
}

/// How many descriptors the process may allow itself (proc_pid_limits(5)).
pub(super) fn descriptors_of(process: &Path) -> u64 {
    let limits = std::fs::read_to_string(process.join("limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
