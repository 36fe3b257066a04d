//! What a proxy says on a machine that it cannot work on. The kernel's refusals are made up by strace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// Starts a proxy on which that system call fails so; gives what it says. It must end with status 1.
fn refused(call: &str, error: &str) -> String {
    let program = env!("CARGO_BIN_EXE_ringlb-proxy");
    let strace = format!("strace -qq -o /dev/null -e trace={call} -e inject={call}:error={error}");
    let arguments = "--network n --control-fd 3 --listener-fd 4";
    let script = format!("exec {strace} {program} {arguments} 3</dev/null 4</dev/null");
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn a_kernel_without_io_uring_is_refused_in_one_line() {
    for (call, error, expected) in [
        ("io_uring_setup", "ENOSYS", "this kernel has no io_uring, or a seccomp profile hides it"),
        (
            "io_uring_setup",
            "EPERM",
            "see the sysctl kernel.io_uring_disabled, or, in a container, allow the io_uring_*",
        ),
        ("io_uring_setup", "EINVAL", "ringlb needs Linux 6.1 or newer"),
        ("io_uring_register", "EINVAL", "io_uring"),
    ] {
        let said = refused(call, error);
        assert!(said.contains(expected), "{call} {error}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn descriptors_that_were_not_handed_over_are_named() {
    for (arguments, expected) in [
        ("--control-fd 3 --listener-fd 9", "descriptor 9 is not open"),
        ("--control-fd 3 --listener-fd 3", "descriptor 3 is named twice"),
    ] {
        let program = env!("CARGO_BIN_EXE_ringlb-proxy");
        let script = format!("exec {program} --network n {arguments} 3</dev/null");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(expected), "{said}");
    }
}
