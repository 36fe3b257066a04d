//! Services on plain bridge networks, as Docker Compose makes them: containers with the label `ringlb.service=NAME`.
//!
//! For each service and network a *holder* is kept: a container that only sleeps, whose address is the VIP, reserved so by
//! Docker's own address management, and whose network alias is NAME, so that Docker's DNS gives the VIP for it. The
//! holder's namespace is the sandbox. A service's backends are the containers that run and, with a `HEALTHCHECK`, are
//! healthy. One that is told to stop drains from the moment on that it gets its stop signal.
//!
//! A holder is removed when no container of its service is left, stopped ones included: so the VIP outlives a restart of
//! all of them. Docker restarts holders with the Engine; whatever address they have then is the VIP.

mod decode;
mod engine;
mod error;
mod holders;
mod image;
mod observation;
mod retry;
mod run;
mod services;
mod stop_signal;
#[cfg(test)]
mod tests;

pub use error::ComposeError;
pub use run::{NAME, start};

use super::sandbox_files;
use crate::model::ObservedNetwork;
use crate::source::status::{InvalidLabel, RefusedNetwork};
use bollard::Docker;
use bollard::models::EventMessage;
use engine::Engine;
use holders::{Held, Step};
use retry::Retry;
use services::{Key, Services};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What all containers of a service have: its name.
const SERVICE_LABEL: &str = "ringlb.service";
/// The ports under which the node publishes it.
const PUBLISH_LABEL: &str = "ringlb.publish";
/// What a holder has: the name of its service.
const HOLDER_LABEL: &str = "ringlb.holder";
/// And that of the network.
const NETWORK_LABEL: &str = "ringlb.network";

/// The services of an Engine's plain networks.
#[derive(Debug)]
pub struct Compose {
    engine: Engine,
    /// The Engine's socket.
    socket: PathBuf,
    /// The containers that have got their stop signal.
    stopping: BTreeSet<String>,
    retry: Retry,
}

/// What there is on plain networks.
#[derive(Debug, Default)]
pub struct ComposeObservation {
    /// One network for each service, named NETWORK.NAME.
    pub networks: Vec<ObservedNetwork>,
    /// The labels that are not valid, by container. The rest is as it should be.
    pub invalid_labels: Vec<InvalidLabel>,
    /// The services that have no VIP, and why.
    pub refused: Vec<RefusedNetwork>,
    /// When to observe again in any case, if something has failed.
    pub again: Option<Duration>,
}

impl Compose {
    /// The services of the Engine at `socket`, which `docker` is a client of.
    #[must_use]
    pub fn new(docker: Docker, socket: PathBuf) -> Self {
        Self { engine: Engine::new(docker), socket, stopping: BTreeSet::new(), retry: Retry::default() }
    }

    /// Hears of what happens to a container. Says whether it may concern a service here, so that it is to be observed.
    pub async fn heard(&mut self, event: &EventMessage) -> bool {
        let Some(actor) = &event.actor else { return false };
        let (Some(id), Some(attributes)) = (&actor.id, &actor.attributes) else { return false };
        if !attributes.contains_key(SERVICE_LABEL) {
            return attributes.contains_key(HOLDER_LABEL);
        }
        match event.action.as_deref() {
            Some("kill") => {
                let signal = attributes.get("signal").and_then(|signal| signal.parse().ok());
                // If it cannot be asked any more, it is gone.
                let wanted = self.engine.stop_signal(id).await.unwrap_or(stop_signal::DEFAULT);
                if signal.is_some_and(|signal: i32| signal == wanted || signal == nix::libc::SIGKILL) {
                    self.stopping.insert(id.clone());
                }
            }
            Some("start" | "destroy") => {
                self.stopping.remove(id);
            }
            _ => {}
        }
        true
    }

    /// Looks at the containers, makes and removes holders, and says what there is then.
    ///
    /// # Errors
    /// If the Engine does not say what there is. What goes wrong with one service is told as its problem.
    pub async fn observe(&mut self) -> Result<ComposeObservation, ComposeError> {
        let (bridges, containers) = (self.engine.bridges().await?, self.engine.containers(SERVICE_LABEL).await?);
        self.stopping.retain(|id| containers.iter().any(|container| container.running && container.id == *id));
        let services = Services::of(bridges, containers);
        let mut refused = Vec::new();
        let held = self.hold(&services, &mut refused).await?;
        let networks = services.observe(&held, &self.stopping);
        let invalid_labels = services.invalid_labels();
        Ok(ComposeObservation { networks, invalid_labels, refused, again: self.retry.next(Instant::now()) })
    }

    /// Does what is to be done for the holders; gives those there are then.
    async fn hold(
        &mut self,
        services: &Services,
        refused: &mut Vec<RefusedNetwork>,
    ) -> Result<BTreeMap<Key, Held>, ComposeError> {
        let holders = self.engine.containers(HOLDER_LABEL).await?;
        let wanted: BTreeSet<_> = services.keys().cloned().collect();
        self.retry.keep(&wanted);
        let mut held = BTreeMap::new();
        for step in holders::steps(&wanted, &holders) {
            let (key, done) = match step {
                Step::Remove { id } => {
                    if let Err(error) = self.engine.remove(&id).await {
                        refused.push(RefusedNetwork { name: id, reason: error.to_string() });
                    }
                    continue;
                }
                Step::Keep { key, id } => {
                    let done = self.look(&key, &id).await;
                    (key, done)
                }
                Step::Make { key, stopped } => {
                    if let Some(reason) = self.retry.reason(&key, Instant::now()) {
                        refused.push(RefusedNetwork { name: key.to_string(), reason });
                        continue;
                    }
                    let done = self.make(&key, stopped).await;
                    (key, done)
                }
            };
            match done {
                Ok(found) => {
                    self.retry.succeeded(&key);
                    held.insert(key, found);
                }
                Err(error) => {
                    tracing::warn!(service = %key, %error, "cannot hold the service's VIP");
                    refused.push(RefusedNetwork { name: key.to_string(), reason: error.to_string() });
                    self.retry.failed(&key, Instant::now(), error.to_string());
                }
            }
        }
        Ok(held)
    }

    async fn make(&self, key: &Key, stopped: Option<String>) -> Result<Held, ComposeError> {
        let id = match stopped {
            Some(id) => id,
            None => self.engine.create_holder(key).await?,
        };
        self.engine.start(&id).await?;
        tracing::info!(service = %key, "made a container that holds the service's VIP");
        self.look(key, &id).await
    }

    async fn look(&self, key: &Key, id: &str) -> Result<Held, ComposeError> {
        let place = self.engine.place(id, &key.network).await?;
        // Asked each time: an Engine that was started anew may be elsewhere.
        let sandboxes = sandbox_files::directory(&self.socket)
            .map_err(|cause| ComposeError::NoEngine { socket: self.socket.clone(), cause })?;
        // The Engine names the path as it sees it: only the name in its directory of namespaces counts here.
        let path = sandboxes.join(Path::new(&place.sandbox_key).file_name().unwrap_or_default());
        let sandbox = sandbox_files::look(&path).ok_or(ComposeError::NoSandbox { path })?;
        Ok(Held { addresses: place.addresses, path: sandbox.path, identity: sandbox.identity })
    }
}
