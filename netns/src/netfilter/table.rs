//! Tables, chains and rules.

use super::{Attribute, NLM_F_APPEND, NLM_F_CREATE, Transaction};

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

const TABLE: &str = "ringlb";

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
    /// Lower goes first.
    pub(crate) priority: i32,
    /// For the family of network devices, the interface.
    pub(crate) interface: Option<&'a str>,
}

impl Chain<'_> {
    /// `NF_INET_PRE_ROUTING` and `NF_NETDEV_INGRESS`: the first hook of each family.
    const FIRST_HOOK: u32 = 0;

    fn attributes(&self) -> Vec<Attribute> {
        let mut hook = vec![
            Attribute::number(NFTA_HOOK_HOOKNUM, Self::FIRST_HOOK),
            Attribute::number(NFTA_HOOK_PRIORITY, self.priority.cast_unsigned()),
        ];
        hook.extend(self.interface.map(|interface| Attribute::text(NFTA_HOOK_DEV, interface)));
        vec![
            Attribute::text(NFTA_CHAIN_TABLE, TABLE),
            Attribute::text(NFTA_CHAIN_NAME, self.name),
            Attribute::nested(NFTA_CHAIN_HOOK, hook),
            Attribute::text(NFTA_CHAIN_TYPE, "filter"),
            Attribute::number(NFTA_CHAIN_POLICY, NF_ACCEPT),
        ]
    }
}

/// Makes the family's table `ringlb` with one chain and its rules, each a list of expressions, in place of the one that
/// may be there.
pub(crate) fn replace_table(
    transaction: &mut Transaction,
    family: Family,
    chain: Chain<'_>,
    rules: impl IntoIterator<Item = Vec<Attribute>>,
) {
    let table = || vec![Attribute::text(NFTA_TABLE_NAME, TABLE)];
    // Made so that it can be deleted whether it existed or not, and made again, empty.
    transaction.add(family, NFT_MSG_NEWTABLE, NLM_F_CREATE, table());
    transaction.add(family, NFT_MSG_DELTABLE, 0, table());
    transaction.add(family, NFT_MSG_NEWTABLE, NLM_F_CREATE, table());
    transaction.add(family, NFT_MSG_NEWCHAIN, NLM_F_CREATE, chain.attributes());
    for expressions in rules {
        let rule = vec![
            Attribute::text(NFTA_RULE_TABLE, TABLE),
            Attribute::text(NFTA_RULE_CHAIN, chain.name),
            Attribute::nested(NFTA_RULE_EXPRESSIONS, expressions),
        ];
        transaction.add(family, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule);
    }
}
