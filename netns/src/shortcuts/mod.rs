//! Straight ways between the ports of a bridge, past the bridge.

mod adoption;
pub mod connection_map;
mod connections;
mod hash;
mod packet;
mod program;
pub mod session_map;

use crate::bpf::{self, Hook, MapKind, Name};
use crate::links::LOOPBACK_INDEX;
use crate::{Error, Link, Namespace, Result};
use adoption::Adoption;
use connections::Connections;
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
/// Connections that its proxies have put into the [`connection_map`] go past the proxy as well, by another program before that one.
///
/// The programs, and the maps that they use, outlive this handle and the process: the next one takes them over, and its programs
/// take the places of these. A program ends with its port, or by [`detach`].
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
    /// Those that have the program, by their names.
    ports: HashMap<String, Port>,
    /// The hardware address of the sandbox's interface.
    sandbox: [u8; 6],
    sessions: Option<Sessions>,
    connections: Option<Connections>,
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
}

// By these the next daemon, which may be of another version, tells what it can go on with: a map that is used in another way than
// before needs another name, unless its sizes differ too.
const PROGRAM: Name = Name::new("ringlb_ports");
/// As many as a bridge can have (`BR_MAX_PORTS`, net/bridge/br_private.h).
const PORTS: MapKind = MapKind::numbers(Name::new("ringlb_ports"), 1024);
const SESSIONS: MapKind = MapKind::shared_value(Name::new("ringlb_sessions"), session_map::BYTES);
const SANDBOX: MapKind = MapKind::value(Name::new("ringlb_sandbox"), size_of::<[u8; 8]>());

impl Shortcuts {
    /// Those that an earlier handle has left at a bridge's ports; where there are none, none yet.
    pub(crate) fn new(namespace: &Namespace, ports: &[Link]) -> Result<Self> {
        let (map, state) = namespace.run(|| take_over(ports))??;
        Ok(Self { namespace: namespace.clone(), map, state: Mutex::new(state) })
    }

    /// Lets packets to and from that port take the straight way, to it if they are for that hardware address. If that fails, the
    /// port has no program.
    pub(crate) fn add(&self, name: &str, index: u32, mac: [u8; 6]) -> Result<()> {
        let mut state = self.state();
        if state.ports.get(name).is_some_and(|port| (port.index, port.mac) == (index, mac)) {
            return Ok(());
        }
        self.remove_from(&mut state, name)?;
        let put = self.namespace.run(|| put_program(index, state.program.as_fd())).flatten();
        if let Err(error) = put.and_then(|()| bpf::put_number(self.map.as_fd(), key_of(mac), index)) {
            // The first error is the one to report.
            drop(detach(&self.namespace, &[index]));
            return Err(error);
        }
        state.ports.insert(name.to_owned(), Port { index, mac });
        let Some(connections) = &state.connections else { return Ok(()) };
        self.namespace.run(|| connections.put_at(index))??;
        connections.set_sandbox(state.sandbox, state.sandbox_port())
    }

    /// Says which hardware address the sandbox has.
    pub(crate) fn set_sandbox(&self, mac: [u8; 6]) -> Result<()> {
        let mut state = self.state();
        state.sandbox = mac;
        if let Some(sessions) = &state.sessions {
            bpf::write_value(sessions.sandbox.as_fd(), &key_of(mac))?;
        }
        match &state.connections {
            Some(connections) => connections.set_sandbox(mac, state.sandbox_port()),
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

    /// The memory in which proxies put down which connections may go past them. All ports have the program for that from the first
    /// call on.
    pub(crate) fn connection_map(&self) -> Result<OwnedFd> {
        let mut state = self.state();
        let connections = match state.connections.take() {
            Some(connections) => connections,
            None => self.lead_connections(&state)?,
        };
        let copy = bpf::copy(connections.map());
        state.connections = Some(connections);
        copy
    }

    /// Gives all ports the program that leads connections past the proxy.
    fn lead_connections(&self, state: &State) -> Result<Connections> {
        let connections = Connections::new(self.map.as_fd())?;
        connections.set_sandbox(state.sandbox, state.sandbox_port())?;
        self.namespace.run(|| state.ports.values().try_for_each(|port| connections.put_at(port.index)))??;
        Ok(connections)
    }

    /// Gives all ports the program that looks datagrams up.
    fn look_up_sessions(&self, state: &mut State) -> Result<Sessions> {
        let sessions = Sessions { map: bpf::create_map(&SESSIONS)?, sandbox: bpf::create_map(&SANDBOX)? };
        bpf::write_value(sessions.sandbox.as_fd(), &key_of(state.sandbox))?;
        let program = load(self.map.as_fd(), Some(&sessions))?;
        self.namespace.run(|| {
            // Ports go with containers, without a word to us.
            state.ports.values().try_for_each(|port| replace_program(port.index, program.as_fd()).map(|_is_there| ()))
        })??;
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

    /// Takes back [`Self::add`], if there is such a port, but for the program, which ends with the port.
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

impl State {
    /// The port of the sandbox; 0, which no interface has, if there is none.
    fn sandbox_port(&self) -> u32 {
        self.ports.values().find(|port| port.mac == self.sandbox).map_or(0, |port| port.index)
    }
}

/// Takes the programs and maps of an earlier handle away from ports, as far as they are there, but for what leads connections past
/// the proxy: those that have gone past it need it to their end.
pub(crate) fn detach(namespace: &Namespace, ports: &[u32]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    namespace.run(|| {
        for &port in ports {
            let programs = match bpf::programs_at(port) {
                // A kernel without such programs, or somebody who may not use any, has left none.
                Err(Error::Bpf { cause, .. })
                    if matches!(cause.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM)) =>
                {
                    return Ok(());
                }
                programs => programs?,
            };
            for program in programs.iter().filter(|program| program.name == PROGRAM) {
                bpf::detach_from(port, program.descriptor.as_fd())?;
            }
        }
        Ok(())
    })?
}

/// To be called in the bridge's namespace.
fn take_over(ports: &[Link]) -> Result<(OwnedFd, State)> {
    // A kernel without tcx says so here, once, and not at every leg.
    bpf::programs_at(LOOPBACK_INDEX)?;
    let mut adoption = Adoption::find(ports)?;
    let (map, sessions) = match adoption.take_maps() {
        Some(maps) => maps,
        None => (bpf::create_map(&PORTS)?, None),
    };
    let program = load(map.as_fd(), sessions.as_ref())?;
    let connections = Connections::adopt(ports, map.as_fd())?;
    let ports = adoption.complete(map.as_fd(), program.as_fd())?;
    Ok((map, State { program, ports, sandbox: [0; 6], sessions, connections }))
}

/// Has a port have that program, in the place of another one of ours if there is one. To be called in the bridge's namespace.
fn put_program(port: u32, program: BorrowedFd<'_>) -> Result<()> {
    if replace_program(port, program)? { Ok(()) } else { bpf::attach_at(port, program, None) }
}

/// The same, but for a port that has no program of ours: false for that, and if it is gone.
fn replace_program(port: u32, program: BorrowedFd<'_>) -> Result<bool> {
    match bpf::programs_at(port)?.iter().find(|program| program.name == PROGRAM) {
        Some(old) => bpf::replace_at(port, old, program),
        None => Ok(false),
    }
}

fn load(ports: BorrowedFd<'_>, sessions: Option<&Sessions>) -> Result<OwnedFd> {
    let sessions = sessions
        .map(|sessions| program::SessionMaps { entries: sessions.map.as_fd(), sandbox: sessions.sandbox.as_fd() });
    bpf::load_program(Hook::Ingress, PROGRAM, &program::program(ports, sessions.as_ref()), c"Apache-2.0")
}

fn key_of([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}
