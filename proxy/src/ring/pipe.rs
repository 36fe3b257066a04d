//! A pipe between two sockets: bulk data passes through the kernel without being copied to this process.

use crate::flow::{Destination, Source, SpliceTurn};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a pipe holds. Measured: 256 KiB is worse than no splice at all with eight streams, 1 MiB is as good as more.
const PIPE_BYTES: i32 = 1024 * 1024;
/// How much one turn moves at most, so that one connection does not keep the others waiting.
const TURN_BYTES: usize = 1024 * 1024;

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// A pipe of 1 MiB. `None` if the kernel gives none of that size: a smaller one is worse than copying. Without
    /// `CAP_SYS_RESOURCE` a user's pipes may hold 64 MiB in all (`fs.pipe-user-pages-soft`, pipe(7)).
    #[must_use]
    pub fn open() -> Option<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).ok().filter(|&size| size >= PIPE_BYTES)?;
        Some(Self { read, write, held: 0 })
    }

    /// Whether nothing is in it, so that another connection can use it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves what can be moved now. Both sockets must be non-blocking: `SPLICE_F_NONBLOCK` speaks of the pipe alone, and a
    /// blocking socket would stop the whole thread. Gives the turn and the bytes that reached the destination; `on_read` is told
    /// how many were read, before they go on.
    pub fn turn(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        read: bool,
        mut on_read: impl FnMut(usize),
    ) -> (SpliceTurn, usize) {
        let mut moved = 0;
        let mut source = Source::Ready;
        let mut destination = Destination::Ready;
        while moved < TURN_BYTES {
            let held = self.held;
            source = if read && held < PIPE_BYTES as usize { self.fill(from) } else { source };
            let before = self.held;
            if before > held {
                on_read(before - held);
            }
            destination = self.empty(to);
            moved += before - self.held;
            let go_on = source == Source::Ready && read && destination == Destination::Ready;
            if !go_on {
                break;
            }
        }
        let held = u32::try_from(self.held).unwrap_or(u32::MAX);
        (SpliceTurn { held, source, destination }, moved)
    }

    fn fill(&mut self, from: BorrowedFd<'_>) -> Source {
        let room = PIPE_BYTES as usize - self.held;
        match move_bytes(from, self.write.as_fd(), room) {
            Ok(0) => Source::Finished,
            Ok(moved) => {
                self.held += moved;
                Source::Ready
            }
            // The pipe is full too when its slots are used up, each by less than a page: then there is something to
            // take out, and the source is asked again after that.
            Err(Errno::EAGAIN) if self.held > 0 => Source::Ready,
            Err(Errno::EAGAIN | Errno::EINTR) => Source::Dry,
            Err(_) => Source::Reset,
        }
    }

    fn empty(&mut self, to: BorrowedFd<'_>) -> Destination {
        while self.held > 0 {
            match move_bytes(self.read.as_fd(), to, self.held) {
                Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => return Destination::Full,
                Ok(moved) => self.held -= moved,
                Err(_) => return Destination::Reset,
            }
        }
        Destination::Ready
    }
}

fn move_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> Result<usize, Errno> {
    splice(from, None, to, None, length, SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE)
}
