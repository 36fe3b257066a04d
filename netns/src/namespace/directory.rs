//! The directory of named network namespaces, used the way `ip netns` (ip-netns(8)) uses it.

use super::is_network_namespace;
use crate::name::check_namespace_name;
use crate::{Error, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

const DIRECTORY: &str = "/run/netns";

/// The path of the namespace with that name.
pub(super) fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// The name of the namespace at that path, if it is one with a name.
pub(super) fn name_of(path: &Path) -> Option<String> {
    let named =
        path.parent().is_some_and(|parent| parent == Path::new(DIRECTORY) || parent == Path::new("/var/run/netns"));
    if named { path.file_name()?.to_str().map(str::to_owned) } else { None }
}

/// See [`super::Namespace::create`].
pub(super) fn create(name: &str) -> Result<()> {
    check_namespace_name(name)?;
    let _locked = prepare()?;
    let path = path_of(name);
    let error = |action, cause| Error::Namespace { action, namespace: name.to_owned(), cause };
    match File::open(&path) {
        Ok(file) if is_network_namespace(&file) => return Ok(()),
        Ok(file) if fstatfs(&file).is_ok_and(|file_system| file_system.filesystem_type() == NSFS_MAGIC) => {
            return Err(Error::NotANetworkNamespace { path });
        }
        Ok(_) => fs::remove_file(&path).map_err(|cause| error("replace the file of", cause))?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(error("open", cause)),
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
        .map_err(|cause| error("create the file of", cause))?;
    let made = mount_new_namespace(&path);
    if made.is_err() {
        // The first error is the one to report; a file that stays is replaced by the next attempt.
        let _ = fs::remove_file(&path);
    }
    made.map_err(|cause| error("create", cause))
}

/// See [`super::Namespace::remove`].
pub(super) fn remove(name: &str) -> Result<()> {
    check_namespace_name(name)?;
    let Some(_locked) = lock()? else { return Ok(()) };
    let path = path_of(name);
    let error = |cause| Error::Namespace { action: "remove", namespace: name.to_owned(), cause };
    // Namespaces can be mounted over each other at one path; EINVAL says that nothing is mounted there any more.
    loop {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(cause) => return Err(error(cause.into())),
        }
    }
    match fs::remove_file(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(error(cause)),
        _ => Ok(()),
    }
}

/// See [`super::Namespace::list`].
pub(super) fn list() -> Result<Vec<String>> {
    let error = |cause| directory_error("read", cause);
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(error(cause)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // Every name that we make is UTF-8; others are not ours to name.
        names.extend(entry.map_err(error)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes the directory and makes it a shared mount point of its own, so that a namespace mounted in it is seen, and can
/// be unmounted, in mount namespaces that were copied from this one earlier. Returns it locked against whoever else
/// does the same.
pub(crate) fn prepare() -> Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(DIRECTORY)
        .map_err(|cause| directory_error("create", cause))?;
    let locked = lock()?.ok_or_else(|| directory_error("open", io::ErrorKind::NotFound.into()))?;
    if let Err(cause) = share() {
        if cause != Errno::EINVAL {
            return Err(directory_error("share", cause.into()));
        }
        // EINVAL: not a mount point yet.
        mount(Some(DIRECTORY), DIRECTORY, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .map_err(|cause| directory_error("mount", cause.into()))?;
        share().map_err(|cause| directory_error("share", cause.into()))?;
    }
    Ok(locked)
}

fn share() -> nix::Result<()> {
    mount(None::<&str>, DIRECTORY, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
}

/// `None` if there is no directory. The lock ends with the file.
fn lock() -> Result<Option<File>> {
    let directory = match File::open(DIRECTORY) {
        Ok(directory) => directory,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(directory_error("open", cause)),
    };
    directory.lock().map_err(|cause| directory_error("lock", cause))?;
    Ok(Some(directory))
}

fn mount_new_namespace(path: &Path) -> io::Result<()> {
    in_new_namespace(|| {
        let source = Some("/proc/thread-self/ns/net");
        mount(source, path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
    })
}

/// Makes a namespace and does the work in it. A thread of its own does it, because the caller must stay where it is.
pub(super) fn in_new_namespace<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns-create".to_owned())
            .spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                work()
            })?
            .join()
            .map_err(|_panic| io::Error::other("the thread that makes it failed"))?
    })
}

fn directory_error(action: &'static str, cause: io::Error) -> Error {
    Error::NamespaceDirectory { action, path: PathBuf::from(DIRECTORY), cause }
}
