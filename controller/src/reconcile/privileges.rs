//! What a proxy may do, as the kernel says.

use serde::Serialize;
use std::fs;

/// What a proxy's process may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrivilegeStatus {
    /// The number of its user.
    pub user: u32,
    /// Whether it has any capability.
    pub capabilities: bool,
    /// Whether it can gain privileges by running another program.
    pub may_gain: bool,
    /// Whether it may make all system calls.
    pub all_system_calls: bool,
}

impl PrivilegeStatus {
    /// Of that process; none if it is gone.
    pub(super) fn of(pid: u32) -> Option<Self> {
        read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }
}

/// Out of the text of `/proc/…/status` (proc_pid_status(5)).
fn read(text: &str) -> Option<PrivilegeStatus> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let permitted = u64::from_str_radix(field("CapPrm:")?, 16).ok()?;
    Some(PrivilegeStatus {
        user: field("Uid:")?.parse().ok()?,
        capabilities: permitted != 0,
        may_gain: field("NoNewPrivs:")? != "1",
        // SECCOMP_MODE_FILTER; a kernel without seccomp has no such line.
        all_system_calls: field("Seccomp:") != Some("2"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_fields_are_understood() {
        let text = "Name:\tringlb-proxy\nUid:\t200123\t200123\t200123\t200123\nCapInh:\t0\nCapPrm:\t0000000000000000\n\
                    NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let given_up = PrivilegeStatus { user: 200_123, capabilities: false, may_gain: false, all_system_calls: false };
        assert_eq!(read(text), Some(given_up));
        let all = text.replace("0000\nNo", "4000\nNo").replace("Privs:\t1", "Privs:\t0").replace("Seccomp:\t2\n", "");
        let kept = PrivilegeStatus { user: 200_123, capabilities: true, may_gain: true, all_system_calls: true };
        assert_eq!(read(&all), Some(kept));
        assert_eq!(read(""), None);
    }
}
