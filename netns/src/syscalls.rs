//! The system calls that no safe library wraps, one function each. Together with `bpf/mod.rs` this is all of the
//! crate's unsafe code.
#![allow(unsafe_code, reason = "these calls have no safe wrapper; each is one function with a safe signature")]

use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The kind of namespace behind a descriptor, as a `CLONE_NEW*` constant. `NS_GET_NSTYPE`: ioctl_ns(2), Linux 4.11.
pub(crate) fn namespace_type(namespace: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument and the descriptor is open for the length of the borrow.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// The network namespace that a socket is in. `SIOCGSKNS`: include/uapi/linux/sockios.h, Linux 4.10.
pub(crate) fn socket_namespace(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::Ioctl = 0x894C;
    // SAFETY: SIOCGSKNS takes no argument and the descriptor is open for the length of the borrow.
    let namespace = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor, with O_CLOEXEC, for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// Sets the loopback interface of the calling thread's network namespace up (netdevice(7)).
pub(crate) fn set_loopback_up() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: `request` is a valid `ifreq` with a terminated name; the kernel writes into it and keeps no reference.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // IFF_UP is 1, so the conversion loses nothing.
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: as above; the kernel reads the flags.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket that sends Ethernet frames out of one interface and receives nothing (packet(7)).
#[derive(Debug)]
pub(crate) struct LinkSocket {
    socket: Socket,
    address: SockAddr,
}

impl LinkSocket {
    /// For the interface with that index, in the calling thread's network namespace. Needs `CAP_NET_RAW`.
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(|_large| io::ErrorKind::InvalidInput)?;
        // Protocol 0: no frame is delivered to it.
        let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec().nonblocking(), None)?;
        // SAFETY: `sockaddr_ll` is plain data for which all zeroes is a valid value.
        let mut link: libc::sockaddr_ll = unsafe { mem::zeroed() };
        link.sll_family = libc::AF_PACKET as libc::sa_family_t;
        link.sll_ifindex = index;
        // SAFETY: the closure makes a whole `sockaddr_ll` of the storage, which is larger and aligned for every address, and
        // sets the length to its size.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                storage.cast::<libc::sockaddr_ll>().write(link);
                *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                Ok(())
            })
        }?;
        Ok(Self { socket, address })
    }

    /// Sends a whole frame, with its header.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &self.address).map(|_length| ())
    }
}

/// Makes the child that `command` starts enter the network namespace before it executes its program.
pub(crate) fn enter_on_exec<N: AsFd + Send + Sync + 'static>(command: &mut Command, namespace: N) {
    // SAFETY: between fork and exec the closure makes one system call and reads errno: it allocates nothing, takes no
    // lock, and the descriptor lives as long as the closure that owns it.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Makes the kernel send SIGTERM to the child when the calling thread ends: PR_SET_PDEATHSIG, prctl(2).
pub(crate) fn end_with_parent(command: &mut Command) {
    // SAFETY: as for `enter_on_exec`: one system call, nothing allocated, no lock taken.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
