//! Labels of services on a manager: in force from the start, and changed while there are connections.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::held::Held;
use crate::lasting::Lasting;
use crate::requests::{ask, ask_all, wait_for_servers};
use crate::stops::stop_of;
use crate::wait::{finish, wait_until, wait_within};
use crate::wire::port_of;
use ringlb_netns::Namespace;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// The settings of a service as the status shows them.
fn settings(daemon: &Daemon, service: &str) -> Value {
    let network = daemon.network("net").unwrap_or_default();
    let services = network["services"].as_array().cloned().unwrap_or_default();
    services.into_iter().find(|entry| entry["name"] == service).unwrap_or_default()
}

/// Changes labels of the service with these options, and waits until the settings are so.
fn change(cluster: &Cluster, daemon: &Daemon, service: &str, options: &[&str], is_so: impl Fn(&Value) -> bool) {
    cluster.update_service(service, options);
    let took =
        wait_within(Duration::from_secs(20), &format!("{options:?} is in force"), || is_so(&settings(daemon, service)));
    println!("{options:?} is in force {took:?} after the command");
}

#[test]
fn labels_are_in_force_and_change_without_breaking_a_connection() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let labels = [
        "ringlb.algorithm=source-hash",
        "ringlb.weight=3",
        "ringlb.drain-timeout=7s",
        "ringlb.idle-timeout=30m",
        "ringlb.health.port=80",
        "ringlb.health.interval=200ms",
        "ringlb.max-connections=500",
    ];
    let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", *label]).collect();
    cluster.create_service("web", &[&["--network", "net", "--replicas", "3"][..], &labels].concat());
    cluster.wait_for_replicas("web", 3);
    let client = cluster.manager().client("client", "net");
    let vip = cluster.target("web", "net", 80);
    let daemon = cluster.start_daemons().remove(0);
    wait_until("the VIP is served", || ask(&client, vip).is_ok());

    let shown = settings(&daemon, "web");
    let expected = json!({
        "algorithm": "source-hash", "drain_timeout": "7s", "drain_policy": "reset", "idle_timeout": "30m",
        "max_connections": 500,
    });
    for (setting, value) in expected.as_object().unwrap() {
        assert_eq!(shown[setting], *value, "{setting}: {shown:#}");
    }
    assert_eq!((&shown["health_check"]["port"], &shown["health_check"]["interval"]), (&json!(80), &json!("200ms")));
    let weights: Vec<_> = shown["backends"].as_array().unwrap().iter().map(|backend| &backend["weight"]).collect();
    assert_eq!(weights, [3; 3]);
    assert_eq!(daemon.status()["sources"][0]["labels_from"], "manager");

    // One client, one backend.
    let answers = ask_all(&client, vip, 20);
    assert_eq!(answers.len(), 1, "{answers:?}");
    let lasting = Lasting::open(&client, vip, &[answers.into_keys().next().unwrap()], 4);
    change(&cluster, &daemon, "web", &["--label-rm", "ringlb.algorithm"], |shown| shown["algorithm"] == "rr");
    let answers = ask_all(&client, vip, 18);
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [6; 3], "{answers:?}");

    health_checks(&cluster, &daemon);
    connection_limit(&cluster, &daemon, &client);
    idle_timeout(&cluster, &daemon, &client);
    let ends = lasting.close();
    assert!(ends.is_empty(), "{ends:?}");
    drain_timeout(&cluster, &daemon, &client);
}

/// At a port where nobody listens nobody is healthy.
fn health_checks(cluster: &Cluster, daemon: &Daemon) {
    let all_are = |health: &str| {
        let health = json!(health);
        move |shown: &Value| shown["backends"].as_array().unwrap().iter().all(|backend| backend["health"] == health)
    };
    change(cluster, daemon, "web", &["--label-add", "ringlb.health.port=9"], all_are("unhealthy"));
    change(cluster, daemon, "web", &["--label-add", "ringlb.health.port=80"], all_are("healthy"));
}

fn connection_limit(cluster: &Cluster, daemon: &Daemon, client: &Namespace) {
    let vip = cluster.target("web", "net", 80);
    // The four that last are open.
    let limit = ["--label-add", "ringlb.max-connections=6"];
    change(cluster, daemon, "web", &limit, |shown| shown["max_connections"] == 6);
    let mut held = [Held::open(client, vip).unwrap(), Held::open(client, vip).unwrap()];
    for _ in 0..5 {
        ask(client, vip).unwrap_err();
    }
    assert!(held.iter_mut().all(Held::echoes));
    change(cluster, daemon, "web", &["--label-rm", "ringlb.max-connections"], |shown| shown["max_connections"] == 0);
    ask(client, vip).unwrap();
    assert!(held.iter_mut().all(Held::echoes));
}

fn idle_timeout(cluster: &Cluster, daemon: &Daemon, client: &Namespace) {
    let vip = cluster.target("web", "net", 80);
    let mut held = Held::open(client, vip).unwrap();
    change(cluster, daemon, "web", &["--label-add", "ringlb.idle-timeout=1s"], |shown| shown["idle_timeout"] == "1s");
    assert!(held.is_ended_within(Duration::from_secs(20)), "it was open before the change");
    let mut held = Held::open(client, vip).unwrap();
    assert!(held.is_ended_within(Duration::from_secs(20)), "it was opened after the change");
    change(cluster, daemon, "web", &["--label-rm", "ringlb.idle-timeout"], |shown| shown["idle_timeout"] == "never");
    let mut held = Held::open(client, vip).unwrap();
    assert!(!held.is_ended_within(Duration::from_secs(3)));
    assert!(held.echoes());
}

/// Without a drain timeout connections last until their task stops, which Docker announces two seconds before; with none at
/// all they end at once.
fn drain_timeout(cluster: &Cluster, daemon: &Daemon, client: &Namespace) {
    let began = SystemTime::now();
    let vip = cluster.target("web", "net", 80);
    let options = ["--label-add", "ringlb.drain-timeout=0s"];
    change(cluster, daemon, "web", &options, |shown| shown["drain_timeout"] == "0s");
    let servers = cluster.servers_of("web");
    let lasting = Lasting::open(client, vip, &servers, 1);
    cluster.manager().docker(&["service", "scale", "--detach", "web=2"]);
    wait_until("the connection has ended", || !lasting.ends().is_empty());
    let stopped = || {
        let left: BTreeSet<_> = cluster.servers_of("web").into_iter().collect();
        let gone = servers.iter().find(|server| !left.contains(*server))?;
        stop_of(&cluster.container_events(began), gone).map(|stopped| (gone.clone(), stopped))
    };
    wait_until("the task has stopped", || stopped().is_some());
    let (gone, stopped) = stopped().unwrap();
    for end in lasting.close() {
        assert_eq!(end.server, gone);
        let before = stopped.duration_since(end.time).unwrap_or_default();
        println!("the connection ended {before:?} before its task was told to stop");
        assert!(before > Duration::from_millis(500), "{end:?} {stopped:?}");
    }
}

#[test]
fn labels_that_are_not_valid_are_reported_until_they_are_corrected() {
    let cluster = Cluster::start(1);
    cluster.create_network("net");
    let labels = ["--label", "ringlb.algorithm=fastest", "--label", "ringlb.foo=1", "--label", "ringlb.weight=2"];
    let options = [&["--network", "net", "--replicas", "2", "--publish", "8080:80"][..], &labels].concat();
    cluster.create_service("web", &options);
    cluster.create_service("alone", &["--network", "net", "--publish", "8081:80", "--label", "ringlb.enable=false"]);
    cluster.wait_for_replicas("web", 2);
    cluster.wait_for_replicas("alone", 1);
    let client = cluster.manager().client("client", "net");
    let daemon = cluster.start_daemons().remove(0);
    let vip = cluster.target("web", "net", 80);
    wait_for_servers(&client, vip, &cluster.servers_of("web"));
    let answers = ask_all(&client, vip, 10);
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [5, 5], "{answers:?}");
    assert_eq!(settings(&daemon, "web")["backends"][0]["weight"], 2);

    let invalid = daemon.status()["sources"][0]["invalid_labels"].clone();
    let told: Vec<_> = invalid.as_array().unwrap().iter().map(|label| (&label["service"], &label["label"])).collect();
    let web = json!("web");
    assert_eq!(told, [(&web, &json!("ringlb.algorithm")), (&web, &json!("ringlb.foo"))], "{invalid:#}");
    assert!(invalid[0]["reason"].as_str().unwrap().contains("expected one of"), "{invalid:#}");
    assert!(invalid[1]["reason"].as_str().unwrap().contains("no such setting"), "{invalid:#}");
    let printed = daemon.command(&["status"]);
    for line in ["INVALID LABEL of service web: ringlb.algorithm: ", "INVALID LABEL of service web: ringlb.foo: "] {
        assert!(printed.contains(line), "{printed}");
    }
    let as_json: Value = serde_json::from_str(&daemon.command(&["--json", "status"])).unwrap();
    assert_eq!(as_json["sources"][0]["invalid_labels"], invalid);

    let mut held = Held::open(&client, vip).unwrap();
    cluster.update_service("web", &["--label-add", "ringlb.algorithm=p2c", "--label-rm", "ringlb.foo"]);
    wait_until("nothing is reported any more", || daemon.status()["sources"][0]["invalid_labels"] == json!([]));
    assert_eq!(settings(&daemon, "web")["algorithm"], "p2c");
    assert!(!daemon.command(&["status"]).contains("INVALID"));
    cluster.update_service("web", &["--label-add", "ringlb.idle-timeout=soon"]);
    wait_until("a new one is reported", || {
        daemon.status()["sources"][0]["invalid_labels"][0]["label"] == "ringlb.idle-timeout"
    });
    assert_eq!(settings(&daemon, "web")["idle_timeout"], "never");
    assert!(held.echoes());

    left_alone(&cluster, &daemon, &client);
    assert!(held.echoes());
}

/// A service that ringlb is not to serve gets it later, and loses it again.
fn left_alone(cluster: &Cluster, daemon: &Daemon, client: &Namespace) {
    let outside = &cluster.wire.namespace;
    let (vip, published) = (cluster.target("alone", "net", 80), port_of(1, 8081));
    let untouched = |daemon: &Daemon| {
        ask(client, vip).unwrap_err();
        ask(outside, published).unwrap_err();
        assert_eq!(settings(daemon, "alone"), Value::Null);
        assert!(!routes(cluster).contains(&vip.ip().to_string()), "{}", routes(cluster));
    };
    untouched(daemon);
    cluster.update_service("alone", &["--label-rm", "ringlb.enable"]);
    let servers = cluster.servers_of("alone");
    wait_for_servers(client, vip, &servers);
    wait_for_servers(outside, published, &servers);
    assert!(routes(cluster).contains(&vip.ip().to_string()));
    cluster.update_service("alone", &["--label-add", "ringlb.enable=false"]);
    wait_until("it is left alone again", || ask(client, vip).is_err() && ask(outside, published).is_err());
    untouched(daemon);
    let status = daemon.status();
    assert!(status["networks"].as_array().unwrap().iter().all(|network| network["error"].is_null()), "{status:#}");
}

/// What the network's sandbox takes for its own addresses.
fn routes(cluster: &Cluster) -> String {
    let mut command = Command::new("ip");
    cluster.manager().overlay_sandbox("net").enter_on_exec(&mut command).unwrap();
    finish(command.args(["route", "show", "table", "local"]))
}
