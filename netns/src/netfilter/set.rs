//! Sets of values whose elements end by themselves.

use super::{Attribute, NLM_F_CREATE, Table, Transaction};
use std::time::Duration;

const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// So many that a message stays below the 64 KiB that an attribute's length can say.
const ELEMENTS_IN_A_MESSAGE: usize = 1000;

/// A set whose elements have a lifetime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: Key,
}

/// What the elements of a set are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    /// 4 bytes.
    Ipv4Address,
    /// The number of a protocol above IP in 4 bytes, of which the last three are zero, and a port in network byte order in
    /// as many, of which the last two are zero.
    ProtocolAndPort,
}

impl Key {
    const fn length(self) -> u32 {
        match self {
            Self::Ipv4Address => 4,
            Self::ProtocolAndPort => 8,
        }
    }

    /// How nft(8) is to show it: the numbers of its types, those of a concatenation in 6 bits each.
    const fn shown_as(self) -> u32 {
        const IPV4_ADDRESS: u32 = 7;
        const PROTOCOL: u32 = 12;
        const PORT: u32 = 13;
        match self {
            Self::Ipv4Address => IPV4_ADDRESS,
            Self::ProtocolAndPort => PROTOCOL << 6 | PORT,
        }
    }
}

impl Set {
    /// Makes it, empty. The number tells it from the others of the transaction.
    pub(super) fn make(&self, transaction: &mut Transaction, table: Table, id: u32) {
        const NFTA_SET_TABLE: u16 = 1;
        const NFTA_SET_NAME: u16 = 2;
        const NFTA_SET_FLAGS: u16 = 3;
        const NFTA_SET_KEY_TYPE: u16 = 4;
        const NFTA_SET_KEY_LEN: u16 = 5;
        const NFTA_SET_ID: u16 = 10;
        const NFT_SET_TIMEOUT: u32 = 0x10;
        let set = vec![
            Attribute::text(NFTA_SET_TABLE, table.name),
            Attribute::text(NFTA_SET_NAME, self.name),
            Attribute::number(NFTA_SET_FLAGS, NFT_SET_TIMEOUT),
            Attribute::number(NFTA_SET_KEY_TYPE, self.key.shown_as()),
            Attribute::number(NFTA_SET_KEY_LEN, self.key.length()),
            Attribute::number(NFTA_SET_ID, id),
        ];
        transaction.add(table.family, NFT_MSG_NEWSET, NLM_F_CREATE, set);
    }

    /// Makes these its only elements, for that long.
    ///
    /// They are removed and added, because an element keeps its lifetime when it is added again, and before Linux 6.12 there
    /// is no way to give it another. No packet sees the set in between.
    pub(crate) fn replace_elements(
        &self,
        transaction: &mut Transaction,
        table: Table,
        keys: &[Vec<u8>],
        lifetime: Duration,
    ) {
        let list = || {
            vec![
                Attribute::text(NFTA_SET_ELEM_LIST_TABLE, table.name),
                Attribute::text(NFTA_SET_ELEM_LIST_SET, self.name),
            ]
        };
        transaction.add(table.family, NFT_MSG_DELSETELEM, 0, list());
        for keys in keys.chunks(ELEMENTS_IN_A_MESSAGE) {
            let elements = keys.iter().map(|key| element(key, lifetime)).collect();
            let mut message = list();
            message.push(Attribute::nested(NFTA_SET_ELEM_LIST_ELEMENTS, elements));
            transaction.add(table.family, NFT_MSG_NEWSETELEM, NLM_F_CREATE, message);
        }
    }
}

fn element(key: &[u8], lifetime: Duration) -> Attribute {
    const NFTA_SET_ELEM_KEY: u16 = 1;
    const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
    const NFTA_DATA_VALUE: u16 = 1;
    let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    let element = vec![
        Attribute::nested(NFTA_SET_ELEM_KEY, vec![Attribute::bytes(NFTA_DATA_VALUE, key)]),
        Attribute::bytes(NFTA_SET_ELEM_TIMEOUT, &milliseconds.to_be_bytes()),
    ];
    Attribute::nested(NFTA_LIST_ELEM, element)
}
