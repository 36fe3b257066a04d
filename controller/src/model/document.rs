//! What comes in: the bodies of requests and the desired-state document.
//!
//! Reading one checks its form only. Whether its values go together is checked by [`super::Model`].

use super::field::parsed;
use super::{ConnectTimeout, DrainTimeout, Weight};
use ipnet::IpNet;
use ringlb_proxy::control::message::Algorithm;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The version of the desired-state document that this program reads.
pub const DOCUMENT_VERSION: u64 = 1;

/// A network's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct NetworkSpec {
    /// The addresses of the network, such as `10.1.0.0/16`.
    #[serde(deserialize_with = "network")]
    pub subnet: IpNet,
    /// The part of the subnet out of which VIPs are chosen. The upper quarter if not given.
    #[serde(default, deserialize_with = "optional_network", skip_serializing_if = "Option::is_none")]
    pub vip_prefix: Option<IpNet>,
}

/// A container's leg on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct AttachmentSpec {
    /// The path of the container's network namespace, such as `/run/netns/c1` or `/proc/4711/ns/net`.
    pub netns: String,
    /// The container's address. The lowest free one outside the VIP prefix if not given.
    #[serde(default, deserialize_with = "optional_address", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// A service's settings. Those that are not given are the defaults, except that a service keeps its VIP and its
/// backends when they are not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct ServiceSpec {
    /// The virtual address. The lowest free one of the VIP prefix if not given.
    #[serde(default, deserialize_with = "optional_address", skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// How a backend is chosen.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long a draining backend keeps its connections.
    #[serde(default)]
    pub drain_timeout: DrainTimeout,
    /// How long one attempt to connect to a backend may take.
    #[serde(default)]
    pub connect_timeout: ConnectTimeout,
    /// All backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    #[serde(deserialize_with = "network")]
    pub subnet: IpNet,
    /// See [`NetworkSpec::vip_prefix`].
    #[serde(default, deserialize_with = "optional_network", skip_serializing_if = "Option::is_none")]
    pub vip_prefix: Option<IpNet>,
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
    #[serde(default, deserialize_with = "optional_address", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// A service in a desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct ServiceDocument {
    /// Its name.
    pub name: String,
    /// See [`ServiceSpec::vip`].
    #[serde(default, deserialize_with = "optional_address", skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// See [`ServiceSpec::algorithm`].
    #[serde(default)]
    pub algorithm: Algorithm,
    /// See [`ServiceSpec::drain_timeout`].
    #[serde(default)]
    pub drain_timeout: DrainTimeout,
    /// See [`ServiceSpec::connect_timeout`].
    #[serde(default)]
    pub connect_timeout: ConnectTimeout,
    /// All backends.
    #[serde(default)]
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
    ServiceSpec,
    BackendSpec,
    DesiredState,
    NetworkDocument,
    AttachmentDocument,
    ServiceDocument,
    BackendDocument
);

/// Takes `text` as an IP address.
///
/// # Errors
/// The reason in plain language.
pub fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

struct Address(IpAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_address(text).map(Self)
    }
}

struct Cidr(IpNet);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is not a subnet in CIDR notation such as `10.1.0.0/16`"))
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    parsed(deserializer, "an IP address").map(|Address(address)| address)
}

fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    parsed(deserializer, "a subnet in CIDR notation such as `10.1.0.0/16`").map(|Cidr(network)| network)
}

/// A given field has a value: `null` is not taken for "not given", which would hide a template's mistake.
fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    address(deserializer).map(Some)
}

fn optional_network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpNet>, D::Error> {
    network(deserializer).map(Some)
}
