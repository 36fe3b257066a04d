//! The control sockets' place in the file system.

use crate::model::Name;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// The directory of a daemon's control sockets, `control` in its run directory.
///
/// Sockets are bound and connected to by way of the open directory, so that their names may be as long as networks'
/// names are, whatever the length of the path: `sun_path` has 108 bytes (unix(7)).
#[derive(Debug)]
pub struct ControlDirectory {
    path: PathBuf,
    directory: File,
}

impl ControlDirectory {
    /// Makes the directory, open to its owner only, if it is not there.
    ///
    /// # Errors
    /// If it cannot be made or opened.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join("control");
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let directory = File::open(&path)?;
        Ok(Self { path, directory })
    }

    /// Where the control socket of a network is.
    #[must_use]
    pub fn path_of(&self, network: &str) -> PathBuf {
        self.path.join(format!("{network}.sock"))
    }

    /// Makes the control socket of a network and listens on it. One that is there already is replaced.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn listen(&self, network: &Name) -> io::Result<OwnedFd> {
        let socket = seqpacket(SockFlag::SOCK_CLOEXEC)?;
        // The socket's file gets the descriptor's mode when it is bound (Linux, net/unix/af_unix.c, unix_bind_bsd), so there is
        // no moment in which others could connect.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        self.remove(network)?;
        bind(socket.as_raw_fd(), &self.address(network)?)?;
        listen(&socket, Backlog::new(8)?)?;
        Ok(socket)
    }

    /// Connects to the control socket of a network, without blocking.
    ///
    /// # Errors
    /// The kernel's answer; [`io::ErrorKind::WouldBlock`] if too many connections wait to be accepted;
    /// [`io::ErrorKind::PermissionDenied`] if another user than this daemon's listens there.
    pub fn connect(&self, network: &str) -> io::Result<OwnedFd> {
        let socket = seqpacket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        connect(socket.as_raw_fd(), &self.address(network)?)?;
        // Those of whoever called listen(2), whatever user the proxy has become since (unix(7)).
        let user = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
        if user != geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user} listens there")));
        }
        Ok(socket)
    }

    /// Removes the control socket of a network, if it is there.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn remove(&self, network: &str) -> io::Result<()> {
        match fs::remove_file(self.path_of(network)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the directory, unless something is in it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn remove_if_empty(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }

    /// The networks that have a control socket.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn networks(&self) -> io::Result<Vec<String>> {
        let mut networks = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_socket()
                && let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".sock"))
            {
                networks.push(name.to_owned());
            }
        }
        networks.sort_unstable();
        Ok(networks)
    }

    fn address(&self, network: &str) -> Result<UnixAddr, Errno> {
        let directory = self.directory.as_raw_fd();
        UnixAddr::new(format!("/proc/self/fd/{directory}/{network}.sock").as_str())
    }
}

fn seqpacket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_control_socket_is_for_its_owner_and_at_any_depth() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(200));
        fs::create_dir(&deep).unwrap();
        let control = ControlDirectory::open(&deep).unwrap();
        let name = Name::new(&"n".repeat(63)).unwrap();
        assert!(control.connect(&name).is_err());
        let first = control.listen(&name).unwrap();
        drop(first);
        let _second = control.listen(&name).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&control.path_of(&name)), 0o600);
        assert_eq!(mode(&deep.join("control")), 0o700);
        control.connect(&name).unwrap();
        assert_eq!(control.networks().unwrap(), [name.to_string()]);
        control.remove(&name).unwrap();
        control.remove(&name).unwrap();
        assert!(control.networks().unwrap().is_empty());
    }
}
