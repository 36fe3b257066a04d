//! Tables, chains and rules.

use super::{Attribute, NLM_F_APPEND, NLM_F_CREATE, Set, Transaction};
use std::{fmt, io};

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NF_ACCEPT: u32 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;

/// A table of ringlb's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: &'static str,
}

impl Table {
    /// `ringlb`, which holds what lives as long as its sandbox.
    pub(crate) const fn of(family: Family) -> Self {
        Self { family, name: "ringlb" }
    }

    pub(super) fn attributes(self) -> Vec<Attribute> {
        vec![Attribute::text(NFTA_TABLE_NAME, self.name)]
    }
}

/// As nft(8) names it.
impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
            Family::NetworkDevice => "netdev",
        };
        write!(formatter, "{family} {}", self.name)
    }
}

/// `NFPROTO_*`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    Ipv4 = 2,
    NetworkDevice = 5,
    Ipv6 = 10,
}

/// Where packets meet the rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain<'a> {
    pub(crate) name: &'a str,
    pub(crate) hook: Hook,
    /// Lower goes first.
    pub(crate) priority: i32,
    /// For the family of network devices, the interface.
    pub(crate) interface: Option<&'a str>,
}

/// On a packet's way, where a chain is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    /// `NF_INET_PRE_ROUTING` or `NF_NETDEV_INGRESS`, by the family.
    Arrival = 0,
    /// `NF_INET_LOCAL_IN`: what is for this namespace itself.
    LocalIn = 1,
}

impl Chain<'_> {
    fn attributes(&self, table: Table) -> Vec<Attribute> {
        let mut hook = vec![
            Attribute::number(NFTA_HOOK_HOOKNUM, self.hook as u32),
            Attribute::number(NFTA_HOOK_PRIORITY, self.priority.cast_unsigned()),
        ];
        hook.extend(self.interface.map(|interface| Attribute::text(NFTA_HOOK_DEV, interface)));
        vec![
            Attribute::text(NFTA_CHAIN_TABLE, table.name),
            Attribute::text(NFTA_CHAIN_NAME, self.name),
            Attribute::nested(NFTA_CHAIN_HOOK, hook),
            Attribute::text(NFTA_CHAIN_TYPE, "filter"),
            Attribute::number(NFTA_CHAIN_POLICY, NF_ACCEPT),
        ]
    }
}

/// Makes the table with the sets, one chain and its rules, each a list of expressions, in place of the one that may be
/// there.
pub(crate) fn replace_table(
    transaction: &mut Transaction,
    table: Table,
    sets: &[Set],
    chain: Chain<'_>,
    rules: impl IntoIterator<Item = Vec<Attribute>>,
) {
    remove_table(transaction, table);
    transaction.add(table.family, NFT_MSG_NEWTABLE, NLM_F_CREATE, table.attributes());
    for (set, id) in sets.iter().zip(1..) {
        set.make(transaction, table, id);
    }
    transaction.add(table.family, NFT_MSG_NEWCHAIN, NLM_F_CREATE, chain.attributes(table));
    for expressions in rules {
        let rule = vec![
            Attribute::text(NFTA_RULE_TABLE, table.name),
            Attribute::text(NFTA_RULE_CHAIN, chain.name),
            Attribute::nested(NFTA_RULE_EXPRESSIONS, expressions),
        ];
        transaction.add(table.family, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule);
    }
}

/// Removes the table with all that is in it, if it is there.
pub(crate) fn remove_table(transaction: &mut Transaction, table: Table) {
    // Made so that it can be deleted whether it existed or not.
    transaction.add(table.family, NFT_MSG_NEWTABLE, NLM_F_CREATE, table.attributes());
    transaction.add(table.family, NFT_MSG_DELTABLE, 0, table.attributes());
}

/// Deletes the table with all that is in it from the calling thread's network namespace. Gives whether it was there.
pub(crate) fn delete_table(table: Table) -> io::Result<bool> {
    let mut transaction = Transaction::begin();
    transaction.add(table.family, NFT_MSG_DELTABLE, 0, table.attributes());
    match transaction.commit() {
        Ok(()) => Ok(true),
        // Where the kernel has no nf_tables, or not for this family, there is no table either.
        Err(cause) => match cause.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EINVAL) => {
                Ok(false)
            }
            _ => Err(cause),
        },
    }
}
