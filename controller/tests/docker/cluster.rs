//! A swarm of Engines on one wire: the first is its manager.

use crate::daemon::Daemon;
use crate::engine::{ContainerEvent, Engine};
use crate::http;
use crate::image::IMAGE;
use crate::leftovers;
use crate::wait::{PATIENCE, wait_until, wait_within};
use crate::wire::{Wire, address_of};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

/// Ended when dropped.
pub(crate) struct Cluster {
    pub(crate) engines: Vec<Engine>,
    pub(crate) wire: Wire,
}

impl Cluster {
    /// A swarm of so many nodes, all of which have the test image.
    pub(crate) fn start(nodes: u8) -> Self {
        Self::start_of(nodes, Engine::new)
    }

    /// The same on booted machines, where Engines are system services.
    pub(crate) fn boot(nodes: u8) -> Self {
        Self::start_of(nodes, Engine::boot)
    }

    fn start_of(nodes: u8, engine: fn(&Wire, u8) -> Engine) -> Self {
        leftovers::remove_of_ended_runs();
        let wire = Wire::new();
        let mut engines: Vec<Engine> = (1..=nodes).map(|number| engine(&wire, number)).collect();
        engines.iter_mut().for_each(Engine::start);
        for engine in &mut engines {
            engine.wait_until_ready();
            engine.import_image();
        }
        let cluster = Self { engines, wire };
        cluster.join_all();
        cluster
    }

    fn join_all(&self) {
        let manager = address_of(1).to_string();
        self.manager().docker(&["swarm", "init", "--advertise-addr", &manager, "--listen-addr", &manager]);
        let token = self.manager().docker(&["swarm", "join-token", "-q", "worker"]);
        for engine in &self.engines[1..] {
            let address = address_of(engine.number).to_string();
            let addresses = ["--advertise-addr", &address, "--listen-addr", &address];
            engine.docker(&[&["swarm", "join", "--token", &token][..], &addresses, &[&manager]].concat());
        }
        wait_until("all nodes are ready", || {
            let nodes = self.manager().get("/nodes");
            let ready = nodes.as_array().unwrap().iter().filter(|node| node["Status"]["State"] == "ready").count();
            ready == self.engines.len()
        });
    }

    pub(crate) fn manager(&self) -> &Engine {
        &self.engines[0]
    }

    /// An overlay network to which containers can be attached.
    pub(crate) fn create_network(&self, name: &str) {
        self.create_network_with(name, &[]);
    }

    /// The same with more options.
    pub(crate) fn create_network_with(&self, name: &str, options: &[&str]) {
        let fixed = ["network", "create", "--driver", "overlay", "--attachable"];
        self.manager().docker(&[&fixed, options, &[name]].concat());
    }

    /// A service of the test server on port 80, with these options. Does not wait for its tasks.
    pub(crate) fn create_service(&self, name: &str, options: &[&str]) {
        self.create_service_running(name, options, &["serve", "--listen", "0.0.0.0:80"]);
    }

    /// The same with other arguments of the test server.
    pub(crate) fn create_service_running(&self, name: &str, options: &[&str], arguments: &[&str]) {
        // Each server has a ring; without the capability all rings of a user share what RLIMIT_MEMLOCK allows.
        let fixed = ["service", "create", "--detach", "--no-resolve-image", "--cap-add", "IPC_LOCK", "--name", name];
        self.manager().docker(&[&fixed, options, &[IMAGE], arguments].concat());
    }

    /// `docker service update`, without waiting.
    pub(crate) fn update_service(&self, name: &str, options: &[&str]) {
        self.manager().docker(&[&["service", "update", "--detach", "--no-resolve-image"], options, &[name]].concat());
    }

    /// Waits until that many tasks run and no others are to.
    pub(crate) fn wait_for_replicas(&self, service: &str, count: usize) {
        let begun = Instant::now();
        loop {
            let wanted = self.wanted_tasks(service);
            if wanted.len() == count && wanted.iter().all(|task| task["Status"]["State"] == "running") {
                return;
            }
            let states: Vec<&Value> = wanted.iter().map(|task| &task["Status"]).collect();
            assert!(begun.elapsed() < PATIENCE, "{service} should have {count} tasks and has {states:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until an update has completed.
    pub(crate) fn wait_for_update(&self, service: &str) {
        wait_within(Duration::from_secs(90), &format!("the update of {service} has completed"), || {
            let inspected = self.manager().get(&format!("/services/{service}"));
            let state = &inspected["UpdateStatus"]["State"];
            assert!(state != "paused", "{inspected}");
            state == "completed"
        });
    }

    /// The tasks that are to run.
    pub(crate) fn wanted_tasks(&self, service: &str) -> Vec<Value> {
        let filters = format!(r#"{{"service":{{"{service}":true}},"desired-state":{{"running":true}}}}"#);
        let tasks = self.manager().get(&format!("/tasks?filters={}", http::encode(&filters)));
        tasks.as_array().unwrap().clone()
    }

    /// The names that the servers of the service's tasks answer with, sorted.
    pub(crate) fn servers_of(&self, service: &str) -> Vec<String> {
        names_of(&self.wanted_tasks(service))
    }

    /// The same, once all of them run.
    pub(crate) fn servers_if_running(&self, service: &str) -> Option<Vec<String>> {
        let tasks = self.wanted_tasks(service);
        tasks.iter().all(|task| task["Status"]["State"] == "running").then(|| names_of(&tasks))
    }

    /// The service's VIP on the network.
    pub(crate) fn vip(&self, service: &str, network: &str) -> IpAddr {
        let id = self.manager().get(&format!("/networks/{network}"))["Id"].clone();
        let mut vip = None;
        wait_until(&format!("{service} has a VIP"), || {
            let inspected = self.manager().get(&format!("/services/{service}"));
            let vips = inspected["Endpoint"]["VirtualIPs"].as_array().cloned().unwrap_or_default();
            let found = vips.iter().find(|entry| entry["NetworkID"] == id);
            vip = found.map(|entry| entry["Addr"].as_str().unwrap().split('/').next().unwrap().parse().unwrap());
            vip.is_some()
        });
        vip.unwrap()
    }

    /// The node of that number.
    pub(crate) fn engine(&self, number: u8) -> &Engine {
        &self.engines[usize::from(number) - 1]
    }

    /// A daemon on every node, each of which answers.
    pub(crate) fn start_daemons(&self) -> Vec<Daemon> {
        let mut daemons: Vec<Daemon> = self.engines.iter().map(Daemon::start).collect();
        for daemon in &mut daemons {
            daemon.wait_until_it_answers();
        }
        daemons
    }

    /// What happened to containers on all nodes since then, in order.
    pub(crate) fn container_events(&self, since: SystemTime) -> Vec<ContainerEvent> {
        let mut events: Vec<_> = self.engines.iter().flat_map(|engine| engine.container_events(since)).collect();
        events.sort_by_key(|event| event.time);
        events
    }

    /// That port of the service's VIP on the network.
    pub(crate) fn target(&self, service: &str, network: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(service, network), port)
    }
}

/// The names that tasks' servers answer with, sorted.
fn names_of(tasks: &[Value]) -> Vec<String> {
    let name = |task: &Value| task["Status"]["ContainerStatus"]["ContainerID"].as_str().unwrap()[..12].to_owned();
    let mut names: Vec<String> = tasks.iter().map(name).collect();
    names.sort();
    names
}
