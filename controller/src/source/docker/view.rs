//! What an Engine says, in the few words that matter here.

use super::facts::ServiceFacts;
use crate::model::Families;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The Engine and its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The Engine's version.
    pub version: String,
    /// The node's id in the swarm; empty if it is in none.
    pub id: String,
    /// The address by which other nodes know it; empty if it is in no swarm.
    pub address: String,
    /// How the node stands to the swarm, as the Engine calls it: `inactive`, `pending`, `active`, `error` or `locked`.
    pub swarm: String,
    /// Whether it is a manager that can be asked.
    pub manager: bool,
    /// The addresses, with port, of the managers that it knows.
    pub managers: Vec<String>,
    /// Where the Engine keeps what it must not forget.
    pub root_dir: String,
}

impl Node {
    /// Whether there are swarm networks to be served.
    #[must_use]
    pub fn in_swarm(&self) -> bool {
        // A manager that has lost its quorum is `pending` or in `error`, and its node goes on.
        !matches!(self.swarm.as_str(), "" | "inactive")
    }
}

/// A swarm network that the Engine lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedNetwork {
    /// Its id.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// Whether published ports arrive by it.
    pub(super) ingress: bool,
}

/// A network as a verbose inspection shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InspectedNetwork {
    /// Its name.
    pub(super) name: String,
    /// Whether published ports arrive by it.
    pub(super) ingress: bool,
    /// Its subnets.
    pub(super) subnet: Families<IpNet>,
    /// The addresses of this node's LB endpoint; empty while there is none.
    pub(super) lb_address: Families<IpAddr>,
    /// The services that have a VIP there and a task, by name.
    pub(super) services: BTreeMap<String, InspectedService>,
}

/// A service on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InspectedService {
    /// Its VIP on the network.
    pub(super) vip: IpAddr,
    /// Its published ports without their protocols.
    pub(super) ports: Vec<InspectedPort>,
    /// Its tasks, by their address on the network.
    pub(super) tasks: BTreeMap<IpAddr, InspectedTask>,
}

/// A published port as an inspection shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InspectedPort {
    /// The port that clients use.
    pub(super) published: u16,
    /// The port of the tasks.
    pub(super) target: u16,
}

/// A task on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InspectedTask {
    /// Its id, the same on all networks and in the list of tasks.
    pub(super) id: String,
    /// Whether it runs on this node.
    pub(super) local: bool,
}

/// What a manager says of the whole swarm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    /// All services.
    pub(super) services: Vec<ClusterService>,
    /// All tasks that it still knows, by id.
    pub(super) tasks: BTreeMap<String, TaskPhase>,
}

/// A service as a manager knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterService {
    /// Its labels and ports.
    pub(super) facts: ServiceFacts,
    /// Its VIPs by network id.
    pub(super) vips: BTreeMap<String, IpAddr>,
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TaskPhase {
    /// It is to run, or runs.
    Wanted,
    /// It is to stop.
    Stopping,
    /// It runs no more.
    Over,
}
