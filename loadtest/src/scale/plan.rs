//! Names and addresses of all that is built in a step.
//!
//! Each network has a part of 10.0.0.0/8, as large as it needs: its upper quarter for VIPs, which ringlb chooses, as it does
//! for its users, but for that of the first service; the rest for containers and backends. Backends are addresses; behind
//! those of the first network's first service there is a server.

use super::size::Size;
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Where all networks are.
const ALL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);
/// The most that a daemon takes (`controller/src/model/limits.rs`).
const MOST: Size = Size { networks: 1_000, services: 20_000, backends: 1_000 };
/// Addresses at the beginning of each network that are not for backends.
const FIRST_BACKEND: u32 = 16;
/// Addresses that are neither a VIP's nor a backend's: the two ends of the subnet, the containers', the LB endpoint's.
const OTHERS: u64 = FIRST_BACKEND as u64 + 2;

/// The port of the server.
pub(super) const PORT: u16 = 7000;

/// A container: a namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container {
    pub(super) name: &'static str,
    number: u32,
}

/// The container that is on every network, and connects.
pub(super) const CLIENT: Container = Container { name: "client", number: 4 };
/// The container that is on the first network, and serves.
pub(super) const SERVER: Container = Container { name: "server", number: 5 };

/// What is built in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) size: Size,
    prefix: u8,
}

impl Container {
    /// The name of its namespace.
    pub(super) fn namespace(self) -> String {
        format!("scale-{}", self.name)
    }
}

impl Plan {
    /// An error says why it cannot be.
    pub(super) fn of(size: Size) -> Result<Self, String> {
        let Size { networks, services, backends } = size;
        if networks > MOST.networks || services > MOST.services || backends > MOST.backends {
            return Err(format!(
                "{size} is more than a daemon takes, {MOST}: networks, services of each, backends of each"
            ));
        }
        let (vips, hosts) = (u64::from(services) + 2, u64::from(services) * u64::from(backends) + OTHERS);
        let fits = |prefix: &u8| {
            let quarter = 1_u64 << (32 - prefix - 2);
            vips <= quarter && hosts <= 3 * quarter
        };
        let prefix = (ALL.prefix_len()..=24).rev().find(fits);
        prefix
            .filter(|prefix| networks <= 1 << (prefix - ALL.prefix_len()))
            .map(|prefix| Self { size, prefix })
            .ok_or_else(|| format!("{size} backends need more addresses than {ALL} has"))
    }

    /// All networks, by their number.
    pub(super) fn networks(&self) -> std::ops::Range<u32> {
        0..self.size.networks
    }

    /// All services of a network, by their number.
    pub(super) fn services(&self) -> std::ops::Range<u32> {
        0..self.size.services
    }

    /// A network's name.
    pub(super) fn network_name(network: u32) -> String {
        format!("net-{network}")
    }

    /// A service's name.
    pub(super) fn service_name(service: u32) -> String {
        format!("service-{service}")
    }

    /// A network in the API.
    pub(super) fn network_path(network: u32) -> String {
        format!("/v1/networks/{}", Self::network_name(network))
    }

    /// A service in the API.
    pub(super) fn service_path(network: u32, service: u32) -> String {
        format!("{}/services/{}", Self::network_path(network), Self::service_name(service))
    }

    /// A backend in the API.
    pub(super) fn backend_path(&self, network: u32, service: u32, backend: u32) -> String {
        let address = self.backend(network, service, backend);
        format!("{}/backends/{address}", Self::service_path(network, service))
    }

    /// A network's settings.
    pub(super) fn network(&self, network: u32) -> Value {
        json!({ "subnet": self.subnet(network).to_string() })
    }

    /// The containers on a network.
    pub(super) fn containers(network: u32) -> impl Iterator<Item = Container> {
        std::iter::once(CLIENT).chain((network == 0).then_some(SERVER))
    }

    /// A container's settings on a network.
    pub(super) fn attachment(&self, network: u32, container: Container) -> Value {
        let netns = format!("/run/netns/{}", container.namespace());
        json!({ "netns": netns, "ip": self.address(network, container.number) })
    }

    /// A service's settings, with backends of that weight.
    pub(super) fn service(&self, network: u32, service: u32, weight: u16) -> Value {
        let backend = |number| json!({ "ip": self.backend(network, service, number), "weight": weight });
        let backends: Vec<_> = (0..self.size.backends).map(backend).collect();
        let mut settings = json!({ "backends": backends });
        if (network, service) == (0, 0) {
            settings["vip"] = json!(self.vip());
        }
        settings
    }

    /// All of it as one state, with backends of that weight: JSON text, as that of a million backends is long enough.
    pub(super) fn state(&self, weight: u16) -> String {
        let list = |entries: &mut dyn Iterator<Item = String>| entries.collect::<Vec<_>>().join(",");
        let named = |name: &str, mut settings: Value| {
            settings["name"] = json!(name);
            settings.to_string()
        };
        let network = |number: u32| {
            let attachments = list(
                &mut Self::containers(number)
                    .map(|container| named(container.name, self.attachment(number, container))),
            );
            let services = list(
                &mut self
                    .services()
                    .map(|service| named(&Self::service_name(service), self.service(number, service, weight))),
            );
            let (name, subnet) = (Self::network_name(number), self.subnet(number));
            format!(r#"{{"name":"{name}","subnet":"{subnet}","attachments":[{attachments}],"services":[{services}]}}"#)
        };
        format!(r#"{{"version":1,"networks":[{}]}}"#, list(&mut self.networks().map(network)))
    }

    /// The VIP of the first network's first service.
    pub(super) fn vip(&self) -> Ipv4Addr {
        self.address(0, 3 << (32 - self.prefix - 2))
    }

    /// A backend's address.
    pub(super) fn backend(&self, network: u32, service: u32, backend: u32) -> Ipv4Addr {
        self.address(network, FIRST_BACKEND + service * self.size.backends + backend)
    }

    fn subnet(&self, network: u32) -> Ipv4Net {
        Ipv4Net::new_assert(self.address(network, 0), self.prefix)
    }

    /// It is in the network: what it is made of was checked.
    fn address(&self, network: u32, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(ALL.network().to_bits() + (network << (32 - self.prefix)) + number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn plan(size: &str) -> Result<Plan, String> {
        Plan::of(size.parse().unwrap())
    }

    #[test]
    fn every_network_has_room_for_what_is_its_own() {
        for size in ["1x1x1", "3x1x200", "500x10x10", "1x200x1", "1000x62x3"] {
            let plan = plan(size).unwrap();
            let mut seen = HashSet::new();
            for network in plan.networks() {
                let subnet = plan.subnet(network);
                assert!(ALL.contains(&subnet), "{size}: {subnet}");
                let vips = Ipv4Net::new(plan.address(network, 3 << (32 - plan.prefix - 2)), plan.prefix + 2).unwrap();
                assert!(plan.size.services + 2 <= 1 << (32 - vips.prefix_len()), "{size}");
                for service in plan.services() {
                    for backend in 0..plan.size.backends {
                        let address = plan.backend(network, service, backend);
                        assert!(subnet.contains(&address) && !vips.contains(&address), "{size}: {address}");
                        assert!(seen.insert(address), "{size}: {address} twice");
                    }
                }
            }
        }
    }

    #[test]
    fn a_million_backends_fit_and_more_than_there_are_addresses_do_not() {
        assert_eq!(plan("1x10000x100").unwrap().prefix, 11);
        assert!(plan("9x10000x100").unwrap_err().contains("more addresses than 10.0.0.0/8"));
        assert!(plan("1x10000x1001").unwrap_err().contains("more than a daemon takes"));
    }

    #[test]
    fn a_state_has_all_of_it() {
        let state: Value = serde_json::from_str(&plan("2x3x4").unwrap().state(7)).unwrap();
        let networks = state["networks"].as_array().unwrap();
        assert_eq!(networks.len(), 2);
        assert_eq!(networks[0]["attachments"].as_array().unwrap().len(), 2);
        assert_eq!(networks[1]["attachments"].as_array().unwrap().len(), 1);
        let services = networks[1]["services"].as_array().unwrap();
        assert_eq!((services.len(), services[2]["backends"].as_array().unwrap().len()), (3, 4));
        assert_eq!(services[2]["backends"][3], json!({"ip": "10.0.1.27", "weight": 7}));
        assert_eq!(networks[0]["services"][0]["vip"], "10.0.0.192");
    }
}
