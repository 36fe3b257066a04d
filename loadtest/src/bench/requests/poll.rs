//! Waiting for many descriptors (epoll(7)).

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Events taken at a time.
const EVENTS: usize = 256;

/// Descriptors that are waited for, each with a number.
pub(super) struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS] })
    }

    /// Reports the descriptor under that number as long as there is something to read, until it is closed.
    pub(super) fn add(&self, descriptor: impl AsFd, number: usize) -> io::Result<()> {
        self.register(descriptor, number, EpollFlags::EPOLLIN)
    }

    /// Reports once that the descriptor can be written to or has failed, and each time that there is more to read, until it
    /// is closed.
    pub(super) fn add_beginning(&self, descriptor: impl AsFd, number: usize) -> io::Result<()> {
        self.register(descriptor, number, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET)
    }

    /// Reports each event once: a timer need not be read then.
    pub(super) fn add_timer(&self, timer: impl AsFd, number: usize) -> io::Result<()> {
        self.register(timer, number, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)
    }

    fn register(&self, descriptor: impl AsFd, number: usize, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(flags, number as u64))?)
    }

    /// Waits for the next events, no longer than `longest`, for ever without it; gives their number.
    pub(super) fn wait(&mut self, longest: Option<Duration>) -> io::Result<usize> {
        let timeout = longest.map_or(EpollTimeout::NONE, |longest| longest.try_into().unwrap_or(EpollTimeout::MAX));
        match self.epoll.wait(&mut self.events, timeout) {
            Err(nix::Error::EINTR) => Ok(0),
            result => Ok(result?),
        }
    }

    /// The number of the descriptor of one of those events.
    pub(super) fn number(&self, event: usize) -> usize {
        usize::try_from(self.events[event].data()).unwrap_or(usize::MAX)
    }
}
