//! Kernel parameters of the calling thread's network namespace.

use crate::{Error, Result};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path};

/// Sets the parameter at `path` under `/proc/sys`. `namespace` is for the error.
pub(super) fn set(namespace: &str, path: &str, value: &str) -> Result<()> {
    check(path)?;
    write(path, value).map_err(|cause| error(namespace, path, value, cause))
}

/// The same, but a parameter that the kernel does not have is passed over.
pub(super) fn set_if_present(namespace: &str, path: &str, value: &str) -> Result<()> {
    check(path)?;
    match write(path, value) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|cause| error(namespace, path, value, cause)),
    }
}

/// The parameter's value, or nothing if the kernel does not have it.
pub(super) fn get(namespace: &str, path: &str) -> Result<Option<String>> {
    check(path)?;
    match fs::read_to_string(Path::new("/proc/sys").join(path)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::SysctlUnreadable { path: path.to_owned(), namespace: namespace.to_owned(), cause }),
    }
}

/// Only what belongs to a network namespace: everything else would change the whole machine.
fn check(path: &str) -> Result<()> {
    let path_is_plain = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    if path_is_plain && path.starts_with("net/") {
        return Ok(());
    }
    Err(Error::InvalidName {
        kind: "network namespace's kernel parameter",
        name: path.to_owned(),
        rule: "use a path under /proc/sys that starts with net/, such as net/ipv4/ip_forward",
    })
}

fn write(path: &str, value: &str) -> io::Result<()> {
    // Not created if missing: /proc answers that with EACCES instead of ENOENT.
    OpenOptions::new().write(true).open(Path::new("/proc/sys").join(path))?.write_all(value.as_bytes())
}

fn error(namespace: &str, path: &str, value: &str, cause: io::Error) -> Error {
    Error::Sysctl { path: path.to_owned(), value: value.to_owned(), namespace: namespace.to_owned(), cause }
}
