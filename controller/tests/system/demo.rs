//! `ringlb demo` on a machine with nothing else.

use crate::node::{Process, find, program, wait_until};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Debian's user and group `nobody`.
const NOBODY: u32 = 65534;

/// Runs the demo to its end; gives its summary.
fn run(mut command: Command, mark: &str) -> Value {
    let output = command.env("RINGLB_TEST_MARK", mark).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the demo failed: {said}");
    wait_until("all its processes have ended", || processes_with(mark) == 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn demo(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--json", "demo"]).stdin(Stdio::null());
    command
}

/// How many processes were started with this mark in their environment.
fn processes_with(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let marked = entries.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == format!("RINGLB_TEST_MARK={mark}").as_bytes())
    });
    marked.count()
}

fn check(summary: &Value) {
    let count = |name: &str| {
        let backends = find(summary, "backends").unwrap().as_array().unwrap();
        backends.iter().find(|backend| backend["name"] == name).map_or(0, |b| b["requests"].as_u64().unwrap())
    };
    let counts = ["backend-1", "backend-2", "backend-3", "backend-4"].map(count);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    // Never drained, never killed: the third has the most.
    assert_eq!(counts.iter().max(), Some(&counts[2]), "{counts:?}");
    let changes = summary["changes"].as_array().unwrap();
    assert!(changes.len() >= 6 && changes.iter().all(|change| change["took_us"].as_u64().unwrap() > 0));
    assert!(summary["generation"].as_u64().unwrap() >= 6);
}

#[test]
fn the_demo_shows_what_happens_and_leaves_nothing() {
    let names = ringlb_netns::Namespace::list().unwrap();
    let mark = format!("plain-{}", std::process::id());
    check(&run(demo(&program("ringlb")), &mark));
    assert_eq!(ringlb_netns::Namespace::list().unwrap(), names);
}

#[test]
fn an_ordinary_user_can_run_the_demo() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["ringlb", "ringlb-proxy", "ringlb-load"] {
        std::fs::copy(program(name), directory.path().join(name)).unwrap();
    }
    let mark = format!("nobody-{}", std::process::id());
    let mut command = demo(&directory.path().join("ringlb"));
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    check(&run(command, &mark));
}

#[test]
fn a_killed_demo_leaves_nothing_and_can_be_run_again() {
    let mark = format!("killed-{}", std::process::id());
    let mut command = demo(&program("ringlb"));
    let mut killed = Process::spawn(command.env("RINGLB_TEST_MARK", &mark).stdout(Stdio::null()));
    // Itself, the daemon, the proxy, and backends.
    wait_until("it is in full swing", || processes_with(&mark) >= 6);
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.wait();
    wait_until("what it had started has ended", || processes_with(&mark) == 0);
    check(&run(demo(&program("ringlb")), &mark));
}
