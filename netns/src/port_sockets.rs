//! The sockets of one port of the caller's own namespace, on all its addresses.

use crate::steering::{BACKLOG, set_datagram_options};
use crate::{Error, Result};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortProtocol {
    /// Listening sockets.
    Tcp,
    /// Sockets that tell the destination of each datagram, as [`ThreadSockets::datagrams`](crate::ThreadSockets) do.
    Udp,
}

/// Sockets on a port of every address of the namespace that the caller is in, for each data thread one of every address
/// family that the machine has.
///
/// They are non-blocking and closed on exec. What comes for the port while nobody takes it waits in their queues. With
/// several threads, the kernel chooses among those of one family by a hash of the addresses and ports (`SO_REUSEPORT`), so
/// that all of them must be served.
#[derive(Debug)]
pub struct PortSockets {
    sockets: Vec<OwnedFd>,
}

impl PortSockets {
    /// Makes the sockets. Nobody else may have the port, of neither family.
    ///
    /// # Errors
    /// If somebody has the port, or the kernel refuses.
    pub fn open(protocol: PortProtocol, port: u16, threads: NonZeroUsize) -> Result<Self> {
        let wanted = Wanted { protocol, port };
        let groups = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let groups = groups.map(|address: IpAddr| wanted.group(SocketAddr::new(address, port), threads));
        let mut by_family = Vec::new();
        for group in groups {
            by_family.extend(group?.map(Vec::into_iter));
        }
        let mut sockets = Vec::new();
        for _thread in 0..threads.get() {
            sockets.extend(by_family.iter_mut().filter_map(Iterator::next).map(OwnedFd::from));
        }
        Ok(Self { sockets })
    }

    /// Those that another process handed over, in the order in which [`Self::descriptors`] gives them.
    #[must_use]
    pub fn from_descriptors(sockets: Vec<OwnedFd>) -> Self {
        Self { sockets }
    }

    /// The sockets of the first data thread, IPv4 first, then those of the second, and so on.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd).collect()
    }
}

/// What the sockets are to be.
#[derive(Clone, Copy)]
struct Wanted {
    protocol: PortProtocol,
    port: u16,
}

impl Wanted {
    /// The sockets of one family; none if the machine does not have the family.
    fn group(self, address: SocketAddr, threads: NonZeroUsize) -> Result<Option<Vec<Socket>>> {
        let Some(first) = self.first(address)? else { return Ok(None) };
        let mut sockets = vec![first];
        if threads.get() > 1 {
            // Not before it was bound: a port that somebody else shares the same way would be taken for a free one.
            self.done("share", sockets[0].set_reuse_port(true))?;
        }
        for _further_thread in 1..threads.get() {
            let socket = self.done("make a socket for", self.socket(address.is_ipv4()))?;
            self.done("share", socket.set_reuse_port(true))?;
            self.done("bind", socket.bind(&SockAddr::from(address)))?;
            sockets.push(socket);
        }
        if self.protocol == PortProtocol::Tcp {
            for socket in &sockets {
                self.done("listen on", socket.listen(BACKLOG))?;
            }
        }
        Ok(Some(sockets))
    }

    fn first(self, address: SocketAddr) -> Result<Option<Socket>> {
        let bound = self.socket(address.is_ipv4()).and_then(|socket| {
            socket.bind(&SockAddr::from(address))?;
            Ok(socket)
        });
        match bound {
            Err(cause) if address.is_ipv6() && is_without_family(&cause) => Ok(None),
            result => self.done("bind", result).map(Some),
        }
    }

    fn socket(self, is_ipv4: bool) -> io::Result<Socket> {
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let kind = match self.protocol {
            PortProtocol::Tcp => Type::STREAM,
            PortProtocol::Udp => Type::DGRAM,
        };
        let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)?;
        if !is_ipv4 {
            socket.set_only_v6(true)?;
        }
        match self.protocol {
            // Connections that ended a moment ago are no reason to refuse the port.
            PortProtocol::Tcp => socket.set_reuse_address(true)?,
            PortProtocol::Udp => set_datagram_options(&socket, is_ipv4)?,
        }
        Ok(socket)
    }

    fn done<T>(self, action: &'static str, result: io::Result<T>) -> Result<T> {
        let Self { protocol, port } = self;
        result.map_err(|cause| Error::Port { action, protocol, port, cause })
    }
}

/// Whether the answer means that the machine has no such address family at all (`ipv6.disable=1`).
fn is_without_family(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}
