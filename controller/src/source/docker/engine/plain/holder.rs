//! Holders: the containers that only hold an address.

use super::super::{Engine, EngineError, found};
use crate::model::{Families, Family};
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::net::IpAddr;

/// The most memory of a holder, in bytes. It needs three pages; what starts it in its control group needs some MiB.
const MEMORY: i64 = 32 * 1024 * 1024;
/// The most threads of a holder. It has one; what starts it has some.
const THREADS: i64 = 32;

/// A holder that is to be made.
#[derive(Debug)]
pub(crate) struct Holder<'a> {
    /// Its name.
    pub(crate) name: String,
    /// Its image.
    pub(crate) image: &'a str,
    pub(crate) labels: HashMap<String, String>,
    /// The network that it is on.
    pub(crate) network: &'a str,
    /// Its other name on that network.
    pub(crate) alias: &'a str,
    /// Its addresses there; the Engine chooses those that are not given.
    pub(crate) addresses: Families<IpAddr>,
}

/// The image of holders.
#[derive(Debug)]
pub(crate) struct HolderImage<'a> {
    /// Its name, without a tag.
    pub(crate) name: &'a str,
    pub(crate) tag: &'a str,
    /// The path of its program.
    pub(crate) program: &'a str,
    /// A tar archive of its file system.
    pub(crate) archive: Vec<u8>,
}

impl Engine {
    /// Makes a holder, which does not run yet; gives its id.
    pub(crate) async fn create_holder(&self, holder: Holder<'_>) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(&holder.name).build();
        let create = self.docker.create_container(Some(options), body(holder));
        Ok(self.told("make a container that holds a VIP", create).await?.id)
    }

    /// Starts a container.
    pub(crate) async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        self.told("start a container that holds a VIP", self.docker.start_container(id, None)).await
    }

    /// Removes a container, which may run, or be gone already.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let remove = self.docker.remove_container(id, Some(options));
        found(self.told("remove a container that held a VIP", remove).await).map(drop)
    }

    /// Whether there is an image of that name and tag.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let inspected = self.asked("look for an image", self.docker.inspect_image(image)).await;
        found(inspected).map(|image| image.is_some())
    }

    /// The machine's architecture, in the Engine's words.
    pub(crate) async fn architecture(&self) -> Result<String, EngineError> {
        let version = self.asked("say its version", self.docker.version()).await?;
        Ok(version.arch.unwrap_or_default())
    }

    /// Makes the image of holders.
    pub(crate) async fn import_image(&self, image: HolderImage<'_>) -> Result<(), EngineError> {
        let HolderImage { name, tag, program, archive } = image;
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(name)
            .tag(tag)
            .message("made by ringlb")
            .changes(vec![format!("ENTRYPOINT [\"{program}\"]")])
            .build();
        let import = self.docker.create_image(Some(options), Some(bollard::body_full(archive.into())), None);
        self.told("import the image of containers that hold VIPs", import.try_collect::<Vec<_>>()).await.map(drop)
    }

    /// Removes an image of that name and tag, which may be gone already.
    pub(crate) async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let remove = self.docker.remove_image(image, None::<RemoveImageOptions>, None);
        found(self.told("remove the image of containers that hold VIPs", remove).await).map(drop)
    }
}

/// It can do nothing but be there, and comes back with the Engine.
fn body(holder: Holder<'_>) -> ContainerCreateBody {
    let Holder { name: _, image, labels, network, alias, addresses } = holder;
    let text = |family| addresses.get(family).map(ToString::to_string);
    let fixed = EndpointIpamConfig {
        ipv4_address: text(Family::V4),
        ipv6_address: text(Family::V6),
        ..EndpointIpamConfig::default()
    };
    let endpoint = EndpointSettings {
        aliases: Some(vec![alias.to_owned()]),
        ipam_config: (!addresses.is_empty()).then_some(fixed),
        ..EndpointSettings::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(labels),
        // As the first process of its pid namespace it does not hear SIGTERM.
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            memory: Some(MEMORY),
            pids_limit: Some(THREADS),
            init: Some(false),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}
