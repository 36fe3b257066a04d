//! What an Engine is asked and told about plain networks and the containers on them.

mod decode;
mod holder;

pub(crate) use holder::{Holder, HolderImage};

use super::super::compose::{Bridge, Container, Place};
use super::{Engine, EngineError, found};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use std::collections::HashMap;

/// Which containers are listed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Containers<'a> {
    /// Those that have a label.
    Labelled(&'a str),
    /// Those that are, or are to be, on a network.
    On(&'a str),
}

impl Engine {
    /// The bridge networks that users have made.
    pub(crate) async fn bridges(&self) -> Result<Vec<Bridge>, EngineError> {
        let filters = HashMap::from([("driver", vec!["bridge"])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let networks = self.asked("list networks", self.docker.list_networks(Some(options))).await?;
        Ok(networks.into_iter().filter_map(decode::bridge).collect())
    }

    /// Those containers, those too that do not run.
    pub(crate) async fn containers(&self, which: Containers<'_>) -> Result<Vec<Container>, EngineError> {
        let filters = match which {
            Containers::Labelled(label) => HashMap::from([("label", vec![label])]),
            Containers::On(network) => HashMap::from([("network", vec![network])]),
        };
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.asked("list containers", self.docker.list_containers(Some(options))).await?;
        Ok(containers.into_iter().filter_map(decode::container).collect())
    }

    /// How the signal is called that tells a container to stop; `None` if it has the usual one or is not there.
    pub(crate) async fn stop_signal(&self, id: &str) -> Result<Option<String>, EngineError> {
        let container = self.container(id).await?;
        Ok(container.and_then(|container| container.config?.stop_signal))
    }

    /// Where a container is; `None` if it is not there.
    pub(crate) async fn place(&self, id: &str, network: &str) -> Result<Option<Place>, EngineError> {
        Ok(self.container(id).await?.map(|container| decode::place(container, network)))
    }

    /// The path of a container's namespace as the Engine sees it, empty while it does not run; `None` if it is not there.
    pub(crate) async fn sandbox_key(&self, id: &str) -> Result<Option<String>, EngineError> {
        // Of no network nothing but that is said.
        Ok(self.container(id).await?.map(|container| decode::place(container, "").sandbox_key))
    }

    async fn container(&self, id: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        found(self.asked("inspect a container", self.docker.inspect_container(id, None)).await)
    }
}
