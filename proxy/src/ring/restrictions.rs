//! What a ring may be used for (`IORING_REGISTER_RESTRICTIONS`, Linux 5.10): the operations that this program makes, and
//! no registration. The kernel refuses all else with `EACCES`, whoever submits it.
//!
//! A ring is made disabled, is given all that is to be registered with it, and is restricted and enabled then.

use super::Error;
use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode};
use nix::errno::Errno;
use std::io;
use std::os::fd::RawFd;

/// `IORING_REGISTER_RESTRICTIONS`, include/uapi/linux/io_uring.h.
const REGISTER_RESTRICTIONS: libc::c_uint = 11;
/// `IORING_REGISTER_ENABLE_RINGS`, include/uapi/linux/io_uring.h.
const REGISTER_ENABLE_RINGS: libc::c_uint = 12;

/// The operations of a data thread's ring, with names for when they are missing.
pub(super) const DATA_OPERATIONS: [(u8, &str); 8] = [
    (opcode::Accept::CODE, "accept"),
    (opcode::Connect::CODE, "connect"),
    (opcode::Recv::CODE, "recv"),
    (opcode::RecvMsgMulti::CODE, "recvmsg"),
    (opcode::Send::CODE, "send"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::Read::CODE, "read"),
    (opcode::AsyncCancel::CODE, "cancel"),
];

/// What tokio-uring makes of reading, writing, closing and giving up a socket.
const CONTROL_OPERATIONS: [u8; 4] =
    [opcode::Read::CODE, opcode::Write::CODE, opcode::Close::CODE, opcode::AsyncCancel::CODE];

/// Restricts a data thread's ring and enables it. To be called on the thread that will submit.
pub(super) fn enable_for_data(ring: &IoUring) -> Result<(), Error> {
    let mut restrictions: Vec<_> = DATA_OPERATIONS.iter().map(|&(code, _)| Restriction::sqe_op(code)).collect();
    restrictions.push(Restriction::sqe_flags_allowed(Flags::BUFFER_SELECT.bits()));
    let failed = |what| move |source| Error::Register { what, source };
    ring.submitter().register_restrictions(&mut restrictions).map_err(failed("restrictions (kernel 5.10)"))?;
    ring.submitter().register_enable_rings().map_err(failed("that it may be used"))
}

/// Restricts the control thread's ring and enables it.
///
/// tokio-uring does not tell its descriptor. But the kernel takes restrictions for rings only that are not enabled yet, and of
/// these the process has no other: so all descriptors are tried, from the lowest on.
///
/// # Errors
/// [`Error::Register`], if no ring waits for it.
pub fn enable_for_control() -> Result<(), Error> {
    let mut restrictions = CONTROL_OPERATIONS.map(Restriction::sqe_op);
    let failed = |source| Error::Register { what: "restrictions of the control ring (kernel 5.10)", source };
    for ring in 0..most_descriptors() {
        let address = restrictions.as_mut_ptr().cast();
        let count = restrictions.len() as libc::c_uint;
        // SAFETY: the address is that of so many restrictions (`io_uring_restriction`, repr(transparent)), which outlive the
        // call. What is no disabled ring is not changed.
        match unsafe { register(ring, REGISTER_RESTRICTIONS, address, count) } {
            Ok(()) => {
                // SAFETY: this registers no memory.
                return unsafe { register(ring, REGISTER_ENABLE_RINGS, std::ptr::null_mut(), 0) }.map_err(failed);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Err(failed(error)),
            Err(_) => {}
        }
    }
    Err(failed(Errno::EBADF.into()))
}

/// One more than the highest number that a descriptor can have.
fn most_descriptors() -> RawFd {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.ok().and_then(|(soft, _)| RawFd::try_from(soft).ok()).unwrap_or(RawFd::MAX)
}

/// `io_uring_register(2)`.
///
/// # Safety
/// As that of the operation.
unsafe fn register(
    ring: RawFd,
    operation: libc::c_uint,
    address: *mut libc::c_void,
    count: libc::c_uint,
) -> io::Result<()> {
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, operation, address, count) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::set_up;
    use super::*;
    use io_uring::types::Fd;
    use io_uring::{Probe, squeue};

    fn outcome(ring: &mut IoUring, entry: &squeue::Entry) -> i32 {
        // SAFETY: what the entries below point to is constant.
        unsafe { ring.submission().push(entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    #[test]
    fn a_ring_does_what_it_is_for_and_nothing_else() {
        let mut ring = set_up(8, 16).unwrap();
        let here = Fd(libc::AT_FDCWD);
        let read = opcode::Read::new(Fd(-1), std::ptr::null_mut(), 0).build();
        // SAFETY: as above.
        unsafe { ring.submission().push(&read) }.unwrap();
        assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBADFD), "not before it is enabled");
        enable_for_data(&ring).unwrap();
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().unwrap().result(), -libc::EBADF);
        for entry in [
            opcode::OpenAt::new(here, c"/".as_ptr()).build(),
            opcode::Socket::new(libc::AF_NETLINK, libc::SOCK_RAW, 0).build(),
            opcode::UnlinkAt::new(here, c"/nothing".as_ptr()).build(),
            opcode::Write::new(Fd(1), c"".as_ptr().cast(), 0).build(),
            opcode::Nop::new().build(),
            // Allowed, but not in this way.
            read.flags(Flags::IO_DRAIN),
        ] {
            assert_eq!(outcome(&mut ring, &entry), -libc::EACCES, "{entry:?}");
        }
        let denied = ring.submitter().register_probe(&mut Probe::new()).unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(libc::EACCES));
    }
}
