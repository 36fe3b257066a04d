//! The directory of a daemon that runs: its sockets, and what the next one, or whoever cleans up, needs to know.

use crate::source::docker::Location;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The longest path of a socket: 108 bytes with the terminating zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

const LOCK: &str = "daemon.lock";
const TOKEN: &str = "admin.token";
/// Where the Engine is that a daemon had as a source.
const ENGINE: &str = "docker.json";

/// Why a run directory cannot be used.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// It cannot be made or used.
    #[error("cannot use {} as the run directory: {cause}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The path of the admin socket does not fit into a socket address.
    #[error("the run directory {} is too long: with `/admin.sock` its path may have {} bytes at most (unix(7))", path.display(), MAX_SOCKET_PATH)]
    TooLong {
        /// The directory.
        path: PathBuf,
    },
    /// A daemon runs on it.
    #[error("another ringlb daemon runs on {}: end it first, or choose another --run-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The lock that says so cannot be taken.
    #[error("cannot lock {}: {cause}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
}

/// A run directory that nobody else uses for as long as this lives. The kernel takes the lock back when the process ends,
/// however it ends.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    was_there: bool,
    _lock: Flock<File>,
}

impl RunDir {
    /// Makes the directory if it is not there, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, RunDirError> {
        let was_there = path.exists();
        let failed = |cause| RunDirError::Unusable { path: path.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        if Self::admin_socket_in(&path).as_os_str().len() > MAX_SOCKET_PATH {
            return Err(RunDirError::TooLong { path });
        }
        let lock = lock(&path)?;
        Ok(Self { path, was_there, _lock: lock })
    }

    /// Where the admin socket of a daemon on `run_dir` is.
    pub(crate) fn admin_socket_in(run_dir: &Path) -> PathBuf {
        run_dir.join("admin.sock")
    }

    /// Its canonical path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the admin socket is.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        Self::admin_socket_in(&self.path)
    }

    /// Where the token for TCP is, if it is not given.
    pub(crate) fn token(&self) -> PathBuf {
        self.path.join(TOKEN)
    }

    /// Writes down which Engine this daemon observes, for whoever cleans up after it.
    pub(crate) fn remember_engine(&self, engine: &Location) -> io::Result<()> {
        let text = serde_json::to_vec(engine)?;
        let written = self.path.join(format!("{ENGINE}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&written)?;
        file.write_all(&text)?;
        fs::rename(written, self.path.join(ENGINE))
    }

    /// Which Engine the last daemon has observed that had one, as far as it is known.
    pub(crate) fn engine(&self) -> io::Result<Option<Location>> {
        match fs::read(self.path.join(ENGINE)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what daemons have left in it, and it too if it is empty then; but not what must be known to go on another time,
    /// unless `for_good`. Gives what was there and is gone, and what could not be removed. Files of others stay.
    pub(crate) fn remove(self, for_good: bool) -> (Vec<PathBuf>, Vec<String>) {
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        let engine = [ENGINE.to_owned(), format!("{ENGINE}.new")].map(|name| self.path.join(name));
        let files = [self.admin_socket(), self.token()].into_iter().chain(engine.into_iter().filter(|_| for_good));
        for path in files {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => errors.push(format!("cannot remove {}: {error}", path.display())),
            }
        }
        if for_good && errors.is_empty() {
            // Last, as it keeps others away. Whoever has it open already sees that it is another file's by then.
            let lock = self.path.join(LOCK);
            if let Err(error) = fs::remove_file(&lock) {
                errors.push(format!("cannot remove {}: {error}", lock.display()));
            } else if fs::remove_dir(&self.path).is_ok() && self.was_there {
                removed.push(self.path);
            }
        }
        (removed, errors)
    }
}

/// One daemon for one run directory.
fn lock(run_dir: &Path) -> Result<Flock<File>, RunDirError> {
    let path = run_dir.join(LOCK);
    let failed = |cause| RunDirError::Lock { path: path.clone(), cause };
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => RunDirError::InUse { path: run_dir.to_owned() },
            errno => failed(errno.into()),
        })?;
        // Whoever has cleaned up has removed it after it was opened here: then it keeps nobody away.
        let is_same = |metadata: fs::Metadata| {
            lock.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (metadata.dev(), metadata.ino()))
        };
        if fs::metadata(&path).is_ok_and(is_same) {
            return Ok(lock);
        }
        fs::create_dir_all(run_dir).map_err(failed)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_one_at_a_time_and_goes_without_a_trace() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let run_dir = RunDir::open(&path).unwrap();
        assert!(matches!(RunDir::open(&path).unwrap_err(), RunDirError::InUse { .. }));
        let engine = Location { socket: "/run/docker.sock".into(), netns_dir: None };
        assert_eq!(run_dir.engine().unwrap(), None);
        run_dir.remember_engine(&engine).unwrap();
        fs::write(run_dir.token(), "token").unwrap();
        fs::write(path.join("mine"), "").unwrap();
        assert_eq!(run_dir.remove(false), (vec![path.join("admin.token")], Vec::new()));
        // It is kept as long as it may be needed.
        let run_dir = RunDir::open(&path).unwrap();
        assert_eq!(run_dir.engine().unwrap(), Some(engine));
        assert_eq!(run_dir.remove(true), (vec![path.join("docker.json")], Vec::new()));
        assert!(path.join("mine").exists());
        fs::remove_file(path.join("mine")).unwrap();
        assert_eq!(RunDir::open(&path).unwrap().remove(true), (vec![path.clone()], Vec::new()));
        assert!(!path.exists());
        assert_eq!(RunDir::open(&path).unwrap().remove(true), (Vec::new(), Vec::new()));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(parent.path()).unwrap();
        fs::write(parent.path().join("docker.json"), "{").unwrap();
        run_dir.engine().unwrap_err();
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let error = RunDir::open(&parent.path().join("d".repeat(100))).unwrap_err();
        assert!(matches!(error, RunDirError::TooLong { .. }), "{error}");
    }
}
