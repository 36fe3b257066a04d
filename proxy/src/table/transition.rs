//! The step from one table to the next.

use super::pool::Pooled;
use super::text::Text;
use super::{Backend, Published, Service, SharedIdentity, Table};
use crate::admission::Scope;
use crate::control::message::{BackendSpec, Change, Delta, Generation, Port, ServiceSpec, Snapshot};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;
use thiserror::Error;

/// A new table, and what it means for the connections that were made with the old one.
#[derive(Debug)]
pub struct Transition {
    /// The new table.
    pub table: Table,
    /// What the step means for backends, in the order of the changes.
    pub consequences: Vec<(SharedIdentity, Consequence)>,
    /// Whether connections that there are can end because of their age by a setting that is new.
    pub limits_age: bool,
}

/// What a step means for a backend's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// It is in no table any more: they must be reset.
    Removed,
    /// It started to drain: they must be reset after that time, or never.
    DrainStarted(Option<Duration>),
    /// It drains no longer.
    DrainEnded,
}

/// Why a request cannot be applied. The table stays as it was.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TransitionError {
    /// A delta for another table than ours.
    #[error("the delta starts at generation {from}, the table is at {current}: send a snapshot")]
    NotOurGeneration {
        /// Where the delta starts.
        from: Generation,
        /// Where the table is.
        current: Generation,
    },
    /// Generations only grow.
    #[error("generation {to} is not newer than {current}")]
    NotNewer {
        /// Where the request leads.
        to: Generation,
        /// Where the table is.
        current: Generation,
    },
    /// A change of something that is not there.
    #[error("there is no service `{service}`")]
    NoService {
        /// The name in the change.
        service: String,
    },
    /// A change of something that is not there.
    #[error("service `{service}` has no backend {address}")]
    NoBackend {
        /// The name in the change.
        service: String,
        /// The address in the change.
        address: IpAddr,
    },
    /// Nobody could reach such a service.
    #[error("service `{service}` has neither a VIP nor a published port")]
    Unreachable {
        /// The service in the change.
        service: String,
    },
    /// Two services cannot share an address.
    #[error("services `{service}` and `{other}` both have the VIP {vip}")]
    VipTaken {
        /// The service in the change.
        service: String,
        /// The service that has the address already.
        other: String,
        /// The address.
        vip: IpAddr,
    },
    /// Two services cannot share a published port.
    #[error("services `{service}` and `{other}` are both published under port {port}")]
    PortTaken {
        /// The service in the change.
        service: String,
        /// The service that has the port already.
        other: String,
        /// The port.
        port: Port,
    },
    /// There is no port 0.
    #[error("service `{service}` has port 0 among its published ports, or as the target of one")]
    PortZero {
        /// The service in the change.
        service: String,
    },
    /// A name or an address that must be unique is not.
    #[error("{what} is listed twice")]
    Twice {
        /// What is listed twice.
        what: String,
    },
}

impl Table {
    /// The table that `snapshot` describes. Services and backends that this table has too keep their counters.
    ///
    /// # Errors
    /// Any [`TransitionError`]; this table is unchanged in any case.
    pub fn replaced_by(&self, snapshot: &Snapshot) -> Result<Transition, TransitionError> {
        let mut step = Step::new(self, snapshot.generation)?;
        step.table = Self { generation: snapshot.generation, ..Self::default() };
        let mut kept = HashSet::with_capacity(snapshot.services.len());
        for spec in &snapshot.services {
            if !kept.insert(spec.name.as_str()) {
                return Err(TransitionError::Twice { what: format!("service `{}`", spec.name) });
            }
            step.install(spec, self.service(&spec.name).map(|service| &**service))?;
        }
        for service in self.services().filter(|service| !kept.contains(&*service.name)) {
            step.all_removed(service);
        }
        step.finish()
    }

    /// The table that `delta` leads to.
    ///
    /// # Errors
    /// Any [`TransitionError`]; this table is unchanged in any case.
    pub fn changed_by(&self, delta: &Delta) -> Result<Transition, TransitionError> {
        if delta.from != self.generation {
            return Err(TransitionError::NotOurGeneration { from: delta.from, current: self.generation });
        }
        let mut step = Step::new(self, delta.to)?;
        step.vacate(&delta.changes);
        for change in &delta.changes {
            match change {
                Change::PutService(spec) => step.put_service(spec)?,
                Change::RemoveService { service } => step.remove_service(service)?,
                Change::PutBackend { service, backend } => step.put_backend(service, backend)?,
                Change::RemoveBackend { service, address } => step.remove_backend(service, *address)?,
            }
        }
        step.finish()
    }
}

struct Step {
    table: Table,
    limits_age: bool,
    /// Services that were put or changed.
    changed: HashSet<Scope>,
    /// Services of which backends were changed and further ones may be, and that are not in the table yet: so a batch that
    /// changes all backends of a service makes one new service, not one for each of them.
    changing: HashMap<Scope, Service>,
    consequences: Vec<(SharedIdentity, Consequence)>,
}

impl Step {
    fn new(table: &Table, to: Generation) -> Result<Self, TransitionError> {
        if to <= table.generation {
            return Err(TransitionError::NotNewer { to, current: table.generation });
        }
        let table = Table { generation: to, ..table.clone() };
        Ok(Self {
            table,
            limits_age: false,
            changed: HashSet::new(),
            changing: HashMap::new(),
            consequences: Vec::new(),
        })
    }

    /// Frees the VIPs and published ports of all services that the changes put, so that two of them can swap theirs.
    fn vacate(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::PutService(spec) = change
                && let Some(service) = self.table.service(&spec.name).cloned()
            {
                service.vips.iter().for_each(|vip| self.table.by_vip.remove(vip));
                service.published.iter().for_each(|port| self.table.by_port.remove(&port.published));
            }
        }
    }

    fn put_service(&mut self, spec: &ServiceSpec) -> Result<(), TransitionError> {
        let before = self.take(&spec.name);
        if let Some(before) = &before {
            self.leave(before);
        }
        self.install(spec, before.as_deref())
    }

    /// Puts the service in, whose earlier form, if any, is already out of the maps of VIPs and ports.
    fn install(&mut self, spec: &ServiceSpec, before: Option<&Service>) -> Result<(), TransitionError> {
        if spec.vips.is_empty() && spec.published.is_empty() {
            return Err(TransitionError::Unreachable { service: spec.name.clone() });
        }
        let mut ports = HashSet::with_capacity(spec.published.len());
        if spec.published.iter().any(|port| port.published.number == 0 || port.target == 0) {
            return Err(TransitionError::PortZero { service: spec.name.clone() });
        }
        if let Some(twice) = spec.published.iter().find(|port| !ports.insert(port.published)) {
            return Err(TransitionError::Twice {
                what: format!("port {} of service `{}`", twice.published, spec.name),
            });
        }
        let mut vips = HashSet::with_capacity(spec.vips.len());
        if let Some(twice) = spec.vips.iter().find(|vip| !vips.insert(**vip)) {
            return Err(TransitionError::Twice { what: format!("VIP {twice} of service `{}`", spec.name) });
        }
        let mut addresses = HashSet::with_capacity(spec.backends.len());
        if let Some(twice) = spec.backends.iter().find(|backend| !addresses.insert(backend.address)) {
            return Err(TransitionError::Twice {
                what: format!("backend {} of service `{}`", twice.address, spec.name),
            });
        }
        let service = Service::sharing(spec, before, &mut self.table.put_last);
        for backend in service.backends() {
            self.note_drain(&service, before, backend);
        }
        if let Some(before) = before {
            self.limits_age |= service.settings.limits_age() && service.settings != before.settings;
            let gone = before.backends().iter().filter(|backend| !addresses.contains(&backend.address));
            self.consequences.extend(gone.map(removed));
        }
        self.insert(service)
    }

    fn remove_service(&mut self, name: &str) -> Result<(), TransitionError> {
        let service = self.take(name).ok_or_else(|| no_service(name))?;
        self.leave(&service);
        self.table.by_name.remove(name);
        self.table.services.remove(&service.state.scope);
        self.all_removed(&service);
        Ok(())
    }

    fn put_backend(&mut self, name: &str, spec: &BackendSpec) -> Result<(), TransitionError> {
        let service = self.changing(name, spec.address)?;
        let drained = service.backend(spec.address).is_some_and(|before| before.draining);
        service.put_backend(spec);
        let Some(now) = service.backend(spec.address) else { return Ok(()) };
        let consequence = match (drained, now.draining) {
            (false, true) => Consequence::DrainStarted(service.settings.drain_deadline()),
            (true, false) => Consequence::DrainEnded,
            (true, true) | (false, false) => return Ok(()),
        };
        let identity = now.identity.clone();
        self.consequences.push((identity, consequence));
        Ok(())
    }

    fn remove_backend(&mut self, name: &str, address: IpAddr) -> Result<(), TransitionError> {
        let gone = self.changing(name, address)?.remove_backend(address);
        let gone = gone.ok_or_else(|| TransitionError::NoBackend { service: name.to_owned(), address })?;
        self.consequences.push(removed(&gone));
        Ok(())
    }

    /// The service of that name as it is by now, to change its backend with that address.
    fn changing(&mut self, name: &str, address: IpAddr) -> Result<&mut Service, TransitionError> {
        let Some(scope) = self.table.by_name.get(name).copied() else { return Err(no_service(name)) };
        match self.changing.entry(scope) {
            Entry::Occupied(changing) => Ok(changing.into_mut()),
            Entry::Vacant(place) => {
                // Nobody has looked at most services for long, so what a change touches is in no cache.
                let service = self.table.services.get_to_change(&scope).ok_or_else(|| no_service(name))?;
                service.fetch_for(address);
                Ok(place.insert(service.to_change()))
            }
        }
    }

    /// The service of that name as it is by now, to be put anew or removed.
    fn take(&mut self, name: &str) -> Option<Pooled<Service>> {
        let service = self.table.service(name)?;
        let changing = self.changing.remove(&service.state.scope).map(Pooled::new);
        Some(changing.unwrap_or_else(|| service.clone()))
    }

    fn insert(&mut self, service: Service) -> Result<(), TransitionError> {
        for vip in &service.vips {
            if let Some(other) = self.table.service_at(*vip)
                && other.name != service.name
            {
                return Err(TransitionError::VipTaken {
                    service: service.name.to_string(),
                    other: other.name.to_string(),
                    vip: *vip,
                });
            }
        }
        for port in &service.published {
            if let Some((other, _)) = self.table.published(port.published)
                && other.name != service.name
            {
                return Err(TransitionError::PortTaken {
                    service: service.name.to_string(),
                    other: other.name.to_string(),
                    port: port.published,
                });
            }
        }
        let scope = service.state.scope;
        for vip in &service.vips {
            self.table.by_vip.insert(*vip, scope);
        }
        for port in &service.published {
            self.table.by_port.insert(port.published, Published { service: scope, target: port.target });
        }
        self.table.by_name.insert(Text::from(&*service.name), scope);
        self.place(scope, service);
        Ok(())
    }

    /// Puts the service of that scope into the table that has its VIPs, ports and name already.
    fn place(&mut self, scope: Scope, service: Service) {
        self.changed.insert(scope);
        self.table.services.insert(scope, Pooled::new(service));
    }

    /// Frees the service's VIPs and published ports that no other service has by now.
    fn leave(&mut self, service: &Service) {
        for vip in &service.vips {
            if self.table.service_at(*vip).is_some_and(|other| other.name == service.name) {
                self.table.by_vip.remove(vip);
            }
        }
        for port in &service.published {
            if self.table.published(port.published).is_some_and(|(other, _)| other.name == service.name) {
                self.table.by_port.remove(&port.published);
            }
        }
    }

    fn all_removed(&mut self, service: &Service) {
        self.consequences.extend(service.backends().iter().map(removed));
    }

    /// Notes a drain that starts, ends, or gets another deadline, which then counts from now.
    fn note_drain(&mut self, service: &Service, before: Option<&Service>, now: &Backend) {
        let deadline = service.settings.drain_deadline();
        let drained = before.is_some_and(|before| before.backend(now.address).is_some_and(|backend| backend.draining));
        let same_deadline = before.is_some_and(|before| before.settings.drain_deadline() == deadline);
        let consequence = match (drained, now.draining) {
            (true, true) if same_deadline => return,
            (_, true) => Consequence::DrainStarted(deadline),
            (true, false) => Consequence::DrainEnded,
            (false, false) => return,
        };
        self.consequences.push((now.identity.clone(), consequence));
    }

    /// Makes ready what picks look up.
    ///
    /// A backend that was taken away and put back within one batch is a new one with a new identity, so what was
    /// removed stays removed: nothing needs to be taken back here.
    fn finish(mut self) -> Result<Transition, TransitionError> {
        for (scope, mut service) in std::mem::take(&mut self.changing) {
            service.find_eligible();
            self.place(scope, service);
        }
        for service in self.changed.iter().filter_map(|scope| self.table.services.get(scope)) {
            service.chooser();
        }
        Ok(Transition { table: self.table, consequences: self.consequences, limits_age: self.limits_age })
    }
}

fn no_service(name: &str) -> TransitionError {
    TransitionError::NoService { service: name.to_owned() }
}

fn removed(backend: &Backend) -> (SharedIdentity, Consequence) {
    (backend.identity.clone(), Consequence::Removed)
}

#[cfg(test)]
mod tests;
