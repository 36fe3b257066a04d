//! What this kernel's io_uring can do, found out by asking and by trying.

use super::buffers::{Buffers, GROUP};
use super::datagrams::DatagramBuffers;
use super::restrictions::{self, DATA_OPERATIONS};
use super::{Error, set_up};
use crate::control::message::Features;
use io_uring::types::Fd;
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::{io::Write, time::Duration};

/// Checks that all that is needed is there and works.
///
/// # Errors
/// [`Error::Missing`] names what an old kernel lacks; [`Error::Setup`] says why io_uring is refused;
/// [`Error::SelfTest`] what does not work as it must.
pub fn check() -> Result<Features, Error> {
    let kernel =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let ring = set_up(64, 256)?;
    check_operations(&ring, &kernel)?;
    let missing = |error| match error {
        Error::Register { what, .. } => Error::Missing { kernel: kernel.clone(), what: what.to_owned() },
        other => other,
    };
    let mut test = SelfTest {
        _buffers: Buffers::register(&ring).map_err(missing)?,
        datagrams: DatagramBuffers::register(&ring)?,
        ring,
    };
    restrictions::enable_for_data(&test.ring).map_err(missing)?;
    test.multishot_receive()?;
    test.datagrams()?;
    let multishot_accept = !accept_is_known_bad(&kernel) && test.multishot_accept().is_ok();
    Ok(Features {
        multishot_accept,
        multishot_receive: true,
        buffer_ring: true,
        deferred_taskrun: true,
        no_iowait: test.ring.params().is_feature_no_iowait(),
        splice: true,
        max_connections: 0,
        threads: 0,
        kernel,
    })
}

fn check_operations(ring: &IoUring, kernel: &str) -> Result<(), Error> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|source| Error::Register { what: "a probe of its operations", source })?;
    let lacks = DATA_OPERATIONS.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name);
    let mut lacks: Vec<_> = lacks.map(|name| format!("io_uring's {name}")).collect();
    let parameters = ring.params();
    if !parameters.is_feature_nodrop() {
        lacks.push("completions that are never dropped".into());
    }
    if !parameters.is_feature_ext_arg() {
        lacks.push("waiting with a timeout".into());
    }
    if lacks.is_empty() { Ok(()) } else { Err(Error::Missing { kernel: kernel.to_owned(), what: lacks.join(", ") }) }
}

/// Multishot accept with deferred task work can deliver wrong descriptors on 6.6 to 6.8 (liburing #1062). A short trial
/// does not show it.
fn accept_is_known_bad(kernel: &str) -> bool {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(6), Some(6..=8)))
}

struct SelfTest {
    ring: IoUring,
    /// Registered with the ring; used by the kernel alone.
    _buffers: Buffers,
    datagrams: DatagramBuffers,
}

impl SelfTest {
    /// One receive delivers two messages and reports its cancellation.
    fn multishot_receive(&mut self) -> Result<(), Error> {
        let pair = || UnixStream::pair().map_err(|error| Error::SelfTest(format!("socketpair: {error}")));
        let (mut near, far) = pair()?;
        self.submit(&opcode::RecvMulti::new(Fd(far.as_raw_fd()), GROUP).build().user_data(1))?;
        for round in 0..2 {
            near.write_all(b"test").map_err(|error| Error::SelfTest(format!("write: {error}")))?;
            let entry = self.wait_for(1)?;
            let complete = entry.result() == 4 && cqueue::more(entry.flags());
            if !complete || cqueue::buffer_select(entry.flags()).is_none() {
                return Err(Error::SelfTest(format!("multishot receive, message {round}: {entry:?}")));
            }
        }
        self.submit(&opcode::AsyncCancel::new(1).build().user_data(2))?;
        let entry = self.wait_for(1)?;
        if entry.result() != -(Errno::ECANCELED as i32) || cqueue::more(entry.flags()) {
            return Err(Error::SelfTest(format!("cancelled multishot receive: {entry:?}")));
        }
        Ok(())
    }

    /// One receive delivers two datagrams and reports its cancellation. (An empty datagram is delivered and ends the receive,
    /// on 6.18 at least.)
    fn datagrams(&mut self) -> Result<(), Error> {
        let failed = |what: &str, error: std::io::Error| Error::SelfTest(format!("{what}: {error}"));
        let (near, far) = UnixDatagram::pair().map_err(|error| failed("socketpair", error))?;
        self.submit(&self.datagrams.receive(Fd(far.as_raw_fd())).user_data(4))?;
        for sent in ["test", "datagram"] {
            near.send(sent.as_bytes()).map_err(|error| failed("send", error))?;
            let entry = self.wait_for(4)?;
            let written = u32::try_from(entry.result()).unwrap_or(0);
            let buffer = cqueue::buffer_select(entry.flags()).map(u32::from);
            let datagram = buffer.and_then(|buffer| self.datagrams.datagram(buffer, written));
            let came = datagram.map(|datagram| self.datagrams.bytes(datagram.chunk));
            if came != Some(sent.as_bytes()) || !cqueue::more(entry.flags()) {
                return Err(Error::SelfTest(format!("multishot receive of datagrams: {entry:?}")));
            }
        }
        self.submit(&opcode::AsyncCancel::new(4).build().user_data(2))?;
        let entry = self.wait_for(4)?;
        if entry.result() != -(Errno::ECANCELED as i32) || cqueue::more(entry.flags()) {
            return Err(Error::SelfTest(format!("cancelled receive of datagrams: {entry:?}")));
        }
        Ok(())
    }

    /// One accept delivers four connections, each with a descriptor of its own that works.
    fn multishot_accept(&mut self) -> Result<(), Error> {
        let failed = |what: &str, error: std::io::Error| Error::SelfTest(format!("{what}: {error}"));
        let name = format!("ringlb-self-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).map_err(|error| failed("address", error))?;
        let listener = UnixListener::bind_addr(&address).map_err(|error| failed("bind", error))?;
        let flags = libc::SOCK_CLOEXEC;
        self.submit(&opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(flags).build().user_data(3))?;
        for round in 0..4u8 {
            let mut client = UnixStream::connect_addr(&address).map_err(|error| failed("connect", error))?;
            let entry = self.wait_for(3)?;
            if entry.result() < 0 || !cqueue::more(entry.flags()) {
                return Err(Error::SelfTest(format!("multishot accept, connection {round}: {entry:?}")));
            }
            // SAFETY: the kernel has just given this descriptor to this process, and nothing else owns it. On a kernel
            // that gives wrong numbers the check below fails, and a wrong number closes at worst a descriptor that
            // does not exist: at this point of the start none but the inherited ones are open.
            let accepted = unsafe { OwnedFd::from_raw_fd(entry.result()) };
            client.write_all(&[round]).map_err(|error| failed("write", error))?;
            let mut byte = [0xff];
            let read = nix::unistd::read(&accepted, &mut byte);
            if read != Ok(1) || byte[0] != round {
                return Err(Error::SelfTest(format!("connection {round} of a multishot accept is not its own")));
            }
        }
        self.submit(&opcode::AsyncCancel::new(3).build().user_data(2))?;
        self.wait_for(3).map(drop)
    }

    fn submit(&mut self, entry: &squeue::Entry) -> Result<(), Error> {
        // SAFETY: the operations above use shared buffers, which are never freed, and descriptors.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| Error::SelfTest("the submission queue is full".into()))?;
        self.ring.submit().map(drop).map_err(Error::Enter)
    }

    /// The next completion of that operation, waited for a second at most.
    fn wait_for(&mut self, user_data: u64) -> Result<cqueue::Entry, Error> {
        let second = io_uring::types::Timespec::from(Duration::from_secs(1));
        for _ in 0..8 {
            if let Some(entry) = self.ring.completion().find(|entry| entry.user_data() == user_data) {
                return Ok(entry);
            }
            let arguments = io_uring::types::SubmitArgs::new().timespec(&second);
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => break,
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(Error::Enter(error)),
                _ => {}
            }
        }
        Err(Error::SelfTest(format!("operation {user_data} does not report")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_passes() {
        let features = check().unwrap();
        assert!(features.multishot_receive && features.buffer_ring && !features.kernel.is_empty());
    }

    #[test]
    fn kernels_with_a_bad_multishot_accept_are_known() {
        for bad in ["6.6.0", "6.7.12-amd64", "6.8.0-31-generic"] {
            assert!(accept_is_known_bad(bad), "{bad}");
        }
        for good in ["6.1.0-18-amd64", "6.5.9", "6.9.1", "6.18.44", "7.0.0", "nonsense"] {
            assert!(!accept_is_known_bad(good), "{good}");
        }
    }
}
