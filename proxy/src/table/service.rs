//! A service in a table.

use super::backend::{Backend, Identity};
use crate::control::message::{Algorithm, BackendSpec, ServiceSpec};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// One service of one table, immutable.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// Its virtual address.
    pub vip: IpAddr,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// How long a draining backend keeps its connections; `None` is for ever.
    pub drain_timeout: Option<Duration>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// What outlives the table.
    pub state: Arc<ServiceState>,
    backends: Vec<Backend>,
    /// Indices of the backends that a new connection may go to, so that a pick does not search for them.
    eligible: Vec<u32>,
}

/// What belongs to a service as long as its name is in the table.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Connections given to a backend.
    pub connections: AtomicU64,
    /// Where round robin goes on.
    pub cursor: AtomicU32,
}

impl Service {
    /// A service as `spec` says. Backends that `before` has too keep their identity.
    #[must_use]
    pub fn new(spec: &ServiceSpec, before: Option<&Self>) -> Self {
        let identity_of =
            |address| before.and_then(|service| service.backend(address)).map(|b| Arc::clone(&b.identity));
        let backends = spec
            .backends
            .iter()
            .map(|backend| Backend {
                address: backend.address,
                weight: backend.weight,
                draining: backend.draining,
                identity: identity_of(backend.address).unwrap_or_default(),
            })
            .collect();
        let mut service = Self {
            name: Arc::from(spec.name.as_str()),
            vip: spec.vip,
            algorithm: spec.algorithm,
            drain_timeout: spec.drain_timeout_ms.map(Duration::from_millis),
            connect_timeout: Duration::from_millis(spec.connect_timeout_ms),
            state: before.map(|service| Arc::clone(&service.state)).unwrap_or_default(),
            backends,
            eligible: Vec::new(),
        };
        service.find_eligible();
        service
    }

    /// All backends.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The backend with that address.
    #[must_use]
    pub fn backend(&self, address: IpAddr) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.address == address)
    }

    /// Indices into [`Self::backends`] of those that a new connection may go to.
    #[must_use]
    pub fn eligible(&self) -> &[u32] {
        &self.eligible
    }

    /// Adds the backend or changes the one with its address.
    pub(super) fn put_backend(&mut self, spec: &BackendSpec) {
        match self.backends.iter_mut().find(|backend| backend.address == spec.address) {
            Some(backend) => {
                backend.weight = spec.weight;
                backend.draining = spec.draining;
            }
            None => self.backends.push(Backend {
                address: spec.address,
                weight: spec.weight,
                draining: spec.draining,
                identity: Arc::<Identity>::default(),
            }),
        }
        self.find_eligible();
    }

    /// Takes the backend away; `None` if there is none with that address.
    pub(super) fn remove_backend(&mut self, address: IpAddr) -> Option<Backend> {
        let index = self.backends.iter().position(|backend| backend.address == address)?;
        let removed = self.backends.remove(index);
        self.find_eligible();
        Some(removed)
    }

    fn find_eligible(&mut self) {
        self.eligible =
            (0u32..).zip(&self.backends).filter(|(_, backend)| backend.is_eligible()).map(|(index, _)| index).collect();
    }
}
