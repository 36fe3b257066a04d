//! One listener for every TCP port of every VIP.

mod bpf;
mod listener;
mod netfilter;
mod sk_lookup;
mod tproxy;

pub(crate) use listener::BACKLOG;

use crate::links::require_ipv4;
use crate::{Error, Namespace, Result};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A listening socket inside a namespace that gets the connections to every TCP port of every address of the namespace,
/// but for the LB endpoint's own address and loopback addresses. What it accepts has the address that the client
/// connected to as its local address (getsockname(2)).
///
/// The socket is bound to a port of the loopback address, so that nobody reaches it but by steering; it is non-blocking
/// and closed on exec.
#[derive(Debug)]
pub struct SteeredListener {
    /// The listening socket.
    pub listener: TcpListener,
    /// What leads connections to it.
    pub steering: Steering,
}

/// What leads connections to a listener.
#[derive(Debug)]
pub struct Steering {
    kind: SteeringKind,
    descriptors: Vec<OwnedFd>,
}

/// The two ways of steering. Neither costs anything measurable per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteeringKind {
    /// A BPF program that the kernel asks for the listener of each new connection (Linux 5.9).
    SkLookup,
    /// A netfilter rule that assigns packets to the listener. Also for ordinary users in a user namespace of their own,
    /// who may not load BPF programs.
    Tproxy,
}

impl SteeredListener {
    /// Makes the listener and steers connections to it. Without a `wanted` kind, [`SteeringKind::SkLookup`], or
    /// [`SteeringKind::Tproxy`] where `bpf(2)` is refused. When repeated, connections go to the new listener; those that
    /// wait in the old one's queue stay there. (But a rule made by TPROXY goes before `sk_lookup` as long as its
    /// listener lives.)
    ///
    /// # Errors
    /// If the own address is an IPv6 one, or the kernel refuses.
    pub fn open(namespace: &Namespace, own_address: IpAddr, wanted: Option<SteeringKind>) -> Result<Self> {
        let own_address = require_ipv4("LB endpoint's address", own_address)?;
        match wanted {
            Some(SteeringKind::SkLookup) => Self::open_sk_lookup(namespace, own_address),
            Some(SteeringKind::Tproxy) => Self::open_tproxy(namespace, own_address),
            None => match Self::open_sk_lookup(namespace, own_address) {
                Err(Error::Bpf { cause, .. }) if is_refused(&cause) => {
                    tracing::info!(namespace = namespace.label(), %cause, "bpf(2) is refused, steering by TPROXY");
                    Self::open_tproxy(namespace, own_address)
                }
                result => result,
            },
        }
    }

    fn open_sk_lookup(namespace: &Namespace, own_address: Ipv4Addr) -> Result<Self> {
        let listener = listener::open(namespace, false)?;
        let link = sk_lookup::attach(namespace, own_address, &listener)?;
        let steering = Steering { kind: SteeringKind::SkLookup, descriptors: vec![link] };
        Ok(Self { listener, steering })
    }

    fn open_tproxy(namespace: &Namespace, own_address: Ipv4Addr) -> Result<Self> {
        let listener = listener::open(namespace, true)?;
        tproxy::install(namespace, own_address, &listener)?;
        Ok(Self { listener, steering: Steering { kind: SteeringKind::Tproxy, descriptors: Vec::new() } })
    }
}

impl Steering {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> SteeringKind {
        self.kind
    }

    /// The descriptors in which the steering lives: it ends when the last process that has them closes them. So whoever
    /// keeps the listener alive must keep these too. A TPROXY rule lives in the namespace and needs none.
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
