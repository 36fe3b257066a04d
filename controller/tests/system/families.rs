//! IPv6 networks, and networks of both address families.

use crate::node::{Container, Node, PATIENCE, find, wait_until};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

/// Says who was reached and from where, and keeps the connection open.
fn say_name(container: &Container, name: &'static str) {
    let listener = container.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let from = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = writeln!(stream, "{name} {from}");
            open.push(stream);
        }
    });
}

/// Connects to port 80; gives the connection, who answered, and whom it saw.
fn ask(client: &Container, vip: IpAddr) -> (TcpStream, String, IpAddr) {
    let mut stream = client.connect(SocketAddr::new(vip, 80));
    let mut said = String::new();
    while !said.ends_with('\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        said.push(char::from(byte[0]));
    }
    let (name, from) = said.trim_end().split_once(' ').unwrap();
    (stream, name.to_owned(), from.parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The values of a field that is a string or a list.
fn addresses(value: &Value) -> Vec<IpAddr> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    items.iter().map(|item| ip(item.as_str().unwrap())).collect()
}

fn lb_addresses(node: &Node) -> Vec<IpAddr> {
    addresses(find(&node.ringlb(&["status"]), "lb_address").unwrap())
}

#[test]
fn a_network_of_ipv6_alone_works_as_one_of_ipv4() {
    let node = Node::with_subnets(&["fd00:7::/64"]);
    let backends = [node.container_at(11, &["fd00:7::11"]), node.container_at(12, &["fd00:7::12"])];
    say_name(&backends[0], "one");
    say_name(&backends[1], "two");
    let client = node.container_at(100, &["fd00:7::100"]);
    // Left to the daemon, the VIP is the first of the VIP prefix.
    let made = node.ringlb(&["service", "create", "net", "web"]);
    let vip = addresses(find(&made, "vip").unwrap())[0];
    assert_eq!(vip, ip("fd00:7::c000:0:0:0"));
    for backend in &backends {
        node.ringlb(&["backend", "add", "net", "web", &backend.address.to_string()]);
    }
    let lb_address = lb_addresses(&node);
    assert_eq!(lb_address, [ip("fd00:7::bfff:ffff:ffff:ffff")]);
    let (mut kept, first, from) = ask(&client, vip);
    let (mut reset, second, _) = ask(&client, vip);
    assert_eq!(from, lb_address[0]);
    assert_ne!(first, second, "round robin takes turns");
    let ping = client.output("ping", &["-6", "-c", "3", "-i", "0.2", "-W", "2", &vip.to_string()]);
    assert!(String::from_utf8(ping).unwrap().contains("3 received"));
    // A port that nobody listens on is a reset.
    let error = client.connect(SocketAddr::new(vip, 81)).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    // A drained backend keeps its connection and gets no new one; a removed one loses what it has.
    let place = |name: &str| if name == "one" { "fd00:7::11" } else { "fd00:7::12" };
    node.ringlb(&["backend", "drain", "net", "web", place(&first)]);
    for _ in 0..4 {
        assert_eq!(ask(&client, vip).1, second);
    }
    kept.set_nonblocking(true).unwrap();
    assert_eq!(kept.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "the drained connection goes on");
    node.ringlb(&["backend", "rm", "net", "web", place(&second)]);
    assert_eq!(reset.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    node.ringlb(&["service", "rm", "net", "web"]);
    assert!(find(&node.ringlb(&["status"]), "sandbox").unwrap().is_null(), "the sandbox goes with its last service");
}

#[test]
fn a_task_reaches_its_own_ipv6_vip() {
    let node = Node::with_subnets(&["fd00:7::/112"]);
    let backend = node.container_at(11, &["fd00:7::11"]);
    say_name(&backend, "self");
    let vip = ip("fd00:7::c001");
    node.service("web", vip, "rr", &[&backend]);
    let (_, name, from) = ask(&backend, vip);
    assert_eq!((name.as_str(), vec![from]), ("self", lb_addresses(&node)), "it must come from the LB endpoint");
}

/// A service has a VIP of each family, and its backends may be of either, whatever the client uses.
#[test]
fn vips_and_backends_of_a_dual_stack_network_are_of_any_family() {
    let node = Node::with_subnets(&["fd00:7::/64", "10.0.0.0/16"]);
    let four = node.container_at(11, &["10.0.0.11"]);
    let six = node.container_at(12, &["fd00:7::12"]);
    say_name(&four, "four");
    say_name(&six, "six");
    let client = node.container_at(100, &["10.0.0.100", "fd00:7::100"]);
    let lb_endpoint = |vips: &[IpAddr]| {
        let found = lb_addresses(&node);
        assert_eq!((found.len(), vips.len()), (2, 2));
        found
    };
    for (service, backend, name, family) in [("by-four", "10.0.0.11", "four", 0), ("by-six", "fd00:7::12", "six", 1)] {
        let made = node.ringlb(&["service", "create", "net", service]);
        let vips = addresses(find(&made, "vip").unwrap());
        node.ringlb(&["backend", "add", "net", service, backend]);
        let lb_addresses = lb_endpoint(&vips);
        for vip in vips {
            let (_, answered, from) = ask(&client, vip);
            assert_eq!((answered.as_str(), from), (name, lb_addresses[family]), "{service} at {vip}");
        }
    }
    // One service with both: turns, limits and counters are the service's, not the VIP's.
    let made = node.ringlb(&["service", "create", "net", "both", "--vip", "10.0.200.1"]);
    let vips = addresses(find(&made, "vip").unwrap());
    assert_eq!(vips[0], ip("10.0.200.1"));
    node.ringlb(&["backend", "add", "net", "both", "10.0.0.11"]);
    node.ringlb(&["backend", "add", "net", "both", "fd00:7::12"]);
    let answered: Vec<_> = (0..4).map(|turn| ask(&client, vips[turn / 2]).1).collect();
    assert_eq!(answered.iter().filter(|name| *name == "four").count(), 2, "{answered:?}");
    wait_until("all connections are counted at the service", || {
        let status = node.ringlb(&["status"]);
        let services = status["networks"][0]["services"].as_array().unwrap().clone();
        let both = services.iter().find(|service| service["name"] == "both").unwrap();
        both["connections"] == 4 && both["backends"].as_array().unwrap().iter().all(|one| one["connections"] == 2)
    });
}

/// VIPs outside the VIP prefixes have routes of their own, which come and go with them.
#[test]
fn an_ipv6_vip_outside_the_prefix_can_be_moved() {
    let node = Node::with_subnets(&["10.0.0.0/16", "fd00:7::/64"]);
    let backend = node.container_at(11, &["10.0.0.11", "fd00:7::11"]);
    say_name(&backend, "one");
    let client = node.container_at(100, &["10.0.0.100", "fd00:7::100"]);
    let [old, new] = [ip("fd00:7::5:1"), ip("fd00:7::5:2")];
    node.service("web", old, "rr", &[&backend]);
    assert_eq!(ask(&client, old).1, "one");
    let before = addresses(find(&node.ringlb(&["service", "show", "net", "web"]), "vip").unwrap());
    node.ringlb(&["service", "create", "net", "web", "--vip", &new.to_string()]);
    let after = addresses(find(&node.ringlb(&["service", "show", "net", "web"]), "vip").unwrap());
    assert_eq!((before[0], before[1], after[1]), (after[0], old, new), "the IPv4 VIP stays");
    for vip in after {
        assert_eq!(ask(&client, vip).1, "one");
    }
    let nobody = client.run(|| TcpStream::connect_timeout(&SocketAddr::new(old, 80), PATIENCE));
    assert!(nobody.is_err(), "nobody has the old VIP any more");
}
