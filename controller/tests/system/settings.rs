//! Settings of a service, and of the daemon, through the whole system: both address families, TCP and UDP.

use crate::node::{Container, Node, PATIENCE, find, wait_until};
use ringlb_proxy::proxy_protocol::{self, Progress, Transport};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const BOTH: [&str; 2] = ["10.0.0.0/16", "fd00:7::/64"];
const VIPS: [&str; 2] = ["10.0.200.1", "fd00:7::c000:0:0:1"];

/// A node with a network of both families; a service on it with these flags, with one backend, known by its IPv4 address
/// alone; the backend's container, and a client's.
fn dual_stack(arguments: &[&str], flags: &[&str]) -> (Node, Container, Container) {
    let node = Node::start_with(arguments);
    node.create_network(&BOTH);
    let backend = node.container_at(11, &["10.0.0.11", "fd00:7::11"]);
    let client = node.container_at(100, &["10.0.0.100", "fd00:7::100"]);
    let vips = VIPS.iter().flat_map(|vip| ["--vip", vip]);
    let create: Vec<_> =
        ["service", "create", "net", "web"].into_iter().chain(vips).chain(flags.iter().copied()).collect();
    node.ringlb(&create);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    (node, backend, client)
}

fn vip(index: usize, port: u16) -> SocketAddr {
    SocketAddr::new(VIPS[index].parse().unwrap(), port)
}

fn listen(container: &Container, port: u16) -> TcpListener {
    container.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap())
}

/// Echoes on TCP and UDP.
fn echo(container: &Container, port: u16) {
    let listener = listen(container, port);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut { stream }));
        }
    });
    let socket = container.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

fn ping(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    stream.write_all(b"p").and_then(|()| stream.read_exact(&mut [0])).map_err(|error| error.kind())
}

/// Whether a new connection gets an answer.
fn is_served(client: &Container, target: SocketAddr) -> bool {
    client.run(|| TcpStream::connect(target)).is_ok_and(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ping(&mut stream).is_ok()
    })
}

/// Whether a datagram from a new port gets an answer within a time in which it would come many times over.
fn is_answered(client: &Container, target: SocketAddr) -> bool {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    client.run(|| {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 16]).is_ok()
    })
}

fn counted(node: &Node, part: &str, counter: &str) -> u64 {
    let status = node.ringlb(&["status"]);
    find(&status, part)
        .and_then(|part| part[counter].as_u64())
        .unwrap_or_else(|| panic!("{part}.{counter}: {status:#}"))
}

#[test]
fn lists_keep_clients_of_both_families_out() {
    let (node, backend, client) = dual_stack(&[], &["--deny", "10.0.0.100/32", "--deny", "fd00:7::100/128"]);
    echo(&backend, 80);
    let other = node.container_at(101, &["10.0.0.101", "fd00:7::101"]);
    for index in [0, 1] {
        assert!(is_served(&other, vip(index, 80)) && is_answered(&other, vip(index, 80)));
        assert!(!is_served(&client, vip(index, 80)) && !is_answered(&client, vip(index, 80)));
    }
    assert_eq!(counted(&node, "connections", "refused_denied"), 4);
    assert_eq!(counted(&node, "datagrams", "refused"), 2);
    // Changed at once, for whoever comes then.
    node.ringlb(&["service", "create", "net", "web", "--allow", "10.0.0.100/32"]);
    assert!(is_served(&client, vip(0, 80)) && is_answered(&client, vip(0, 80)));
    assert!(!is_served(&other, vip(0, 80)) && !is_answered(&other, vip(0, 80)));
}

/// A UDP session takes a place as a connection does, whichever family its client has.
#[test]
fn a_limit_is_one_for_both_families_and_protocols() {
    let (_node, backend, client) = dual_stack(&["--threads", "2"], &["--max-connections", "3"]);
    echo(&backend, 80);
    let mut open: Vec<_> = [0, 1].map(|index| client.connect(vip(index, 80))).into();
    assert!(open.iter_mut().all(|stream| ping(stream).is_ok()));
    assert!(is_answered(&client, vip(1, 80)));
    for index in [0, 1] {
        assert!(!is_served(&client, vip(index, 80)) && !is_answered(&client, vip(index, 80)));
    }
    drop(open.pop());
    wait_until("its place is free", || is_served(&client, vip(1, 80)));
    assert!(ping(&mut open[0]).is_ok());
}

/// The backend has an IPv4 address, the client an IPv6 one.
#[test]
fn a_backend_is_told_the_clients_address_of_the_other_family() {
    let (_node, backend, client) = dual_stack(&[], &["--proxy-protocol", "v2"]);
    let listener = listen(&backend, 80);
    for index in [0, 1] {
        let mut to_backend = client.connect(vip(index, 80));
        to_backend.write_all(b"hello").unwrap();
        let (mut from_client, peer) = listener.accept().unwrap();
        assert!(peer.ip().to_canonical().is_ipv4());
        from_client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        let header = loop {
            match proxy_protocol::read(&bytes).unwrap() {
                Progress::Complete(header) => break header,
                Progress::Missing(_) => {
                    let mut byte = [0];
                    from_client.read_exact(&mut byte).unwrap();
                    bytes.push(byte[0]);
                }
            }
        };
        let (transport, addresses) = header.relayed.unwrap();
        assert_eq!(transport, Transport::Stream);
        assert_eq!((addresses.source, addresses.destination), (to_backend.local_addr().unwrap(), vip(index, 80)));
        let mut payload = [0; 5];
        from_client.read_exact(&mut payload).unwrap();
        assert_eq!(&payload, b"hello");
    }
}

/// A container whose leg is cut off answers nothing: no end, no reset. Without these settings its connections would stay for
/// minutes (keepalive) or a quarter of an hour (data without an acknowledgement).
#[test]
fn a_backend_that_vanishes_is_noticed() {
    let flags =
        ["--keepalive-idle", "1s", "--keepalive-interval", "1s", "--keepalive-probes", "2", "--user-timeout", "2s"];
    let (_node, backend, client) = dual_stack(&[], &flags);
    echo(&backend, 80);
    let mut silent = client.connect(vip(0, 80));
    let mut busy = client.connect(vip(1, 80));
    assert!(ping(&mut silent).is_ok() && ping(&mut busy).is_ok());
    // The options are set once a connection has lasted a while; what lasts shorter needs none.
    std::thread::sleep(Duration::from_secs(2));
    let links = String::from_utf8(backend.output("ip", &["-o", "link"])).unwrap();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    for name in names.filter(|name| *name != "lo") {
        backend.output("ip", &["link", "set", name, "down"]);
    }
    busy.write_all(b"is anybody there?").unwrap();
    for stream in [&mut busy, &mut silent] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn several_data_threads_serve_and_one_file_has_all_lines() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["--threads", "3", "--access-log", log.path().to_str().unwrap()];
    let (node, backend, client) = dual_stack(&arguments, &["--access-log", "json"]);
    echo(&backend, 80);
    for index in [0, 1] {
        assert!((0..30).all(|_| is_served(&client, vip(index, 80)) && is_answered(&client, vip(index, 80))));
    }
    let status = node.ringlb(&["status"]);
    let threads = find(&status, "threads");
    assert_eq!(threads.and_then(Value::as_u64), Some(3), "{status:#}");
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    wait_until("all lines are there", || lines().lines().count() == 60 && lines().ends_with('\n'));
    for line in lines().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["network"], &line["service"], &line["backend"]),
            (&"net".into(), &"web".into(), &"10.0.0.11:80".into())
        );
    }
}
