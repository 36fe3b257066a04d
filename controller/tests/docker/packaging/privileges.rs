//! The privileges that the service has are enough for all that ringlb does.

use super::unit::Unit;
use super::{run_server, serve_on_a_plain_network};
use crate::cluster::Cluster;
use crate::requests::{ask_udp, wait_for_servers};
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use serde_json::Value;
use std::net::SocketAddr;

#[test]
fn nothing_that_ringlb_does_wants_more_privileges_than_the_service_has() {
    let cluster = Cluster::boot(2);
    cluster.create_network("net");
    // Workers learn of labels by TLS with the swarm's keys, which are root's alone.
    let label = ["--label", "ringlb.algorithm=p2c"];
    let ports = ["--publish", "80:80/tcp", "--publish", "80:80/udp"];
    cluster.create_service("web", &[&["--network", "net", "--replicas", "2"][..], &label, &ports].concat());
    cluster.wait_for_replicas("web", 2);
    let vip = cluster.target("web", "net", 80);
    let servers = cluster.servers_of("web");
    let outside = &cluster.wire.namespace;
    let units: Vec<Unit<'_>> = cluster.engines.iter().map(Unit::start).collect();
    for (engine, unit) in cluster.engines.iter().zip(&units) {
        let client = engine.client(&format!("client{}", engine.number), "net");
        wait_for_servers(&client, vip, &servers);
        let published = port_of(engine.number, 80);
        wait_for_servers(outside, published, &servers);
        wait_until("datagrams are answered", || ask_udp(outside, published).is_ok());
        wait_until("the label counts", || {
            let web = unit.ringlb(&["--json", "service", "show", "net", "web"]);
            serde_json::from_str::<Value>(&web).unwrap()["algorithm"] == "p2c"
        });
        wait_until("nothing is wrong", || errors_of(&unit.admin.status()).is_empty());
    }

    let (engine, unit) = (cluster.manager(), &units[0]);
    let fixed = serve_on_a_plain_network(engine);
    wait_for_servers(outside, port_of(1, 81), &[fixed]);

    // A network of ringlb's own.
    let own = run_server(engine, &["--network", "none"]);
    let inspected = engine.get(&format!("/containers/{own}/json"));
    let netns = inspected["NetworkSettings"]["SandboxKey"].as_str().unwrap();
    unit.ringlb(&["network", "create", "own", "--subnet", "10.200.0.0/24"]);
    unit.ringlb(&["attach", "own", "task", "--netns", netns, "--ip", "10.200.0.11"]);
    unit.ringlb(&["service", "create", "own", "web", "--vip", "10.200.0.200", "--publish", "82:80/tcp"]);
    unit.ringlb(&["backend", "add", "own", "web", "10.200.0.11"]);
    let own_server = [own[..12].to_owned()];
    wait_for_servers(outside, port_of(1, 82), &own_server);
    // A container reaches its own VIP.
    wait_for_servers(&engine.namespace_of(&own), SocketAddr::new("10.200.0.200".parse().unwrap(), 80), &own_server);

    wait_until("nothing is wrong", || errors_of(&unit.admin.status()).is_empty());
    let status = unit.admin.status();
    let networks = status["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 4, "{status:#}");
    for network in networks {
        assert_eq!(network["sandbox"]["steering"], "sk_lookup", "{network:#}");
    }
    // The next daemon does it all again.
    unit.systemctl("restart");
    unit.wait_until_it_answers();
    let proxies = |status: &Value| -> Vec<Value> {
        status["networks"].as_array().unwrap().iter().map(|network| network["proxy"]["pid"].clone()).collect()
    };
    wait_until("all proxies are taken over", || proxies(&unit.admin.status()) == proxies(&status));
    wait_until("nothing is wrong", || errors_of(&unit.admin.status()).is_empty());
    unit.ringlb(&["network", "rm", "own", "--remove-lb"]);
    let namespaces = finish(engine.machine.command("ip").args(["netns", "list"]));
    assert!(namespaces.is_empty(), "{namespaces}");
}

/// All that is not as it should be.
fn errors_of(status: &Value) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut errors: Vec<Value> = Vec::new();
    for source in list(&status["sources"]) {
        errors.extend([source["last_error"].clone(), source["labels_error"].clone()]);
        errors.extend([&source["invalid_labels"], &source["refused_networks"]].into_iter().flat_map(list));
    }
    for network in list(&status["networks"]) {
        errors.push(network["error"].clone());
        for failed in [&network["failed_ports"], &network["failed_attachments"]] {
            errors.extend(failed.as_object().into_iter().flat_map(|failed| failed.values().cloned()));
        }
    }
    errors.retain(|error| !error.is_null());
    errors
}
