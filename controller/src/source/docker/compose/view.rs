//! What an Engine says of plain networks, in the few words that matter here.

use crate::model::Families;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A bridge network that a user made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnet: Families<IpNet>,
    /// The addresses that are for no container.
    pub(crate) reserved: BTreeSet<IpAddr>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// Its name, for people.
    pub(crate) name: String,
    /// When it was made, in seconds since 1970.
    pub(crate) created: i64,
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether it has a process.
    pub(crate) running: bool,
    /// Whether that is not paused, and healthy where somebody checks it.
    pub(crate) ready: bool,
    /// Its addresses by the names of its networks; none while it does not run.
    pub(crate) networks: BTreeMap<String, Families<IpAddr>>,
    /// Those that it was given when it was made, and has whenever it runs.
    pub(crate) fixed: BTreeMap<String, Families<IpAddr>>,
}

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its addresses on the network in question; none while it does not run.
    pub(crate) addresses: Families<IpAddr>,
    /// The path of its namespace, as the Engine sees it.
    pub(crate) sandbox_key: String,
}
