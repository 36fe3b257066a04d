//! Everything that was observed, put together. Pure: the time is handed in.
//!
//! What there is to say is derived from the latest observations each time; only where these are silent does the past
//! count: a backend that vanished without having drained is suspended for the [hold-down](HOLD_DOWN), as the cause may be a
//! partition, and then forgotten.

mod network;
mod outcome;

pub(super) use outcome::Outcome;

use super::facts::{Facts, ServiceFacts};
use super::labels::{self, Labels};
use super::sandbox_files::SandboxFile;
use super::view::{Cluster, InspectedNetwork, ListedNetwork, TaskPhase};
use network::NetworkMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what has vanished is kept in suspense.
pub(super) const HOLD_DOWN: Duration = Duration::from_secs(30);

/// How long an Engine that has just started may not know yet what it knew before: until then what it does not list goes
/// on as it was.
pub(super) const START: Duration = Duration::from_secs(3);

/// How long an answer of the DNS counts when no other comes.
pub(super) const ANSWER_LIFE: Duration = Duration::from_secs(3);

/// What a manager says, in the one form that matters: from the own Engine, or from another node.
#[derive(Debug, Default)]
struct Told {
    services: BTreeMap<String, ToldService>,
    /// When it was asked for, at the latest.
    at: Option<Instant>,
    /// The phases of all tasks, if they are told too.
    tasks: Option<BTreeMap<String, TaskPhase>>,
}

#[derive(Debug)]
struct ToldService {
    facts: ServiceFacts,
    labels: Labels,
    vips: BTreeMap<String, IpAddr>,
}

/// Everything that was observed.
#[derive(Debug)]
pub(super) struct State {
    networks: BTreeMap<String, NetworkMemory>,
    told: Told,
    /// When the Engine was met last.
    started: Option<Instant>,
    ended: Ended,
}

/// Tasks that are known to have ended, by id, and since when. They are over on all networks, whatever these still show.
#[derive(Debug, Default)]
struct Ended(BTreeMap<String, Instant>);

impl State {
    /// Nothing was observed.
    pub(super) fn new() -> Self {
        Self { networks: BTreeMap::new(), told: Told::default(), started: None, ended: Ended::default() }
    }

    /// The Engine is there again and may have forgotten what it knew.
    pub(super) fn engine_started(&mut self, now: Instant) {
        self.started = Some(now);
        for network in self.networks.values_mut() {
            network.forget_answers();
        }
    }

    /// The node is in no swarm: there is nothing.
    pub(super) fn left_swarm(&mut self) {
        self.networks.clear();
        self.told = Told::default();
    }

    /// The Engine lists these networks. Those that it does not are gone.
    pub(super) fn listed(&mut self, listed: &[ListedNetwork]) {
        let ids: BTreeSet<_> = listed.iter().map(|network| network.id.as_str()).collect();
        self.networks.retain(|id, _| ids.contains(id.as_str()));
        for network in listed {
            self.networks.entry(network.id.clone()).or_insert_with(|| NetworkMemory::new(network));
        }
    }

    /// A network was inspected: `asked` is when, and `None` is that it is not there.
    pub(super) fn inspected(&mut self, id: &str, asked: Instant, inspected: Option<InspectedNetwork>) {
        match inspected {
            None => {
                self.networks.remove(id);
            }
            Some(inspected) => {
                if let Some(network) = self.networks.get_mut(id) {
                    network.inspected(asked, inspected);
                }
            }
        }
    }

    /// A network's sandbox is this one now, or there is none.
    pub(super) fn sandbox(&mut self, id: &str, now: Instant, sandbox: Option<SandboxFile>) {
        if let Some(network) = self.networks.get_mut(id) {
            network.sandbox(now, sandbox);
        }
    }

    /// The DNS of a network's sandbox was asked for a service's tasks at `asked`; `None` is that it does not say.
    ///
    /// Gives whether the answer is another than before.
    pub(super) fn answered(
        &mut self,
        id: &str,
        service: &str,
        asked: Instant,
        addresses: Option<BTreeSet<IpAddr>>,
    ) -> bool {
        self.networks.get_mut(id).is_some_and(|network| network.answered(service, asked, addresses))
    }

    /// This node is a manager, and was asked at `asked`.
    pub(super) fn cluster(&mut self, asked: Instant, cluster: Cluster) {
        let services = cluster.services.into_iter().map(|service| {
            let labels = labels::read(&service.facts.labels);
            (service.facts.name.clone(), ToldService { facts: service.facts, labels, vips: service.vips })
        });
        self.told = Told { services: services.collect(), at: Some(asked), tasks: Some(cluster.tasks) };
    }

    /// The task's container has ended on this node.
    pub(super) fn task_ended(&mut self, now: Instant, task: String) {
        self.ended.add(now, task);
    }

    /// Another node's manager says this; it came at `now`. `None` is that nobody says anything any more.
    pub(super) fn facts(&mut self, now: Instant, facts: Option<&Arc<Facts>>) {
        // What was told once is better than nothing: labels stay when their teller goes.
        let Some(facts) = facts else {
            self.told.at = None;
            self.told.tasks = None;
            return;
        };
        let services = facts.services.iter().map(|facts| {
            let labels = labels::read(&facts.labels);
            (facts.name.clone(), ToldService { facts: facts.clone(), labels, vips: BTreeMap::new() })
        });
        self.told = Told { services: services.collect(), at: Some(now), tasks: None };
    }

    /// What managers say of services.
    pub(super) fn known_facts(&self) -> Facts {
        Facts { services: self.told.services.values().map(|service| service.facts.clone()).collect() }
    }

    /// The networks, by id, and whether they are ingress ones.
    pub(super) fn networks(&self) -> impl Iterator<Item = (&str, bool)> {
        self.networks.iter().map(|(id, network)| (id.as_str(), network.ingress))
    }

    /// Whether published ports arrive by that network.
    pub(super) fn is_ingress(&self, id: &str) -> bool {
        self.networks.get(id).is_some_and(|network| network.ingress)
    }

    /// The sandbox of a network.
    pub(super) fn sandbox_of(&self, id: &str) -> Option<&SandboxFile> {
        self.networks.get(id)?.sandbox.as_ref()
    }

    /// The services that a network was seen to have in its last inspection, with their VIPs: those that its DNS knows. That
    /// of an ingress network knows none.
    pub(super) fn listed_services(&self, id: &str) -> impl Iterator<Item = (&str, IpAddr)> {
        let network = self.networks.get(id).filter(|network| !network.ingress);
        network.into_iter().flat_map(|network| {
            let listed = network.services.iter().filter(|(_, service)| service.listed);
            listed.map(|(name, service)| (name.as_str(), service.vip))
        })
    }

    /// Whether all that has a sandbox has been inspected, and all that has a DNS was answered or not.
    pub(super) fn is_complete(&self) -> bool {
        let mut networks = self.networks.values().filter(|network| network.sandbox.is_some());
        networks.all(NetworkMemory::is_complete)
    }

    /// What there is to say now.
    pub(super) fn derive(&mut self, now: Instant) -> Outcome {
        let mut deadline = Deadline::default();
        // What has come to its end on one network has on all: the others may be looked at later.
        for (id, network) in &mut self.networks {
            network.settle(id, &self.told, self.started, now, &mut self.ended, &mut deadline);
        }
        let draining: BTreeSet<String> =
            self.networks.values().flat_map(NetworkMemory::tasks_drained_by_name).map(str::to_owned).collect();
        for network in self.networks.values_mut() {
            network.drain_elsewhere(&draining, &self.ended);
        }
        self.ended.forget(now, &self.networks);
        outcome::derive(&self.networks, &self.told, self.started, now, deadline)
    }
}

impl Ended {
    fn add(&mut self, now: Instant, task: String) {
        if !task.is_empty() {
            self.0.entry(task).or_insert(now);
        }
    }

    fn has(&self, task: &str) -> bool {
        self.0.contains_key(task)
    }

    /// Forgets the tasks that nothing shows any more, after a while: what is asked for now may still show one.
    fn forget(&mut self, now: Instant, networks: &BTreeMap<String, NetworkMemory>) {
        self.0
            .retain(|task, since| now < *since + HOLD_DOWN || networks.values().any(|network| network.has_task(task)));
    }
}

/// The earliest time at which something changes without an observation.
#[derive(Debug, Default, Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn at(&mut self, time: Instant) {
        self.0 = Some(self.0.map_or(time, |earlier| earlier.min(time)));
    }
}

#[cfg(test)]
mod tests;
