//! A service in a table.

use super::backend::{Backend, Health, WARM};
use super::backends::Backends;
use super::chooser::Chooser;
use super::eligibility::{eligible, spare};
use super::histogram::Histogram;
use super::identity::{Identity, SharedIdentity};
use super::pool::Pooled;
use super::served_ports::ServedPorts;
use crate::admission::{
    AccessList, Places, PrefixSet, RetryBudget, RetryLimit, Scope, Waiter, WaitingQueue, new_scope,
};
use crate::control::histogram;
use crate::control::message::{Algorithm, BackendSpec, PublishedPort, ServiceSettings, ServiceSpec};
use crate::health::slow_start;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One service of one table, immutable: what is [described](Description) of it, and its backends.
#[derive(Debug)]
pub struct Service {
    description: Pooled<Description>,
    backends: Backends,
    /// Indices of the backends that a new connection may go to, so that a pick does not search for them.
    eligible: Cow<'static, [u32]>,
    chooser: OnceLock<Chooser>,
    /// The size of the Maglev table that this service had before; 0 if it had none.
    size_before: u32,
}

/// What a change of a service's backends leaves as it is. It lies behind one pointer, so that such a change copies one and not
/// six: each copy touches a count at a place of its own in memory.
#[derive(Debug)]
pub struct Description {
    /// Its name.
    pub name: Arc<str>,
    /// Its virtual addresses.
    pub vips: Box<[IpAddr]>,
    /// The ports under which it is published.
    pub published: Box<[PublishedPort]>,
    /// What is set for it.
    pub settings: Arc<ServiceSettings>,
    /// What its settings say about clients' addresses, ready to be looked up.
    pub clients: Arc<ClientPrefixes>,
    /// What outlives the table.
    pub state: Arc<ServiceState>,
}

impl Deref for Service {
    type Target = Description;

    fn deref(&self) -> &Description {
        &self.description
    }
}

/// What belongs to a service as long as its name is in the table.
#[derive(Debug)]
pub struct ServiceState {
    /// Its name.
    pub name: Arc<str>,
    /// What it is counted under.
    pub scope: Scope,
    /// Connections and UDP sessions open now, those that wait for a backend included.
    pub places: Places,
    /// Who waits for a place at one of its backends.
    pub queue: WaitingQueue<Waiter>,
    /// Connections and UDP sessions given to a backend.
    pub connections: AtomicU64,
    /// Of these, UDP sessions.
    pub sessions: AtomicU64,
    /// The number of turns that round robin, weighted or not, has given.
    pub turns: AtomicU64,
    /// The retries that its connections may have together.
    pub retry_budget: RetryBudget,
    /// The TCP ports on which one of its backends was reached.
    pub tcp_ports: ServedPorts,
    /// The UDP ports on which one of its backends answered.
    pub udp_ports: ServedPorts,
    /// What attempts to connect that succeeded took.
    pub connect_times: Histogram,
    /// How long connections that were given to a backend lasted.
    pub session_times: Histogram,
}

impl ServiceState {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            scope: new_scope(),
            places: Places::default(),
            queue: WaitingQueue::default(),
            connections: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            retry_budget: RetryBudget::default(),
            tcp_ports: ServedPorts::default(),
            udp_ports: ServedPorts::default(),
            connect_times: Histogram::new(histogram::CONNECT),
            session_times: Histogram::new(histogram::SESSION),
        }
    }
}

/// Which clients may come in, and which are believed when they say for whom they speak.
#[derive(Debug, Default)]
pub struct ClientPrefixes {
    /// Who may come in.
    pub access: AccessList,
    /// Whose connections begin with a PROXY protocol header.
    pub introducing: PrefixSet,
}

impl ClientPrefixes {
    fn new(settings: &ServiceSettings) -> Self {
        let [allow, deny, introducing] = [&settings.allow, &settings.deny, &settings.accept_proxy_protocol]
            .map(|prefixes| prefixes.iter().collect());
        Self { access: AccessList::new(allow, deny), introducing }
    }
}

/// What is set for a service, and what is made of it. A service shares it with the one put before it if the same is set: in
/// most networks it is for nearly all, and it is as large as the rest of a small service.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    settings: Arc<ServiceSettings>,
    clients: Arc<ClientPrefixes>,
}

impl Prepared {
    fn new(settings: &ServiceSettings) -> Self {
        Self { settings: Arc::new(settings.clone()), clients: Arc::new(ClientPrefixes::new(settings)) }
    }

    fn of(service: &Service) -> Self {
        Self { settings: Arc::clone(&service.settings), clients: Arc::clone(&service.clients) }
    }
}

impl Service {
    /// A service as `spec` says. Backends that `before` has too keep their identity.
    #[must_use]
    pub fn new(spec: &ServiceSpec, before: Option<&Self>) -> Self {
        Self::sharing(spec, before, &mut None)
    }

    /// The same. It shares `last`, what is set for the service put last, if that is set for this one too, and leaves there what
    /// it has.
    pub(super) fn sharing(spec: &ServiceSpec, before: Option<&Self>, last: &mut Option<Prepared>) -> Self {
        let starts_cold = before.is_some() && slow_start::is_on(&spec.settings);
        let mut earlier: HashMap<IpAddr, &Backend> =
            before.iter().flat_map(|service| &service.backends).map(|backend| (backend.address, backend)).collect();
        let backends = spec.backends.iter().map(|spec| put(spec, earlier.remove(&spec.address), starts_cold)).collect();
        let state = match before {
            Some(before) => Arc::clone(&before.state),
            None => Arc::new(ServiceState::new(Arc::from(spec.name.as_str()))),
        };
        let known =
            last.take().into_iter().chain(before.map(Prepared::of)).find(|known| *known.settings == spec.settings);
        let Prepared { settings, clients } =
            last.insert(known.unwrap_or_else(|| Prepared::new(&spec.settings))).clone();
        let description = Description {
            name: Arc::clone(&state.name),
            vips: spec.vips.as_slice().into(),
            published: spec.published.as_slice().into(),
            settings,
            clients,
            state,
        };
        let mut service = Self {
            description: Pooled::new(description),
            backends,
            eligible: Cow::default(),
            chooser: OnceLock::new(),
            size_before: before.map_or(0, Self::maglev_size),
        };
        service.find_eligible();
        service
    }

    /// What it was made from, but for the order of its backends.
    pub(super) fn spec(&self) -> ServiceSpec {
        ServiceSpec {
            name: self.name.to_string(),
            vips: self.vips.to_vec(),
            settings: ServiceSettings::clone(&self.settings),
            published: self.published.to_vec(),
            backends: self.backends.iter().map(Backend::spec).collect(),
        }
    }

    /// All backends.
    #[must_use]
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// The backend with that address.
    #[must_use]
    pub fn backend(&self, address: IpAddr) -> Option<&Backend> {
        self.backends.find(address).map(|(_, backend)| backend)
    }

    /// Whether the client's address says whether a connection may come in. One more system call for each, so only where it
    /// matters.
    #[must_use]
    pub fn examines_clients(&self) -> bool {
        let settings = &self.settings;
        !settings.allow.is_empty()
            || !settings.deny.is_empty()
            || settings.max_connections_per_client.0 > 0
            || settings.client_rate.per_second.0 > 0
    }

    /// Whether another attempt may be made for a connection after so many that failed. One that may is counted. `now` is the
    /// time since a fixed moment.
    #[must_use]
    pub fn may_retry(&self, attempts: u8, now: Duration) -> bool {
        let budget = self.settings.retry_budget;
        let limit = RetryLimit { percent: budget.percent.0.into(), minimum_per_second: budget.minimum.0.into() };
        attempts <= self.settings.retries.0 && self.state.retry_budget.try_retry(limit, now)
    }

    /// Indices into [`Self::backends`] of those that a new connection may go to.
    #[must_use]
    pub fn eligible(&self) -> &[u32] {
        &self.eligible
    }

    /// Whether a connection that this backend has not answered yet had better go to another one: this one is not to get new
    /// connections any more, another one is that was not tried, and one more attempt may be made after so many.
    #[must_use]
    pub fn gives_up(&self, backend: &Identity, attempts: u8, tried: &[IpAddr]) -> bool {
        let eligible = || self.eligible.iter().filter_map(|&index| self.backends.get(index as usize));
        attempts <= self.settings.retries.0
            && !eligible().any(|one| std::ptr::eq(&*one.identity, backend))
            && eligible().any(|one| !tried.contains(&one.address))
    }

    /// Whether a backend that is to get new connections in this service is not to in `after`, which has the same ones.
    #[must_use]
    pub fn loses_eligible(&self, after: &Self) -> bool {
        self.eligible.iter().any(|index| after.eligible.binary_search(index).is_err())
    }

    /// Where a connection may go that could not be established to any eligible backend; `acceptable` says which ones it
    /// has not been to.
    #[must_use]
    pub fn spare(&self, acceptable: impl Fn(&Backend) -> bool) -> Vec<u32> {
        spare(&self.backends, acceptable)
    }

    /// The weight of a backend of this service for its algorithm, in the same units for all backends.
    #[must_use]
    pub fn effective_weight(&self, backend: &Backend) -> u32 {
        // Round robin takes weights for all the same.
        let weight = if self.settings.algorithm == Algorithm::Rr { 1 } else { u32::from(backend.weight) };
        weight * u32::from(backend.warmth)
    }

    /// How one of the eligible backends is chosen.
    ///
    /// Made at the first call, as a Maglev table takes milliseconds and one step can change many backends of a service in
    /// turn. The step calls this when it is done, so that no pick has to wait.
    pub fn chooser(&self) -> &Chooser {
        self.chooser.get_or_init(|| {
            let eligible = || self.eligible.iter().filter_map(|&index| self.backends.get(index as usize));
            let warming = !self.backends.are_plain() && eligible().any(|backend| backend.warmth < WARM);
            // Most of the time all are warm: then weights stay as small as they were given.
            let unit = if warming { 1 } else { u32::from(WARM) };
            let weights = eligible().map(|backend| (backend.address, self.effective_weight(backend) / unit));
            Chooser::new(self.settings.algorithm, weights, warming, self.size_before)
        })
    }

    /// This service with what is known of its backends by now. Those that are not named, or are others by now, keep theirs.
    #[must_use]
    pub fn with_conditions(&self, conditions: &[Condition]) -> Self {
        let mut service = self.to_change();
        let conditions: HashMap<_, _> = conditions.iter().map(|condition| (&condition.identity, condition)).collect();
        for (index, backend) in self.backends.iter().enumerate() {
            if let Some(Condition { health, warmth, .. }) = conditions.get(&backend.identity) {
                service.backends.set(index, Backend { health: *health, warmth: *warmth, ..backend.clone() });
            }
        }
        service.find_eligible();
        service
    }

    /// Has the processor fetch what is going to be touched when a copy's backend with that address is changed.
    pub(super) fn fetch_for(&self, address: IpAddr) {
        self.description.fetch();
        self.backends.fetch_for(address);
    }

    /// A copy to change the backends of. It has nobody eligible until they are [found](Self::find_eligible).
    pub(super) fn to_change(&self) -> Self {
        Self {
            description: self.description.clone(),
            backends: self.backends.clone(),
            eligible: Cow::default(),
            chooser: OnceLock::new(),
            size_before: self.maglev_size(),
        }
    }

    /// Adds the backend or changes the one with its address. Who is eligible is to be [found](Self::find_eligible) then.
    pub(super) fn put_backend(&mut self, spec: &BackendSpec) {
        let starts_cold = slow_start::is_on(&self.settings);
        match self.backends.find(spec.address) {
            Some((index, before)) => {
                let backend = put(spec, Some(before), starts_cold);
                self.backends.set(index, backend);
            }
            None => self.backends.push(put(spec, None, starts_cold)),
        }
    }

    /// Takes the backend away; `None` if there is none with that address. Who is eligible is to be
    /// [found](Self::find_eligible) then.
    pub(super) fn remove_backend(&mut self, address: IpAddr) -> Option<Backend> {
        let (index, _) = self.backends.find(address)?;
        self.backends.swap_remove(index)
    }

    /// Finds the backends that a new connection may go to, once they are not changed any more.
    pub(super) fn find_eligible(&mut self) {
        self.eligible = eligible(&self.backends, &self.settings);
    }

    /// The size of the Maglev table, or of the last one if this one is not made yet; 0 if there is none.
    fn maglev_size(&self) -> u32 {
        match self.chooser.get() {
            Some(Chooser::Maglev(table)) => table.size(),
            Some(_) => 0,
            None => self.size_before,
        }
    }
}

/// What is known of a backend at a time.
#[derive(Debug, Clone)]
pub struct Condition {
    /// The backend.
    pub identity: SharedIdentity,
    /// See [`Backend::health`].
    pub health: Health,
    /// See [`Backend::warmth`].
    pub warmth: u8,
}

/// A backend as `spec` says, with the past of the one that it was before. With `starts_cold` its share begins small if it
/// could not be used before.
fn put(spec: &BackendSpec, before: Option<&Backend>, starts_cold: bool) -> Backend {
    let identity = before.map(|before| before.identity.clone()).unwrap_or_default();
    let mut backend = Backend::new(spec, identity);
    if let Some(before) = before {
        (backend.health, backend.warmth) = (before.health, before.warmth);
    }
    if starts_cold && backend.is_usable() && !before.is_some_and(Backend::is_usable) {
        backend.warmth = slow_start::COLD;
    }
    backend
}
