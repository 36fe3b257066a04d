//! The Engine's API. Nothing of the client crate leaves this module.

mod decode;

use super::view::{Cluster, InspectedNetwork, ListedNetwork, Node};
use bollard::errors::Error as ClientError;
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::{EventsOptionsBuilder, InspectNetworkOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// How long any call may take. The Engine answers in milliseconds, unless it is starting, or waits for other managers.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why the Engine does not say what it was asked.
#[derive(Debug, Error)]
pub(super) enum EngineError {
    /// It could not be asked.
    #[error("cannot {action} at {}: {cause}; is the Engine running, and may this process use its socket?", socket.display())]
    Unreachable {
        /// What was attempted.
        action: &'static str,
        /// The Engine's socket.
        socket: PathBuf,
        /// What the client says.
        cause: String,
    },
    /// It was asked and did not do it.
    #[error("the Engine at {} will not {action}: {message} (status {status})", socket.display())]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The Engine's socket.
        socket: PathBuf,
        /// The HTTP status.
        status: u16,
        /// What the Engine says.
        message: String,
    },
    /// It has not answered.
    #[error("the Engine at {} has not answered within {} s when asked to {action}", socket.display(), DEADLINE.as_secs())]
    Late {
        /// What was attempted.
        action: &'static str,
        /// The Engine's socket.
        socket: PathBuf,
    },
}

/// Something that happened on this node, or on a manager to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    /// A container began or ended, or is to end; with the service that it is a task of.
    Container {
        /// The service's name, if it is a task of one.
        service: Option<String>,
        /// The task's id, if that has ended with it. A task is never started again.
        ended_task: Option<String>,
    },
    /// A network was made or removed, or a container was connected to it or disconnected.
    Network {
        /// The network's id.
        id: String,
        /// Whether the network itself is new or gone.
        listing: bool,
    },
    /// A service was made, changed or removed.
    Service,
    /// The node's place in the swarm may be another.
    Node,
}

/// A connection to an Engine.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: Docker,
    socket: PathBuf,
}

impl Engine {
    /// Connects to the Engine at `socket`, by the newest version of its API that both speak.
    pub(super) async fn connect(socket: &Path) -> Result<(Self, Node), EngineError> {
        let action = "connect";
        let unreachable = |cause: String| EngineError::Unreachable { action, socket: socket.to_owned(), cause };
        let path = socket.to_str().ok_or_else(|| unreachable("its path is not UTF-8".to_owned()))?;
        let docker = Docker::connect_with_unix(path, DEADLINE.as_secs(), API_DEFAULT_VERSION)
            .map_err(|cause| unreachable(cause.to_string()))?;
        let negotiated = timeout(DEADLINE, docker.negotiate_version()).await;
        let docker = negotiated
            .map_err(|_| EngineError::Late { action, socket: socket.to_owned() })?
            .map_err(|cause| failure(action, socket, cause))?;
        let engine = Self { docker, socket: socket.to_owned() };
        let node = engine.node().await?;
        Ok((engine, node))
    }

    /// The Engine and its node.
    pub(super) async fn node(&self) -> Result<Node, EngineError> {
        self.within("say how it is", self.docker.info()).await.map(decode::node)
    }

    /// The networks of the swarm that have something to do with this node; on a manager all of them.
    pub(super) async fn networks(&self) -> Result<Vec<ListedNetwork>, EngineError> {
        let networks = self.within("list networks", self.docker.list_networks(None)).await?;
        Ok(networks.into_iter().filter_map(decode::listed_network).collect())
    }

    /// A network with its services; `None` if it is not there.
    pub(super) async fn inspect(
        &self,
        network: &str,
        node_address: &str,
    ) -> Result<Option<InspectedNetwork>, EngineError> {
        let options = InspectNetworkOptionsBuilder::default().verbose(true).build();
        match self.within("inspect a network", self.docker.inspect_network(network, Some(options))).await {
            Ok(network) => Ok(Some(decode::inspected_network(network, node_address))),
            Err(EngineError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All services and tasks. Only a manager says.
    pub(super) async fn cluster(&self) -> Result<Cluster, EngineError> {
        // The tasks first: each has a service then, if that is not removed meanwhile.
        let tasks = self.within("list tasks", self.docker.list_tasks(None)).await?;
        let services = self.within("list services", self.docker.list_services(None)).await?;
        Ok(decode::cluster(services, tasks))
    }

    /// What happens from now on. It ends when the Engine does.
    pub(super) fn happenings(&self) -> impl Stream<Item = Result<Happening, EngineError>> + use<> {
        let filters = HashMap::from([("type", vec!["container", "network", "service", "node"])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let socket = self.socket.clone();
        let events = self.docker.events(Some(options));
        events.filter_map(move |event| {
            let happening = match event {
                Ok(event) => happening(event).map(Ok),
                Err(cause) => Some(Err(failure("tell of events", &socket, cause))),
            };
            std::future::ready(happening)
        })
    }

    async fn within<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        match timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(cause)) => Err(failure(action, &self.socket, cause)),
            Err(_) => Err(EngineError::Late { action, socket: self.socket.clone() }),
        }
    }
}

/// Nothing if it does not matter, such as a container's health checks.
fn happening(event: EventMessage) -> Option<Happening> {
    let actor = event.actor.unwrap_or_default();
    let action = event.action.unwrap_or_default();
    match event.typ? {
        EventMessageTypeEnum::CONTAINER => {
            let matters = matches!(action.as_str(), "start" | "kill" | "die" | "destroy" | "pause" | "unpause")
                || action.starts_with("health_status");
            let mut labels = actor.attributes.unwrap_or_default();
            let service = labels.remove("com.docker.swarm.service.name");
            let ended_task = labels.remove("com.docker.swarm.task.id").filter(|_| action == "die");
            matters.then_some(Happening::Container { service, ended_task })
        }
        EventMessageTypeEnum::NETWORK => {
            let listing = !matches!(action.as_str(), "connect" | "disconnect");
            Some(Happening::Network { id: actor.id.unwrap_or_default(), listing })
        }
        EventMessageTypeEnum::SERVICE => Some(Happening::Service),
        EventMessageTypeEnum::NODE => Some(Happening::Node),
        _ => None,
    }
}

fn failure(action: &'static str, socket: &Path, cause: ClientError) -> EngineError {
    let socket = socket.to_owned();
    match cause {
        ClientError::DockerResponseServerError { status_code: status, message } => {
            EngineError::Refused { action, socket, status, message }
        }
        ClientError::RequestTimeoutError => EngineError::Late { action, socket },
        cause => EngineError::Unreachable { action, socket, cause: with_sources(&cause) },
    }
}

/// The client's own words say little: what the kernel answered is further down.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Happening> {
        happening(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn an_event_matters_or_not() {
        let of_task = |action: &str| {
            let attributes = r#"{"com.docker.swarm.service.name":"web","com.docker.swarm.task.id":"t","signal":"15"}"#;
            read(&format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"a","Attributes":{attributes}}}}}"#
            ))
        };
        let service = Some("web".to_owned());
        assert_eq!(of_task("kill"), Some(Happening::Container { service: service.clone(), ended_task: None }));
        assert_eq!(of_task("die"), Some(Happening::Container { service, ended_task: Some("t".to_owned()) }));
        let healthy = r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"a"}}"#;
        assert_eq!(read(healthy), Some(Happening::Container { service: None, ended_task: None }));
        assert_eq!(read(r#"{"Type":"container","Action":"exec_start: true","Actor":{"ID":"a"}}"#), None);
        let connect = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n"}}"#;
        assert_eq!(read(connect), Some(Happening::Network { id: "n".to_owned(), listing: false }));
        let destroy = r#"{"Type":"network","Action":"destroy","Actor":{"ID":"n"}}"#;
        assert_eq!(read(destroy), Some(Happening::Network { id: "n".to_owned(), listing: true }));
        assert_eq!(read(r#"{"Type":"service","Action":"update","Actor":{"ID":"s"}}"#), Some(Happening::Service));
        assert_eq!(read(r#"{"Type":"image","Action":"pull","Actor":{"ID":"i"}}"#), None);
    }
}
