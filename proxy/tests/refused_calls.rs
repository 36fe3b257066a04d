//! What the kernel refuses to whoever runs code in a sealed proxy. Each attempt is made by a process of its own that has given
//! up what a proxy gives up, by the same functions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "what is to be refused has no safe interface")]

use libc::{c_long, c_ulong};
use nix::errno::Errno;
use ringlb_proxy::privileges::{self, Files, FirstUser, GivenUp};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused(Errno),
    Killed(i32),
}

const PERMITTED: Outcome = Outcome::Refused(Errno::EPERM);
const KILLED: Outcome = Outcome::Killed(libc::SIGSYS);
/// No error of the kernel's.
const DONE: i32 = 9999;

/// Has a new process prepare itself and attempt something.
fn attempt(
    prepare: impl Fn() -> Result<(), privileges::Error> + Send + Sync + 'static,
    attempt: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Outcome {
    let mut command = Command::new("true");
    let both = move || {
        prepare().map_err(io::Error::other)?;
        Err(attempt().err().unwrap_or_else(|| io::Error::from_raw_os_error(DONE)))
    };
    // SAFETY: the closure makes system calls and allocates, which glibc permits after a fork; it takes no lock that another
    // thread could hold.
    unsafe { command.pre_exec(both) };
    match command.status() {
        Ok(status) => Outcome::Killed(status.signal().unwrap()),
        Err(error) if error.raw_os_error() == Some(DONE) => Outcome::Done,
        Err(error) => Outcome::Refused(Errno::from_raw(error.raw_os_error().unwrap())),
    }
}

/// A system call by its number; of what it gives only whether it is an error matters.
fn call(number: c_long, arguments: [c_ulong; 6]) -> impl Fn() -> io::Result<()> + Send + Sync {
    move || {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the arguments are numbers, or point to what lives as long as the process.
        let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn sealed(number: c_long, arguments: [c_ulong; 6]) -> Outcome {
    attempt(privileges::seal, call(number, arguments))
}

const NUMBERS: [c_ulong; 6] = [0; 6];

fn path(path: &'static std::ffi::CStr) -> c_ulong {
    path.as_ptr() as c_ulong
}

#[test]
fn what_serving_needs_is_allowed() {
    let stream = libc::SOCK_STREAM as c_ulong;
    for family in [libc::AF_INET, libc::AF_INET6] {
        assert_eq!(sealed(libc::SYS_socket, [family as c_ulong, stream, 0, 0, 0, 0]), Outcome::Done);
    }
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as c_ulong;
    let memory = [0, 4096, (libc::PROT_READ | libc::PROT_WRITE) as c_ulong, flags, u64::MAX, 0];
    assert_eq!(sealed(libc::SYS_mmap, memory), Outcome::Done);
    assert_eq!(sealed(libc::SYS_getpid, NUMBERS), Outcome::Done);
}

#[test]
fn what_serving_does_not_need_is_refused() {
    let stream = libc::SOCK_STREAM as c_ulong;
    let raw = libc::SOCK_RAW as c_ulong;
    let here = libc::AT_FDCWD as c_ulong;
    let parent = c_ulong::from(std::process::id());
    let code = (libc::PROT_READ | libc::PROT_EXEC) as c_ulong;
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as c_ulong;
    for (what, number, arguments) in [
        ("opening a file", libc::SYS_openat, [here, path(c"/etc/hostname"), 0, 0, 0, 0]),
        ("looking at a file", libc::SYS_newfstatat, [here, path(c"/"), 0, 0, 0, 0]),
        ("a netlink socket", libc::SYS_socket, [libc::AF_NETLINK as c_ulong, raw, 0, 0, 0, 0]),
        ("a packet socket", libc::SYS_socket, [libc::AF_PACKET as c_ulong, raw, 0, 0, 0, 0]),
        ("a unix socket", libc::SYS_socket, [libc::AF_UNIX as c_ulong, stream, 0, 0, 0, 0]),
        ("listening", libc::SYS_listen, NUMBERS),
        ("another process", libc::SYS_clone, [libc::SIGCHLD as c_ulong, 0, 0, 0, 0, 0]),
        ("another process", libc::SYS_clone3, NUMBERS),
        ("a signal", libc::SYS_kill, [parent, 0, 0, 0, 0, 0]),
        ("a signal", libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0]),
        ("somebody's process descriptor", libc::SYS_pidfd_open, [parent, 0, 0, 0, 0, 0]),
        ("somebody's limits", libc::SYS_prlimit64, [parent, 7, 0, 0, 0, 0]),
        ("code", libc::SYS_mmap, [0, 4096, code, anonymous, u64::MAX, 0]),
        ("code", libc::SYS_mprotect, [0, 4096, code, 0, 0, 0]),
        ("a terminal's input", libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]),
        ("settings of the process", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as c_ulong, 1, 0, 0, 0, 0]),
    ] {
        assert_eq!(sealed(number, arguments), PERMITTED, "{what}");
    }
}

#[test]
fn what_only_an_intruder_does_ends_the_process() {
    for (what, number) in [
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("setns", libc::SYS_setns),
        ("unshare", libc::SYS_unshare),
        ("chroot", libc::SYS_chroot),
        ("pivot_root", libc::SYS_pivot_root),
        ("mount", libc::SYS_mount),
        ("fsopen", libc::SYS_fsopen),
        ("open_tree", libc::SYS_open_tree),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("init_module", libc::SYS_init_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("keyctl", libc::SYS_keyctl),
        ("capset", libc::SYS_capset),
        ("setuid", libc::SYS_setuid),
        ("setresuid", libc::SYS_setresuid),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_register", libc::SYS_io_uring_register),
    ] {
        assert_eq!(sealed(number, NUMBERS), KILLED, "{what}");
    }
    // The program that the process was to run, too.
    assert_eq!(Command::new("true").status().unwrap().code(), Some(0));
}

/// Landlock alone, without the system call filters: files and TCP ports.
#[test]
fn the_file_system_is_given_up() {
    let given_up = || {
        let GivenUp { files, .. } = privileges::give_up(FirstUser::default())?;
        // A kernel without Landlock has nothing to refuse with.
        assert!(matches!(files, Files::GivenUp { .. }), "{files}");
        Ok(())
    };
    let read = |path: &'static str| move || std::fs::read_dir(path).map(drop);
    let refused = Outcome::Refused(Errno::EACCES);
    assert_eq!(attempt(|| Ok(()), read("/")), Outcome::Done);
    assert_eq!(attempt(given_up, read("/")), refused);
    assert_eq!(attempt(given_up, || std::fs::read("/etc/passwd").map(drop)), refused);
    let directory = tempfile::tempdir().unwrap();
    // Open to everybody, so that it is not the user's number that is refused.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let new = directory.path().join("new");
    assert_eq!(attempt(given_up, move || std::fs::write(&new, "").map(drop)), refused);
    if landlock_version() >= 4 {
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").map(drop);
        assert_eq!(attempt(|| Ok(()), listen), Outcome::Done);
        // Port 0 as well: what the kernel chooses would be a port all the same.
        assert_eq!(attempt(given_up, listen), refused);
    }
}

/// Nothing that is run after it gets a capability back, and the user is its own where there is one.
#[test]
fn capabilities_do_not_come_back() {
    let capabilities = || {
        let empty = caps::CapsHashSet::new();
        let sets = [caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Bounding, caps::CapSet::Ambient];
        let all_empty = sets.into_iter().all(|set| caps::read(None, set).is_ok_and(|found| found == empty));
        if all_empty { Ok(()) } else { Err(io::Error::from(Errno::ENOTEMPTY)) }
    };
    let both = || {
        privileges::give_up(FirstUser::default())?;
        // All of what seal does but the filters, which would not let this process look.
        caps::clear(None, caps::CapSet::Effective)?;
        Ok(caps::clear(None, caps::CapSet::Permitted)?)
    };
    assert_eq!(attempt(|| Ok(()), capabilities), Outcome::Refused(Errno::ENOTEMPTY));
    assert_eq!(attempt(both, capabilities), Outcome::Done);
    let become_root = call(libc::SYS_setuid, NUMBERS);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(attempt(both, become_root), PERMITTED);
    }
}

/// 0 without Landlock.
fn landlock_version() -> c_long {
    // SAFETY: asks for a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) }.max(0)
}
