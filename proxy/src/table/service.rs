//! A service in a table.

use super::backend::{Backend, Identity};
use super::chooser::Chooser;
use crate::admission::RetryBudget;
use crate::control::message::{BackendSpec, ServiceSettings, ServiceSpec};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

/// One service of one table, immutable.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// Its virtual addresses.
    pub vips: Arc<[IpAddr]>,
    /// What is set for it.
    pub settings: Arc<ServiceSettings>,
    /// What outlives the table.
    pub state: Arc<ServiceState>,
    backends: Vec<Backend>,
    /// Indices of the backends that a new connection may go to, so that a pick does not search for them.
    eligible: Vec<u32>,
    chooser: OnceLock<Arc<Chooser>>,
    /// The size of the Maglev table that this service had before; 0 if it had none.
    size_before: u32,
}

/// What belongs to a service as long as its name is in the table.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Connections given to a backend.
    pub connections: AtomicU64,
    /// The number of turns that round robin, weighted or not, has given.
    pub turns: AtomicU64,
    /// The retries that its connections may have together.
    pub retry_budget: RetryBudget,
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
            vips: spec.vips.as_slice().into(),
            settings: Arc::new(spec.settings.clone()),
            state: before.map(|service| Arc::clone(&service.state)).unwrap_or_default(),
            backends,
            eligible: Vec::new(),
            chooser: OnceLock::new(),
            size_before: before.map_or(0, Self::maglev_size),
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

    /// How one of the eligible backends is chosen.
    ///
    /// Made at the first call, as a Maglev table takes milliseconds and one step can change many backends of a service in
    /// turn. The step calls this when it is done, so that no pick has to wait.
    pub fn chooser(&self) -> &Chooser {
        self.chooser.get_or_init(|| {
            let eligible = self.eligible.iter().filter_map(|&index| self.backends.get(index as usize));
            let weights = eligible.map(|backend| (backend.address, backend.weight));
            Arc::new(Chooser::new(self.settings.algorithm, weights, self.size_before))
        })
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
        self.size_before = self.maglev_size();
        self.chooser = OnceLock::new();
    }

    /// The size of the Maglev table, or of the last one if this one is not made yet; 0 if there is none.
    fn maglev_size(&self) -> u32 {
        match self.chooser.get().map(Arc::as_ref) {
            Some(Chooser::Maglev(table)) => table.size(),
            Some(_) => 0,
            None => self.size_before,
        }
    }
}
