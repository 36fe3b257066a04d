//! A network's plumbing: namespaces, bridges, veth legs, addresses, routes and the steering of connections to a
//! listener. It knows nothing of services.
//!
//! From the bottom up:
//! - [`Namespace`] is an open network namespace, named (visible to `ip netns`) or not;
//! - [`Links`] are the verbs on one namespace, spoken over a netlink socket that was opened inside it;
//! - [`SteeredListener`] is one listening socket that gets the connections to every TCP port of every VIP;
//! - [`Fabric`] is a network's bridge in a namespace of its own, and the legs that connect namespaces to it;
//! - [`Sandbox`] is the namespace in which a network's proxy lives;
//! - [`AddressPool`] hands out a subnet's addresses, and touches no kernel;
//! - [`isolate`] moves the calling process into namespaces of its own, for tests and demonstrations.
//!
//! Everything that makes or removes something can be repeated with the same result. Nothing is shelled out.
//!
//! IPv6 is not supported yet: whoever passes an IPv6 address gets [`Error::Ipv6Unsupported`], except from
//! [`AddressPool`], which knows both families.

mod address_pool;
mod error;
mod fabric;
pub mod isolate;
mod leftovers;
mod links;
mod name;
mod namespace;
mod plan;
mod sandbox;
mod steering;
mod syscalls;

pub use address_pool::AddressPool;
pub use error::{Error, Result};
pub use fabric::Fabric;
pub use leftovers::{leftovers, remove_leftovers};
pub use links::{Link, Links};
pub use namespace::Namespace;
pub use plan::NetworkPlan;
pub use sandbox::Sandbox;
pub use steering::{SteeredListener, Steering, SteeringKind};
