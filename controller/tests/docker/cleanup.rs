//! `ringlb cleanup`, after a daemon that was killed.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::image::IMAGE;
use crate::leftovers::proxies;
use crate::requests::{ask, wait_for_servers};
use crate::state::{assert_same, state_of};
use crate::wait::wait_until;
use crate::wire::port_of;
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A node with a service of a swarm, a container on a plain network, and a daemon that has served both.
struct Scene {
    cluster: Cluster,
    client: Namespace,
    vip: SocketAddr,
    servers: Vec<String>,
    plain: String,
    /// The node's own namespace, and the Engine's of the two networks of the swarm, with what was in them before.
    before: Vec<(&'static str, Namespace, Vec<String>)>,
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::start(1);
        cluster.create_network("net");
        cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "8080:80"]);
        cluster.wait_for_replicas("web", 2);
        let engine = cluster.manager();
        engine.docker(&["network", "create", "--subnet", "10.77.0.0/24", "shop"]);
        let labels = ["--label", "ringlb.service=shop", "--label", "ringlb.publish=8081:80"];
        let run = ["run", "--detach", "--cap-add", "IPC_LOCK", "--name", "plain", "--network", "shop"];
        let server = [IMAGE, "serve", "--listen", "0.0.0.0:80"];
        let plain = engine.docker(&[&run[..], &labels, &server].concat())[..12].to_owned();
        let client = engine.client("client", "net");
        let vip = cluster.target("web", "net", 80);
        let namespaces = [
            ("the node", engine.machine.namespace.clone()),
            ("the network's sandbox", engine.overlay_sandbox("net")),
            ("the ingress sandbox", engine.ingress_sandbox()),
        ];
        // The network of the plain container has no interface more than before once the holder is gone.
        let before = namespaces.into_iter().map(|(name, namespace)| {
            let state = state_of(&namespace);
            (name, namespace, state)
        });
        let before = before.collect();
        let servers = cluster.servers_of("web");
        Self { cluster, client, vip, servers, plain, before }
    }

    fn wait_until_served(&self) {
        wait_for_servers(&self.client, self.vip, &self.servers);
        wait_for_servers(&self.cluster.wire.namespace, port_of(1, 8080), &self.servers);
        wait_for_servers(&self.cluster.wire.namespace, port_of(1, 8081), std::slice::from_ref(&self.plain));
    }

    fn daemon(&self) -> Daemon {
        let mut daemon = Daemon::start(self.cluster.manager());
        daemon.wait_until_it_answers();
        self.wait_until_served();
        daemon
    }

    #[track_caller]
    fn assert_as_before(&self) {
        let run_dir = Daemon::run_dir_of(self.cluster.manager());
        for (name, namespace, before) in &self.before {
            assert_same(name, &state_of(namespace), before);
        }
        assert_eq!(proxies(&run_dir), 0);
        assert!(!run_dir.exists());
        assert_eq!(self.holders(), "");
        assert!(!self.cluster.manager().docker(&["images"]).contains("ringlb-holder"));
        ask(&self.client, self.vip).unwrap_err();
        for port in [8080, 8081] {
            ask(&self.cluster.wire.namespace, port_of(1, port)).unwrap_err();
        }
    }

    fn holders(&self) -> String {
        self.cluster.manager().docker(&["ps", "--all", "--quiet", "--filter", "label=ringlb.holder"])
    }
}

/// The entries of a list of the report.
fn count(report: &Value, list: &str) -> usize {
    report[list].as_array().unwrap_or_else(|| panic!("{report:#}")).len()
}

#[test]
fn nothing_is_left_of_a_daemon_that_was_killed_and_docker_works_as_before() {
    let scene = Scene::new();
    let engine = scene.cluster.manager();
    let run_dir = Daemon::run_dir_of(engine);
    let daemon = scene.daemon();
    let (done, report, error) = Daemon::clean_up(engine, &[]);
    assert!(!done && report == Value::Null && error.contains("another ringlb daemon runs on"), "{report:#} {error}");
    scene.wait_until_served();

    daemon.kill();
    assert_eq!(proxies(&run_dir), 3);
    scene.wait_until_served();
    // It remembers what the daemon's source was.
    let (done, report, error) = Daemon::clean_up(engine, &[]);
    assert!(done && error.is_empty(), "{report:#} {error}");
    let counts = ["proxies", "sandboxes", "holders", "left", "errors"].map(|list| count(&report, list));
    assert_eq!((counts, &report["image"]), ([3, 2, 1, 0, 0], &json!("ringlb-holder:1")), "{report:#}");
    scene.assert_as_before();
    let (done, report, error) = Daemon::clean_up(engine, &["--source", &source(engine)]);
    let nothing = json!({"proxies": [], "sandboxes": [], "holders": [], "image": null, "namespaces": [], "files": [],
        "left": [], "errors": []});
    assert!(done && error.is_empty() && report == nothing, "{report:#} {error}");

    // Docker works, and the next daemon does.
    engine.docker(&["service", "scale", "--detach", "web=3"]);
    scene.cluster.wait_for_replicas("web", 3);
    let daemon = Daemon::start(engine);
    let servers = scene.cluster.servers_of("web");
    wait_for_servers(&scene.client, scene.vip, &servers);
    // What a daemon that ends in order leaves are the holders, which keep their VIPs.
    wait_until("there is a holder", || !scene.holders().is_empty());
    daemon.end();
    assert!(!scene.holders().is_empty());
    let (done, report, error) = Daemon::clean_up(engine, &[]);
    assert!(done && error.is_empty() && count(&report, "holders") == 1, "{report:#} {error}");
    assert_eq!(scene.holders(), "");
    engine.docker(&["service", "rm", "web"]);
    engine.docker(&["rm", "--force", "client", "plain"]);
    wait_until("the networks can be removed", || {
        engine.cli().args(["network", "rm", "net", "shop"]).output().unwrap();
        !engine.docker(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| ["net", "shop"].contains(&name))
    });
}

/// What can be done without the Engine is done; the rest is told, and done the next time.
#[test]
fn without_an_engine_all_is_cleaned_up_but_what_only_the_engine_can_remove() {
    let mut scene = Scene::new();
    scene.daemon().kill();
    scene.cluster.engines[0].kill();
    let engine = scene.cluster.manager();
    let (done, report, error) = Daemon::clean_up(engine, &[]);
    assert!(!done && error.contains("is the Engine running"), "{report:#} {error}");
    assert_eq!(
        (count(&report, "proxies"), count(&report, "holders"), count(&report, "errors")),
        (3, 0, 1),
        "{report:#}"
    );
    // The Engine's own sockets in there, those of its DNS, have gone with it.
    let of_engine = |line: &String| line.contains(" 127.0.0.11:");
    for (name, namespace, before) in &scene.before[1..] {
        let [now, before] = [state_of(namespace), before.clone()].map(|mut state| {
            state.retain(|line| !of_engine(line));
            state
        });
        assert_same(name, &now, &before);
    }
    assert_eq!(proxies(&Daemon::run_dir_of(engine)), 0);
    scene.cluster.engines[0].start();
    scene.cluster.engines[0].wait_until_ready();
    let (done, report, error) = Daemon::clean_up(scene.cluster.manager(), &[]);
    assert!(done && error.is_empty() && count(&report, "holders") == 1, "{report:#} {error}");
    assert_eq!(scene.holders(), "");
    assert!(!Daemon::run_dir_of(scene.cluster.manager()).exists());
}

/// A daemon on another run directory has the same Engine.
#[test]
fn what_another_daemon_serves_is_left_alone() {
    let scene = Scene::new();
    let engine = scene.cluster.manager();
    let _daemon = scene.daemon();
    let elsewhere = engine.machine.directory.join("elsewhere");
    let (done, report, error) = Daemon::clean_up_on(engine, &elsewhere, &["--source", &source(engine)]);
    assert!(done && error.is_empty(), "{report:#} {error}");
    let counts = ["proxies", "sandboxes", "holders", "left", "errors"].map(|list| count(&report, list));
    assert_eq!((counts, &report["image"]), ([0, 0, 0, 3, 0], &Value::Null), "{report:#}");
    scene.wait_until_served();
}

fn source(engine: &crate::engine::Engine) -> String {
    format!("docker=unix://{}", engine.socket().display())
}
