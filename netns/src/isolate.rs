//! Namespaces of the process's own, for tests and demonstrations: nothing of the host is touched, and everything that was
//! made vanishes when the last process in them ends, however it ends.
//!
//! A test binary isolates itself before `main`, while it has one thread, with one line at the top of the file:
//! ```no_run
//! ringlb_netns::isolate_before_main!();
//! ```
//! All its tests then share one set of namespaces, as root and as an ordinary user alike.

use crate::namespace::prepare_directory;
use crate::{Error, Result, syscalls};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::{env, fs, process};

/// A process started with this environment variable set stays in its parent's namespaces where
/// [`isolate_before_main!`](crate::isolate_before_main) would give it some of its own.
pub const INHERIT: &str = "RINGLB_ISOLATION_INHERITED";

/// What of `/run` stays visible: users' own directories, and the host's name resolution.
const KEPT: [&str; 2] = ["user", "systemd/resolve"];

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Which namespaces to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A network and a mount namespace, as root. Only for the calling thread and the threads that it starts later.
    Root,
    /// A user, a network and a mount namespace, as any user, who is root in them. Only for a process with one thread.
    User,
}

impl Kind {
    /// What suits this process: root in a container may be as powerless as any user.
    #[must_use]
    pub fn of_this_process() -> Self {
        let needed = [CAP_NET_ADMIN, CAP_SYS_ADMIN].into_iter().fold(0, |set, capability| set | 1 << capability);
        if effective_capabilities() & needed == needed { Self::Root } else { Self::User }
    }
}

/// Enters new namespaces. Mounts made from now on do not reach the host; `/run` is empty but for what others may need,
/// with a `/run/netns` of its own; the loopback interface is up.
///
/// # Errors
/// If the kernel or its configuration does not permit it. Then the process may be isolated in part and should end.
pub fn enter(kind: Kind) -> Result<()> {
    match kind {
        Kind::Root => unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(failed("make a network and a mount namespace"))?,
        Kind::User => enter_user_namespace()?,
    }
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(failed("make mounts private"))?;
    replace_run_directory()?;
    prepare_directory()?;
    syscalls::set_loopback_up().map_err(|cause| Error::Isolation { step: "set the loopback interface up", cause })
}

/// Makes the kernel end the child (SIGTERM) when the thread that starts it ends, however that ends: what a test or a
/// demonstration starts must not outlive it.
pub fn end_with_parent(command: &mut process::Command) {
    syscalls::end_with_parent(command);
}

/// What [`isolate_before_main!`](crate::isolate_before_main) runs. Ends the process with status 1 and the error on
/// standard error if it cannot be isolated: its tests would touch the host.
pub extern "C" fn before_main() {
    // Listing the tests runs none of them.
    if env::var_os(INHERIT).is_some() || env::args_os().any(|argument| argument == OsStr::new("--list")) {
        return;
    }
    if let Err(error) = enter(Kind::of_this_process()) {
        // Nothing is left to do if standard error is closed.
        let _ = writeln!(io::stderr(), "{error}");
        process::exit(1);
    }
}

/// Makes a test binary [`isolate::enter`](crate::isolate::enter) namespaces of its own before `main`, as a user
/// namespace can only be entered before there are threads.
#[macro_export]
macro_rules! isolate_before_main {
    () => {
        #[used]
        #[unsafe(link_section = ".init_array")]
        static ISOLATE_BEFORE_MAIN: extern "C" fn() = $crate::isolate::before_main;
    };
}

/// The set of them, one bit each; none if `/proc` does not tell (proc_pid_status(5)).
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    field.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn enter_user_namespace() -> Result<()> {
    let threads =
        fs::read_dir("/proc/self/task").map_err(|cause| Error::Isolation { step: "count the threads", cause })?.count();
    if threads != 1 {
        return Err(Error::IsolationThreads { threads });
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(failed("make a user, a network and a mount namespace"))?;
    // Who may drop groups could get around a file's denial to a group: user_namespaces(7).
    let maps =
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))];
    for (file, content) in maps {
        fs::write(Path::new("/proc/self").join(file), content)
            .map_err(|cause| Error::Isolation { step: "map the user and group", cause })?;
    }
    Ok(())
}

fn replace_run_directory() -> Result<()> {
    let mut kept: Vec<(&str, OwnedFd)> = Vec::new();
    for directory in KEPT {
        match open(
            &Path::new("/run").join(directory),
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(opened) => kept.push((directory, opened)),
            Err(Errno::ENOENT) => {}
            Err(cause) => return Err(failed("open what is kept of /run")(cause)),
        }
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("ringlb"), "/run", Some("tmpfs"), flags, Some("mode=755"))
        .map_err(failed("mount a directory over /run"))?;
    for (directory, opened) in kept {
        let path = Path::new("/run").join(directory);
        fs::create_dir_all(&path).map_err(|cause| Error::Isolation { step: "create what is kept of /run", cause })?;
        let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
        mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .map_err(failed("mount what is kept of /run"))?;
    }
    Ok(())
}

fn failed(step: &'static str) -> impl Fn(Errno) -> Error {
    move |cause| Error::Isolation { step, cause: cause.into() }
}
