//! The control thread's part in published ports: their sockets come from a daemon, and all descriptors of the proxy can go to
//! the next one.

use super::descriptors::{self, DescriptorError, MOST_IN_PACKET};
use super::message::{DescriptorRole, Port, Protocol, Reply};
use crate::shared::{PortSocket, Shared};
use crate::threads::{MOST_THREADS, Sockets, share_out};
use crate::worker::{prepare_datagrams, prepare_listener};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use socket2::{SockRef, Type};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The most published ports of one proxy.
pub const MOST_PORTS: usize = 1024;
/// The most sockets of one port: one of each address family for each data thread.
const MOST_SOCKETS: usize = 2 * MOST_THREADS;

/// Descriptors that the proxy was given at its start.
#[derive(Debug)]
pub struct Inherited {
    /// What each data thread serves.
    pub threads: Vec<Sockets>,
    /// What is only kept open.
    pub kept: Vec<OwnedFd>,
}

/// The published ports that are served, and whatever else the next daemon must have.
#[derive(Debug)]
pub(super) struct Ports {
    shared: Arc<Shared>,
    control: OwnedFd,
    inherited: RefCell<Inherited>,
    /// Whether another proxy has the same sockets.
    retired: Cell<bool>,
    /// Locked until the data threads have done what a change asks for, so that changes happen one after the other.
    served: Mutex<BTreeMap<Port, Served>>,
}

/// A port that is served.
#[derive(Debug)]
struct Served {
    /// By data thread.
    sockets: Vec<Vec<PortSocket>>,
    _places: Places,
}

impl Ports {
    pub(super) fn new(shared: Arc<Shared>, control: OwnedFd, inherited: Inherited) -> Self {
        Self {
            shared,
            control,
            inherited: RefCell::new(inherited),
            retired: Cell::new(false),
            served: Mutex::default(),
        }
    }

    /// Serves a port by the sockets that come over `channel`.
    ///
    /// # Errors
    /// If they do not come as announced; the channel must be closed then.
    pub(super) async fn add(&self, channel: BorrowedFd<'_>, port: Port, count: u32) -> Result<Reply, DescriptorError> {
        let announced = usize::try_from(count).unwrap_or(usize::MAX);
        if announced > MOST_SOCKETS {
            return Err(DescriptorError::Unexpected { found: 0, bytes: 0, announced });
        }
        let refused = |reason: String| {
            tracing::warn!(network = %self.shared.network, %port, "a published port is refused: {reason}");
            Ok(Reply::PortRefused { port, reason })
        };
        let sockets = match descriptors::receive(channel, announced).await {
            Ok(sockets) => sockets,
            Err(error @ DescriptorError::NoRoom) => return refused(error.to_string()),
            Err(error) => return Err(error),
        };
        let mut served = self.served.lock().await;
        if self.retired.get() {
            return refused("another proxy has taken over".to_owned());
        }
        if served.len() >= MOST_PORTS && !served.contains_key(&port) {
            return refused(format!("a proxy serves at most {MOST_PORTS} published ports"));
        }
        let Some(places) = Places::take(&self.shared, sockets.len()) else {
            return refused("the proxy has its maximum of descriptors: raise RLIMIT_NOFILE".to_owned());
        };
        match prepare(port, sockets, self.shared.threads.len()) {
            Ok(sockets) => {
                let done = self.shared.serve_port(port, sockets.clone());
                drop(served.insert(port, Served { sockets, _places: places }));
                done.wait().await;
                Ok(Reply::Ports(served.keys().copied().collect()))
            }
            Err(reason) => refused(reason),
        }
    }

    /// Closes a port's sockets.
    pub(super) async fn remove(&self, port: Port) -> Reply {
        let mut served = self.served.lock().await;
        if let Some(removed) = served.remove(&port) {
            let done = self.shared.serve_port(port, Vec::new());
            drop(removed);
            done.wait().await;
        }
        Reply::Ports(served.keys().copied().collect())
    }

    /// Gives up the sockets that another proxy has: the data threads have closed theirs. The UDP ones of published ports stay if
    /// clients are still answered by them.
    pub(super) async fn retire(&self, hands_over: bool) {
        let mut served = self.served.lock().await;
        self.retired.set(true);
        served.retain(|port, _| port.protocol == Protocol::Udp && !hands_over);
        *self.inherited.borrow_mut() = Inherited { threads: Vec::new(), kept: Vec::new() };
    }

    /// All that the next daemon needs, in parts: what is said of each descriptor, and the descriptors themselves.
    ///
    /// # Errors
    /// If the kernel gives no descriptor of this process.
    pub(super) async fn parts(&self) -> io::Result<Vec<(Reply, Vec<OwnedFd>)>> {
        let served = self.served.lock().await;
        let process = pidfd_open(getpid(), PidfdFlags::empty())?;
        let inherited = self.inherited.borrow();
        let mut all = vec![(DescriptorRole::Process, process.as_fd()), (DescriptorRole::Control, self.control.as_fd())];
        for (thread, sockets) in (0u32..).zip(&inherited.threads) {
            all.extend(sockets.listeners.iter().map(|socket| (DescriptorRole::Listener { thread }, socket.as_fd())));
            all.extend(sockets.datagrams.iter().map(|socket| (DescriptorRole::Datagram { thread }, socket.as_fd())));
        }
        all.extend(inherited.kept.iter().map(|kept| (DescriptorRole::Kept, kept.as_fd())));
        for (&port, served) in &*served {
            for (thread, sockets) in (0u32..).zip(&served.sockets) {
                let role = DescriptorRole::Port { port, thread };
                all.extend(sockets.iter().map(|socket| (role, socket.descriptor.as_fd())));
            }
        }
        let mut parts = Vec::new();
        let mut chunks = all.chunks(MOST_IN_PACKET).peekable();
        while let Some(chunk) = chunks.next() {
            let roles = chunk.iter().map(|&(role, _)| role).collect();
            let descriptors = chunk.iter().map(|(_, descriptor)| descriptor.try_clone_to_owned());
            let reply = Reply::Descriptors { roles, more: chunks.peek().is_some() };
            parts.push((reply, descriptors.collect::<Result<_, _>>()?));
        }
        Ok(parts)
    }
}

/// The sockets of a port, ready to be used, for each data thread; the reason if they cannot be.
fn prepare(port: Port, sockets: Vec<OwnedFd>, threads: usize) -> Result<Vec<Vec<PortSocket>>, String> {
    if port.number == 0 {
        return Err("there is no port 0".to_owned());
    }
    let sockets: Vec<_> = sockets.into_iter().map(|socket| prepare_one(port, socket)).collect::<Result<_, _>>()?;
    let shares = share_out("sockets of a published port", sockets, threads).map_err(|error| error.to_string())?;
    for share in &shares {
        let families: HashSet<_> = share.iter().map(|socket| socket.is_ipv6).collect();
        if families.len() < share.len() {
            return Err("a data thread can have one socket of each address family".to_owned());
        }
    }
    Ok(shares)
}

fn prepare_one(port: Port, socket: OwnedFd) -> Result<PortSocket, String> {
    let failed = |error: io::Error| format!("one of its sockets cannot be used: {error}");
    let options = SockRef::from(&socket);
    let wanted = match port.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    if options.r#type().map_err(failed)? != wanted {
        return Err("one of its sockets is of another protocol".to_owned());
    }
    let address = options.local_addr().map_err(failed)?.as_socket();
    let Some(address) = address.filter(|address| address.port() == port.number) else {
        return Err("one of its sockets is not bound to the port".to_owned());
    };
    match port.protocol {
        Protocol::Tcp => {
            if !options.is_listener().map_err(failed)? {
                return Err("one of its sockets does not listen".to_owned());
            }
            // Accepting waits in the ring.
            options.set_nonblocking(false).map_err(failed)?;
            prepare_listener(&socket).map_err(failed)?;
        }
        Protocol::Udp => drop(prepare_datagrams(&socket).map_err(failed)?),
    }
    Ok(PortSocket { descriptor: Arc::new(socket), is_ipv6: address.is_ipv6() })
}

/// What a port's sockets take of the descriptors: of those that no connection can use, then of those that there are for
/// connections, which have two each.
#[derive(Debug)]
struct Places {
    shared: Arc<Shared>,
    spare: usize,
    connections: usize,
}

impl Places {
    fn take(shared: &Arc<Shared>, descriptors: usize) -> Option<Self> {
        let mut places = Self { shared: Arc::clone(shared), spare: 0, connections: 0 };
        for _ in 0..descriptors.div_ceil(2) {
            if shared.spare.take() {
                places.spare += 1;
            } else if shared.connections.take() {
                places.connections += 1;
            } else {
                return None;
            }
        }
        Some(places)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        (0..self.spare).for_each(|_| self.shared.spare.give_back());
        (0..self.connections).for_each(|_| self.shared.connections.give_back());
    }
}
