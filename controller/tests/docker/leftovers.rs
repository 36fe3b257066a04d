//! What a run that was killed may leave behind: control groups, and processes that a killed daemon had started.
//!
//! Everything else lives in namespaces that end with their last process.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process;

/// The environment variable by which processes are known as the test's. Its value is the test's process id.
pub(crate) const MARK: &str = "RINGLB_TEST_DOCKER";
const CONTROL_GROUP: &str = "ringlb-test-docker-";

/// The name of the control group of a machine's containers.
pub(crate) fn control_group(machine: &str) -> String {
    format!("{CONTROL_GROUP}{}-{machine}", process::id())
}

/// Removes what is left of runs that have ended.
pub(crate) fn remove_of_ended_runs() {
    for pid in marked(|owner| !is_running(owner)) {
        // It may have ended meanwhile.
        let _ = kill(pid, Signal::SIGKILL);
    }
    for directory in control_groups() {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let owner = name.strip_prefix(CONTROL_GROUP).and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner: u32| !is_running(owner)) {
            remove_control_group(&directory);
        }
    }
}

/// How many proxies of daemons of this process run on that run directory.
pub(crate) fn proxies(run_dir: &Path) -> usize {
    let is_proxy = |pid: &Pid| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == b"--listener-fd")
    };
    of_run_directory(run_dir).iter().filter(|pid| is_proxy(pid)).count()
}

/// Kills what daemons of this process have started and left running on that run directory.
pub(crate) fn kill_of_run_directory(run_dir: &Path) {
    for pid in of_run_directory(run_dir) {
        // It may have ended meanwhile.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

fn of_run_directory(run_dir: &Path) -> Vec<Pid> {
    let mut pids = marked(|owner| owner == process::id());
    let mark = format!("{MARK}={} {}", process::id(), run_dir.display());
    pids.retain(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    });
    pids
}

/// Removes the control groups of a machine, whose processes have ended.
pub(crate) fn remove_control_groups(machine: &str) {
    let name = control_group(machine);
    for directory in control_groups() {
        if directory.file_name().is_some_and(|found| found.to_string_lossy() == name) {
            remove_control_group(&directory);
        }
    }
}

/// The processes whose mark names such an owner.
fn marked(wanted: impl Fn(u32) -> bool) -> Vec<Pid> {
    let prefix = format!("{MARK}=");
    let owner_of = |pid: i32| -> Option<u32> {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment);
        environment.split('\0').find_map(|entry| entry.strip_prefix(&prefix)?.split(' ').next()?.parse().ok())
    };
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| owner_of(*pid).is_some_and(&wanted)).map(Pid::from_raw).collect()
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// All of the tests' control groups, in the unified hierarchy and in each of version 1 (cgroups(7)).
fn control_groups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let directories = |parent: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
    };
    let mut found = directories(root);
    found.extend(directories(root).iter().flat_map(|hierarchy| directories(hierarchy)));
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(CONTROL_GROUP)));
    found
}

/// Only directories are removed in control groups; the files in them go with them.
fn remove_control_group(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove_control_group(&entry.path());
    }
    // One that is still in use is removed by a later run.
    let _ = std::fs::remove_dir(directory);
}
