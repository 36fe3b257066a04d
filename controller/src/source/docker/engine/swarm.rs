//! What is asked of an Engine about its swarm.

mod decode;

use super::super::view::{Cluster, InspectedNetwork, ListedNetwork, Node};
use super::{Engine, EngineError, found};
use bollard::query_parameters::InspectNetworkOptionsBuilder;

impl Engine {
    /// The Engine and its node.
    pub(crate) async fn node(&self) -> Result<Node, EngineError> {
        self.asked("say how it is", self.docker.info()).await.map(decode::node)
    }

    /// The networks of the swarm that have something to do with this node; on a manager all of them.
    pub(crate) async fn networks(&self) -> Result<Vec<ListedNetwork>, EngineError> {
        let networks = self.asked("list networks", self.docker.list_networks(None)).await?;
        Ok(networks.into_iter().filter_map(decode::listed_network).collect())
    }

    /// A network with its services; `None` if it is not there.
    pub(crate) async fn inspect(
        &self,
        network: &str,
        node_address: &str,
    ) -> Result<Option<InspectedNetwork>, EngineError> {
        let options = InspectNetworkOptionsBuilder::default().verbose(true).build();
        let inspected = self.asked("inspect a network", self.docker.inspect_network(network, Some(options))).await;
        Ok(found(inspected)?.map(|network| decode::inspected_network(network, node_address)))
    }

    /// All services and tasks. Only a manager says.
    pub(crate) async fn cluster(&self) -> Result<Cluster, EngineError> {
        // The tasks first: each has a service then, if that is not removed meanwhile.
        let tasks = self.asked("list tasks", self.docker.list_tasks(None)).await?;
        let services = self.asked("list services", self.docker.list_services(None)).await?;
        Ok(decode::cluster(services, tasks))
    }
}
