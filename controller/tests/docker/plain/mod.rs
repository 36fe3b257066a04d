//! Containers on plain bridge networks, as Docker Compose makes them, on an Engine that is in no swarm.

mod labels;
mod restarts;
mod serving;
mod stopping;

use crate::daemon::Daemon;
use crate::engine::Engine;
use crate::image::IMAGE;
use crate::leftovers;
use crate::wait::wait_until;
use crate::wire::Wire;
use ringlb_netns::Namespace;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// A network whose subnet is given, and one whose subnet the Engine chooses.
const NETWORK: &str = "shop";
const SUBNET: &str = "10.77.0.0/24";

/// A server that is asked on two ports.
const SERVER: [&str; 5] = ["serve", "--listen", "0.0.0.0:80", "--listen", "0.0.0.0:7777"];

/// One node with an Engine and a network.
struct Plain {
    engine: Engine,
    wire: Wire,
}

impl Plain {
    fn start() -> Self {
        leftovers::remove_of_ended_runs();
        let wire = Wire::new();
        let mut engine = Engine::new(&wire, 1);
        engine.start();
        engine.wait_until_ready();
        engine.import_image();
        engine.docker(&["network", "create", "--subnet", SUBNET, NETWORK]);
        Self { engine, wire }
    }

    fn daemon(&self) -> Daemon {
        let mut daemon = Daemon::start(&self.engine);
        daemon.wait_until_it_answers();
        daemon
    }

    /// Runs a container with these labels on the network; gives the name that its server answers with.
    fn run(&self, name: &str, labels: &[&str]) -> String {
        self.run_with(name, labels, &["--network", NETWORK], &SERVER)
    }

    /// The same with other options and another program.
    fn run_with(&self, name: &str, labels: &[&str], options: &[&str], arguments: &[&str]) -> String {
        // Each server has a ring; without the capability all rings of a user share what RLIMIT_MEMLOCK allows.
        let fixed = ["run", "--detach", "--cap-add", "IPC_LOCK", "--name", name];
        let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", *label]).collect();
        let id = self.engine.docker(&[&fixed, &labels[..], options, &[IMAGE], arguments].concat());
        id[..12].to_owned()
    }

    fn client(&self) -> Namespace {
        self.engine.client("client", NETWORK)
    }

    fn node(&self) -> &Namespace {
        &self.engine.machine.namespace
    }

    fn outside(&self) -> &Namespace {
        &self.wire.namespace
    }

    /// The VIP of a service on the network, once it has one.
    fn vip(&self, daemon: &Daemon, service: &str) -> IpAddr {
        let name = format!("{NETWORK}.{service}");
        let mut vip = None;
        wait_until(&format!("{name} has a VIP"), || {
            vip = daemon.network(&name).and_then(|network| network["services"][0]["vip"].as_str()?.parse().ok());
            vip.is_some()
        });
        vip.unwrap()
    }

    /// That port of it.
    fn target(&self, daemon: &Daemon, service: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(daemon, service), port)
    }

    /// The container that holds the VIP of a service.
    fn holder(&self, service: &str) -> Option<Value> {
        let filters = crate::http::encode(&format!(r#"{{"label":{{"ringlb.holder={service}":true}}}}"#));
        let holders = self.engine.get(&format!("/containers/json?all=true&filters={filters}"));
        let holders = holders.as_array().unwrap();
        assert!(holders.len() <= 1, "{holders:#?}");
        holders.first().cloned()
    }
}

/// The backends of the only service of a network, as the status shows them.
fn backends(daemon: &Daemon, network: &str) -> Vec<Value> {
    let network = daemon.network(network).unwrap_or_default();
    network["services"][0]["backends"].as_array().cloned().unwrap_or_default()
}

/// What the status says of the plain networks as a whole.
fn source(daemon: &Daemon) -> Value {
    let status = daemon.status();
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == "compose").unwrap_or_else(|| panic!("{status:#}")).clone()
}
