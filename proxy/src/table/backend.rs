//! A backend in a table.

use super::SharedIdentity;
use crate::control::message::BackendSpec;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A backend as one table sees it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its share of new connections.
    pub weight: u16,
    /// Whether it gets no new connections and keeps those it has.
    pub draining: bool,
    /// Whether it is used only when no other backend can be.
    pub backup: bool,
    /// Whether it is on this node.
    pub local: bool,
    /// How it is, as far as is known.
    pub health: Health,
    /// The share of its weight that it has now, in percent: [`WARM`], or less while its share rises.
    pub warmth: u8,
    /// What is the same in every table that this backend is in: its counters, and whether it was removed.
    pub identity: SharedIdentity,
}

/// The [`Backend::warmth`] of a backend that has its whole share.
pub const WARM: u8 = 100;

/// How a backend is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing is known to be wrong with it.
    #[default]
    Healthy,
    /// It could not be reached several times in a row and is left out for a while.
    Ejected,
    /// It does not pass its checks.
    Unhealthy,
}

impl Backend {
    /// A healthy backend as `spec` says.
    pub(super) fn new(spec: &BackendSpec, identity: SharedIdentity) -> Self {
        Self {
            address: spec.address,
            weight: spec.weight,
            draining: spec.draining,
            backup: spec.backup,
            local: spec.local,
            health: Health::Healthy,
            warmth: WARM,
            identity,
        }
    }

    /// What it was made from.
    pub(super) fn spec(&self) -> BackendSpec {
        let Self { address, weight, draining, backup, local, .. } = *self;
        BackendSpec { address, weight, draining, backup, local }
    }

    /// Whether it is meant to get new connections, whatever its health.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.weight > 0 && !self.draining
    }

    /// Whether it is usable and nothing is known to be wrong with it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_usable() && self.health == Health::Healthy
    }

    /// Whether it is what nearly all are nearly always: healthy, warm, and no backup.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.is_healthy() && !self.backup && self.warmth == WARM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all tables of many backends cost: an address, two numbers and flags.
    #[test]
    fn a_backend_is_small() {
        assert!(size_of::<Backend>() <= 32);
    }
}
