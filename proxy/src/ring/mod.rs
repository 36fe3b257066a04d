//! io_uring: setting it up, submitting operations, waiting for completions. All unsafe code of the data path is here.
//!
//! An operation names descriptors and buffers by number. Buffers belong to the ring and outlive every operation; a wrong
//! descriptor gives an error or a wrong peer, never a memory error. So the interface is safe.
#![allow(unsafe_code, reason = "operations and buffers are shared with the kernel by address")]

mod buffers;
mod datagrams;
mod pipe;
pub mod probe;
mod provided;
mod restrictions;
mod spin;
mod token;

pub use buffers::{BUFFER_SIZE, PRIVATE_BUFFERS, SHARED_BUFFERS};
pub use datagrams::{DATAGRAM_BUFFERS, Datagram, LONGEST_DATAGRAM};
pub use pipe::Pipe;
pub use restrictions::enable_for_control;
pub use token::{GENERATION_MASK, Kind, Slot, Token};

use crate::flow::Chunk;
use buffers::{Buffers, GROUP};
use datagrams::DatagramBuffers;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use nix::errno::Errno;
use socket2::SockAddr;
use spin::{Spin, Wait};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Entries of the submission queue. More operations than this in one turn cost one more system call.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue: a turn's submissions that complete at once, and what came meanwhile.
const COMPLETIONS: u32 = 16 * 1024;

/// Why a ring cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// `io_uring_setup(2)` failed.
    #[error("cannot set up io_uring: {reason} ({source})")]
    Setup {
        /// What that error means and what to do.
        reason: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel does not know something that is needed.
    #[error("the kernel ({kernel}) lacks {what}: ringlb needs Linux 6.1 or newer")]
    Missing {
        /// `uname -r`.
        kernel: String,
        /// What is missing.
        what: String,
    },
    /// `io_uring_register(2)` failed.
    #[error("cannot register {what} with io_uring: {source}")]
    Register {
        /// What was to be registered.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// `io_uring_enter(2)` failed for good.
    #[error("cannot enter io_uring: {0}")]
    Enter(io::Error),
    /// There is no memory for the buffers.
    #[error("cannot allocate {bytes} bytes for buffers")]
    Memory {
        /// How much was asked for.
        bytes: usize,
    },
    /// An operation did not behave as it must.
    #[error("the kernel's io_uring does not work as it should: {0}")]
    SelfTest(String),
}

/// A completed operation.
#[derive(Debug)]
pub struct Completion {
    /// The operation; `None` if the kernel gave bits that no operation has.
    pub token: Option<Token>,
    /// Its result: a count or a descriptor.
    pub result: Result<u32, Errno>,
    /// Whether the operation goes on and will report again (`IORING_CQE_F_MORE`).
    pub more: bool,
    /// The shared buffer that was used, one for datagrams if a datagram was received.
    pub buffer: Option<u32>,
}

impl Completion {
    /// The socket that an accept operation delivered.
    ///
    /// # Errors
    /// The operation's error, or `EBADF` if this is not the completion of an accept.
    pub fn into_socket(self) -> Result<OwnedFd, Errno> {
        let descriptor = i32::try_from(self.result?).map_err(|_| Errno::EBADF)?;
        if !matches!(self.token, Some(Token::Accept { .. })) {
            return Err(Errno::EBADF);
        }
        // SAFETY: the kernel has just opened this descriptor for this process, and this completion, which cannot be
        // copied, is the only one that knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// What the ring counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Times that completions did not fit into the queue.
    pub overflows: u64,
}

/// A ring with its buffers. It must stay on the thread that made it.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
    datagrams: DatagramBuffers,
    /// Addresses to connect to, each read by the kernel when its operation is submitted. An address is written over
    /// only after as many further connects as the submission queue has entries, when it has been submitted.
    addresses: Vec<SockAddr>,
    next_address: usize,
    /// Where the kernel puts the wake-up descriptor's count; never freed, like the buffers.
    wake_count: &'static mut u64,
    reaped: VecDeque<Completion>,
    no_iowait: bool,
    spin: Spin,
    counts: Counts,
}

/// A ring of the kind that the data path uses, without buffers. It cannot be used before it is enabled (`restrictions`).
fn set_up(submissions: u32, completions: u32) -> Result<IoUring, Error> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions)
        .setup_r_disabled()
        .dontfork()
        .build(submissions)
        .map_err(|source| Error::Setup { reason: explain_setup(&source), source })
}

fn explain_setup(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSYS) => {
            "this kernel has no io_uring, or a seccomp profile hides it; ringlb needs Linux 6.1 or newer"
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            "io_uring is forbidden here: see the sysctl kernel.io_uring_disabled, or, in a container, allow the \
             io_uring_* system calls in its seccomp profile"
        }
        Some(Errno::EINVAL) => "this kernel's io_uring is too old; ringlb needs Linux 6.1 or newer",
        Some(Errno::ENOMEM) => "there is too little memory, or RLIMIT_MEMLOCK is too low",
        Some(Errno::EMFILE | Errno::ENFILE) => "there are no file descriptors left; raise RLIMIT_NOFILE",
        _ => "unexpected error",
    }
}

impl Ring {
    /// A ring that looks for completions up to `spin` before it sleeps; zero to sleep at once. To be made by the thread that
    /// uses it.
    ///
    /// # Errors
    /// [`Error::Setup`], [`Error::Register`] or [`Error::Memory`].
    pub fn new(spin: Duration) -> Result<Self, Error> {
        let ring = set_up(SUBMISSIONS, COMPLETIONS)?;
        let nowhere = SockAddr::from(std::net::SocketAddr::from(([0, 0, 0, 0], 0)));
        let buffers = Buffers::register(&ring)?;
        let datagrams = DatagramBuffers::register(&ring)?;
        restrictions::enable_for_data(&ring)?;
        Ok(Self {
            buffers,
            datagrams,
            no_iowait: ring.params().is_feature_no_iowait(),
            ring,
            addresses: vec![nowhere; SUBMISSIONS as usize],
            next_address: 0,
            wake_count: Box::leak(Box::new(0)),
            reaped: VecDeque::new(),
            spin: Spin::new(spin, Instant::now()),
            counts: Counts::default(),
        })
    }

    /// What the ring counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Accepts connections from `listener`, non-blocking ones; one or, if `multishot`, until it fails.
    ///
    /// # Errors
    /// [`Error::Enter`], as for all operations.
    pub fn accept(&mut self, token: Token, listener: RawFd, multishot: bool) -> Result<(), Error> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let entry = if multishot {
            opcode::AcceptMulti::new(Fd(listener)).flags(flags).build()
        } else {
            opcode::Accept::new(Fd(listener), std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
        };
        self.push(entry, token)
    }

    /// Reads the wake-up descriptor (an eventfd).
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn read_wake(&mut self, wake: RawFd) -> Result<(), Error> {
        let entry = opcode::Read::new(Fd(wake), std::ptr::from_mut(self.wake_count).cast(), 8).build();
        self.push(entry, Token::Wake)
    }

    /// Connects `socket` to `address`.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn connect(&mut self, token: Token, socket: RawFd, address: SockAddr) -> Result<(), Error> {
        let place = &mut self.addresses[self.next_address];
        *place = address;
        let entry = opcode::Connect::new(Fd(socket), place.as_ptr().cast(), place.len()).build();
        self.next_address = (self.next_address + 1) % self.addresses.len();
        self.push(entry, token)
    }

    /// Receives from `socket` into shared buffers until it fails, ends or is cancelled.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn receive(&mut self, token: Token, socket: RawFd) -> Result<(), Error> {
        self.push(opcode::RecvMulti::new(Fd(socket), GROUP).build(), token)
    }

    /// Receives datagrams from `socket` until it fails or is cancelled.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn receive_datagrams(&mut self, token: Token, socket: RawFd) -> Result<(), Error> {
        let entry = self.datagrams.receive(Fd(socket));
        self.push(entry, token)
    }

    /// The datagram that the completion of a [`Self::receive_datagrams`] has brought; `None` if it brought none.
    #[must_use]
    pub fn datagram(&self, completion: &Completion) -> Option<Datagram> {
        self.datagrams.datagram(completion.buffer?, completion.result.ok()?)
    }

    /// The bytes of a datagram.
    #[must_use]
    pub fn datagram_bytes(&self, chunk: Chunk) -> &[u8] {
        self.datagrams.bytes(chunk)
    }

    /// Gives a datagram's buffer back.
    pub fn release_datagram(&mut self, buffer: u32) {
        self.datagrams.release(buffer);
    }

    /// Receives from `socket` once, into a private buffer; `None` if there are none left.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn receive_private(&mut self, token: Token, socket: RawFd) -> Result<Option<u32>, Error> {
        let Some(buffer) = self.buffers.take_private() else { return Ok(None) };
        let Some((address, room)) = self.buffers.address(buffer, 0) else { return Ok(None) };
        self.push(opcode::Recv::new(Fd(socket), address, room).build(), token)?;
        Ok(Some(buffer))
    }

    /// A private buffer that begins with these bytes, at most [`BUFFER_SIZE`]; `None` if there are too many.
    pub fn fill(&mut self, bytes: &[u8]) -> Option<Chunk> {
        let buffer = self.buffers.take_private()?;
        let length = self.buffers.fill(buffer, bytes)?;
        Some(Chunk { buffer, start: 0, length })
    }

    /// Sends the chunk to `socket`. The kernel goes on by itself after a short send, but may still report one.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn send(&mut self, token: Token, socket: RawFd, chunk: Chunk) -> Result<(), Error> {
        let (address, length) = match self.buffers.address(chunk.buffer, chunk.start) {
            Some((address, room)) => (address.cast_const(), chunk.length.min(room)),
            None => (std::ptr::null(), 0),
        };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        self.push(opcode::Send::new(Fd(socket), address, length).flags(flags).build(), token)
    }

    /// Waits until `socket` can be read or has ended.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn await_readable(&mut self, token: Token, socket: RawFd) -> Result<(), Error> {
        self.poll(token, socket, libc::POLLIN | libc::POLLRDHUP)
    }

    /// Waits until `socket` can be written.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn await_writable(&mut self, token: Token, socket: RawFd) -> Result<(), Error> {
        self.poll(token, socket, libc::POLLOUT)
    }

    /// Cancels an operation. It reports as if it had ended by itself, or with `ECANCELED`.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn cancel(&mut self, operation: Token) -> Result<(), Error> {
        self.push(opcode::AsyncCancel::new(operation.encode()).build(), Token::Cancel)
    }

    /// Cancels all operations that have this token, as [`Self::cancel`] does one (`IORING_ASYNC_CANCEL_ALL`, Linux 5.19).
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub fn cancel_all(&mut self, operations: Token) -> Result<(), Error> {
        let all = CancelBuilder::user_data(operations.encode()).all();
        self.push(opcode::AsyncCancel2::new(all).build(), Token::Cancel)
    }

    /// Gives a buffer back.
    pub fn release(&mut self, buffer: u32) {
        self.buffers.release(buffer);
    }

    /// The next completion that has been reaped.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.reaped.pop_front()
    }

    /// Submits what was pushed and reaps completions; if there are none, waits for one until `deadline`.
    ///
    /// # Errors
    /// [`Error::Enter`] if the kernel refuses for good.
    pub fn turn(&mut self, deadline: Option<Instant>, may_wait: bool) -> Result<(), Error> {
        self.reap();
        // Most of what was pushed completes as soon as it is submitted, which is no wait.
        if self.has_work() || !self.reaped.is_empty() || !may_wait {
            self.enter(0, None)?;
            self.reap();
            if !self.reaped.is_empty() || !may_wait {
                return Ok(());
            }
        }
        let began = Instant::now();
        let wait = if !self.spin.begin(began) {
            Wait::Slept
        } else if self.spin(began)? {
            self.spin.end(began, Instant::now(), Wait::Paid);
            return Ok(());
        } else {
            Wait::Missed
        };
        self.enter(1, deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())))?;
        self.reap();
        self.spin.end(began, Instant::now(), wait);
        Ok(())
    }

    fn poll(&mut self, token: Token, socket: RawFd, events: i16) -> Result<(), Error> {
        // The events are bits of an unsigned mask in the kernel's interface.
        let mask = u32::from(events.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(socket), mask).build(), token)
    }

    /// Looks for completions from then on; true if some came.
    fn spin(&mut self, start: Instant) -> Result<bool, Error> {
        while start.elapsed() < self.spin.longest() {
            if self.has_work() {
                self.enter(0, None)?;
            }
            self.reap();
            if !self.reaped.is_empty() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Whether there is something to submit, or the kernel has put work off until the ring is entered
    /// (`IORING_SETUP_DEFER_TASKRUN`).
    fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun()
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) -> Result<(), Error> {
        let entry = entry.user_data(token.encode());
        loop {
            // SAFETY: buffers, addresses and the wake-up count live as long as the process or until the operation is
            // submitted, as each needs; descriptors are numbers.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0, None)?;
        }
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> Result<(), Error> {
        let (to_submit, overflow) = {
            let mut queue = self.ring.submission();
            queue.sync();
            (queue.len(), queue.cq_overflow())
        };
        self.counts.overflows += u64::from(overflow);
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        flags.set(EnterFlags::NO_IOWAIT, self.no_iowait);
        let time = timeout.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(time) = &time {
            arguments = arguments.timespec(time);
        }
        let to_submit = u32::try_from(to_submit).unwrap_or(u32::MAX);
        self.counts.enters += 1;
        // SAFETY: `SubmitArgs` is the structure that EXT_ARG asks for, and it lives until the call returns.
        let result = unsafe { self.ring.submitter().enter(to_submit, want, flags.bits(), Some(&arguments)) };
        match result.map_err(|error| (error.raw_os_error().map(Errno::from_raw), error)) {
            Ok(_) | Err((Some(Errno::EINTR | Errno::ETIME), _)) => Ok(()),
            // Completions or memory are short: taking completions out makes room for both.
            Err((Some(Errno::EBUSY | Errno::EAGAIN), _)) => {
                self.reap();
                Ok(())
            }
            Err((_, error)) => Err(Error::Enter(error)),
        }
    }

    fn reap(&mut self) {
        let mut queue = self.ring.completion();
        queue.sync();
        for entry in queue {
            self.reaped.push_back(Completion {
                token: Token::decode(entry.user_data()),
                result: u32::try_from(entry.result()).map_err(|_| Errno::from_raw(-entry.result())),
                more: cqueue::more(entry.flags()),
                buffer: cqueue::buffer_select(entry.flags()).map(u32::from),
            });
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ring").field("counts", &self.counts).field("reaped", &self.reaped.len()).finish()
    }
}
