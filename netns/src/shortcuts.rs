//! Straight ways between the ports of a bridge, past the bridge.

use crate::bpf::{
    self, Hook, Instruction, Program, add, call, exit, jump_if_equal, jump_if_greater, jump_if_zero, jump_unless_equal,
    load_half_word, load_map, load_word, move_register, move_value, store_half_word, store_half_word_of,
};
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
/// All of it ends with this handle, and what ends the process ends it too: then packets take the bridge again.
#[derive(Debug)]
pub(crate) struct Shortcuts {
    /// The bridge's.
    namespace: Namespace,
    /// From hardware addresses to the indexes of ports.
    map: OwnedFd,
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
        let program = bpf::load_program(Hook::Ingress, &program(map.as_fd()), c"Apache-2.0")?;
        // A kernel without tcx says so here, once, and not at every leg.
        namespace.run(|| bpf::attach_to_interface(program.as_fd(), LOOPBACK_INDEX))??;
        Ok(Self { namespace: namespace.clone(), map, program, ports: Mutex::default() })
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

// Offsets in `struct __sk_buff`.
const PROTOCOL: i16 = 16;
const DATA: i16 = 76;
const DATA_END: i16 = 80;

const ETHERNET_HEADER: i32 = 14;
/// Of if_ether.h, in network byte order.
const ETHERTYPE_IPV4: i32 = 0x0800_u16.to_be() as i32;
const ETHERTYPE_IPV6: i32 = 0x86dd_u16.to_be() as i32;

const HELPER_MAP_LOOKUP_ELEM: i32 = 1;
const HELPER_SKB_CHANGE_TYPE: i32 = 32;
const HELPER_REDIRECT_PEER: i32 = 155;
const PACKET_HOST: i32 = 0;
/// The next program at this port, and after the last one the bridge.
const TCX_NEXT: i32 = -1;

// Registers: the result, the arguments, those that survive calls, and the frame.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const PORT: u8 = 7;
const FRAME: u8 = 10;

/// The places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Ip,
    Next,
}

/// In C:
/// ```c
/// if (ctx->protocol != htons(ETH_P_IP) && ctx->protocol != htons(ETH_P_IPV6)) return TCX_NEXT;
/// struct ethhdr *header = (void *)(long)ctx->data;
/// if ((void *)(header + 1) > (void *)(long)ctx->data_end) return TCX_NEXT;
/// __u16 key[4] = { header->h_dest[0..2], header->h_dest[2..4], header->h_dest[4..6], 0 };
/// __u32 *port = bpf_map_lookup_elem(&map, key);
/// if (!port) return TCX_NEXT;
/// bpf_skb_change_type(ctx, PACKET_HOST);
/// return bpf_redirect_peer(*port, 0);
/// ```
/// The type says so far that the packet is for somebody else than the port, and the receiver would drop it for that.
fn program(map: BorrowedFd<'_>) -> Vec<Instruction> {
    const KEY: i16 = -8;
    let mut program = Program::new();
    program.push(move_register(CONTEXT, R1));
    program.push(load_word(R2, CONTEXT, PROTOCOL));
    program.jump(jump_if_equal(R2, ETHERTYPE_IPV4), Label::Ip);
    program.jump(jump_unless_equal(R2, ETHERTYPE_IPV6), Label::Next);
    program.label(Label::Ip);
    program.push(load_word(R2, CONTEXT, DATA));
    program.push(load_word(R3, CONTEXT, DATA_END));
    program.push(move_register(R1, R2));
    program.push(add(R1, ETHERNET_HEADER));
    program.jump(jump_if_greater(R1, R3), Label::Next);
    for offset in [0, 2, 4] {
        program.push(load_half_word(R1, R2, offset));
        program.push(store_half_word_of(FRAME, KEY + offset, R1));
    }
    program.push(store_half_word(FRAME, KEY + 6, 0));
    program.extend(load_map(R1, map));
    program.push(move_register(R2, FRAME));
    program.push(add(R2, KEY.into()));
    program.push(call(HELPER_MAP_LOOKUP_ELEM));
    program.jump(jump_if_zero(R0), Label::Next);
    program.push(load_word(PORT, R0, 0));
    program.push(move_register(R1, CONTEXT));
    program.push(move_value(R2, PACKET_HOST));
    program.push(call(HELPER_SKB_CHANGE_TYPE));
    program.push(move_register(R1, PORT));
    program.push(move_value(R2, 0));
    program.push(call(HELPER_REDIRECT_PEER));
    program.push(exit());
    program.label(Label::Next);
    program.finish(TCX_NEXT)
}
