//! Network namespaces.

mod directory;
mod sysctl;

pub(crate) use directory::prepare as prepare_directory;

use crate::name::check_namespace_name;
use crate::{Error, Result, syscalls};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{panic, thread};

/// An open network namespace. It lives as long as this handle or a clone of it, even when its name has been removed.
#[derive(Clone)]
pub struct Namespace {
    opened: Arc<Opened>,
}

struct Opened {
    file: File,
    name: Option<String>,
    label: String,
}

impl Namespace {
    /// Makes the namespace with that name under `/run/netns`, visible to `ip netns`, with its loopback interface up,
    /// and opens it. Opens it if it exists already; replaces a file of that name in which no namespace is mounted, as
    /// a run that was killed may leave one behind.
    ///
    /// # Errors
    /// If the name is not usable, the process lacks `CAP_SYS_ADMIN`, or the name belongs to something else.
    pub fn create(name: &str) -> Result<Self> {
        directory::create(name)?;
        let namespace = Self::open(name)?;
        namespace.run(syscalls::set_loopback_up)?.map_err(|cause| Error::Namespace {
            action: "set the loopback interface up in",
            namespace: namespace.label().to_owned(),
            cause,
        })?;
        Ok(namespace)
    }

    /// Makes a namespace without a name, which lives as long as this handle or a clone of it.
    ///
    /// # Errors
    /// If the process lacks `CAP_SYS_ADMIN`.
    pub fn unnamed() -> Result<Self> {
        let label = "without a name".to_owned();
        match directory::in_new_namespace(|| File::open("/proc/thread-self/ns/net")) {
            Ok(file) => Ok(Self { opened: Arc::new(Opened { file, name: None, label }) }),
            Err(cause) => Err(Error::Namespace { action: "create a", namespace: label, cause }),
        }
    }

    /// Opens the namespace with that name under `/run/netns`.
    ///
    /// # Errors
    /// If there is none, or it is not a network namespace.
    pub fn open(name: &str) -> Result<Self> {
        check_namespace_name(name)?;
        Self::open_as(&directory::path_of(name), Some(name.to_owned()), name.to_owned())
    }

    /// Opens the namespace at any path, such as `/proc/PID/ns/net` or what a container runtime names.
    ///
    /// # Errors
    /// If there is nothing at that path, or something else than a network namespace.
    pub fn open_path(path: &Path) -> Result<Self> {
        Self::open_as(path, directory::name_of(path), path.display().to_string())
    }

    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open_as(Path::new("/proc/thread-self/ns/net"), None, "of the calling thread".to_owned())
    }

    /// Opens the namespace that a socket was made in.
    ///
    /// # Errors
    /// If the process lacks `CAP_NET_ADMIN` there, or the kernel refuses.
    pub fn of_socket(socket: &impl AsFd) -> Result<Self> {
        let label = "of a socket".to_owned();
        match syscalls::socket_namespace(socket.as_fd()) {
            Ok(file) => Ok(Self { opened: Arc::new(Opened { file: file.into(), name: None, label }) }),
            Err(cause) => Err(Error::Namespace { action: "open the", namespace: label, cause }),
        }
    }

    /// Removes the name, and what is mounted there. The namespace itself ends with the last process in it and the last
    /// descriptor of it. Removing a name that does not exist is done already.
    ///
    /// # Errors
    /// If the name is not usable, or the process lacks `CAP_SYS_ADMIN`.
    pub fn remove(name: &str) -> Result<()> {
        directory::remove(name)
    }

    /// The names under `/run/netns`, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read. One that does not exist has no names.
    pub fn list() -> Result<Vec<String>> {
        directory::list()
    }

    /// The name that it was created or opened with.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.opened.name.as_deref()
    }

    /// What makes it the same namespace as another, whatever the paths: device and inode (namespaces(7)).
    ///
    /// # Errors
    /// If the kernel does not say, which it does of every open file.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let metadata = self.opened.file.metadata().map_err(|cause| Error::Namespace {
            action: "identify",
            namespace: self.label().to_owned(),
            cause,
        })?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Does the work on a thread of its own that has entered the namespace, and waits for it. What it opens there, such
    /// as a socket, stays in the namespace. A panic of the work goes on in the caller.
    ///
    /// # Errors
    /// If the thread cannot be started or may not enter the namespace (`CAP_SYS_ADMIN`); then the work is not done.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || {
                    setns(self, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })
                .map_err(|cause| Error::Thread { namespace: self.label().to_owned(), cause })?;
            match thread.join() {
                Ok(result) => result.map_err(|cause: nix::Error| Error::Namespace {
                    action: "enter",
                    namespace: self.label().to_owned(),
                    cause: cause.into(),
                }),
                Err(payload) => panic::resume_unwind(payload),
            }
        })
    }

    /// Makes the child that the command starts run in the namespace. Repeated for several namespaces, the last counts.
    ///
    /// # Errors
    /// None today. That the namespace may not be entered shows when the command is started.
    pub fn enter_on_exec(&self, command: &mut Command) -> Result<()> {
        syscalls::enter_on_exec(command, self.clone());
        Ok(())
    }

    /// Sets a kernel parameter of the namespace, such as `net/ipv4/ip_local_port_range`.
    ///
    /// # Errors
    /// If the path does not start with `net/`, the kernel does not have the parameter, or does not take the value.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.set_sysctls(&[(path, value)], &[])
    }

    /// Sets a kernel parameter of the namespace, and does nothing if the kernel does not have it.
    ///
    /// # Errors
    /// Those of [`Self::set_sysctl`] but for a missing parameter.
    pub fn set_sysctl_if_present(&self, path: &str, value: &str) -> Result<()> {
        self.set_sysctls(&[], &[(path, value)])
    }

    /// Sets several kernel parameters, entering the namespace once: those that must exist, then those that may.
    pub(crate) fn set_sysctls(&self, required: &[(&str, &str)], if_present: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (path, value) in required {
                sysctl::set(self.label(), path, value)?;
            }
            for (path, value) in if_present {
                sysctl::set_if_present(self.label(), path, value)?;
            }
            Ok(())
        })?
    }

    /// The values of kernel parameters of the namespace; none for one that the kernel does not have.
    pub(crate) fn sysctls(&self, paths: &[&str]) -> Result<Vec<Option<String>>> {
        self.run(|| paths.iter().map(|path| sysctl::get(self.label(), path)).collect())?
    }

    /// How messages call it.
    pub(crate) fn label(&self) -> &str {
        &self.opened.label
    }

    fn open_as(path: &Path, name: Option<String>, label: String) -> Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NamespaceMissing { namespace: label });
            }
            Err(cause) => return Err(Error::Namespace { action: "open", namespace: label, cause }),
        };
        if !is_network_namespace(&file) {
            return Err(Error::NotANetworkNamespace { path: path.to_owned() });
        }
        Ok(Self { opened: Arc::new(Opened { file, name, label }) })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.file.as_fd()
    }
}

/// Its name or path.
impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Namespace").field(&self.label()).finish()
    }
}

fn is_network_namespace(file: &File) -> bool {
    fstatfs(file).is_ok_and(|file_system| file_system.filesystem_type() == NSFS_MAGIC)
        && syscalls::namespace_type(file.as_fd()).is_ok_and(|kind| kind == libc::CLONE_NEWNET)
}
