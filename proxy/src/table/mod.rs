//! The table of a network: VIP or published port → service → backends, as one immutable value.
//!
//! A batch of changes makes a new table from an old one; the two share all that did not change. What is counted for
//! a service or a backend lives beside them and outlives the tables. Nothing here knows of sockets, or reads a clock.

pub mod backend;
pub mod backends;
pub mod chooser;
mod destination;
mod eligibility;
mod group;
pub mod histogram;
pub mod identity;
pub mod map;
pub mod pool;
mod served_ports;
pub mod service;
pub mod text;
mod transition;

pub use backend::{Backend, Health, WARM};
pub use backends::Backends;
pub use chooser::Chooser;
pub use destination::Destination;
pub use histogram::Histogram;
pub use identity::{DatagramCounters, Entry, Identity, SharedIdentity};
pub use served_ports::ServedPorts;
pub use service::{ClientPrefixes, Condition, Description, Service, ServiceState};
pub use transition::{Consequence, Transition, TransitionError};

use crate::admission::Scope;
use crate::control::digest::{self, Digests, ServiceDigest};
use crate::control::message::{Generation, Port};
use map::{Changing, Map};
use pool::Pooled;
use std::net::IpAddr;
use text::Text;

/// All services of one network in one generation.
#[derive(Debug, Clone, Default)]
pub struct Table {
    generation: Generation,
    /// By their [scope](ServiceState::scope): so that a change of a service's backends, which are many, is one of this map alone.
    services: Changing<Pooled<Service>>,
    by_vip: Map<IpAddr, Scope>,
    by_port: Map<Port, Published>,
    by_name: Map<Text, Scope>,
    /// What is set for the service put last, which may be gone by now.
    put_last: Option<service::Prepared>,
}

/// A service under a published port.
#[derive(Debug, Clone, Copy)]
struct Published {
    service: Scope,
    /// The port of its backends.
    target: u16,
}

impl Table {
    /// The table's number; 0 is the empty table before the first snapshot.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The service of which this is a virtual address.
    #[must_use]
    pub fn service_at(&self, vip: IpAddr) -> Option<&Pooled<Service>> {
        self.services.get(self.by_vip.get(&vip)?)
    }

    /// The service that is published under this port, and the port of its backends.
    #[must_use]
    pub fn published(&self, port: Port) -> Option<(&Pooled<Service>, u16)> {
        let Published { service, target } = self.by_port.get(&port)?;
        Some((self.services.get(service)?, *target))
    }

    /// The service that a client asks for, and the port of its backends: that of the VIP, which has every port, or that of the
    /// published port. Where a published port is sent on into the sandbox under an address there, that is no VIP.
    #[must_use]
    pub fn find(&self, destination: &Destination) -> Option<(&Pooled<Service>, u16)> {
        let by_vip = if destination.published { None } else { self.service_at(destination.ip()) };
        match by_vip {
            Some(service) => Some((service, destination.address.port())),
            None => self.published(destination.port()),
        }
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Pooled<Service>> {
        self.services.get(self.by_name.get(name)?)
    }

    /// The table of the same generation with what is known of a service's backends by now; `None` if there is no such
    /// service. All else is shared with this table.
    #[must_use]
    pub fn with_conditions(&self, service: &str, conditions: &[Condition]) -> Option<Self> {
        let service = Pooled::new(self.service(service)?.with_conditions(conditions));
        // No pick has to wait for what it looks up.
        service.chooser();
        let mut table = self.clone();
        table.services.insert(service.state.scope, service);
        Some(table)
    }

    /// What it is, in brief.
    #[must_use]
    pub fn digests(&self) -> Digests {
        let digest = |service: &Pooled<Service>| ServiceDigest {
            name: service.name.to_string(),
            digest: digest::digest(&mut service.spec()),
        };
        Digests { generation: self.generation, services: self.services().map(digest).collect() }
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Pooled<Service>> {
        self.services.iter().map(|(_, service)| service)
    }
}
