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
/// answers to the client, with the addresses that the proxy would have sent them with. The map is made when it is asked for, as
/// most networks have no use for its memory.
///
/// All of it ends with this handle, and what ends the process ends it too: then packets take the bridge again.
#[derive(Debug)]
pub(crate) struct Shortcuts {
    /// The bridge's.
    namespace: Namespace,
    /// From hardware addresses to the indexes of ports.
    map: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    program: OwnedFd,
    /// By the ports' names.
    ports: HashMap<String, Port>,
    /// The hardware address of the sandbox's interface.
    sandbox: [u8; 6],
    sessions: Option<Sessions>,
}

/// What there is once sessions may go past a proxy.
#[derive(Debug)]
struct Sessions {
    map: OwnedFd,
    /// Has the sandbox's hardware address: only what is sent to it is looked up in the map.
    sandbox: OwnedFd,
}

#[derive(Debug)]
struct Port {
    index: u32,
    mac: [u8; 6],
    /// Attaches the program for as long as it is open.
    link: OwnedFd,
}

impl Shortcuts {
    /// None yet, between ports of a bridge in that namespace.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self> {
        let map = bpf::create_hash_map(PORTS)?;
        let program = load(map.as_fd(), None)?;
        // A kernel without tcx says so here, once, and not at every leg.
        namespace.run(|| bpf::attach_to_interface(program.as_fd(), LOOPBACK_INDEX))??;
        let state = State { program, ports: HashMap::new(), sandbox: [0; 6], sessions: None };
        Ok(Self { namespace: namespace.clone(), map, state: Mutex::new(state) })
    }

    /// Lets packets to and from that port take the straight way, to it if they are for that hardware address.
    pub(crate) fn add(&self, name: &str, index: u32, mac: [u8; 6]) -> Result<()> {
        let mut state = self.state();
        if state.ports.get(name).is_some_and(|port| (port.index, port.mac) == (index, mac)) {
            return Ok(());
        }
        let link = self.namespace.run(|| bpf::attach_to_interface(state.program.as_fd(), index))??;
        self.remove_from(&mut state, name)?;
        bpf::put_number(self.map.as_fd(), key_of(mac), index)?;
        state.ports.insert(name.to_owned(), Port { index, mac, link });
        Ok(())
    }

    /// Says which hardware address the sandbox has.
    pub(crate) fn set_sandbox(&self, mac: [u8; 6]) -> Result<()> {
        let mut state = self.state();
        state.sandbox = mac;
        match &state.sessions {
            Some(sessions) => bpf::write_value(sessions.sandbox.as_fd(), &key_of(mac)),
            None => Ok(()),
        }
    }

    /// The memory in which a proxy puts down which sessions go past it. All ports look into it from the first call on.
    pub(crate) fn session_map(&self) -> Result<OwnedFd> {
        let mut state = self.state();
        let sessions = match state.sessions.take() {
            Some(sessions) => sessions,
            None => self.look_up_sessions(&mut state)?,
        };
        let copy = bpf::copy(sessions.map.as_fd());
        state.sessions = Some(sessions);
        copy
    }

    /// Gives all ports the program that looks datagrams up.
    fn look_up_sessions(&self, state: &mut State) -> Result<Sessions> {
        let map = bpf::create_shared_value(session_map::BYTES)?;
        let sandbox = bpf::create_value(size_of::<[u8; 8]>())?;
        bpf::write_value(sandbox.as_fd(), &key_of(state.sandbox))?;
        let sessions = Sessions { map, sandbox };
        let program = load(self.map.as_fd(), Some(&sessions))?;
        for port in state.ports.values() {
            bpf::replace_program(port.link.as_fd(), program.as_fd())?;
        }
        state.program = program;
        Ok(sessions)
    }

    /// Forgets all sessions that went past a proxy.
    pub(crate) fn forget_sessions(&self) -> Result<()> {
        match &self.state().sessions {
            Some(sessions) => bpf::write_value(sessions.map.as_fd(), &vec![0; session_map::BYTES]),
            None => Ok(()),
        }
    }

    /// Takes back [`Self::add`], if there is such a port.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.remove_from(&mut self.state(), name)
    }

    fn remove_from(&self, state: &mut State, name: &str) -> Result<()> {
        let ports = &mut state.ports;
        let Some(Port { mac, .. }) = ports.remove(name) else { return Ok(()) };
        // An address that moves may be at its new port before it leaves the old one.
        match ports.values().find(|port| port.mac == mac) {
            Some(port) => bpf::put_number(self.map.as_fd(), key_of(mac), port.index),
            None => bpf::remove_number(self.map.as_fd(), key_of(mac)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic may have left is a port too many or too few, each whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(ports: BorrowedFd<'_>, sessions: Option<&Sessions>) -> Result<OwnedFd> {
    let sessions = sessions
        .map(|sessions| program::SessionMaps { entries: sessions.map.as_fd(), sandbox: sessions.sandbox.as_fd() });
    bpf::load_program(Hook::Ingress, &program::program(ports, sessions.as_ref()), c"Apache-2.0")
}

/// As many as a bridge can have (`BR_MAX_PORTS`, net/bridge/br_private.h).
const PORTS: u32 = 1024;

fn key_of([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}
