//! A network with two servers and a client on it.

use crate::node::{Container, Node, wait_until};
use ringlb_load::ServerHandle;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// One of several networks of a node: number `n` has 10.n.0.0/16, with servers at 10.n.0.11 and 10.n.0.12 that give their
/// address for their name.
pub(super) struct Site {
    pub(super) network: String,
    pub(super) client: Container,
    number: u8,
    _servers: Vec<ServerHandle>,
}

/// What the servers listen on.
pub(super) const PORT: u16 = 80;

impl Site {
    pub(super) fn make(node: &Node, number: u8) -> Self {
        let network = format!("net-{number}");
        node.ringlb(&["network", "create", &network, "--subnet", &format!("10.{number}.0.0/16")]);
        let container =
            |last: u8| node.container_on(&network, number * 10 + last % 10, &[&format!("10.{number}.0.{last}")]);
        let servers = [container(11), container(12)];
        let servers = servers.iter().map(|server| server.serve(&server.address.to_string(), PORT)).collect();
        let client = container(100);
        Self { client, network, number, _servers: servers }
    }

    /// The address of that server, which is also its name.
    pub(super) fn server(&self, index: u8) -> IpAddr {
        IpAddr::from([10, self.number, 0, 11 + index])
    }

    /// A VIP.
    pub(super) fn vip(&self, index: u16) -> IpAddr {
        let [high, low] = index.to_be_bytes();
        IpAddr::from([10, self.number, 192 + high, low])
    }

    pub(super) fn target(&self, index: u16) -> SocketAddr {
        (self.vip(index), PORT).into()
    }

    /// A service with both servers, under that VIP.
    pub(super) fn service(&self, node: &Node, name: &str, index: u16) {
        let mut admin = node.admin();
        let backends = [0, 1].map(|index| format!(r#"{{"ip": "{}"}}"#, self.server(index))).join(", ");
        let body = format!(r#"{{"vip": "{}", "backends": [{backends}]}}"#, self.vip(index));
        admin.done("PUT", &format!("/v1/networks/{}/services/{name}", self.network), &body);
    }

    /// The process of the proxy, once the network is as it should be.
    pub(super) fn proxy(&self, node: &Node) -> i32 {
        let mut proxy = None;
        wait_until("the network is as it should be", || {
            proxy = settled_proxy(self.of(&node.admin().get("/v1/status")));
            proxy.is_some()
        });
        proxy.unwrap()
    }

    /// What is said of the network in the answer to a status.
    pub(super) fn of<'a>(&self, status: &'a Value) -> &'a Value {
        let networks = status["networks"].as_array().unwrap();
        networks.iter().find(|network| network["name"] == self.network.as_str()).unwrap()
    }
}

/// The process of a network's proxy, if the network is as it should be.
pub(super) fn settled_proxy(network: &Value) -> Option<i32> {
    let settled = network["acknowledged_generation"] == network["generation"] && network["error"].is_null();
    settled.then(|| network["proxy"]["pid"].as_i64()).flatten().map(|pid| i32::try_from(pid).unwrap())
}
