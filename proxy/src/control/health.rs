//! The control thread's part in health: it tells the keeper what happens and puts what that means into the table.

use super::checker;
use super::message::{Change, Request, Statistics};
use crate::health::keeper::Keeper;
use crate::shared::Shared;
use crate::table::{Condition, Health as BackendHealth, Table};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};

/// The most checks that are made at a time; further ones wait. Their descriptors are among those that the limit on
/// connections leaves for other things. A backend that does not answer holds a place for the whole timeout.
const MOST_CHECKS: usize = 32;
/// How long nothing happens at most; only so that there is a time to wait for.
const LONG: Duration = Duration::from_secs(3600);

/// The health of a network's backends. All of it happens on the control thread.
#[derive(Debug)]
pub(super) struct Health {
    shared: Arc<Shared>,
    state: RefCell<(Keeper, fastrand::Rng)>,
    /// Whether something may be due earlier than was known.
    changed: Notify,
    places: Arc<Semaphore>,
}

impl Health {
    /// Starts to follow what data threads find out and what time brings.
    pub(super) fn start(shared: Arc<Shared>) -> Rc<Self> {
        let health = Rc::new(Self {
            shared,
            state: RefCell::default(),
            changed: Notify::new(),
            places: Arc::new(Semaphore::new(MOST_CHECKS)),
        });
        let (one, other) = (Rc::clone(&health), Rc::clone(&health));
        tokio_uring::spawn(async move { one.follow_suspects().await });
        tokio_uring::spawn(async move { other.follow_time().await });
        health
    }

    /// Takes note of a request that changed the table.
    pub(super) fn follow(&self, request: &Request) {
        let before = self.next();
        match request {
            Request::Snapshot(_) => {
                let table = self.shared.table.load_full();
                let known = self.state.borrow().0.names();
                let all: HashSet<_> = table.services().map(|service| Arc::clone(&service.name)).chain(known).collect();
                all.iter().for_each(|name| self.review(name));
            }
            Request::Delta(delta) => {
                let names: HashSet<&str> = delta.changes.iter().map(service_of).collect();
                names.into_iter().for_each(|name| self.review(name));
            }
            Request::Statistics
            | Request::Shutdown
            | Request::AddPort { .. }
            | Request::RemovePort(_)
            | Request::Descriptors
            | Request::Introduce
            | Request::AwaitSessions
            | Request::ReceiveDatagrams
            | Request::Retire { .. }
            | Request::Digests
            | Request::AwaitBusySessions
            | Request::PassSessions(_) => {}
        }
        // Most changes concern no service with something to wait for: they cost no look at the clock.
        if self.next() != before {
            self.changed.notify_one();
        }
    }

    /// Adds what is known here to the statistics.
    pub(super) fn complete(&self, statistics: &mut Statistics) {
        self.state.borrow().0.complete(statistics, Instant::now());
    }

    fn review(&self, name: &str) {
        let table = self.shared.table.load_full();
        let (keeper, random) = &mut *self.state.borrow_mut();
        let conditions = keeper.review(&table, name, Instant::now(), random);
        if !conditions.is_empty() {
            self.shared.note_conditions(name, &conditions);
            self.log(&table, name, &conditions);
        }
    }

    /// Says which backends are well or not from now on.
    fn log(&self, before: &Table, service: &str, conditions: &[Condition]) {
        let network = &self.shared.network;
        let backends = before.service(service).into_iter().flat_map(|service| service.backends());
        let before: HashMap<_, _> = backends.map(|backend| (&backend.identity, backend)).collect();
        for condition in conditions {
            let Some(backend) = before.get(&condition.identity) else { continue };
            let address = backend.address;
            match condition.health {
                same if same == backend.health => {}
                BackendHealth::Healthy => {
                    tracing::info!(%network, service, backend = %address, "a backend is healthy again");
                }
                BackendHealth::Ejected => tracing::warn!(
                    %network, service, backend = %address,
                    "a backend is ejected for a while: it could not be reached several times in a row"
                ),
                BackendHealth::Unhealthy => {
                    tracing::warn!(%network, service, backend = %address, "a backend does not pass its health checks");
                }
            }
        }
    }

    async fn follow_suspects(&self) {
        loop {
            for suspect in self.shared.suspects.take().await {
                let table = self.shared.table.load_full();
                let ejected = {
                    let (keeper, random) = &mut *self.state.borrow_mut();
                    keeper.suspect(&table, &suspect.service, &suspect.identity, Instant::now(), random)
                };
                if ejected {
                    self.review(&suspect.service);
                    self.changed.notify_one();
                }
            }
        }
    }

    async fn follow_time(self: &Rc<Self>) {
        loop {
            let now = Instant::now();
            loop {
                let due = self.state.borrow_mut().0.next_due(now);
                let Some(name) = due else { break };
                self.review(&name);
            }
            self.begin_checks(now);
            let next = self.next().unwrap_or(now + LONG);
            // Either something happens or it is time: both mean to look again.
            let _ = tokio::time::timeout_at(next.into(), self.changed.notified()).await;
        }
    }

    /// When something is due.
    fn next(&self) -> Option<Instant> {
        let (keeper, _) = &*self.state.borrow();
        // Without a free place a check that ends is waited for.
        let check = keeper.next_check().filter(|_| self.places.available_permits() > 0);
        [keeper.next_change(), check].into_iter().flatten().min()
    }

    fn begin_checks(self: &Rc<Self>, now: Instant) {
        let orders = self.state.borrow_mut().0.checks_due(now, self.places.available_permits());
        for order in orders {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
            let health = Rc::clone(self);
            tokio_uring::spawn(async move {
                let passed = checker::check(order.address, &order.check).await;
                drop(place);
                let matters = {
                    let (keeper, random) = &mut *health.state.borrow_mut();
                    keeper.checked(&order, passed, Instant::now(), random)
                };
                if matters {
                    health.review(&order.service);
                }
                health.changed.notify_one();
            });
        }
    }
}

fn service_of(change: &Change) -> &str {
    match change {
        Change::PutService(spec) => &spec.name,
        Change::RemoveService { service }
        | Change::PutBackend { service, .. }
        | Change::RemoveBackend { service, .. } => service,
    }
}
