//! UDP through VIPs.

use crate::node::{Container, Node, PATIENCE, find, wait_until};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1));

impl Container {
    fn udp(&self, address: SocketAddr) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A client whose socket is connected: it hears only what comes from the very address that it sends to.
    fn udp_client(&self, port: u16) -> UdpSocket {
        let socket = self.udp(SocketAddr::from(([0, 0, 0, 0], 0)));
        self.run(|| socket.connect((VIP, port)).unwrap());
        socket
    }

    /// Sends every datagram back with a byte before it, the last of the container's address. It ends with the test.
    fn serve_udp(&self, port: u16) {
        let socket = self.udp(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port));
        socket.set_read_timeout(None).unwrap();
        let IpAddr::V4(address) = self.address else { panic!("{} is not IPv4", self.address) };
        std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            buffer[0] = address.octets()[3];
            while let Ok((length, from)) = socket.recv_from(&mut buffer[1..]) {
                let _ = socket.send_to(&buffer[..=length], from);
            }
        });
    }
}

/// The last byte of the server's address.
fn ask(client: &UdpSocket) -> u8 {
    ask_with(client, b"who").unwrap()
}

fn ask_with(client: &UdpSocket, question: &[u8]) -> std::io::Result<u8> {
    client.send(question)?;
    let mut answer = vec![0; 70_000];
    let length = client.recv(&mut answer)?;
    assert!(answer[1..length] == *question, "{} bytes came back for {}", length - 1, question.len());
    Ok(answer[0])
}

/// A counter of the status.
fn count(node: &Node, name: &str) -> u64 {
    let status = node.ringlb(&["status"]);
    find(&status, "datagrams").and_then(|datagrams| datagrams[name].as_u64()).unwrap_or_else(|| panic!("{status:#}"))
}

#[test]
fn every_port_of_a_vip_carries_udp() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let client = node.container(100);
    node.service("web", VIP, "rr", &[&backends[0], &backends[1]]);
    let ports = [1, 53, 514, 1023, 1024, 4433, 65_535];
    for backend in &backends {
        ports.into_iter().for_each(|port| backend.serve_udp(port));
    }
    for port in ports {
        let clients = [client.udp_client(port), client.udp_client(port)];
        let servers: HashSet<u8> = clients.iter().map(ask).collect();
        assert_eq!(servers, HashSet::from([11, 12]), "port {port}");
        for length in [0, 1, 1_200, 1_472, 1_473, 9_000, 65_506] {
            let datagram: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            ask_with(&clients[0], &datagram).unwrap();
        }
    }
    assert_eq!((count(&node, "sessions"), count(&node, "no_backend")), (2 * ports.len() as u64, 0));
}

#[test]
fn a_task_reaches_its_own_vip_by_udp() {
    let node = Node::with_network();
    let backend = node.container(11);
    node.service("web", VIP, "rr", &[&backend]);
    backend.serve_udp(53);
    assert_eq!(ask(&backend.udp_client(53)), 11);
}

/// As soon as the command has returned, nobody is answered by the backend that was removed.
#[test]
fn sessions_of_a_removed_backend_move_at_once() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let client = node.container(100);
    node.service("web", VIP, "rr", &[&backends[0], &backends[1]]);
    backends.iter().for_each(|backend| backend.serve_udp(53));
    let clients: Vec<_> = (0..50).map(|_| client.udp_client(53)).collect();
    assert_eq!(clients.iter().filter(|client| ask(client) == 11).count(), 25);
    node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
    assert!(clients.iter().all(|client| ask(client) == 12));
    assert_eq!((count(&node, "moved"), count(&node, "active")), (25, 50));
}

/// A closed port, and an address at which there is nobody: the clients are served all the same.
#[test]
fn a_backend_that_refuses_costs_no_datagram() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let client = node.container(100);
    node.service("web", VIP, "rr", &[&backends[0], &backends[1]]);
    backends[1].serve_udp(53);
    // Few, as a kernel sends six such errors in a row and then one each second (icmp(7), `icmp_ratelimit`).
    for _ in 0..8 {
        assert_eq!(ask(&client.udp_client(53)), 12);
    }
    assert_eq!(count(&node, "moved"), 4);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.77"]);
    node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
    // ARP asks for a second or three before the kernel says that the host is unreachable.
    for _ in 0..4 {
        assert_eq!(ask(&client.udp_client(53)), 12);
    }
}

/// Nothing answers for a VIP that no service has, not even an error.
#[test]
fn an_unknown_vip_is_silent() {
    let node = Node::with_network();
    let (backend, client) = (node.container(11), node.container(100));
    node.service("web", VIP, "rr", &[&backend]);
    let stray = client.udp(SocketAddr::from(([0, 0, 0, 0], 0)));
    client.run(|| stray.connect("10.0.200.77:53").unwrap());
    stray.send(b"anybody?").unwrap();
    wait_until("it is counted", || count(&node, "no_service") == 1);
    stray.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(stray.recv(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// What a sender hands to the kernel as one row of datagrams (`UDP_SEGMENT`, as QUIC servers do) arrives as the datagrams
/// that they are, each way.
#[test]
fn rows_of_datagrams_keep_their_boundaries() {
    let node = Node::with_network();
    let (backend, client) = (node.container(11), node.container(100));
    node.service("web", VIP, "rr", &[&backend]);
    let server = backend.udp(SocketAddr::from(([0, 0, 0, 0], 443)));
    let client = client.udp_client(443);
    let receive = |socket: &UdpSocket| {
        let mut buffer = vec![0; 70_000];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        buffer.truncate(length);
        (buffer, from)
    };
    for (segment, length) in [(1_200u16, 12_000), (1_200, 12_001), (1_350, 40_000), (1_472, 1_473), (100, 6_399)] {
        let row: Vec<u8> = (0..length).map(|index: usize| (index / 7 % 251) as u8).collect();
        let mut back = None;
        for direction in ["to the server", "to the client"] {
            let (from, to) = if back.is_none() { (&client, &server) } else { (&server, &client) };
            setsockopt(from, sockopt::UdpGsoSegment, &i32::from(segment)).unwrap();
            match back {
                None => from.send(&row).unwrap(),
                Some(client) => from.send_to(&row, client).unwrap(),
            };
            for part in row.chunks(segment.into()) {
                let (datagram, from) = receive(to);
                assert!(datagram == part, "{direction}: {} bytes for {} of {length}", datagram.len(), part.len());
                back = Some(from);
            }
        }
    }
    assert_eq!(count(&node, "sessions"), 1);
}

/// 5,000 client ports at once ask a name server for names.
#[test]
fn dns_with_five_thousand_client_ports() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let client = node.container(100);
    let vip = VIP.to_string();
    node.ringlb(&["service", "create", "net", "dns", "--vip", &vip, "--udp-responses", "1"]);
    let servers: Vec<_> = backends
        .iter()
        .map(|backend| {
            node.ringlb(&["backend", "add", "net", "dns", &backend.address.to_string()]);
            let listen = format!("--listen-address={},127.0.0.1", backend.address);
            let text = format!("--txt-record=id.server.test,{}", backend.address);
            let arguments = [
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--pid-file",
                "--address=/load.test/192.0.2.1",
                "--bind-interfaces",
                &listen,
                &text,
            ];
            let server = backend.spawn("dnsmasq", &arguments);
            backend.wait_for_port(53);
            server
        })
        .collect();
    let asked = |arguments: &[&str]| {
        let server = format!("@{vip}");
        let output = client.output("dig", &[&[&server, "+short", "+tries=2", "+time=5"], arguments].concat());
        String::from_utf8(output).unwrap().trim().to_owned()
    };
    assert_eq!(asked(&["a.load.test"]), "192.0.2.1");
    assert_eq!(asked(&["+tcp", "a.load.test"]), "192.0.2.1");
    let named: HashSet<_> = (0..4).map(|_| asked(&["TXT", "id.server.test"])).collect();
    assert_eq!(named.len(), 2, "each question is a session of its own: {named:?}");

    let queries = tempfile::NamedTempFile::new().unwrap();
    let lines: String = (0..20_000).map(|number| format!("name{number}.load.test A\n")).collect();
    std::fs::write(queries.path(), lines).unwrap();
    let file = queries.path().to_str().unwrap();
    let output = client.output("dnsperf", &["-s", &vip, "-d", file, "-n", "1", "-c", "5000", "-T", "2", "-q", "500"]);
    let said = String::from_utf8(output).unwrap();
    let number = |label: &str| {
        let line = said.lines().find(|line| line.trim().starts_with(label)).unwrap_or_else(|| panic!("{said}"));
        line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap()
    };
    assert_eq!((number("Queries sent:"), number("Queries lost:")), (20_000, 0), "{said}");
    assert!(said.contains("NOERROR 20000 (100.00%)"), "{said}");
    wait_until("all sessions have ended with their answers", || count(&node, "active") == 0);
    drop(servers);
}

#[test]
fn iperf3_by_udp_both_ways() {
    let node = Node::with_network();
    let (backend, client) = (node.container(11), node.container(100));
    node.service("web", VIP, "rr", &[&backend]);
    let _server = backend.spawn("iperf3", &["-s"]);
    backend.wait_for_port(5201);
    let vip = VIP.to_string();
    for reverse in [&[][..], &["-R"]] {
        let arguments = ["-u", "-c", &vip, "-b", "100M", "-l", "1200", "-t", "2", "-J"];
        let output = client.output("iperf3", &[&arguments[..], reverse].concat());
        let result: Value = serde_json::from_slice(&output).unwrap();
        assert!(result.get("error").is_none(), "{result:#}");
        let sum = &result["end"]["sum"];
        let (packets, lost) = (sum["packets"].as_u64().unwrap(), sum["lost_packets"].as_u64().unwrap());
        assert!(packets > 1_000 && lost * 2 < packets, "{lost} of {packets} lost: {sum:#}");
        assert_eq!(result["end"]["streams"][0]["udp"]["out_of_order"], 0, "{sum:#}");
    }
}
