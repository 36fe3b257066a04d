//! What is remembered of one network.

use super::{ANSWER_LIFE, Deadline, Ended, HOLD_DOWN, START, Told};
use crate::model::Families;
use crate::source::docker::sandbox_files::SandboxFile;
use crate::source::docker::view::{InspectedNetwork, InspectedPort, ListedNetwork, TaskPhase};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

/// A network.
#[derive(Debug)]
pub(super) struct NetworkMemory {
    pub(super) name: String,
    pub(super) ingress: bool,
    pub(super) subnet: Families<IpNet>,
    pub(super) lb_address: Families<IpAddr>,
    pub(super) sandbox: Option<SandboxFile>,
    /// When it lost its sandbox; none if it never had one.
    without_sandbox_since: Option<Instant>,
    pub(super) services: BTreeMap<String, ServiceMemory>,
    inspected: Option<Instant>,
}

/// A service on a network.
#[derive(Debug)]
pub(super) struct ServiceMemory {
    pub(super) vip: IpAddr,
    pub(super) ports: Vec<InspectedPort>,
    /// Whether the last inspection showed it.
    pub(super) listed: bool,
    /// Since when it has this VIP, or is listed again.
    pub(super) since: Instant,
    pub(super) tasks: BTreeMap<IpAddr, TaskMemory>,
    vanished: Option<Instant>,
    answer: Option<Answer>,
    /// Whether the DNS was asked since it is listed, and has answered or not.
    tried: bool,
}

#[derive(Debug)]
struct Answer {
    asked: Instant,
    addresses: BTreeSet<IpAddr>,
    /// Since when there is no newer answer although one was asked for.
    silent_since: Option<Instant>,
}

/// An address that serves it.
#[derive(Debug)]
pub(super) struct TaskMemory {
    /// Empty while only the DNS has shown it.
    pub(super) id: String,
    pub(super) local: bool,
    /// Whether it gets no new connections.
    pub(super) draining: bool,
    /// Since when it is listed, or is there without being.
    pub(super) since: Instant,
    /// Whether the last inspection showed it.
    pub(super) listed: bool,
    /// Since when the DNS has not named it.
    unnamed: Option<Instant>,
    /// Whether it was listed while the DNS did not name it any more: then it has stopped, and is not cut off.
    drained: bool,
    /// Since when nobody has shown it.
    missing: Option<Instant>,
}

impl NetworkMemory {
    pub(super) fn new(listed: &ListedNetwork) -> Self {
        Self {
            name: listed.name.clone(),
            ingress: listed.ingress,
            subnet: Families::default(),
            lb_address: Families::default(),
            sandbox: None,
            without_sandbox_since: None,
            services: BTreeMap::new(),
            inspected: None,
        }
    }

    pub(super) fn inspected(&mut self, asked: Instant, inspected: InspectedNetwork) {
        if self.inspected.is_some_and(|earlier| earlier > asked) {
            return;
        }
        self.inspected = Some(asked);
        self.name = inspected.name;
        self.subnet = inspected.subnet;
        if !inspected.lb_address.is_empty() {
            self.lb_address = inspected.lb_address;
        }
        // An address belongs to whoever has it now.
        for (name, service) in &mut self.services {
            service.tasks.retain(|address, _| {
                let elsewhere = inspected
                    .services
                    .iter()
                    .any(|(other, service)| other != name && service.tasks.contains_key(address));
                let here = inspected.services.get(name).is_some_and(|service| service.tasks.contains_key(address));
                here || !elsewhere
            });
        }
        for (name, service) in &mut self.services {
            if !inspected.services.contains_key(name) {
                service.vanish(asked);
            }
        }
        for (name, now) in inspected.services {
            let service = self.services.entry(name).or_insert_with(|| ServiceMemory::new(now.vip, asked));
            if service.vip != now.vip || !service.listed {
                service.since = asked;
                service.tried = false;
            }
            service.vip = now.vip;
            // The ports come from tasks: while there is none they are as they were.
            if !now.ports.is_empty() || !now.tasks.is_empty() {
                service.ports = now.ports;
            }
            service.listed = true;
            service.vanished = None;
            for (address, task) in &mut service.tasks {
                task.listed = now.tasks.contains_key(address);
            }
            for (address, task) in now.tasks {
                let memory = service.tasks.entry(address).or_insert_with(|| TaskMemory::new(asked));
                if memory.id != task.id && !memory.id.is_empty() {
                    // Another task has got the address: what was known of the one before does not count.
                    *memory = TaskMemory::new(asked);
                }
                if memory.missing.is_some() {
                    memory.since = asked;
                    memory.unnamed = None;
                }
                memory.drained |= memory.unnamed.is_some_and(|unnamed| unnamed < asked);
                memory.id = task.id;
                memory.local = task.local;
                memory.listed = true;
                memory.missing = None;
            }
        }
    }

    pub(super) fn sandbox(&mut self, now: Instant, sandbox: Option<SandboxFile>) {
        if sandbox.is_none() && self.sandbox.is_some() {
            self.without_sandbox_since = Some(now);
        }
        let identity = |sandbox: &Option<SandboxFile>| sandbox.as_ref().map(|sandbox| sandbox.identity);
        if identity(&sandbox) != identity(&self.sandbox) {
            self.forget_answers();
            // With a new sandbox may come a new address: only an inspection from now on tells.
            self.lb_address = Families::default();
            self.inspected = None;
        }
        if sandbox.is_some() {
            self.without_sandbox_since = None;
        }
        self.sandbox = sandbox;
    }

    pub(super) fn forget_answers(&mut self) {
        for service in self.services.values_mut() {
            service.tried = false;
            if let Some(answer) = &mut service.answer {
                answer.silent_since.get_or_insert(answer.asked);
            }
        }
    }

    pub(super) fn answered(&mut self, service: &str, asked: Instant, addresses: Option<BTreeSet<IpAddr>>) -> bool {
        // An address that another service is seen to have is a remainder.
        let others: BTreeSet<IpAddr> = self
            .services
            .iter()
            .filter(|(name, _)| *name != service)
            .flat_map(|(_, other)| other.tasks.iter().filter(|(_, task)| task.listed).map(|(address, _)| *address))
            .collect();
        let Some(service) = self.services.get_mut(service) else { return false };
        let first = !std::mem::replace(&mut service.tried, true);
        let Some(addresses) = addresses else {
            if let Some(answer) = &mut service.answer {
                answer.silent_since.get_or_insert(asked);
            }
            return first;
        };
        if service.answer.as_ref().is_some_and(|answer| answer.asked > asked) {
            return first;
        }
        let mut changed = first;
        for (address, task) in &mut service.tasks {
            if addresses.contains(address) {
                changed |= task.unnamed.take().is_some() || task.missing.is_some();
                task.drained = false;
                task.missing = None;
            } else if asked >= task.since && task.unnamed.is_none() {
                task.unnamed = Some(asked);
                changed = true;
            }
        }
        for address in &addresses {
            if !others.contains(address) && !service.tasks.contains_key(address) {
                service.tasks.insert(*address, TaskMemory::new(asked));
                changed = true;
            }
        }
        service.answer = Some(Answer { asked, addresses, silent_since: None });
        changed
    }

    pub(super) fn is_complete(&self) -> bool {
        let answered = self.ingress || self.services.values().all(|service| service.tried || !service.listed);
        self.inspected.is_some() && answered
    }

    /// Brings all tasks into the condition that they are in now, and forgets what is over.
    pub(super) fn settle(
        &mut self,
        id: &str,
        told: &Told,
        started: Option<Instant>,
        now: Instant,
        ended: &mut Ended,
        deadline: &mut Deadline,
    ) {
        let starting = started.map(|started| started + START).filter(|until| now < *until);
        if let Some(until) = starting {
            deadline.at(until);
        }
        let held = |since: Instant| held(since, started);
        if let Some(end) = self.held_without_sandbox(started).filter(|end| now < *end) {
            deadline.at(end);
        }
        self.services.retain(|name, service| {
            service.settle_answer(now, deadline);
            let told_service = told.services.get(name);
            // Only of what is there for longer than the list can it be said that it is not in it.
            let removed = !service.listed
                && told_service.is_none()
                && told.at.is_some_and(|at| service.vanished.is_some_and(|vanished| at >= vanished));
            if removed {
                return false;
            }
            let answer = service.answer.as_ref();
            service.tasks.retain(|address, task| {
                let phase = task.phase(told);
                let over = phase == Some(TaskPhase::Over) || ended.has(&task.id);
                let stopping = over || phase == Some(TaskPhase::Stopping);
                if answer.is_some_and(|answer| answer.addresses.contains(address)) {
                    task.missing = None;
                    task.draining = stopping;
                    return true;
                }
                if task.listed {
                    task.missing = None;
                    task.draining = stopping || answer.is_some() && task.unnamed.is_some();
                    return true;
                }
                let missing = *task.missing.get_or_insert(now);
                if over || task.drained {
                    ended.add(now, task.id.clone());
                    return false;
                }
                if now >= held(missing) {
                    return false;
                }
                if starting.is_none() {
                    task.draining = true;
                }
                deadline.at(held(missing));
                true
            });
            // A service without tasks vanishes from the Engine's sight, and its VIP is still its own.
            let promised = told_service.is_some_and(|told| told.vips.get(id) == Some(&service.vip));
            if service.listed || promised || !service.tasks.is_empty() {
                return true;
            }
            let Some(vanished) = service.vanished else { return false };
            let kept = now < held(vanished);
            if kept {
                deadline.at(held(vanished));
            }
            kept
        });
    }

    /// Until when the network stays although it has no sandbox; nothing if it has one, or never had.
    pub(super) fn held_without_sandbox(&self, started: Option<Instant>) -> Option<Instant> {
        self.without_sandbox_since.map(|since| held(since, started))
    }

    /// The tasks that are to get no more connections, by what the DNS says.
    pub(super) fn tasks_drained_by_name(&self) -> impl Iterator<Item = &str> {
        let tasks = self.services.values().flat_map(|service| service.tasks.values());
        tasks.filter(|task| task.draining && task.unnamed.is_some() && !task.id.is_empty()).map(|task| task.id.as_str())
    }

    /// A task drains on all of its networks, also on those without a DNS that says so.
    pub(super) fn drain_elsewhere(&mut self, draining: &BTreeSet<String>, ended: &Ended) {
        for task in self.services.values_mut().flat_map(|service| service.tasks.values_mut()) {
            task.draining |= self.ingress && draining.contains(&task.id) || ended.has(&task.id);
        }
    }

    pub(super) fn has_task(&self, id: &str) -> bool {
        self.services.values().flat_map(|service| service.tasks.values()).any(|task| task.id == id)
    }
}

/// Until when what is missing since then is kept in suspense: an Engine that was met only later has had no more time than
/// since it was.
fn held(since: Instant, started: Option<Instant>) -> Instant {
    started.map_or(since, |started| started.max(since)) + HOLD_DOWN
}

impl ServiceMemory {
    fn new(vip: IpAddr, now: Instant) -> Self {
        Self {
            vip,
            ports: Vec::new(),
            listed: false,
            since: now,
            tasks: BTreeMap::new(),
            vanished: None,
            answer: None,
            tried: false,
        }
    }

    fn vanish(&mut self, now: Instant) {
        self.listed = false;
        self.vanished.get_or_insert(now);
        for task in self.tasks.values_mut() {
            task.listed = false;
        }
        // Its name is not asked for any more.
        if let Some(answer) = &mut self.answer {
            answer.silent_since.get_or_insert(now);
        }
    }

    /// An old answer is none.
    fn settle_answer(&mut self, now: Instant, deadline: &mut Deadline) {
        let Some(answer) = &self.answer else { return };
        let Some(silent) = answer.silent_since else { return };
        let end = silent + ANSWER_LIFE;
        if now < end {
            deadline.at(end);
            return;
        }
        self.answer = None;
        for task in self.tasks.values_mut().filter(|task| !task.drained) {
            task.unnamed = None;
        }
    }
}

impl TaskMemory {
    fn new(now: Instant) -> Self {
        Self {
            id: String::new(),
            local: false,
            draining: false,
            since: now,
            listed: false,
            unnamed: None,
            drained: false,
            missing: None,
        }
    }

    /// Where a manager says that the task is in its life. One that it does not know any more is over, if it was asked after
    /// the task was seen.
    fn phase(&self, told: &Told) -> Option<TaskPhase> {
        let tasks = told.tasks.as_ref().filter(|_| !self.id.is_empty())?;
        let known = tasks.get(&self.id).copied();
        let outdated = told.at.is_none_or(|at| at <= self.since);
        // A container that is not a task of the service is not in the list of tasks.
        known.or(if outdated || self.listed { None } else { Some(TaskPhase::Over) })
    }
}
