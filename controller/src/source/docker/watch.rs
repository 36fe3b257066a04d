//! Being told that a file came into a directory, or left it.

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A watched directory (inotify(7)). What is mounted over a file in it shows no event.
#[derive(Debug)]
pub(super) struct DirectoryWatch {
    inotify: AsyncFd<Readable>,
}

/// The runtime asks for the descriptor in another way than the crate gives it.
#[derive(Debug)]
struct Readable(Inotify);

impl AsRawFd for Readable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl DirectoryWatch {
    /// Watches the directory.
    ///
    /// # Errors
    /// If it is not there or may not be read, or the user has too many watches.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(directory, events)?;
        #[expect(
            deprecated,
            reason = "the new one is unsafe for types that change their descriptor; this one owns its own"
        )]
        let inotify = AsyncFd::with_interest(Readable(inotify), Interest::READABLE)?;
        Ok(Self { inotify })
    }

    /// Waits for the next change. Several that came together are one.
    ///
    /// # Errors
    /// If the watch has ended, as when the directory is gone.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let (mut some, mut ended) = (false, false);
            loop {
                match self.inotify.get_ref().0.read_events() {
                    Ok(events) => {
                        some = true;
                        ended |= events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED));
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if ended {
                return Err(io::ErrorKind::NotFound.into());
            }
            if some {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn a_file_that_comes_or_goes_is_told_and_so_is_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let watch = DirectoryWatch::new(directory.path()).unwrap();
            let changed = async || timeout(Duration::from_secs(30), watch.changed()).await.unwrap();
            fs::write(directory.path().join("one"), "").unwrap();
            changed().await.unwrap();
            fs::remove_file(directory.path().join("one")).unwrap();
            changed().await.unwrap();
            fs::remove_dir(directory.path()).unwrap();
            changed().await.unwrap_err();
        });
    }

    #[test]
    fn only_a_directory_can_be_watched() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        assert!(DirectoryWatch::new(&directory.path().join("missing")).is_err());
    }
}
