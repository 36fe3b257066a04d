//! The control sockets' place in the file system.

use super::names;
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
/// The socket of a network's proxy has the network's name. While a proxy takes another one's place, and as long as those that
/// were replaced have connections, a network has more: their names go on with `@` and what they are.
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

    /// Where the control socket of that name is.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.sock"))
    }

    /// Makes the control socket of that name and listens on it. One that is there already is replaced.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn listen(&self, name: &str) -> io::Result<OwnedFd> {
        let socket = seqpacket(SockFlag::SOCK_CLOEXEC)?;
        // The socket's file gets the descriptor's mode when it is bound (Linux, net/unix/af_unix.c, unix_bind_bsd), so there is
        // no moment in which others could connect.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        self.remove(name)?;
        bind(socket.as_raw_fd(), &self.address(name)?)?;
        listen(&socket, Backlog::new(8)?)?;
        Ok(socket)
    }

    /// Gives a control socket another name. One that has that name already is replaced.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path_of(name), self.path_of(to))
    }

    /// Connects to the control socket of that name, without blocking.
    ///
    /// # Errors
    /// The kernel's answer; [`io::ErrorKind::WouldBlock`] if too many connections wait to be accepted;
    /// [`io::ErrorKind::PermissionDenied`] if another user than this daemon's listens there.
    pub fn connect(&self, name: &str) -> io::Result<OwnedFd> {
        let socket = seqpacket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        connect(socket.as_raw_fd(), &self.address(name)?)?;
        // Those of whoever called listen(2), whatever user the proxy has become since (unix(7)).
        let user = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
        if user != geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user} listens there")));
        }
        Ok(socket)
    }

    /// Removes the control socket of that name, if it is there.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path_of(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all control sockets of a network.
    ///
    /// # Errors
    /// The kernel's answer; the rest is removed.
    pub fn remove_all(&self, network: &str) -> io::Result<()> {
        let sockets = self.sockets()?.into_iter().filter(|name| names::network_of_socket(name) == network);
        sockets.map(|name| self.remove(&name)).fold(Ok(()), io::Result::and)
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
        let mut networks: Vec<_> =
            self.sockets()?.iter().map(|name| names::network_of_socket(name).to_owned()).collect();
        networks.sort_unstable();
        networks.dedup();
        Ok(networks)
    }

    /// The names of all control sockets.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn sockets(&self) -> io::Result<Vec<String>> {
        let mut sockets = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_socket()
                && let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".sock"))
            {
                sockets.push(name.to_owned());
            }
        }
        sockets.sort_unstable();
        Ok(sockets)
    }

    fn address(&self, name: &str) -> Result<UnixAddr, Errno> {
        let directory = self.directory.as_raw_fd();
        UnixAddr::new(format!("/proc/self/fd/{directory}/{name}.sock").as_str())
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
        let name = "n".repeat(63);
        assert!(control.connect(&name).is_err());
        let first = control.listen(&name).unwrap();
        drop(first);
        let _second = control.listen(&name).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&control.path_of(&name)), 0o600);
        assert_eq!(mode(&deep.join("control")), 0o700);
        control.connect(&name).unwrap();
        assert_eq!(control.networks().unwrap(), [name.as_str()]);
        let next = names::successor_socket(&name);
        let _third = control.listen(&next).unwrap();
        let old = names::predecessor_socket(&name, Some(7));
        control.rename(&name, &old).unwrap();
        control.rename(&next, &name).unwrap();
        control.connect(&old).unwrap();
        control.connect(&name).unwrap();
        assert_eq!(control.sockets().unwrap(), [name.clone(), old]);
        assert_eq!(control.networks().unwrap(), [name.as_str()]);
        let _other = control.listen("other").unwrap();
        control.remove_all(&name).unwrap();
        assert_eq!(control.sockets().unwrap(), ["other"]);
        control.remove("other").unwrap();
        control.remove("other").unwrap();
        assert!(control.networks().unwrap().is_empty());
    }
}
