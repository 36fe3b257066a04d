//! The steered sockets themselves.

use crate::{Error, Namespace, Result};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

/// How many connections can wait to be accepted, as far as `net.core.somaxconn` allows: enough for a second without a
/// proxy at the rate that one thread accepts.
pub(crate) const BACKLOG: i32 = 16_384;

/// How many bytes of datagrams can wait, in the kernel's reckoning, which counts each small datagram as 768 bytes or so:
/// enough for a tenth of a second at a rate of 100,000 a second. Without `CAP_NET_ADMIN` outside any user namespace,
/// `net.core.rmem_max` may allow less.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Below every range that outgoing connections take their ports from (the sandbox's `ip_local_port_range` starts at
/// 1024), and above the well-known services: what rresvport(3) uses.
const PORTS: RangeInclusive<u16> = 512..=1023;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// The sockets of one address family and protocol, one for each thread, all bound to one address and port.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) protocol: Protocol,
    /// The LB endpoint's address.
    pub(super) own_address: IpAddr,
    /// Whether its connections and datagrams are not steered.
    pub(super) spares_own: bool,
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<Socket>,
}

impl Group {
    /// Makes the sockets inside the namespace. Transparent ones accept what is addressed to an address that they are not
    /// bound to, which TPROXY demands.
    pub(super) fn open(
        namespace: &Namespace,
        protocol: Protocol,
        own_address: IpAddr,
        threads: NonZeroUsize,
        transparent: bool,
    ) -> Result<Self> {
        let group = Options { namespace, protocol, is_ipv4: own_address.is_ipv4(), transparent };
        namespace.run(|| {
            let first = group.socket()?;
            let address = group.bind_to_free_port(&first)?;
            let mut sockets = vec![first];
            if threads.get() > 1 {
                // Not before it was bound: so the port is one that no other group has, which would share it.
                group.set("share the port of", sockets[0].set_reuse_port(true))?;
            }
            for _further_thread in 1..threads.get() {
                let socket = group.socket()?;
                group.set("share the port of", socket.set_reuse_port(true))?;
                group.set("bind", socket.bind(&SockAddr::from(address)))?;
                sockets.push(socket);
            }
            if protocol == Protocol::Tcp {
                for socket in &sockets {
                    group.set("listen on", socket.listen(BACKLOG))?;
                }
            }
            Ok(Self { protocol, own_address, spares_own: true, address, sockets })
        })?
    }
}

/// What the sockets of a group have in common.
struct Options<'a> {
    namespace: &'a Namespace,
    protocol: Protocol,
    is_ipv4: bool,
    transparent: bool,
}

impl Options<'_> {
    fn socket(&self) -> Result<Socket> {
        let domain = if self.is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let kind = match self.protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
        };
        let socket = Socket::new(domain, kind.nonblocking().cloexec(), None);
        let socket = socket.map_err(|cause| self.error("make", cause))?;
        if !self.is_ipv4 {
            self.set("keep IPv4 off", socket.set_only_v6(true))?;
        }
        if self.transparent {
            let result =
                if self.is_ipv4 { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) };
            self.set("make transparent", result)?;
        }
        if self.protocol == Protocol::Udp {
            self.set("ask for the addresses of datagrams on", set_datagram_options(&socket, self.is_ipv4))?;
        }
        Ok(socket)
    }

    fn bind_to_free_port(&self, socket: &Socket) -> Result<SocketAddr> {
        let loopback: IpAddr = if self.is_ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let mut result = Err(io::ErrorKind::AddrInUse.into());
        for port in PORTS.rev() {
            let address = SocketAddr::new(loopback, port);
            result = socket.bind(&address.into()).map(|()| address);
            if !matches!(&result, Err(cause) if cause.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
        }
        result.map_err(|cause| self.error("bind to a port below 1024", cause))
    }

    fn set(&self, action: &'static str, result: io::Result<()>) -> Result<()> {
        result.map_err(|cause| self.error(action, cause))
    }

    fn error(&self, action: &'static str, cause: io::Error) -> Error {
        let socket = match self.protocol {
            Protocol::Tcp => "a steered listening socket",
            Protocol::Udp => "a steered UDP socket",
        };
        Error::SteeredSocket { action, socket, namespace: self.namespace.label().to_owned(), cause }
    }
}

/// Makes a UDP socket tell the destination of each datagram, and gives it room.
pub(crate) fn set_datagram_options(socket: &Socket, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(socket, sockopt::Ipv4OrigDstAddr, &true)?;
        socket.set_freebind_v4(true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(socket, sockopt::Ipv6OrigDstAddr, &true)?;
        // Else sending from a VIP is refused, as it is an address of no interface.
        socket.set_freebind_v6(true)?;
    }
    // The forced one is root's alone.
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    Ok(())
}
