//! What only a manager of the swarm knows of services: their labels, and the protocols of their published ports.
//!
//! On managers this comes from the Engine itself; workers get it from elsewhere, or do without.

use ringlb_proxy::control::message::PublishedPort;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a manager says of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Its id, which outlives its name.
    pub id: String,
    /// Its name, unique in the swarm.
    pub name: String,
    /// The labels of the service, not those of its containers.
    pub labels: BTreeMap<String, String>,
    /// The ports under which all nodes publish it; those in mode `host` are the Engine's own.
    pub ports: Vec<PublishedPort>,
}

/// What a manager says of all services: a service that is not among them has been removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// All services.
    pub services: Vec<ServiceFacts>,
}
