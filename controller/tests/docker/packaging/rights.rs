//! What processes may do here.

use std::path::Path;

// include/uapi/linux/capability.h
pub(super) const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Whether root may do here what it may on a machine of its own: raise limits.
pub(super) fn may_raise_limits() -> bool {
    capabilities_of(Path::new("/proc/self"), "CapEff") & CAP_SYS_RESOURCE != 0
}

/// A set of capabilities of the process whose directory that is; none if there is no such process (proc_pid_status(5)).
pub(super) fn capabilities_of(process: &Path, set: &str) -> u64 {
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
    line.map_or(0, |set| u64::from_str_radix(set, 16).unwrap())
}

/// How many descriptors the process may allow itself (proc_pid_limits(5)).
pub(super) fn descriptors_of(process: &Path) -> u64 {
    let limits = std::fs::read_to_string(process.join("limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
