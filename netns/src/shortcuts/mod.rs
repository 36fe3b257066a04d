//! Straight ways between the ports of a bridge, past the bridge.

mod program;
pub mod session_map;

use crate::bpf::{self, Hook};
use crate::links::LOOPBACK_INDEX;
use crate::{Namespace, Result};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What hands IP packets from one leg of a bridge to another without the bridge: a program at each port gives what a
/// namespace sends straight to the interface that has the destination's hardware address, in the namespace that it is in
/// (`bpf_redirect_peer`, Linux 5.10). That saves the bridge, a second veth pair, and a second turn of the kernel's queue
/// for received packets. The rest takes the bridge as ever: all that is not IP, and what is for an address that no leg
/// has.
///
/// UDP datagrams of sessions that the network's proxy has put into the [`session_map`] go straight on to the backend, and its
/// answers to the client, with the addresses that the proxy would have sent them with.
///
/// All of it ends with this handle, and what ends the process ends it too: then packets take the bridge again.
#[derive(Debug)]
pub(crate) struct Shortcuts {
    /// The bridge's.
    namespace: Namespace,
    /// From hardware addresses to the indexes of ports.
    map: OwnedFd,
    sessions: OwnedFd,
    /// The hardware address of the sandbox's interface: only what is sent to it is looked up among the sessions.
    sandbox: OwnedFd,
    program: OwnedFd,
    /// By the ports' names.
    ports: Mutex<HashMap<String, Port>>,
}

#[derive(Debug)]
struct Port {
    index: u32,
    mac: [u8; 6],
    /// Attaches the program for as long as it is open.
    _link: OwnedFd,
}

impl Shortcuts {
    /// None yet, between ports of a bridge in that namespace.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        let map = bpf::create_hash_map(PORTS)?;
        let sessions = bpf::create_shared_value(session_map::BYTES)?;
        let sandbox = bpf::create_value(size_of::<[u8; 8]>())?;
        let program = program::program(&program::Maps {
            ports: map.as_fd(),
            sessions: sessions.as_fd(),
            sandbox: sandbox.as_fd(),
        });
        let program = bpf::load_program(Hook::Ingress, &program, c"Apache-2.0")?;
        // A kernel without tcx says so here, once, and not at every leg.
        namespace.run(|| bpf::attach_to_interface(program.as_fd(), LOOPBACK_INDEX))??;
        Ok(Self { namespace: namespace.clone(), map, sessions, sandbox, program, ports: Mutex::default() })
    }

    /// Lets packets to and from that port take the straight way, to it if they are for that hardware address.
    pub(crate) fn add(&self, name: &str, index: u32, mac: [u8; 6]) -> Result<()> {
        if self.ports().get(name).is_some_and(|port| (port.index, port.mac) == (index, mac)) {
            return Ok(());
        }
        let link = self.namespace.run(|| bpf::attach_to_interface(self.program.as_fd(), index))??;
        self.remove(name)?;
        bpf::put_number(self.map.as_fd(), key_of(mac), index)?;
        self.ports().insert(name.to_owned(), Port { index, mac, _link: link });
        Ok(())
    }

    /// Takes back [`Self::add`], if there is such a port.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let mut ports = self.ports();
        let Some(Port { mac, .. }) = ports.remove(name) else { return Ok(()) };
        // An address that moves may be at its new port before it leaves the old one.
        match ports.values().find(|port| port.mac == mac) {
            Some(port) => bpf::put_number(self.map.as_fd(), key_of(mac), port.index),
            None => bpf::remove_number(self.map.as_fd(), key_of(mac)),
        }
    }

    /// Says which hardware address the sandbox has.
    pub(crate) fn set_sandbox(&self, mac: [u8; 6]) -> Result<()> {
        bpf::write_value(self.sandbox.as_fd(), &key_of(mac))
    }

    /// The memory in which a proxy puts down which sessions go past it.
    pub(crate) fn session_map(&self) -> BorrowedFd<'_> {
        self.sessions.as_fd()
    }

    /// Forgets all sessions that went past a proxy.
    pub(crate) fn forget_sessions(&self) -> Result<()> {
        bpf::write_value(self.sessions.as_fd(), &vec![0; session_map::BYTES])
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<String, Port>> {
        // What a panic may have left is a port too many or too few, each whole.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as a bridge can have (`BR_MAX_PORTS`, net/bridge/br_private.h).
const PORTS: u32 = 1024;

fn key_of([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}
