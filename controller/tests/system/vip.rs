//! A VIP carries every port.

use crate::node::Node;
use ringlb_netns::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 200, 1));

/// Says which port was reached, and from where.
fn say_port(container: &crate::node::Container, port: u16) {
    let listener = container.listen(port);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let from = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{port} from {from}");
        }
    });
}

#[test]
fn every_port_of_a_vip_reaches_the_backends() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    for backend in &backends {
        [80, 5432, 6379].into_iter().for_each(|port| say_port(backend, port));
    }
    let client = node.container(100);
    node.service("web", VIP, "rr", &[&backends[0], &backends[1]]);
    for port in [80, 5432, 6379, 80, 5432, 6379] {
        let mut said = String::new();
        client.connect(SocketAddr::new(VIP, port)).read_to_string(&mut said).unwrap();
        assert!(said.starts_with(&format!("{port} from 10.0.")), "{said}");
    }
    let ping = client.output("ping", &["-c", "3", "-i", "0.2", "-W", "2", &VIP.to_string()]);
    assert!(String::from_utf8(ping).unwrap().contains("3 received"));
    // A port that nobody listens on is a reset.
    let error = client.connect(SocketAddr::new(VIP, 81)).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// A task that asks for its own service's VIP reaches the service, itself included.
#[test]
fn a_task_reaches_its_own_vip() {
    let node = Node::with_network();
    let backend = node.container(11);
    say_port(&backend, 80);
    node.service("web", VIP, "rr", &[&backend]);
    let mut said = String::new();
    backend.connect(SocketAddr::new(VIP, 80)).read_to_string(&mut said).unwrap();
    assert!(said.starts_with("80 from 10.0."), "{said}");
    assert_ne!(said, format!("80 from {}", backend.address), "it must come from the LB endpoint");
}

/// A VIP that ringlb chose, from the default prefix.
#[test]
fn a_vip_can_be_left_to_the_daemon() {
    let node = Node::with_network();
    let backend = node.container(11);
    say_port(&backend, 80);
    let client = node.container(100);
    let made = node.ringlb(&["service", "create", "net", "web"]);
    let vip: IpAddr = crate::node::find(&made, "vip").and_then(|vip| vip.as_str()).unwrap().parse().unwrap();
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let mut said = String::new();
    client.connect(SocketAddr::new(vip, 80)).read_to_string(&mut said).unwrap();
    assert!(said.starts_with("80 from"), "{said}");
}

/// Whether requests get through while the bridge is down, after the neighbours have met over it.
fn reaches_past_the_bridge(arguments: &[&str]) -> bool {
    let node = Node::start_with(arguments);
    node.create_network(&["10.0.0.0/16"]);
    let backend = node.container(11);
    say_port(&backend, 80);
    let client = node.container(100);
    node.service("web", VIP, "rr", &[&backend]);
    let target = SocketAddr::new(VIP, 80);
    let mut said = String::new();
    client.connect(target).read_to_string(&mut said).unwrap();
    assert!(said.starts_with("80 from 10.0."), "{said}");

    let sandbox = node.sandbox().name().unwrap().to_owned();
    let bridge = Namespace::open(&sandbox.replace("-lb", "-bridge")).unwrap();
    bridge.run(|| std::process::Command::new("ip").args(["link", "set", "br0", "down"]).status()).unwrap().unwrap();
    let patience = std::time::Duration::from_millis(500);
    client.run(|| std::net::TcpStream::connect_timeout(&target, patience)).is_ok_and(|mut stream| {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said.starts_with("80 from 10.0.")
    })
}

#[test]
fn packets_go_past_the_bridge_unless_told_otherwise() {
    assert!(reaches_past_the_bridge(&[]));
    assert!(!reaches_past_the_bridge(&["--no-shortcuts"]));
}
