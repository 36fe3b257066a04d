//! The program at the ports of a bridge, and its maps.

use super::super::adoption::take;
use super::super::{PROGRAM, connection_map, key_of};
use super::{Maps, program};
use crate::bpf::{self, Hook, MapKind, Name};
use crate::{Link, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The program's name, by which the next daemon knows it, and those of its maps. A map that is used in another way than before
/// needs other names here: the program before stays then, for the connections that it leads.
const NAME: Name = Name::new("ringlb_tcp");
const CONNECTIONS: MapKind = MapKind::shared_value(Name::new("ringlb_tcp"), connection_map::BYTES);
const SANDBOX: MapKind = MapKind::value(Name::new("ringlb_tcp_lb"), SANDBOX_BYTES);
/// A hardware address as a key, and the number of a port.
const SANDBOX_BYTES: usize = 12;

/// What leads connections past the proxy.
#[derive(Debug)]
pub(in crate::shortcuts) struct Connections {
    map: OwnedFd,
    sandbox: OwnedFd,
    program: OwnedFd,
}

impl Connections {
    /// With a map without connections. `ports` is what the ports' other program has.
    pub(in crate::shortcuts) fn new(ports: BorrowedFd<'_>) -> Result<Self> {
        Self::load(ports, bpf::create_map(&CONNECTIONS)?, bpf::create_map(&SANDBOX)?)
    }

    /// Those that an earlier daemon has left at these ports, with a program of ours in the place of its own; `None` if there are
    /// none. To be called in the bridge's namespace.
    pub(in crate::shortcuts) fn adopt(at: &[Link], ports: BorrowedFd<'_>) -> Result<Option<Self>> {
        let mut adopted = None;
        for port in at {
            let Some(old) = bpf::programs_at(port.index)?.into_iter().find(|program| program.name == NAME) else {
                continue;
            };
            let mut maps = bpf::maps_of(old.descriptor.as_fd())?;
            let Some((map, sandbox)) = take(&mut maps, &CONNECTIONS).zip(take(&mut maps, &SANDBOX)) else { continue };
            let connections = match adopted.take() {
                Some(connections) => connections,
                None => Self::load(ports, map, sandbox)?,
            };
            // Where the port has gone meanwhile there is nothing to replace.
            bpf::replace_at(port.index, &old, connections.program.as_fd()).map(|_is_there| ())?;
            adopted = Some(connections);
        }
        Ok(adopted)
    }

    fn load(ports: BorrowedFd<'_>, map: OwnedFd, sandbox: OwnedFd) -> Result<Self> {
        let maps = Maps { ports, sandbox: sandbox.as_fd(), connections: map.as_fd() };
        let program = bpf::load_program(Hook::Ingress, NAME, &program(&maps), c"Apache-2.0")?;
        Ok(Self { map, sandbox, program })
    }

    /// [`connection_map`].
    pub(in crate::shortcuts) fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Says where the sandbox is: its hardware address, and its port.
    pub(in crate::shortcuts) fn set_sandbox(&self, mac: [u8; 6], port: u32) -> Result<()> {
        let mut value = [0; SANDBOX_BYTES];
        value[..8].copy_from_slice(&key_of(mac));
        value[8..].copy_from_slice(&port.to_ne_bytes());
        bpf::write_value(self.sandbox.as_fd(), &value)
    }

    /// Gives a port the program, before the one that hands packets to other ports, unless it has it. To be called in the bridge's
    /// namespace.
    pub(in crate::shortcuts) fn put_at(&self, port: u32) -> Result<()> {
        let programs = bpf::programs_at(port)?;
        // One that is there is the one that was put there, or it would have been replaced.
        if programs.iter().any(|program| program.name == NAME) {
            return Ok(());
        }
        let before = programs.iter().find(|program| program.name == PROGRAM);
        match before {
            Some(before) => bpf::attach_at(port, self.program.as_fd(), Some(before)),
            // The port has gone, without a word.
            None => Ok(()),
        }
    }
}
