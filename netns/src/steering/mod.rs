//! For each data thread and address family one listening socket for every TCP port of every VIP, and one UDP socket for
//! every UDP port.

mod sk_lookup;
mod sockets;
mod tproxy;

pub(crate) use sockets::{BACKLOG, set_datagram_options};

use crate::{Addresses, Error, Namespace, Result};
use sockets::{Group, Protocol};
use std::fmt;
use std::io;
use std::iter;
use std::net::{TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sockets inside a namespace that get the connections and datagrams to every port of every address of the namespace,
/// but for the LB endpoint's own addresses, loopback and link-local ones.
///
/// They are bound to a port of the loopback address, so that nobody reaches them but by steering; they are non-blocking
/// and closed on exec. With several threads, the sockets of one family and protocol share their port (`SO_REUSEPORT`),
/// and the kernel chooses among them by a hash of the client's and the destination's address and port: what comes from
/// one client's port to one port of a VIP always meets the same thread. All sockets of the same family and protocol must
/// be served, and closed together.
#[derive(Debug)]
pub struct SteeredSockets {
    /// Those of each data thread; every thread has the same kinds.
    pub threads: Vec<ThreadSockets>,
    /// What leads connections and datagrams to them.
    pub steering: Steering,
}

/// The steered sockets of one data thread.
///
/// # Connections
/// What a listener accepts has the address that the client connected to as its local address (getsockname(2)).
///
/// # Datagrams
/// With each datagram comes, as control messages of recvmsg(2), its destination: the VIP as `IP_PKTINFO` or
/// `IPV6_PKTINFO`, and VIP and port as `IP_ORIGDSTADDR` or `IPV6_ORIGDSTADDR` (ip(7), ipv6(7)).
///
/// A datagram that is sent from such a socket with `IP_PKTINFO` or `IPV6_PKTINFO` naming the VIP leaves from the VIP, but
/// from the socket's own port, and clients that have connected their socket ignore it. To reply from VIP:port, open a
/// UDP socket in the namespace, set `SO_REUSEADDR` on it, and with IPv6 `IPV6_V6ONLY` and `IPV6_FREEBIND` too (a VIP is an
/// address of no interface), and bind it to VIP:port. No capability is needed, as the [`Sandbox`](crate::Sandbox) has no
/// privileged ports. Then there are two ways:
/// - send from it with sendto(2). It serves any number of clients and gets no datagram: as long as a socket is not
///   connected, the steered one goes before it. (It still gets ICMP errors that a client sends back, as `SO_ERROR`.)
/// - connect it to one client. It goes before the steered socket: later datagrams of that client to that VIP:port come to
///   it. Before Linux 6.13 the kernel looks through all sockets bound to a VIP:port for each datagram, so that this is for
///   few clients.
///
/// Sockets that are bound to the LB endpoint's own address, as those are by which datagrams go to backends, get what is
/// sent to them: it is not steered.
#[derive(Debug)]
pub struct ThreadSockets {
    /// One for each address family of the LB endpoint, IPv4 first.
    pub listeners: Vec<TcpListener>,
    /// One for each address family of the LB endpoint, IPv4 first.
    pub datagrams: Vec<UdpSocket>,
}

/// What leads connections and datagrams to steered sockets.
#[derive(Debug)]
pub struct Steering {
    kind: SteeringKind,
    descriptors: Vec<OwnedFd>,
}

/// The two ways of steering. Neither costs anything measurable per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteeringKind {
    /// A BPF program that the kernel asks for the socket of each new connection and each datagram (Linux 5.9).
    SkLookup,
    /// Netfilter rules that assign packets to the sockets. Also for ordinary users in a user namespace of their own, who
    /// may not load BPF programs.
    Tproxy,
}

impl SteeredSockets {
    /// Makes the sockets for that many data threads, for the families of which the LB endpoint has an address, and steers
    /// to them. Without a `wanted` kind, [`SteeringKind::SkLookup`], or [`SteeringKind::Tproxy`] where `bpf(2)` is refused.
    /// When repeated, connections and datagrams go to the new sockets; connections that wait in an old one's queue stay
    /// there. (But rules made by TPROXY go before `sk_lookup` as long as their sockets live.)
    ///
    /// # Errors
    /// If there is no port left below 1024, or the kernel refuses.
    pub fn open(
        namespace: &Namespace,
        own_addresses: impl Into<Addresses>,
        threads: NonZeroUsize,
        wanted: Option<SteeringKind>,
    ) -> Result<Self> {
        Self::open_any(namespace, own_addresses.into(), true, threads, wanted)
    }

    /// The same, where the namespace's own addresses are VIPs: what is sent to them is steered too. A socket that is
    /// connected still gets what its peer sends.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_on_own(
        namespace: &Namespace,
        own_addresses: impl Into<Addresses>,
        threads: NonZeroUsize,
        wanted: Option<SteeringKind>,
    ) -> Result<Self> {
        Self::open_any(namespace, own_addresses.into(), false, threads, wanted)
    }

    fn open_any(
        namespace: &Namespace,
        own_addresses: Addresses,
        spares_own: bool,
        threads: NonZeroUsize,
        wanted: Option<SteeringKind>,
    ) -> Result<Self> {
        let open = |kind| Self::open_kind(namespace, own_addresses, spares_own, threads, kind);
        match wanted {
            Some(kind) => open(kind),
            None => match open(SteeringKind::SkLookup) {
                Err(Error::Bpf { cause, .. }) if is_refused(&cause) => {
                    tracing::info!(namespace = namespace.label(), %cause, "bpf(2) is refused, steering by TPROXY");
                    open(SteeringKind::Tproxy)
                }
                result => result,
            },
        }
    }

    fn open_kind(
        namespace: &Namespace,
        own_addresses: Addresses,
        spares_own: bool,
        threads: NonZeroUsize,
        kind: SteeringKind,
    ) -> Result<Self> {
        let transparent = kind == SteeringKind::Tproxy;
        let open = |(address, protocol)| {
            let group = Group::open(namespace, protocol, address, threads, transparent)?;
            Ok(Group { spares_own, ..group })
        };
        let wanted = own_addresses.iter().flat_map(|address| [(address, Protocol::Tcp), (address, Protocol::Udp)]);
        let groups = wanted.map(open).collect::<Result<Vec<_>>>()?;
        let descriptors = match kind {
            SteeringKind::SkLookup => vec![sk_lookup::attach(namespace, &groups)?],
            SteeringKind::Tproxy => {
                tproxy::install(namespace, &groups)?;
                Vec::new()
            }
        };
        Ok(Self { threads: by_thread(groups, threads), steering: Steering { kind, descriptors } })
    }
}

fn by_thread(groups: Vec<Group>, threads: NonZeroUsize) -> Vec<ThreadSockets> {
    let empty = || ThreadSockets { listeners: Vec::new(), datagrams: Vec::new() };
    let mut by_thread: Vec<_> = iter::repeat_with(empty).take(threads.get()).collect();
    for group in groups {
        for (thread, socket) in by_thread.iter_mut().zip(group.sockets) {
            match group.protocol {
                Protocol::Tcp => thread.listeners.push(socket.into()),
                Protocol::Udp => thread.datagrams.push(socket.into()),
            }
        }
    }
    by_thread
}

impl Steering {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> SteeringKind {
        self.kind
    }

    /// The descriptors in which the steering lives: it ends when the last process that has them closes them. So whoever
    /// keeps the sockets alive must keep these too. TPROXY rules live in the namespace and need none.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }

    /// The steering that lives in descriptors which another process handed over.
    ///
    /// # Errors
    /// If there are not as many as that kind needs.
    pub fn from_descriptors(kind: SteeringKind, descriptors: Vec<OwnedFd>) -> Result<Self> {
        let expected = match kind {
            SteeringKind::SkLookup => 1,
            SteeringKind::Tproxy => 0,
        };
        if descriptors.len() != expected {
            return Err(Error::SteeringDescriptors { kind, expected, found: descriptors.len() });
        }
        Ok(Self { kind, descriptors })
    }
}

impl fmt::Display for SteeringKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SkLookup => "sk_lookup",
            Self::Tproxy => "tproxy",
        })
    }
}

/// Whether the answer of `bpf(2)` means that it is not for this process, and not that something is wrong.
fn is_refused(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}
