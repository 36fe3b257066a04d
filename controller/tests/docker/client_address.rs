//! Who a client is, at published ports and VIPs: for the access log, and for tasks that understand the PROXY protocol.

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::held::connect;
use crate::requests::{ask, wait_for_servers};
use crate::wait::wait_until;
use crate::wire::{ipv6_address_of, port_of};
use ringlb_netns::Namespace;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};

/// No command of the test server, so that it sends back all that it received, from the first byte on.
const TEXT: &[u8] = b"hello\n";

/// What a task received before the client's text, and the client's own address and that which it connected to.
struct Received {
    header: Vec<u8>,
    client: SocketAddr,
    target: SocketAddr,
}

fn send(from: &Namespace, target: SocketAddr) -> io::Result<Received> {
    let mut stream = connect(from, target)?;
    let (client, target) = (stream.local_addr()?, stream.peer_addr()?);
    stream.write_all(TEXT)?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let header = received.strip_suffix(TEXT).ok_or_else(|| io::Error::other(format!("{received:?}")))?.to_vec();
    Ok(Received { header, client, target })
}

/// The header of version 1 as the specification of the PROXY protocol has it (section 2.1).
fn version_1(client: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", client.ip(), target.ip(), client.port(), target.port()).into_bytes()
}

/// The one of version 2 (section 2.2).
fn version_2(client: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.extend(if client.is_ipv4() { [0x11, 0, 12] } else { [0x21, 0, 36] });
    for address in [client.ip(), target.ip()] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(target.port().to_be_bytes());
    header
}

#[test]
fn clients_are_known_by_their_own_addresses() {
    let cluster = Cluster::start(2);
    cluster.create_network("net");
    let options = ["--network", "net", "--replicas", "2", "--publish", "8080:80"];
    let label = ["--label", "ringlb.access-log.format=json"];
    cluster.create_service("web", &[&options[..], &label].concat());
    cluster.wait_for_replicas("web", 2);
    let (first, second) = (cluster.engine(1), cluster.engine(2));
    let container = first.client("client", "net");
    let log = first.machine.directory.join("access.log");
    let mut daemon = Daemon::start_with(first, &["--access-log", log.to_str().unwrap()]);
    daemon.wait_until_it_answers();
    let vip = cluster.target("web", "net", 80);
    let port = |address: IpAddr| SocketAddr::new(address, 8080);
    let (node, other, outside) = (&first.machine.namespace, &second.machine.namespace, &cluster.wire.namespace);
    let ways = [
        ("another node", other, port_of(1, 8080)),
        ("another node, by IPv6", other, port(ipv6_address_of(1))),
        ("outside", outside, port_of(1, 8080)),
        ("outside, by IPv6", outside, port(ipv6_address_of(1))),
        ("the node, by its address", node, port_of(1, 8080)),
        ("the node, by its IPv6 address", node, port(ipv6_address_of(1))),
        ("the node, by localhost", node, port(Ipv4Addr::LOCALHOST.into())),
        ("the node, by IPv6 localhost", node, port(Ipv6Addr::LOCALHOST.into())),
        ("a container, by the node's address", &container, port_of(1, 8080)),
        ("a container, by the VIP", &container, vip),
    ];
    for (_, from, target) in ways {
        wait_for_servers(from, target, &cluster.servers_of("web"));
    }
    // Without a label tasks get nothing but what clients send.
    for (way, from, target) in ways {
        let received = send(from, target).unwrap();
        assert_eq!(received.header, b"", "from {way}");
        wait_until(&format!("the access log knows the client from {way}"), || {
            logged(&log).iter().any(|line| line["client"] == received.client.to_string())
        });
    }
    for (version, header) in [("v2", version_2 as fn(_, _) -> _), ("v1", version_1)] {
        cluster.update_service("web", &["--label-add", &format!("ringlb.proxy-protocol={version}")]);
        for (way, from, target) in ways {
            let expected = |received: &Received| header(received.client, received.target);
            wait_until(&format!("tasks know the client from {way} by {version}"), || {
                send(from, target).is_ok_and(|received| received.header == expected(&received))
            });
        }
    }
    cluster.update_service("web", &["--label-rm", "ringlb.proxy-protocol"]);
    for (way, from, target) in ways {
        wait_until(&format!("tasks get no header from {way} any more"), || ask(from, target).is_ok());
    }
}

/// The lines of the access log so far.
fn logged(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
