//! What must be so whatever happens.

use super::connection::Connection;
use super::publish::counted;
use super::world::World;
use crate::balance::Taken;
use crate::control::message::PublishedPort;
use crate::shared::Order;
use crate::table::{Backend, Destination, Health, Identity, Service, SharedIdentity, Table};
use std::net::IpAddr;
use std::sync::Arc;

impl World<'_> {
    /// After every step.
    pub(super) fn check(&self) {
        assert!(self.events.is_empty());
        for identity in &self.identities {
            let here = self.count(|one| is_at(one, |other| std::ptr::eq(other, &**identity)));
            assert_eq!(counted(identity), here, "a backend's count is wrong");
        }
        for service in &self.services {
            let of_it =
                |one: &Connection| one.admitted.as_ref().is_some_and(|held| Arc::ptr_eq(&held.service, service));
            assert_eq!(service.places.taken(), self.count(of_it), "a service's count is wrong");
            let waiting = self.count(|one| of_it(one) && one.waiting.is_some());
            assert_eq!(service.queue.len() as u64, waiting, "the queue is not of those who wait");
        }
        if !self.orders.iter().any(|order| matches!(order, Order::ResetRemoved)) {
            self.check_nobody_left(&Identity::is_removed);
        }
        if self.orders.is_empty() {
            self.check_no_place_is_missed();
        }
    }

    /// After every change of the table: exactly what is in it is not removed, so connections of all else are reset and those
    /// of what stays are not.
    pub(super) fn check_removals(&self) {
        let backends = || self.table.services().flat_map(|service| service.backends());
        for identity in &self.identities {
            let there = backends().any(|backend| backend.identity == *identity);
            assert_eq!(identity.is_removed(), !there, "a backend is in the table and removed, or neither");
        }
    }

    pub(super) fn check_end(&self) {
        assert!(self.identities.iter().all(|identity| counted(identity) == 0));
        assert!(self.services.iter().all(|service| service.places.taken() == 0 && service.queue.is_empty()));
    }

    /// No connection goes on at such a backend: those that are there end, or will go elsewhere.
    pub(super) fn check_nobody_left(&self, wanted: &impl Fn(&Identity) -> bool) {
        for (_, one) in self.connections.iter().filter(|(_, one)| is_at(one, wanted)) {
            assert!(!one.is_relaying(), "a connection is left at a backend that is gone: {one:?}");
            let abandoned = one.backend.as_ref().is_some_and(|attempt| attempt.abandoned);
            assert!(!one.flow.is_connecting() || abandoned, "an attempt goes on at a backend that is gone: {one:?}");
        }
    }

    /// The backend of a drain deadline that is wanted drains, in a service that gives it a deadline.
    pub(super) fn check_drains(&self, identity: &SharedIdentity) {
        let drains = self.table.services().any(|service| {
            let is_it = |backend: &Backend| backend.draining && backend.identity == *identity;
            service.settings.drain_deadline().is_some() && service.backends().iter().any(is_it)
        });
        assert!(drains, "a drain deadline of a backend that does not drain");
    }

    /// Who has waited longest does so because there is no place.
    fn check_no_place_is_missed(&self) {
        for (slot, one) in self.connections.iter().filter(|(_, one)| one.waiting.is_some()) {
            let held = one.admitted.as_ref().unwrap();
            if held.service.queue.first().is_none_or(|(_, waiter)| waiter.slot != slot) {
                continue;
            }
            let (service, _) = self.table.find(&one.target).expect("a connection waits for a service that is gone");
            assert!(Arc::ptr_eq(&held.service, &service.state), "a connection waits for another service");
            assert!(all_are_full(service, &one.tried), "a connection waits beside a free place: {one:?}");
        }
    }

    /// Who came by a published port goes to that port's target, who came by a VIP to the very port.
    pub(super) fn check_port(&mut self, service: &Service, target: &Destination, port: u16) {
        if target.published {
            self.faults.published += 1;
            let is_it = |known: &&PublishedPort| known.published == target.port();
            assert_eq!(service.published.iter().find(is_it).map(|known| known.target), Some(port));
        } else {
            assert!(service.vips.contains(&target.ip()));
            assert_eq!(target.address.port(), port);
        }
    }

    /// Holds what a pick came to against the table that was loaded.
    pub(super) fn check_taken(&mut self, service: &Service, loaded: &Table, tried: &[IpAddr], taken: &Taken<'_>) {
        let untried = |backend: &&Backend| !tried.contains(&backend.address);
        match taken {
            Taken::Backend(backend) => {
                let limit = service.settings.max_connections_per_backend.limit();
                assert!(counted(&backend.identity) <= limit && !backend.identity.is_removed());
                assert!(untried(backend), "a backend is tried twice");
                self.check_eligible(service, backend, tried);
            }
            Taken::Full => assert!(all_are_full(service, tried), "full with a free place"),
            Taken::NoBackend => {
                assert!(eligible(service).all(|backend| !untried(&backend)));
                assert!(!service.backends().iter().filter(untried).any(Backend::is_healthy));
            }
            Taken::Removed => assert!(self.table.generation() > loaded.generation(), "the newest table is not right"),
        }
    }

    /// The rules of eligibility once more, from the side of the backend that was picked.
    fn check_eligible(&mut self, service: &Service, picked: &Backend, tried: &[IpAddr]) {
        assert!(picked.weight > 0 && !picked.draining, "a backend was picked that takes nobody: {picked:?}");
        let of_tier = |backend: &&Backend| backend.backup == picked.backup && backend.is_usable();
        let healthy = |backup: bool| {
            service.backends().iter().filter(move |backend| backend.backup == backup && backend.is_healthy())
        };
        let untried = |backend: &Backend| !tried.contains(&backend.address);
        self.faults.backups += u64::from(picked.backup);
        if !eligible(service).any(|backend| backend.address == picked.address) {
            self.faults.spares += 1;
            assert!(!eligible(service).any(untried), "a spare one was picked beside an eligible one");
            assert!(picked.health == Health::Healthy, "a spare one was picked that is ill");
            assert!(!picked.backup || !healthy(false).any(untried), "a spare backup was picked beside a primary");
            return;
        }
        assert!(!picked.backup || healthy(false).count() == 0, "a backup was picked beside a healthy primary");
        if picked.health != Health::Healthy {
            self.faults.panics += 1;
            let (all, well) = (service.backends().iter().filter(of_tier).count(), healthy(picked.backup).count());
            assert!(well * 100 < all * usize::from(service.settings.panic_threshold.0), "an ill backend was picked");
            assert!(picked.backup || healthy(true).count() == 0, "panic beside healthy backups");
        }
    }

    fn count(&self, wanted: impl Fn(&Connection) -> bool) -> u64 {
        self.connections.iter().filter(|(_, one)| wanted(one)).count() as u64
    }
}

fn is_at(one: &Connection, wanted: impl Fn(&Identity) -> bool) -> bool {
    one.backend.as_ref().is_some_and(|attempt| wanted(&attempt.identity))
}

fn eligible(service: &Service) -> impl Iterator<Item = &Backend> {
    service.eligible().iter().map(|&index| &service.backends()[index as usize])
}

fn all_are_full(service: &Service, tried: &[IpAddr]) -> bool {
    let limit = service.settings.max_connections_per_backend.limit();
    eligible(service).all(|backend| tried.contains(&backend.address) || backend.identity.is_full(limit))
}
