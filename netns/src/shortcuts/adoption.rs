//! What an earlier daemon has left at the ports of a bridge: its programs, and by them the maps that they use.

use super::{PORTS, PROGRAM, Port, SANDBOX, SESSIONS, Sessions, key_of, replace_program};
use crate::bpf::{self, Attached, MapKind, UsedMap};
use crate::{Link, Result};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What was found. All of it is to be used in the bridge's namespace.
#[derive(Debug)]
pub(super) struct Adoption<'a> {
    /// The ports that have a program of ours.
    ports: Vec<&'a Link>,
    maps: Option<(OwnedFd, Option<Sessions>)>,
}

impl<'a> Adoption<'a> {
    /// Looks at these ports.
    pub(super) fn find(ports: &'a [Link]) -> Result<Self> {
        let mut found = Self { ports: Vec::new(), maps: None };
        // Mostly all ports have the same one.
        let mut seen = Vec::new();
        for port in ports {
            let Some(program) = bpf::programs_at(port.index)?.into_iter().find(|program| program.name == PROGRAM)
            else {
                continue;
            };
            found.ports.push(port);
            if !seen.contains(&program.id) {
                seen.push(program.id);
                found.note_maps(&program)?;
            }
        }
        Ok(found)
    }

    /// Notes the maps of a program if they can be gone on with, rather those of one that looks sessions up: a daemon that ended
    /// while it replaced programs has left two, with the same ports in both.
    fn note_maps(&mut self, program: &Attached) -> Result<()> {
        if matches!(self.maps, Some((_, Some(_)))) {
            return Ok(());
        }
        let mut maps = bpf::maps_of(program.descriptor.as_fd())?;
        let Some(ports) = take(&mut maps, &PORTS) else { return Ok(()) };
        let sessions = take(&mut maps, &SESSIONS).zip(take(&mut maps, &SANDBOX));
        let sessions = sessions.map(|(map, sandbox)| Sessions { map, sandbox });
        if self.maps.is_none() || sessions.is_some() {
            self.maps = Some((ports, sessions));
        }
        Ok(())
    }

    /// The map of ports, and what there is for sessions, if they are of the kind that is used now.
    pub(super) fn take_maps(&mut self) -> Option<(OwnedFd, Option<Sessions>)> {
        self.maps.take()
    }

    /// Puts a program that uses the map of ports in the place of each that was found. What else is in the map is of ports that are
    /// gone, and is taken out. Gives the ports, by their names.
    pub(super) fn complete(self, map: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<HashMap<String, Port>> {
        let mut macs = HashMap::new();
        let mut stale = Vec::new();
        for (key, index) in bpf::numbers(map)? {
            let [a, b, c, d, e, f, ..] = key;
            stale.extend(macs.insert(index, [a, b, c, d, e, f]));
        }
        let mut ports = HashMap::new();
        for port in self.ports {
            // Where this fails the leg gets its shortcut later, or none.
            match replace_program(port.index, program) {
                Ok(true) => {
                    let mac = macs.remove(&port.index);
                    ports.extend(mac.map(|mac| (port.name.clone(), Port { index: port.index, mac })));
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(port = port.name, %error, "a leg keeps the shortcut of an earlier daemon for now");
                }
            }
        }
        stale.extend(macs.into_values());
        stale.into_iter().try_for_each(|mac| bpf::remove_number(map, key_of(mac)))?;
        Ok(ports)
    }
}

/// The map of that kind among those of a program.
pub(super) fn take(maps: &mut Vec<UsedMap>, kind: &MapKind) -> Option<OwnedFd> {
    let place = maps.iter().position(|map| map.kind == *kind)?;
    Some(maps.swap_remove(place).descriptor)
}
