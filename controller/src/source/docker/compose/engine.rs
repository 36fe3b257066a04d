//! What is asked of the Engine.

use super::decode::{self, Bridge, Container};
use super::services::Key;
use super::{ComposeError, HOLDER_LABEL, NETWORK_LABEL, image, stop_signal};
use crate::model::Families;
use bollard::Docker;
use bollard::errors::Error as ClientError;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long any call may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// The most memory of a holder, in bytes: the least that Engines take. It needs three pages.
const MEMORY: i64 = 6 * 1024 * 1024;

const NOT_FOUND: u16 = 404;

/// A client of the Engine.
#[derive(Debug)]
pub(super) struct Engine {
    docker: Docker,
}

/// Where a container is.
pub(super) struct Place {
    pub(super) addresses: Families<IpAddr>,
    /// The path of its namespace, as the Engine sees it.
    pub(super) sandbox_key: String,
}

impl Engine {
    pub(super) fn new(docker: Docker) -> Self {
        Self { docker }
    }

    pub(super) async fn bridges(&self) -> Result<Vec<Bridge>, ComposeError> {
        let filters = HashMap::from([("driver", vec!["bridge"])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let networks = within("list networks", self.docker.list_networks(Some(options))).await?;
        Ok(networks.into_iter().filter_map(decode::bridge).collect())
    }

    /// All containers with a label, those too that do not run.
    pub(super) async fn containers(&self, label: &'static str) -> Result<Vec<Container>, ComposeError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = within("list containers", self.docker.list_containers(Some(options))).await?;
        Ok(containers.into_iter().filter_map(decode::container).collect())
    }

    /// The signal that tells a container to stop.
    pub(super) async fn stop_signal(&self, id: &str) -> Result<i32, ComposeError> {
        let container = within("inspect a container", self.docker.inspect_container(id, None)).await?;
        let signal = container.config.and_then(|config| config.stop_signal);
        Ok(signal.and_then(|signal| stop_signal::number(&signal)).unwrap_or(stop_signal::DEFAULT))
    }

    pub(super) async fn place(&self, id: &str, network: &str) -> Result<Place, ComposeError> {
        let container = within("inspect a container", self.docker.inspect_container(id, None)).await?;
        let settings = container.network_settings.unwrap_or_default();
        let endpoint = settings.networks.unwrap_or_default().remove(network);
        let addresses = endpoint.map(|endpoint| decode::addresses(&endpoint)).unwrap_or_default();
        if addresses.is_empty() {
            return Err(ComposeError::NoAddress { network: network.to_owned() });
        }
        Ok(Place { addresses, sandbox_key: settings.sandbox_key.unwrap_or_default() })
    }

    pub(super) async fn create_holder(&self, key: &Key) -> Result<String, ComposeError> {
        self.ensure_image().await?;
        let name = format!("ringlb-{}-{}", key.network, key.service);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let create = self.docker.create_container(Some(options), holder(key));
        Ok(within("make a container that holds a VIP", create).await?.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), ComposeError> {
        within("start a container that holds a VIP", self.docker.start_container(id, None)).await
    }

    /// Removes a container that may be gone already.
    pub(super) async fn remove(&self, id: &str) -> Result<(), ComposeError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let remove = self.docker.remove_container(id, Some(options));
        within("remove a container that held a VIP", async {
            match remove.await {
                Err(error) if status(&error) == Some(NOT_FOUND) => Ok(()),
                result => result,
            }
        })
        .await
    }

    async fn ensure_image(&self) -> Result<(), ComposeError> {
        let (name, program) = (format!("{}:{}", image::NAME, image::TAG), image::PROGRAM);
        let found = async {
            match self.docker.inspect_image(&name).await {
                Ok(_) => Ok(true),
                Err(error) if status(&error) == Some(NOT_FOUND) => Ok(false),
                Err(error) => Err(error),
            }
        };
        if within("look for an image", found).await? {
            return Ok(());
        }
        let version = within("say its version", self.docker.version()).await?;
        let archive = image::archive(&version.arch.unwrap_or_default())?;
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(image::NAME)
            .tag(image::TAG)
            .message("made by ringlb")
            .changes(vec![format!("ENTRYPOINT [\"{program}\"]")])
            .build();
        let import = self.docker.create_image(Some(options), Some(bollard::body_full(archive.into())), None);
        within("import the image of containers that hold VIPs", import.try_collect::<Vec<_>>()).await?;
        Ok(())
    }
}

/// A client of the Engine at `socket`.
pub(super) async fn connect(socket: &Path) -> Result<Docker, ComposeError> {
    let path = socket.to_string_lossy();
    let docker = Docker::connect_with_unix(&path, DEADLINE.as_secs(), bollard::API_DEFAULT_VERSION);
    let docker = docker.map_err(|cause| failed("connect", &cause))?;
    within("connect", docker.negotiate_version()).await
}

/// It can do nothing but be there, and comes back with the Engine.
fn holder(key: &Key) -> ContainerCreateBody {
    let labels = [(HOLDER_LABEL, &key.service), (NETWORK_LABEL, &key.network)];
    let endpoint = EndpointSettings { aliases: Some(vec![key.service.clone()]), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(format!("{}:{}", image::NAME, image::TAG)),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.clone())).into()),
        // As the first process of its pid namespace it does not hear SIGTERM.
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some(key.network.clone()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            memory: Some(MEMORY),
            pids_limit: Some(1),
            init: Some(false),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(key.network.clone(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

pub(super) fn failed(action: &'static str, cause: &ClientError) -> ComposeError {
    ComposeError::Engine { action, cause: cause.to_string() }
}

fn status(error: &ClientError) -> Option<u16> {
    match error {
        ClientError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

async fn within<T>(
    action: &'static str,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ComposeError> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(cause)) => Err(failed(action, &cause)),
        Err(_) => Err(ComposeError::Late { action }),
    }
}
