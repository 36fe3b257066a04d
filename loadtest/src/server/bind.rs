//! The sockets of an address that is served: one for TCP, one for UDP, on the same port.

use crate::LoadError;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// What datagrams may take while they wait to be received: room for a small one of each of 8,000 clients, of which the
/// kernel counts a good 768 bytes each.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// A port that the system chose for TCP may be taken for UDP; so often another one is asked for.
const ATTEMPTS: usize = 16;

/// Both sockets of an address.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Listens.
    pub(super) tcp: Socket,
    /// Bound, not blocking, and tells where to each datagram was sent.
    pub(super) udp: UdpSocket,
    /// What they are bound to.
    pub(super) address: SocketAddr,
}

impl Sockets {
    /// Binds both sockets to the address of the options at `index`.
    pub(super) fn bind(listen: &[SocketAddr], index: usize) -> Result<Self, LoadError> {
        let address = listen[index];
        let stack = Stack::of(listen, address);
        // Kept until the end, or the system would choose the same port again.
        let mut without_udp = Vec::new();
        loop {
            let failed = |protocol| move |source| LoadError::Listen { protocol, address, source };
            let tcp = tcp(address, stack).map_err(failed("TCP"))?;
            let bound = tcp.local_addr().map_err(failed("TCP"))?.as_socket().unwrap_or(address);
            match udp(bound, stack) {
                Ok(udp) => return Ok(Self { tcp, udp, address: bound }),
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && address.port() == 0
                        && without_udp.len() < ATTEMPTS =>
                {
                    without_udp.push(tcp);
                }
                Err(source) => return Err(LoadError::Listen { protocol: "UDP", address: bound, source }),
            }
        }
    }
}

/// Which families a socket serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// That of its address only.
    Single,
    /// Bound to `[::]`, IPv4 as well.
    Dual,
}

impl Stack {
    /// `[::]` stands for IPv4 too, whatever the sysctl `net.ipv6.bindv6only` says; but where an IPv4 address is given
    /// with the same port, that one is to have it.
    fn of(listen: &[SocketAddr], address: SocketAddr) -> Self {
        let taken = listen.iter().any(|other| other.is_ipv4() && other.port() == address.port() && other.port() != 0);
        if address.is_ipv6() && address.ip().is_unspecified() && !taken { Self::Dual } else { Self::Single }
    }
}

fn tcp(address: SocketAddr, stack: Stack) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(stack == Stack::Single)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn udp(address: SocketAddr, stack: Stack) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(stack == Stack::Single)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    // Beyond `net.core.rmem_max` only the host's root may go.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if address.is_ipv6() {
        // Or answers could not come from an address that is local by a route alone, as VIPs are. Only now: binding to
        // an address that is not local stays an error.
        socket.set_freebind_v6(true)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_wildcard_leaves_ipv4_to_an_address_with_the_same_port() {
        let addresses = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>();
        let six: SocketAddr = "[::]:7000".parse().unwrap();
        assert_eq!(Stack::of(&addresses(&["[::]:7000"]), six), Stack::Dual);
        assert_eq!(Stack::of(&addresses(&["0.0.0.0:7001", "[::]:7000"]), six), Stack::Dual);
        assert_eq!(Stack::of(&addresses(&["[::]:7000", "0.0.0.0:7000"]), six), Stack::Single);
        let any_port: SocketAddr = "[::]:0".parse().unwrap();
        assert_eq!(Stack::of(&addresses(&["127.0.0.1:0", "[::]:0"]), any_port), Stack::Dual);
        let one: SocketAddr = "[::1]:7000".parse().unwrap();
        assert_eq!(Stack::of(&addresses(&["[::1]:7000"]), one), Stack::Single);
    }
}
