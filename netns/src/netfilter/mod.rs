//! nf_tables transactions over netlink (nfnetlink): messages collected in a batch that the kernel carries out as a whole
//! or not at all. The numbers are those of include/uapi/linux/netfilter/nf_tables.h.

mod expression;
mod set;
mod table;

pub(crate) use expression::{
    Comparison, Header, Register, accept, assign_to_socket, compare, destination_is_local, is_in_set, load_header,
    load_interface, load_link_protocol, load_transport_protocol, send_out_of, set_mark, set_register, write_header,
};
pub(crate) use set::{Key, Set};
pub(crate) use table::{Chain, Family, Hook, Table, delete_table, remove_table, replace_table};

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::time::Duration;

const NETLINK_NETFILTER: i32 = 12;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Make what does not exist.
const NLM_F_CREATE: u16 = 0x400;
/// Behind what exists.
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNETLINK_V0: u8 = 0;
const NETLINK_HEADER: usize = 16;

/// The kernel has answered when sending returns; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages that are carried out as a whole or not at all.
pub(crate) struct Transaction {
    bytes: Vec<u8>,
    messages: u32,
}

impl Transaction {
    pub(crate) fn begin() -> Self {
        let mut transaction = Self { bytes: Vec::new(), messages: 0 };
        transaction.push(NFNL_MSG_BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES, Vec::new());
        transaction
    }

    /// Adds an `NFT_MSG_*` message on a table of the family.
    fn add(&mut self, family: Family, message: u16, flags: u16, attributes: Vec<Attribute>) {
        self.messages += 1;
        self.push(NFNL_SUBSYS_NFTABLES << 8 | message, flags | NLM_F_ACK, family as u8, 0, attributes);
    }

    /// Carries the transaction out in the calling thread's network namespace.
    pub(crate) fn commit(self) -> io::Result<()> {
        NetfilterSocket::open()?.commit(self)
    }

    fn end(mut self) -> Self {
        self.push(NFNL_MSG_BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES, Vec::new());
        self
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: Vec<Attribute>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        // The sequence number tells messages apart; the port is the kernel's to fill.
        self.bytes.extend_from_slice(&self.messages.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, NFNETLINK_V0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        for attribute in attributes {
            attribute.write(&mut self.bytes);
        }
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A socket for transactions in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct NetfilterSocket(Socket);

impl NetfilterSocket {
    /// Opens it in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = Protocol::from(NETLINK_NETFILTER);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), Some(protocol))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Carries the transaction out. After an error the socket is of no more use, as other answers may wait in it.
    pub(crate) fn commit(&mut self, transaction: Transaction) -> io::Result<()> {
        let Transaction { bytes, messages: mut waiting } = transaction.end();
        self.0.send(&bytes)?;
        let mut buffer = [0; 8192];
        while waiting > 0 {
            let length = self.0.read(&mut buffer)?;
            waiting -= acknowledgements(&buffer[..length])?.min(waiting);
        }
        Ok(())
    }
}

/// A netlink attribute.
pub(crate) struct Attribute {
    kind: u16,
    value: Vec<u8>,
}

impl Attribute {
    fn bytes(kind: u16, value: &[u8]) -> Self {
        Self { kind, value: value.to_vec() }
    }

    /// With its terminating zero.
    fn text(kind: u16, value: &str) -> Self {
        let mut value = value.as_bytes().to_vec();
        value.push(0);
        Self { kind, value }
    }

    /// In network byte order, as nf_tables has all its numbers.
    fn number(kind: u16, value: u32) -> Self {
        Self::bytes(kind, &value.to_be_bytes())
    }

    fn nested(kind: u16, attributes: Vec<Self>) -> Self {
        let mut value = Vec::new();
        for attribute in attributes {
            attribute.write(&mut value);
        }
        Self { kind: kind | NLA_F_NESTED, value }
    }

    fn write(&self, to: &mut Vec<u8>) {
        let length = u16::try_from(4 + self.value.len()).unwrap_or(u16::MAX);
        to.extend_from_slice(&length.to_ne_bytes());
        to.extend_from_slice(&self.kind.to_ne_bytes());
        to.extend_from_slice(&self.value);
        to.resize(to.len().next_multiple_of(4), 0);
    }
}

/// How many messages the kernel acknowledges in a datagram, or the first error that it reports.
fn acknowledgements(mut datagram: &[u8]) -> io::Result<u32> {
    let mut count = 0;
    while let Some((header, _)) = datagram.split_first_chunk::<NETLINK_HEADER>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let message = datagram.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        if u16::from_ne_bytes([k0, k1]) == NLMSG_ERROR {
            let code = message.get(NETLINK_HEADER..).and_then(<[u8]>::first_chunk).ok_or(io::ErrorKind::InvalidData)?;
            match i32::from_ne_bytes(*code) {
                0 => count += 1,
                code => return Err(io::Error::from_raw_os_error(-code)),
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        if length < NETLINK_HEADER {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(count)
}
