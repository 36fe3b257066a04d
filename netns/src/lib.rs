//! A network's plumbing: namespaces, bridges, veth legs, addresses, routes and the steering of connections and datagrams
//! to a proxy's sockets, for IPv4, IPv6, and both. It knows nothing of services.
//!
//! From the bottom up:
//! - [`Namespace`] is an open network namespace, named (visible to `ip netns`) or not;
//! - [`Links`] are the verbs on one namespace, spoken over a netlink socket that was opened inside it;
//! - [`SteeredSockets`] get the connections to every TCP port, and the datagrams to every UDP port, of every VIP;
//! - [`PortSockets`] have a port of the caller's own namespace;
//! - [`Fabric`] is a network's bridge in a namespace of its own, and the legs that connect namespaces to it;
//! - [`Sandbox`] is the namespace in which a network's proxy lives;
//! - [`isolate`] moves the calling process into namespaces of its own, for tests and demonstrations.
//!
//! Everything that makes or removes something can be repeated with the same result. Nothing is shelled out.

mod announcer;
mod bpf;
mod clearing;
mod error;
mod fabric;
mod families;
mod ipvs;
pub mod isolate;
mod leftovers;
mod links;
mod name;
mod namespace;
mod neighbours;
mod netfilter;
mod parameters;
mod plan;
mod port_sockets;
mod sandbox;
mod shortcuts;
mod steering;
mod syscalls;
mod takeover;

pub use clearing::{Cleared, clear};
pub use error::{Error, Result};
pub use fabric::Fabric;
pub use families::{Addresses, Subnets};
pub use ipvs::{ipvs_balances_in, kernel_has_ipvs};
pub use leftovers::{leftovers, remove_leftover, remove_leftovers};
pub use links::{Link, Links};
pub use namespace::Namespace;
pub use plan::NetworkPlan;
pub use port_sockets::{PortProtocol, PortSockets};
pub use sandbox::Sandbox;
pub use shortcuts::{connection_map, session_map};
pub use steering::{SteeredSockets, Steering, SteeringKind, ThreadSockets};
pub use takeover::{TakenOver, Takeover};
