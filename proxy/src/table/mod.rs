//! The table of a network: VIP → service → backends, as one immutable value.
//!
//! A batch of changes makes a new table from an old one; the two share all that did not change. What is counted for
//! a service or a backend lives beside them and outlives the tables. Nothing here knows of sockets, or reads a clock.

pub mod backend;
pub mod chooser;
mod eligibility;
pub mod histogram;
pub mod map;
mod served_ports;
pub mod service;
mod transition;

pub use backend::{Backend, DatagramCounters, Entry, Health, Identity, WARM};
pub use chooser::Chooser;
pub use histogram::Histogram;
pub use served_ports::ServedPorts;
pub use service::{ClientPrefixes, Condition, Service, ServiceState};
pub use transition::{Consequence, Transition, TransitionError};

use crate::control::message::Generation;
use map::Map;
use std::net::IpAddr;
use std::sync::Arc;

/// All services of one network in one generation.
#[derive(Debug, Clone, Default)]
pub struct Table {
    generation: Generation,
    by_vip: Map<IpAddr, Arc<Service>>,
    by_name: Map<Arc<str>, Arc<Service>>,
}

impl Table {
    /// The table's number; 0 is the empty table before the first snapshot.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The service of which this is a virtual address.
    #[must_use]
    pub fn service_at(&self, vip: IpAddr) -> Option<&Arc<Service>> {
        self.by_vip.get(&vip)
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// The table of the same generation with what is known of a service's backends by now; `None` if there is no such
    /// service. All else is shared with this table.
    #[must_use]
    pub fn with_conditions(&self, service: &str, conditions: &[Condition]) -> Option<Self> {
        let service = Arc::new(self.service(service)?.with_conditions(conditions));
        // No pick has to wait for what it looks up.
        service.chooser();
        let mut table = self.clone();
        for vip in &*service.vips {
            table.by_vip.insert(*vip, Arc::clone(&service));
        }
        table.by_name.insert(Arc::clone(&service.name), service);
        Some(table)
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.iter().map(|(_, service)| service)
    }
}
