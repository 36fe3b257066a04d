//! What comes in: the bodies of requests and the desired-state document.
//!
//! Reading one checks its form only. Whether its values go together is checked by [`super::Model`].

mod published;
mod split;

use super::families::{Entry, Listed};
use super::{Families, Weight};
use ipnet::IpNet;
pub use published::PublishedDocument;
use ringlb_proxy::control::message::ServiceSettings;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use split::{put, settings_beside};
use std::fmt;
use std::net::IpAddr;

/// The version of the desired-state document that this program reads.
pub const DOCUMENT_VERSION: u64 = 1;

/// A network's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct NetworkSpec {
    /// The addresses of the network, such as `10.1.0.0/16`: one subnet of either address family, or one of each.
    pub subnet: Families<IpNet>,
    /// The part of each subnet out of which VIPs are chosen. The upper quarter if not given.
    #[serde(default, skip_serializing_if = "Families::is_empty")]
    pub vip_prefix: Families<IpNet>,
}

/// A container's leg on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct AttachmentSpec {
    /// The path of the container's network namespace, such as `/run/netns/c1` or `/proc/4711/ns/net`.
    pub netns: String,
    /// The container's addresses, one in each subnet. The lowest free one outside the VIP prefix if not given.
    #[serde(default, skip_serializing_if = "Families::is_empty")]
    pub ip: Families<IpAddr>,
}

/// A service as it is put. Settings that are not given are the defaults, and no port is published; VIP and backends stay as they are when they are
/// not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceSpec {
    /// The virtual addresses, one in each subnet. The lowest free one of the VIP prefix if not given.
    #[serde(skip_serializing_if = "Families::is_empty")]
    pub vip: Families<IpAddr>,
    /// What is set for it.
    #[serde(flatten)]
    pub settings: ServiceSettings,
    /// The ports of this node under which it is published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedDocument>,
    /// All backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<BackendDocument>>,
}

/// A backend's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct BackendSpec {
    /// Its share of new connections.
    #[serde(default)]
    pub weight: Weight,
    /// Whether it keeps the connections it has and gets no new ones.
    #[serde(default)]
    pub drain: bool,
    /// Whether it is used only when no other backend can be.
    #[serde(default)]
    pub backup: bool,
}

/// A whole desired state: what is not in it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct DesiredState {
    /// [`DOCUMENT_VERSION`].
    pub version: u64,
    /// All networks.
    pub networks: Vec<NetworkDocument>,
}

/// A network in a desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct NetworkDocument {
    /// Its name.
    pub name: String,
    /// See [`NetworkSpec::subnet`].
    pub subnet: Families<IpNet>,
    /// See [`NetworkSpec::vip_prefix`].
    #[serde(default, skip_serializing_if = "Families::is_empty")]
    pub vip_prefix: Families<IpNet>,
    /// All attachments.
    #[serde(default)]
    pub attachments: Vec<AttachmentDocument>,
    /// All services.
    #[serde(default)]
    pub services: Vec<ServiceDocument>,
}

/// An attachment in a desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct AttachmentDocument {
    /// Its name.
    pub name: String,
    /// See [`AttachmentSpec::netns`].
    pub netns: String,
    /// See [`AttachmentSpec::ip`].
    #[serde(default, skip_serializing_if = "Families::is_empty")]
    pub ip: Families<IpAddr>,
}

/// A service in a desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceDocument {
    /// Its name.
    pub name: String,
    /// See [`ServiceSpec::vip`].
    #[serde(skip_serializing_if = "Families::is_empty")]
    pub vip: Families<IpAddr>,
    /// See [`ServiceSpec::settings`].
    #[serde(flatten)]
    pub settings: ServiceSettings,
    /// The ports of this node under which it is published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedDocument>,
    /// All backends.
    pub backends: Vec<BackendDocument>,
}

/// A backend in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct BackendDocument {
    /// Its address on the network.
    #[serde(deserialize_with = "address")]
    pub ip: IpAddr,
    /// See [`BackendSpec::weight`].
    #[serde(default)]
    pub weight: Weight,
    /// See [`BackendSpec::drain`].
    #[serde(default)]
    pub drain: bool,
    /// See [`BackendSpec::backup`].
    #[serde(default)]
    pub backup: bool,
}

/// The derived code takes a list for an object too, its fields in order. Nobody means that.
macro_rules! only_objects {
    ($($document:ty),*) => {$(
        impl Serialize for $document {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$document>::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $document {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;

                impl<'de> Visitor<'de> for Object {
                    type Value = $document;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$document, A::Error> {
                        <$document>::deserialize(MapAccessDeserializer::new(map))
                    }
                }

                deserializer.deserialize_map(Object)
            }
        }
    )*};
}

only_objects!(
    NetworkSpec,
    AttachmentSpec,
    BackendSpec,
    DesiredState,
    NetworkDocument,
    AttachmentDocument,
    BackendDocument,
    PublishedDocument
);

impl<'de> Deserialize<'de> for ServiceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let service = WholeService::read(deserializer, &["vip", "published", "backends"])?;
        let WholeService { vip, settings, published, backends, .. } = service;
        Ok(Self { vip, settings, published, backends })
    }
}

impl<'de> Deserialize<'de> for ServiceDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let service = WholeService::read(deserializer, &["name", "vip", "published", "backends"])?;
        let name = service.name.ok_or_else(|| D::Error::missing_field("name"))?;
        let backends = service.backends.unwrap_or_default();
        Ok(Self { name, vip: service.vip, settings: service.settings, published: service.published, backends })
    }
}

/// All that any form of a service can have.
#[derive(Default)]
struct WholeService {
    name: Option<String>,
    vip: Families<IpAddr>,
    settings: ServiceSettings,
    published: Vec<PublishedDocument>,
    backends: Option<Vec<BackendDocument>>,
}

impl WholeService {
    /// Reads a form that has the settings and these other fields.
    fn read<'de, D: Deserializer<'de>>(deserializer: D, own: &'static [&'static str]) -> Result<Self, D::Error> {
        struct Object(&'static [&'static str]);

        impl<'de> Visitor<'de> for Object {
            type Value = WholeService;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WholeService, A::Error> {
                let (mut name, mut vip, mut published, mut backends) = (None, None, None, None);
                let settings = settings_beside(map, self.0, |field, map| match field {
                    "name" => put(map, field, &mut name),
                    "vip" => put(map, field, &mut vip),
                    "published" => put(map, field, &mut published),
                    _ => put(map, field, &mut backends),
                })?;
                let (vip, published) = (vip.unwrap_or_default(), published.unwrap_or_default());
                Ok(WholeService { name, vip, settings, published, backends })
            }
        }

        deserializer.deserialize_map(Object(own))
    }
}

/// Takes `text` as an IP address.
///
/// # Errors
/// The reason in plain language.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    IpAddr::read(text)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    Entry::deserialize(deserializer).map(|Entry(address)| address)
}
