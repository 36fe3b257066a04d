//! What is known of all backends of a network beside the table, and what it means for the table.
//!
//! The control thread tells the keeper what happens: that services changed, that a backend could not be reached, how a check
//! ended, that time passed. Each time the keeper says what is different now of which backends; the control thread puts that
//! into the table. So the table holds the result, and a pick needs neither this nor a clock.
//!
//! What is known belongs to a backend's identity: it outlives tables, and ends when the backend is taken away.

use super::checks::Checks;
use super::ejection::{Ejections, most_ejected};
use super::slow_start;
use crate::control::message::Statistics;
use crate::control::settings::HealthCheck;
use crate::table::{Backend, Condition, Health, Service, SharedIdentity, Table, WARM};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of the backends of a network.
#[derive(Debug, Default)]
pub struct Keeper {
    services: HashMap<Arc<str>, Known>,
    /// When something is due at a service.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// When a check is due, unless it is under way.
    checks: BTreeSet<(Instant, Arc<str>, IpAddr)>,
}

/// A check to be made.
#[derive(Debug, Clone)]
pub struct CheckOrder {
    /// The service's name.
    pub service: Arc<str>,
    /// The backend's address.
    pub address: IpAddr,
    /// What to do.
    pub check: Arc<HealthCheck>,
    identity: SharedIdentity,
    began: Instant,
}

/// What is known of a service's backends.
#[derive(Debug, Default)]
struct Known {
    backends: HashMap<IpAddr, State>,
    due: Option<Instant>,
    /// The checks that are made now, if any.
    check: Option<Arc<HealthCheck>>,
}

/// What is known of a backend.
#[derive(Debug)]
struct State {
    identity: SharedIdentity,
    ejections: Ejections,
    ejected_at: Option<Instant>,
    checks: Checks,
    check: NextCheck,
    /// Since when its share rises.
    warming_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextCheck {
    None,
    At(Instant),
    UnderWay,
}

impl Keeper {
    /// Looks at a service that was changed, or at which something is due. Gives what is different now from what `table` says.
    #[must_use]
    pub fn review(&mut self, table: &Table, name: &str, now: Instant, random: &mut fastrand::Rng) -> Vec<Condition> {
        let Some(service) = table.service(name) else {
            self.forget(name);
            return Vec::new();
        };
        let unremarkable = |backend: &Backend| backend.health == Health::Healthy && backend.warmth == WARM;
        if !service.settings.health_check.is_on()
            && !self.services.contains_key(name)
            // Most often so, and known without a look at each of them.
            && (service.backends().are_plain() || service.backends().iter().all(unremarkable))
        {
            return Vec::new();
        }
        let name = Arc::clone(&service.name);
        let known = self.services.entry(Arc::clone(&name)).or_default();
        known.follow(service, &mut self.checks);
        known.schedule_checks(service, &mut self.checks, now, random);
        known.end_ejections(service, now);
        let conditions = known.conditions(service, now);
        known.drop_unremarkable();

        let due = known.next_change(service, now);
        if known.due != due {
            if let Some(before) = known.due {
                self.due.remove(&(before, Arc::clone(&name)));
            }
            known.due = due;
            self.due.extend(due.map(|due| (due, Arc::clone(&name))));
        }
        if known.backends.is_empty() {
            self.forget(&name);
        }
        conditions
    }

    /// Takes note that a backend could not be reached as often in a row as its service allows. True if it is ejected now:
    /// then the service is to be [reviewed](Self::review).
    pub fn suspect(
        &mut self,
        table: &Table,
        name: &str,
        identity: &SharedIdentity,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> bool {
        // Whatever comes of it, the next failures count anew.
        identity.forgive();
        let Some(service) = table.service(name) else { return false };
        let settings = &service.settings.ejection;
        let Some(backend) = service.backends().iter().find(|backend| backend.identity == *identity) else {
            return false;
        };
        // One that is left out already gets connections in panic only, and what becomes of those changes nothing.
        if !settings.is_on() || !backend.is_healthy() {
            return false;
        }
        let usable = service.backends().iter().filter(|backend| backend.is_usable()).count();
        let states = self.services.get(name).into_iter().flat_map(|known| known.backends.values());
        let ejected = states.filter(|state| state.ejections.until().is_some()).count();
        if ejected >= most_ejected(usable, settings) {
            return false;
        }
        let state = self.services.entry(Arc::clone(&service.name)).or_default().state_of(backend);
        state.ejections.begin(settings, now, random.f64());
        state.ejected_at = Some(now);
        true
    }

    /// Checks to be made now, at most so many. Each one's end must be told by [`Self::checked`].
    #[must_use]
    pub fn checks_due(&mut self, now: Instant, at_most: usize) -> Vec<CheckOrder> {
        let mut orders = Vec::new();
        while orders.len() < at_most && self.next_check().is_some_and(|next| next <= now) {
            let Some((_, service, address)) = self.checks.pop_first() else { break };
            let Some(known) = self.services.get_mut(&service) else { continue };
            let (Some(state), Some(check)) = (known.backends.get_mut(&address), &known.check) else { continue };
            state.check = NextCheck::UnderWay;
            let (identity, check) = (state.identity.clone(), Arc::clone(check));
            orders.push(CheckOrder { service, address, check, identity, began: now });
        }
        orders
    }

    /// Takes note of how a check ended; `None` if it could not be made. True if the service is to be
    /// [reviewed](Self::review).
    pub fn checked(
        &mut self,
        order: &CheckOrder,
        passed: Option<bool>,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> bool {
        let Some(known) = self.services.get_mut(&order.service) else { return false };
        let check = known.check.clone();
        let Some(state) = known.backends.get_mut(&order.address) else { return false };
        if state.identity != order.identity || state.check != NextCheck::UnderWay {
            return false;
        }
        state.check = NextCheck::None;
        // Without checks, or with others, this one says nothing any more.
        let Some(check) = check.filter(|check| Arc::ptr_eq(check, &order.check)) else { return true };
        // Plus or minus a tenth, so that checks which came together part.
        let pause = check.interval.0.mul_f64(0.9 + 0.2 * random.f64());
        state.check = NextCheck::At(now + pause);
        self.checks.insert((now + pause, Arc::clone(&order.service), order.address));
        let Some(passed) = passed else { return false };
        let before = state.checks.is_unhealthy();
        state.checks.note(passed, &check);
        let after = state.checks.is_unhealthy();
        // One that began before the ejection may have seen the backend as it was then.
        let pardoned = passed && !after && state.ejected_at.is_some_and(|since| since <= order.began);
        if pardoned {
            state.end_ejection(now);
        }
        before != after || pardoned
    }

    /// A service at which something is due now, to be [reviewed](Self::review).
    #[must_use]
    pub fn next_due(&mut self, now: Instant) -> Option<Arc<str>> {
        if self.due.first().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        let (_, name) = self.due.pop_first()?;
        if let Some(known) = self.services.get_mut(&name) {
            known.due = None;
        }
        Some(name)
    }

    /// When something is due at a service.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// When a check is due.
    #[must_use]
    pub fn next_check(&self) -> Option<Instant> {
        self.checks.first().map(|(due, ..)| *due)
    }

    /// The names of all services that something is known of.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.services.keys().cloned().collect()
    }

    /// Adds what is known to the table's part of the statistics.
    pub fn complete(&self, statistics: &mut Statistics, now: Instant) {
        for service in &mut statistics.services {
            let Some(known) = self.services.get(service.name.as_str()) else { continue };
            for backend in &mut service.backends {
                let Some(state) = known.backends.get(&backend.address) else { continue };
                let left = state.ejections.until().map(|until| until.saturating_duration_since(now));
                backend.ejected_for_ms = left.map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                backend.ejections = state.ejections.count();
                backend.check_failures = state.checks.failures();
            }
        }
    }

    fn forget(&mut self, name: &str) {
        let Some((name, known)) = self.services.remove_entry(name) else { return };
        if let Some(due) = known.due {
            self.due.remove(&(due, Arc::clone(&name)));
        }
        for (address, state) in known.backends {
            if let NextCheck::At(at) = state.check {
                self.checks.remove(&(at, Arc::clone(&name), address));
            }
        }
    }
}

impl Known {
    /// Forgets backends that are gone, and what was said by checks that are not made any more.
    fn follow(&mut self, service: &Service, checks: &mut BTreeSet<(Instant, Arc<str>, IpAddr)>) {
        let there: HashMap<_, _> =
            service.backends().iter().map(|backend| (backend.address, &backend.identity)).collect();
        let mut drop_check = |address: IpAddr, state: &mut State| {
            if let NextCheck::At(at) = state.check {
                checks.remove(&(at, Arc::clone(&service.name), address));
                state.check = NextCheck::None;
            }
        };
        self.backends.retain(|address, state| {
            let stays = there.get(address).is_some_and(|identity| **identity == state.identity);
            if !stays {
                drop_check(*address, state);
            }
            stays
        });
        let wanted = &service.settings.health_check;
        if self.check.as_deref() != Some(wanted).filter(|check| check.is_on()) {
            self.check = wanted.is_on().then(|| Arc::new(wanted.clone()));
            for (address, state) in &mut self.backends {
                drop_check(*address, state);
                state.checks.reset();
            }
        }
    }

    /// Sees to it that usable backends are checked and others are not: how those are matters only when they come back.
    fn schedule_checks(
        &mut self,
        service: &Service,
        checks: &mut BTreeSet<(Instant, Arc<str>, IpAddr)>,
        now: Instant,
        random: &mut fastrand::Rng,
    ) {
        let Some(check) = self.check.clone() else { return };
        for backend in service.backends() {
            let key = |at| (at, Arc::clone(&service.name), backend.address);
            if backend.is_usable() {
                let state = self.state_of(backend);
                if state.check == NextCheck::None {
                    // Anywhere within the interval, so that not all are checked at once.
                    let at = now + check.interval.0.mul_f64(random.f64());
                    state.check = NextCheck::At(at);
                    checks.insert(key(at));
                }
            } else if let Some(state) = self.backends.get_mut(&backend.address) {
                if let NextCheck::At(at) = state.check {
                    checks.remove(&key(at));
                }
                state.check = NextCheck::None;
            }
        }
    }

    /// Ends ejections whose time is over, whose reason is gone, or that are too many by now.
    fn end_ejections(&mut self, service: &Service, now: Instant) {
        let settings = &service.settings.ejection;
        let mut ejected = Vec::new();
        for backend in service.backends() {
            let Some(state) = self.backends.get_mut(&backend.address) else { continue };
            let Some(until) = state.ejections.until() else { continue };
            if until <= now || !settings.is_on() || !backend.is_usable() {
                state.end_ejection(now);
            } else {
                ejected.push((until, backend.address));
            }
        }
        let usable = service.backends().iter().filter(|backend| backend.is_usable()).count();
        let too_many = ejected.len().saturating_sub(most_ejected(usable, settings));
        ejected.sort_unstable();
        for (_, address) in ejected.into_iter().take(too_many) {
            if let Some(state) = self.backends.get_mut(&address) {
                state.end_ejection(now);
            }
        }
    }

    /// What is different from what the table says.
    fn conditions(&mut self, service: &Service, now: Instant) -> Vec<Condition> {
        let whole = service.settings.slow_start.0;
        let mut conditions = Vec::new();
        for backend in service.backends() {
            let health = self.backends.get(&backend.address).map_or(Health::Healthy, State::health);
            let returns = health == Health::Healthy && backend.health != Health::Healthy;
            let warms = health == Health::Healthy && backend.is_usable() && !whole.is_zero();
            let warmth = if !warms {
                if let Some(state) = self.backends.get_mut(&backend.address) {
                    state.warming_since = None;
                }
                WARM
            } else if returns || backend.warmth < WARM {
                let state = self.state_of(backend);
                let since = match state.warming_since {
                    Some(since) if !returns => since,
                    _ => *state.warming_since.insert(now),
                };
                let warmth = slow_start::warmth(now.saturating_duration_since(since), whole);
                if warmth == WARM {
                    state.warming_since = None;
                }
                warmth
            } else {
                WARM
            };
            if (health, warmth) != (backend.health, backend.warmth) {
                conditions.push(Condition { identity: backend.identity.clone(), health, warmth });
            }
        }
        conditions
    }

    fn next_change(&self, service: &Service, now: Instant) -> Option<Instant> {
        let whole = service.settings.slow_start.0;
        self.backends.values().flat_map(|state| [state.ejections.until(), state.next_step(whole, now)]).flatten().min()
    }

    fn drop_unremarkable(&mut self) {
        self.backends.retain(|_, state| state.is_remarkable());
    }

    fn state_of(&mut self, backend: &Backend) -> &mut State {
        self.backends.entry(backend.address).or_insert_with(|| State::new(&backend.identity))
    }
}

impl State {
    fn new(identity: &SharedIdentity) -> Self {
        Self {
            identity: identity.clone(),
            ejections: Ejections::default(),
            ejected_at: None,
            checks: Checks::default(),
            check: NextCheck::None,
            warming_since: None,
        }
    }

    fn health(&self) -> Health {
        if self.checks.is_unhealthy() {
            Health::Unhealthy
        } else if self.ejections.until().is_some() {
            Health::Ejected
        } else {
            Health::Healthy
        }
    }

    fn end_ejection(&mut self, now: Instant) {
        self.ejections.end(now);
        self.ejected_at = None;
        // Connections that were under way when it began have failed since.
        self.identity.forgive();
    }

    /// When the next step of a rising share is due.
    fn next_step(&self, whole: Duration, now: Instant) -> Option<Instant> {
        let since = self.warming_since?;
        slow_start::next_step(now.saturating_duration_since(since), whole).map(|step| since + step)
    }

    fn is_remarkable(&self) -> bool {
        self.check != NextCheck::None
            || self.checks.is_unhealthy()
            || self.checks.failures() > 0
            || self.ejections.count() > 0
            || self.warming_since.is_some()
    }
}

#[cfg(test)]
mod tests;
