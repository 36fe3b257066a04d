//! A machine that has booted: with systemd as its first process, and files of its own.

use super::{Machine, child_of};
use crate::wait::{finish, wait_until};
use crate::wire::Wire;
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const SCRIPT: &str = include_str!("boot.sh");

impl Machine {
    /// Starts the machine of that number on the wire, with the files of this one and no service. Nothing that is changed
    /// there is changed here.
    pub(crate) fn boot(wire: &Wire, number: u8) -> Self {
        let mut machine = Self::start_with(wire, number, SCRIPT);
        let mut systemd = None;
        wait_until("systemd is the first process", || {
            let ended = machine.unshare.try_wait().unwrap();
            assert!(ended.is_none(), "{} ends while it boots: {ended:?}", machine.name);
            let first = child_of(machine.first_process.as_raw().cast_unsigned());
            systemd = first.and_then(|first| child_of(first.as_raw().cast_unsigned()));
            systemd.is_some_and(|pid| name_of(pid) == "systemd")
        });
        machine.first_process = systemd.unwrap();
        wait_until("systemd answers", || {
            let mut asked = machine.command("systemctl");
            asked.args(["is-active", "multi-user.target"]).stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().unwrap().success()
        });
        machine
    }

    /// Whether systemd is its first process.
    pub(crate) fn is_booted(&self) -> bool {
        name_of(self.first_process) == "systemd"
    }

    /// Runs `systemctl`, which must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn systemctl(&self, arguments: &[&str]) -> String {
        finish(self.command("systemctl").args(arguments))
    }

    /// A property of a unit (systemctl(1), `show`).
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "--property", property, unit])
    }

    /// Where what a service has written is found from here.
    pub(crate) fn service_log(&self, service: &str) -> PathBuf {
        self.path(&Path::new("/var/log/services").join(service))
    }
}

/// The name of a process's program, shortened (proc_pid_comm(5)).
fn name_of(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}
