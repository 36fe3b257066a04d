//! What workers learn from the swarm's managers: labels, and the protocols of published ports.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::engine::Engine;
use crate::held::connect;
use crate::lasting::Lasting;
use crate::requests::{ask, ask_all, ask_udp, wait_for_servers};
use crate::wait::{finish, wait_until, wait_within};
use crate::wire::{address_of, port_of};
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The port of ringlb on managers.
const PORT: u16 = 9479;

/// The setting of the service at the published port, as the status shows it.
fn setting(daemon: &Daemon, service: &str, setting: &str) -> Value {
    let ingress = daemon.network("ingress").unwrap_or_default();
    let services = ingress["services"].as_array().cloned().unwrap_or_default();
    services.into_iter().find(|entry| entry["name"] == service).unwrap_or_default()[setting].clone()
}

fn source(daemon: &Daemon) -> Value {
    daemon.status()["sources"][0].clone()
}

/// Waits until all workers have that algorithm; says how long it took.
fn wait_for_algorithm(workers: &[Daemon], algorithm: &str, since: &str) {
    let took = wait_within(Duration::from_secs(60), &format!("workers have the algorithm {algorithm}"), || {
        workers.iter().all(|worker| setting(worker, "web", "algorithm") == algorithm)
    });
    println!("{algorithm} is in force on all workers {took:?} after {since}");
}

#[test]
fn workers_follow_what_a_manager_tells() {
    let cluster = Cluster::start(3);
    cluster.create_network("net");
    let options = ["--network", "net", "--replicas", "3", "--publish", "8080:80"];
    cluster.create_service("web", &[&options[..], &["--label", "ringlb.algorithm=source-hash"]].concat());
    // A port of the Engine's own beside one of ringlb's.
    let ports = ["--publish", "9053:80/udp", "--publish", "mode=host,published=9100,target=80"];
    cluster.create_service("dns", &[&["--network", "net", "--mode", "global"][..], &ports].concat());
    cluster.wait_for_replicas("web", 3);
    cluster.wait_for_replicas("dns", 3);
    let manager = cluster.manager();
    let outside = &cluster.wire.namespace;
    let servers = cluster.servers_of("web");

    // A manager that tells nothing.
    let mut silent = Daemon::start_with(manager, &["--cluster-port", "0"]);
    let mut workers: Vec<Daemon> = cluster.engines[1..].iter().map(Daemon::start).collect();
    silent.wait_until_it_answers();
    for (worker, number) in workers.iter_mut().zip([2, 3]) {
        worker.wait_until_it_answers();
        wait_for_servers(outside, port_of(number, 8080), &servers);
        wait_until("a datagram is answered", || ask_udp(outside, port_of(number, 9053)).is_ok());
        // As long as the protocol is not known, it is published for both.
        assert!(is_open(outside, port_of(number, 9053)));
        wait_until("the worker says what is wrong", || source(worker)["labels_error"].is_string());
        let told = source(worker);
        assert_eq!(told["labels_from"], "none", "{told:#}");
        let error = told["labels_error"].as_str().unwrap();
        assert!(error.contains("192.0.2.1:9479") && error.contains("--cluster-port"), "{error}");
        assert!(worker.command(&["status"]).contains(error));
        assert_host_port_is_left_alone(worker, &cluster, number);
    }
    assert!(!is_open(outside, port_of(1, 9053)));
    silent.end();

    let mut telling = Daemon::start(manager);
    telling.wait_until_it_answers();
    wait_for_algorithm(&workers, "source-hash", "the manager's daemon answers");
    for (worker, number) in workers.iter().zip([2, 3]) {
        assert_eq!(
            (&source(worker)["labels_from"], &source(worker)["labels_error"]),
            (&json!("cluster"), &Value::Null)
        );
        let answers = ask_all(outside, port_of(number, 8080), 20);
        assert_eq!(answers.len(), 1, "{answers:?}");
        wait_until("the port is not published for TCP any more", || !is_open(outside, port_of(number, 9053)));
        ask_udp(outside, port_of(number, 9053)).unwrap();
        assert_eq!(setting(worker, "dns", "published"), json!([{"port": 9053, "protocol": "udp", "target": 80}]));
        assert_host_port_is_left_alone(worker, &cluster, number);
    }
    assert_only_nodes_learn(&cluster);

    let chosen = ask(outside, port_of(2, 8080)).unwrap();
    let lasting = Lasting::open(outside, port_of(2, 8080), &[chosen], 4);
    cluster.update_service("web", &["--label-add", "ringlb.algorithm=wrr", "--label-add", "ringlb.idle-timeout=soon"]);
    wait_for_algorithm(&workers, "wrr", "the command");
    wait_until("workers tell what is wrong with a label too", || {
        workers.iter().all(|worker| source(worker)["invalid_labels"][0]["label"] == "ringlb.idle-timeout")
    });

    // What was heard last counts while the manager is away.
    telling.kill();
    wait_until("workers say that it is away", || {
        workers.iter().all(|worker| source(worker)["labels_error"].is_string())
    });
    let change = ["--label-rm", "ringlb.idle-timeout", "--label-add", "ringlb.algorithm=maglev"];
    cluster.update_service("web", &change);
    for (worker, number) in workers.iter().zip([2, 3]) {
        assert_eq!(setting(worker, "web", "algorithm"), "wrr");
        assert_eq!(source(worker)["labels_from"], "cluster");
        wait_for_servers(outside, port_of(number, 8080), &servers);
        assert!(!is_open(outside, port_of(number, 9053)));
    }
    let mut telling = Daemon::start(manager);
    telling.wait_until_it_answers();
    wait_for_algorithm(&workers, "maglev", "the manager's next daemon answers");
    for worker in &workers {
        let told = source(worker);
        assert!(told["labels_error"].is_null() && told["invalid_labels"] == json!([]), "{told:#}");
    }
    let ends = lasting.close();
    assert!(ends.is_empty(), "{ends:?}");
    another_manager_tells(&cluster, &workers, telling);
}

/// A worker becomes a manager and tells the others while the first one's daemon is away; then it is a worker again.
fn another_manager_tells(cluster: &Cluster, workers: &[Daemon], telling: Daemon) {
    let name = &cluster.engine(2).machine.name;
    let becomes = |role: &str, labels_from: &str| {
        wait_until(&format!("the second node is a {role}"), || {
            let told = source(&workers[0]);
            told["engine"]["role"] == role && told["labels_from"] == labels_from && told["labels_error"].is_null()
        });
    };
    cluster.manager().docker(&["node", "promote", name]);
    becomes("manager", "manager");
    telling.kill();
    cluster.update_service("web", &["--label-add", "ringlb.algorithm=rr"]);
    wait_for_algorithm(workers, "rr", "the command, told by another manager");
    cluster.manager().docker(&["node", "demote", name]);
    let mut telling = Daemon::start(cluster.manager());
    telling.wait_until_it_answers();
    becomes("worker", "cluster");
    cluster.update_service("web", &["--label-add", "ringlb.algorithm=wrr"]);
    wait_for_algorithm(workers, "wrr", "the command, told by the first manager again");
}

/// Whether somebody listens there for TCP.
fn is_open(from: &Namespace, target: SocketAddr) -> bool {
    match connect(from, target) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{target}: {error}"),
    }
}

/// The Engine serves it by its own proxy and rules.
fn assert_host_port_is_left_alone(worker: &Daemon, cluster: &Cluster, number: u8) {
    let status = worker.status();
    assert!(!status["networks"].to_string().contains("9100"), "{status:#}");
    assert!(status["networks"].as_array().unwrap().iter().all(|network| network["failed_ports"] == json!({})));
    let own = cluster.engine(number).docker(&["ps", "-q", "--filter", "name=dns"]);
    assert_eq!(ask_all(&cluster.wire.namespace, port_of(number, 9100), 3).into_keys().collect::<Vec<_>>(), [own]);
}

/// A node's own certificate is answered by the services, and nothing else is.
fn assert_only_nodes_learn(cluster: &Cluster) {
    let node = Identity::of(cluster.engine(2));
    let heard = node.connect(cluster);
    assert!(heard.contains(r#""ringlb.algorithm":"source-hash""#), "{heard}");
    let stranger = Identity::made_at(cluster.engine(2));
    for identity in [Identity { certificate: None, ..node }, stranger] {
        let heard = identity.connect(cluster);
        assert!(!heard.contains("ringlb") && !heard.contains("services"), "{heard}");
    }
}

/// Files that a client shows, and the authority that it believes.
struct Identity {
    certificate: Option<[String; 2]>,
    authority: String,
}

impl Identity {
    /// A node's own.
    fn of(engine: &Engine) -> Self {
        let file = |name: &str| {
            let path = engine.machine.directory.join("data/swarm/certificates").join(name);
            std::fs::read_to_string(path).unwrap()
        };
        // The Engine's headers in it are not known to others.
        let key = file("swarm-node.key").lines().filter(|line| !line.contains(':')).collect::<Vec<_>>().join("\n");
        let write = |name: &str, content: String| {
            let path = engine.machine.directory.join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = [write("node.crt", file("swarm-node.crt")), write("node.key", key)];
        Self { certificate: Some(certificate), authority: write("authority.crt", file("swarm-root-ca.crt")) }
    }

    /// One that says that it is a manager of the same swarm, and is signed by itself.
    fn made_at(engine: &Engine) -> Self {
        let Self { certificate, authority } = Self::of(engine);
        let subject = openssl(&["x509", "-noout", "-subject", "-nameopt", "compat", "-in", &certificate.unwrap()[0]]);
        let subject = subject.trim().trim_start_matches("subject=").trim().to_owned();
        let file = |name: &str| engine.machine.directory.join(name).to_str().unwrap().to_owned();
        let made = [file("made.crt"), file("made.key")];
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", &made[1]];
        openssl(&[&["req", "-x509", "-days", "2", "-subj", &subject, "-out", &made[0]], &key[..]].concat());
        Self { certificate: Some(made), authority }
    }

    /// What the manager says to it, from outside of all nodes.
    fn connect(&self, cluster: &Cluster) -> String {
        let target = format!("{}:{PORT}", address_of(1));
        let mut command = Command::new("timeout");
        command.args([
            "3",
            "openssl",
            "s_client",
            "-quiet",
            "-tls1_3",
            "-connect",
            &target,
            "-servername",
            "swarm-manager",
        ]);
        command.args(["-verify_return_error", "-CAfile", &self.authority]);
        if let Some([certificate, key]) = &self.certificate {
            command.args(["-cert", certificate, "-key", key]);
        }
        cluster.wire.namespace.enter_on_exec(&mut command).unwrap();
        // It ends when the manager hangs up, or after a while.
        let output = command.stdin(Stdio::null()).output().unwrap();
        println!("{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn openssl(arguments: &[&str]) -> String {
    finish(Command::new("openssl").args(arguments))
}
