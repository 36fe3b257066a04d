//! Services on plain bridge networks, as Docker Compose makes them: containers with the label `ringlb.service=NAME`.
//!
//! For each service and network a *holder* is kept: a container that only sleeps, whose address is the VIP, reserved so by
//! Docker's own address management, and whose network alias is NAME, so that Docker's DNS gives the VIP for it. The
//! holder's namespace is the sandbox. A service's backends are the containers that run and, with a `HEALTHCHECK`, are
//! healthy. One that is told to stop drains from the moment on that it gets its stop signal, and one that is not healthy
//! any more, or paused, for as long as it is.
//!
//! A holder is removed when no container of its service is left, stopped ones included: so the VIP outlives a restart of
//! all of them. Docker restarts holders with the Engine, with the same address where the network's subnet was given by whoever
//! made it; elsewhere whatever address they have then is the VIP.

mod attempts;
mod error;
mod holders;
mod image;
mod maker;
mod observation;
mod run;
mod services;
mod stop_signal;
#[cfg(test)]
mod tests;
mod view;
mod vip;

pub(super) use image::REFERENCE as HOLDER_IMAGE;
pub use run::{NAME, start};
pub(super) use view::{Bridge, Container, Place};

use super::engine::{ContainerAction, Containers, EngineError, Happening};
use super::sandbox_files;
use crate::model::ObservedNetwork;
use crate::source::status::{InvalidLabel, RefusedNetwork};
use attempts::Attempts;
use error::ComposeError;
use holders::{Held, Step, Useless};
use maker::Maker;
use services::{Key, Services};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What all containers of a service have: its name.
const SERVICE_LABEL: &str = "ringlb.service";
/// The ports under which the node publishes it.
const PUBLISH_LABEL: &str = "ringlb.publish";
/// What a holder has: the name of its service.
pub(super) const HOLDER_LABEL: &str = "ringlb.holder";
/// And that of the network.
const NETWORK_LABEL: &str = "ringlb.network";

/// The services of an Engine's plain networks.
#[derive(Debug)]
struct Compose {
    maker: Maker,
    /// The containers that have got their stop signal.
    stopping: BTreeSet<String>,
    /// What holders hold, by their ids, as long as nothing has happened to them.
    held: BTreeMap<String, Held>,
    /// The making of holders, and their removal by their ids. It goes on beside the observation, which must not wait: a
    /// container that stops is to drain at once.
    making: Attempts<Key>,
    removing: Attempts<String>,
    /// What of holders that run cannot be seen.
    looking: Attempts<Key>,
    done: mpsc::UnboundedSender<Done>,
}

/// What came of something that was to be done.
#[derive(Debug)]
enum Done {
    Made(Key, Result<(String, Held), ComposeError>),
    Removed(String, Result<(), EngineError>),
}

/// What there is on plain networks.
#[derive(Debug, Default)]
struct ComposeObservation {
    /// One network for each service, named NETWORK.NAME.
    networks: Vec<ObservedNetwork>,
    /// The labels that are not valid, by container. The rest is as it should be.
    invalid_labels: Vec<InvalidLabel>,
    /// The services that have no VIP, and why.
    refused: Vec<RefusedNetwork>,
    /// When to observe again in any case, if something has failed.
    again: Option<Duration>,
}

impl Compose {
    /// The services of the Engine of `maker`. What is done for them is told on `done`, and given back by
    /// [`Self::is_done`].
    fn new(maker: Maker, done: mpsc::UnboundedSender<Done>) -> Self {
        Self {
            maker,
            stopping: BTreeSet::new(),
            held: BTreeMap::new(),
            making: Attempts::default(),
            removing: Attempts::default(),
            looking: Attempts::default(),
            done,
        }
    }

    /// Hears of what happens. Says whether it may concern a service here, so that it is to be observed.
    async fn heard(&mut self, happening: &Happening) -> bool {
        match happening {
            Happening::Container { id, action, labels } => {
                if labels.contains_key(HOLDER_LABEL) {
                    self.held.remove(id);
                    return true;
                }
                let concerned = labels.contains_key(SERVICE_LABEL);
                if concerned {
                    self.container_happened(id, *action).await;
                }
                concerned
            }
            // A container that runs may have been connected to it.
            Happening::Network { driver, .. } => driver == "bridge",
            Happening::Service | Happening::Node => false,
        }
    }

    async fn container_happened(&mut self, id: &str, action: ContainerAction) {
        match action {
            ContainerAction::Signalled(Some(signal)) => {
                // If it cannot be asked any more, it is gone.
                let name = self.maker.engine.stop_signal(id).await.ok().flatten();
                let wanted = name.and_then(|name| stop_signal::number(&name)).unwrap_or(stop_signal::DEFAULT);
                if signal == wanted || signal == nix::libc::SIGKILL {
                    self.stopping.insert(id.to_owned());
                }
            }
            ContainerAction::Started | ContainerAction::Removed => {
                self.stopping.remove(id);
            }
            ContainerAction::Made
            | ContainerAction::Signalled(None)
            | ContainerAction::Ended
            | ContainerAction::Changed => {}
        }
    }

    /// Takes what came of something that was to be done: it is to be observed.
    fn is_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Made(key, made) => {
                let reason = made.map(|(id, held)| self.held.insert(id, held)).err().map(|error| error.to_string());
                if let Some(reason) = &reason {
                    tracing::warn!(service = %key, reason, "cannot hold the service's VIP");
                }
                self.making.ended(&key, now, reason);
            }
            Done::Removed(id, removed) => {
                let reason = removed.err().map(|error| error.to_string());
                if let Some(reason) = &reason {
                    tracing::warn!(container = id, reason, "cannot remove a container that held a VIP");
                }
                self.removing.ended(&id, now, reason);
            }
        }
    }

    /// Looks at the containers, begins to make and to remove holders, and says what there is.
    ///
    /// # Errors
    /// If the Engine does not say what there is. What goes wrong with one service is told as its problem.
    async fn observe(&mut self) -> Result<ComposeObservation, EngineError> {
        let engine = &self.maker.engine;
        let (bridges, containers, holders) = tokio::try_join!(
            engine.bridges(),
            engine.containers(Containers::Labelled(SERVICE_LABEL)),
            engine.containers(Containers::Labelled(HOLDER_LABEL)),
        )?;
        self.stopping.retain(|id| containers.iter().any(|container| container.running && container.id == *id));
        let services = Services::of(bridges, containers);
        let held = self.hold(&services, &holders).await;
        let networks = services.observe(&held, &self.stopping);
        let now = Instant::now();
        let of_services =
            self.making.reasons().chain(self.looking.reasons()).map(|(key, reason)| (key.to_string(), reason));
        let of_containers = self.removing.reasons().map(|(id, reason)| (id.clone(), reason));
        let refused = of_services
            .chain(of_containers)
            .map(|(name, reason)| RefusedNetwork { name, reason: reason.to_owned() })
            .collect();
        let again =
            [self.making.next(now), self.removing.next(now), self.looking.next(now)].into_iter().flatten().min();
        Ok(ComposeObservation { networks, invalid_labels: services.invalid_labels(), refused, again })
    }

    /// Begins what is to be done for the holders; gives what those hold that run.
    async fn hold(&mut self, services: &Services, holders: &[Container]) -> BTreeMap<Key, Held> {
        let now = Instant::now();
        let wanted: BTreeSet<_> = services.keys().cloned().collect();
        self.making.keep(|key| wanted.contains(key));
        self.looking.keep(|key| wanted.contains(key));
        self.removing.keep(|id| holders.iter().any(|holder| holder.id == *id));
        self.held.retain(|id, _| holders.iter().any(|holder| holder.id == *id));
        let mut held = BTreeMap::new();
        for step in holders::steps(&wanted, holders, |key| self.making.is_under_way(key)) {
            match step {
                Step::Remove { id, why } => self.begin_to_remove(id, why, now),
                Step::Make { key, stopped } => {
                    self.looking.ended(&key, now, None);
                    self.begin_to_make(key, stopped, services, now);
                }
                Step::Keep { key, id } => {
                    let found = self.held_by(&key, &id).await;
                    self.looking.ended(&key, now, found.as_ref().err().map(ToString::to_string));
                    held.extend(found.ok().map(|found| (key, found)));
                }
            }
        }
        held
    }

    fn begin_to_remove(&mut self, id: String, why: Useless, now: Instant) {
        if self.removing.begin(&id, now) {
            tracing::info!(container = id, %why, "removing a container that held a service's VIP");
            let (engine, done) = (self.maker.engine.clone(), self.done.clone());
            tokio::spawn(async move {
                let removed = engine.remove_container(&id).await;
                // Nobody listens at the end of the daemon.
                let _ = done.send(Done::Removed(id, removed));
            });
        }
    }

    fn begin_to_make(&mut self, key: Key, stopped: Option<String>, services: &Services, now: Instant) {
        let Some(bridge) = services.bridges.get(&key.network).cloned() else { return };
        // Those that go give back addresses and names that this one may need.
        if !self.removing.any_under_way() && self.making.begin(&key, now) {
            let (maker, done) = (self.maker.clone(), self.done.clone());
            tokio::spawn(async move {
                let made = maker.make(&key, &bridge, stopped).await;
                let _ = done.send(Done::Made(key, made));
            });
        }
    }

    async fn held_by(&mut self, key: &Key, id: &str) -> Result<Held, ComposeError> {
        let is_there =
            |held: &&Held| sandbox_files::look(&held.path).is_some_and(|found| found.identity == held.identity);
        if let Some(held) = self.held.get(id).filter(is_there) {
            return Ok(held.clone());
        }
        let held = self.maker.look(key, id).await?;
        self.held.insert(id.to_owned(), held.clone());
        Ok(held)
    }
}
