//! Making holders, and finding where they are.

use super::super::engine::{Containers, Engine, EngineError, Holder, HolderImage};
use super::super::{Location, sandbox_files};
use super::holders::Held;
use super::services::Key;
use super::{Bridge, ComposeError, HOLDER_LABEL, NETWORK_LABEL, image, vip};
use crate::model::Families;
use std::net::IpAddr;
use std::path::Path;

/// How many addresses are tried that may be taken by somebody who does not show.
const ATTEMPTS: usize = 4;

/// What the Engine says of a network whose subnet it has chosen itself (moby, `daemon/container_operations.go`).
const NOT_TO_BE_CHOSEN: &str = "user configured subnet";

/// Makes holders with an Engine.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) engine: Engine,
    pub(super) location: Location,
}

impl Maker {
    /// Makes the holder of a service, or starts the one that has `stopped`; gives its id, and what it holds.
    pub(super) async fn make(
        &self,
        key: &Key,
        bridge: &Bridge,
        stopped: Option<String>,
    ) -> Result<(String, Held), ComposeError> {
        if let Some(id) = stopped {
            match self.engine.start_container(&id).await {
                Ok(()) => return self.look(key, &id).await.map(|held| (id, held)),
                // Its network may have been made anew, or its address be somebody else's.
                Err(error @ EngineError::Refused { .. }) => {
                    tracing::warn!(service = %key, %error, "cannot start the container that held the service's VIP, making it anew");
                    self.engine.remove_container(&id).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.ensure_image().await?;
        let id = self.start(key, bridge).await?;
        let held = self.look(key, &id).await?;
        tracing::info!(service = %key, vip = %held.addresses, "made a container that holds the service's VIP");
        Ok((id, held))
    }

    /// What a holder that runs holds.
    pub(super) async fn look(&self, key: &Key, id: &str) -> Result<Held, ComposeError> {
        let place = self.engine.place(id, &key.network).await?.ok_or(ComposeError::NoHolder)?;
        if place.addresses.is_empty() {
            return Err(ComposeError::NoAddress { network: key.network.clone() });
        }
        // Asked each time: an Engine that was started anew may be elsewhere.
        let sandboxes = self.location.sandboxes();
        let sandboxes =
            sandboxes.map_err(|cause| ComposeError::NoEngine { socket: self.location.socket.clone(), cause })?;
        // The Engine names the path as it sees it: only the name in its directory of namespaces counts here.
        let path = sandboxes.join(Path::new(&place.sandbox_key).file_name().unwrap_or_default());
        let sandbox = sandbox_files::look(&path).ok_or(ComposeError::NoSandbox { path })?;
        Ok(Held { addresses: place.addresses, path: sandbox.path, identity: sandbox.identity })
    }

    /// Makes and starts a holder with an address of ringlb's choice, so that it has the same one whenever it starts; with
    /// one of the Engine's choice if the Engine does not take any.
    async fn start(&self, key: &Key, bridge: &Bridge) -> Result<String, ComposeError> {
        let mut taken = bridge.reserved.clone();
        for container in self.engine.containers(Containers::On(&key.network)).await? {
            let addresses = [&container.networks, &container.fixed].into_iter().filter_map(|all| all.get(&key.network));
            taken.extend(addresses.flat_map(Families::iter));
        }
        let candidates = vip::candidates(&key.to_string(), bridge.subnet, |address| taken.contains(&address));
        for addresses in candidates.into_iter().take(ATTEMPTS) {
            match self.start_with(key, addresses).await {
                Err(EngineError::Refused { action, status, message, .. }) => {
                    tracing::debug!(service = %key, %addresses, action, status, message, "the Engine does not take the address");
                    if message.contains(NOT_TO_BE_CHOSEN) {
                        break;
                    }
                }
                result => return Ok(result?),
            }
        }
        Ok(self.start_with(key, Families::default()).await?)
    }

    async fn start_with(&self, key: &Key, addresses: Families<IpAddr>) -> Result<String, EngineError> {
        let labels = [(HOLDER_LABEL, &key.service), (NETWORK_LABEL, &key.network)];
        let holder = Holder {
            name: format!("ringlb.{key}"),
            image: image::REFERENCE,
            labels: labels.map(|(name, value)| (name.to_owned(), value.clone())).into(),
            network: &key.network,
            alias: &key.service,
            addresses,
        };
        let id = self.engine.create_holder(holder).await?;
        if let Err(error) = self.engine.start_container(&id).await {
            // Whoever comes next would find one that cannot be started.
            self.engine.remove_container(&id).await?;
            return Err(error);
        }
        Ok(id)
    }

    async fn ensure_image(&self) -> Result<(), ComposeError> {
        if self.engine.has_image(image::REFERENCE).await? {
            return Ok(());
        }
        let archive = image::archive(&self.engine.architecture().await?)?;
        let image = HolderImage { name: image::NAME, tag: image::TAG, program: image::PROGRAM, archive };
        Ok(self.engine.import_image(image).await?)
    }
}
