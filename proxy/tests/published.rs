//! Published ports through a real proxy: their sockets are handed over while it runs, and handed back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringlb_proxy::control::descriptors;
use ringlb_proxy::control::message::{
    Change, DescriptorRole, Port, Protocol, PublishedPort, Reply, Request, ServiceSpec,
};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use support::{Control, Options, Proxy, address, backend, echo, patience, serve, service};

ringlb_netns::isolate_before_main!();

const V4: &str = "0.0.0.0";
const V6: &str = "::";

fn tcp(number: u16) -> Port {
    Port { protocol: Protocol::Tcp, number }
}

fn udp(number: u16) -> Port {
    Port { protocol: Protocol::Udp, number }
}

/// The sockets of a port as a daemon makes them: for each data thread one of each address family.
fn sockets(port: Port, threads: usize) -> Vec<OwnedFd> {
    let one = |address: &str| {
        let address = SocketAddr::new(address.parse().unwrap(), port.number);
        let kind = if port.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
        let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        if port.protocol == Protocol::Tcp {
            socket.listen(1024).unwrap();
        }
        OwnedFd::from(socket)
    };
    (0..threads).flat_map(|_| [one(V4), one(V6)]).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn hand_over(control: &mut Control, port: Port, sockets: &[OwnedFd]) -> Reply {
    control.send(&Request::AddPort { port, sockets: sockets.len() as u32 });
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    block_on(descriptors::send(control.socket.as_fd(), &sockets)).unwrap();
    control.receive()
}

/// All that the proxy hands over.
fn take_over(control: &mut Control) -> Vec<(DescriptorRole, OwnedFd)> {
    control.send(&Request::Descriptors);
    let mut all = Vec::new();
    loop {
        let Reply::Descriptors { roles, more } = control.receive() else { panic!("no descriptors") };
        let descriptors = block_on(descriptors::receive(control.socket.as_fd(), roles.len())).unwrap();
        all.extend(roles.into_iter().zip(descriptors));
        if !more {
            return all;
        }
    }
}

/// A service without a VIP that has this backend.
fn publishing(name: &str, n: u8, ports: &[(Port, u16)]) -> ServiceSpec {
    let published = ports.iter().map(|&(published, target)| PublishedPort { published, target }).collect();
    ServiceSpec { vips: vec![], published, ..service(name, address(n), Default::default(), &[backend(n)]) }
}

/// Starts a proxy, and a control connection of a daemon beside the one of the proxy's own.
fn start(threads: &'static str) -> (Proxy, Control) {
    let count = threads.parse().unwrap();
    let listeners = support::listen_as_group([127, 0, 1, 1].into(), count);
    let arguments = vec!["--threads", threads];
    let proxy = Proxy::start_without_table(&Options { arguments, listeners, ..Options::default() });
    let mut control = proxy.connect_control();
    assert!(matches!(control.receive(), Reply::Hello(_)));
    (proxy, control)
}

fn try_connect(address: &str, port: Port) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((address, port.number))?;
    stream.set_read_timeout(Some(patience())).unwrap();
    Ok(stream)
}

fn connect(address: &str, port: Port) -> TcpStream {
    try_connect(address, port).unwrap()
}

/// Serves with the backend's number as the first byte, then everything that comes.
fn serve_numbered(n: u8, port: u16) {
    serve(n, port, move |mut stream| {
        stream.write_all(&[n]).unwrap();
        echo(stream);
    });
}

fn number(mut stream: &TcpStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

fn is_echoed(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, bytes);
}

fn is_refused(address: &str, port: Port) -> bool {
    try_connect(address, port).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_published_port_is_served_in_both_families_by_all_threads() {
    let (mut proxy, mut control) = start("2");
    serve_numbered(1, 8001);
    let port = tcp(8080);
    // Before the first table nobody is accepted, and nobody refused.
    assert_eq!(hand_over(&mut control, port, &sockets(port, 2)), Reply::Ports(vec![port]));
    let early = connect("127.0.0.1", port);
    assert_eq!(proxy.statistics().proxy.accepted, 0);
    proxy.snapshot(vec![publishing("s", 1, &[(port, 8001)])]);
    assert_eq!(number(&early), 1);
    let open: Vec<_> = (0..60)
        .map(|round| {
            let address = ["127.0.0.1", "127.7.7.7", "::1"][round % 3];
            let stream = connect(address, port);
            assert_eq!(number(&stream), 1);
            is_echoed(&stream, b"published");
            stream
        })
        .collect();
    let statistics = proxy.statistics();
    assert!(statistics.threads.iter().all(|thread| thread.accepted > 0), "{:?}", statistics.threads);
    assert_eq!(statistics.proxy.accepted, open.len() as u64 + 1);
    assert_eq!(statistics.services[0].connections, open.len() as u64 + 1);
    // A port that is in no table is served by nobody: reset, and counted.
    let unknown = tcp(8081);
    assert_eq!(hand_over(&mut control, unknown, &sockets(unknown, 2)), Reply::Ports(vec![port, unknown]));
    let mut reset = connect("127.0.0.1", unknown);
    assert!(reset.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    proxy.wait_for("it is counted", |statistics| statistics.proxy.no_service == 1);
}

#[test]
fn a_port_moves_from_one_service_to_another_while_connections_go_on() {
    let (mut proxy, mut control) = start("1");
    serve_numbered(1, 8001);
    serve_numbered(2, 8002);
    let port = tcp(8080);
    proxy.snapshot(vec![publishing("a", 1, &[(port, 8001)]), publishing("b", 2, &[(tcp(9), 9)])]);
    hand_over(&mut control, port, &sockets(port, 1));
    let old = connect("127.0.0.1", port);
    assert_eq!(number(&old), 1);
    let moved = [publishing("a", 1, &[(tcp(9), 9)]), publishing("b", 2, &[(port, 8002)])];
    proxy.change(moved.map(|spec| Change::PutService(Arc::new(spec))).to_vec());
    let new = connect("127.0.0.1", port);
    assert_eq!(number(&new), 2);
    is_echoed(&old, b"still with the old one");
    is_echoed(&new, b"with the new one");
}

#[test]
fn removal_refuses_at_once_and_leaves_connections_alone() {
    let (mut proxy, mut control) = start("2");
    serve_numbered(1, 8001);
    let (port, other) = (tcp(8080), tcp(8081));
    proxy.snapshot(vec![publishing("s", 1, &[(port, 8001), (other, 8001)])]);
    for round in 0..20 {
        assert_eq!(hand_over(&mut control, other, &sockets(other, 2)), Reply::Ports(vec![other]));
        assert_eq!(hand_over(&mut control, port, &sockets(port, 2)), Reply::Ports(vec![port, other]));
        let open = connect("::1", port);
        assert_eq!(number(&open), 1);
        // Added once more: the new sockets take the old ones' place.
        assert_eq!(hand_over(&mut control, port, &sockets(port, 2)), Reply::Ports(vec![port, other]));
        let again = connect("127.0.0.1", port);
        assert_eq!(number(&again), 1);
        control.send(&Request::RemovePort(port));
        assert_eq!(control.receive(), Reply::Ports(vec![other]));
        assert!(is_refused("127.0.0.1", port) && is_refused("::1", port), "round {round}");
        is_echoed(&open, b"goes on");
        is_echoed(&again, b"goes on too");
        assert_eq!(number(&connect("127.0.0.1", other)), 1);
        control.send(&Request::RemovePort(other));
        assert_eq!(control.receive(), Reply::Ports(vec![]));
    }
    // What is not there can be removed as well.
    control.send(&Request::RemovePort(other));
    assert_eq!(control.receive(), Reply::Ports(vec![]));
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).unwrap().count();
    assert!(open < 80, "{open} descriptors");
}

#[test]
fn accepting_one_at_a_time_ends_with_the_port_too() {
    let listeners = support::listen_as_group([127, 0, 1, 1].into(), 1);
    let arguments = vec!["--one-shot-accept"];
    let mut proxy = Proxy::start_without_table(&Options { arguments, listeners, ..Options::default() });
    let mut control = proxy.connect_control();
    control.receive();
    serve_numbered(1, 8001);
    let port = tcp(8080);
    proxy.snapshot(vec![publishing("s", 1, &[(port, 8001)])]);
    for _ in 0..3 {
        hand_over(&mut control, port, &sockets(port, 1));
        assert!((0..40).all(|_| number(&connect("127.0.0.1", port)) == 1));
        control.send(&Request::RemovePort(port));
        assert_eq!(control.receive(), Reply::Ports(vec![]));
        assert!(is_refused("127.0.0.1", port));
    }
}

/// Answers with the backend's number before what came.
fn answer_datagrams(n: u8, port: u16) {
    let socket = UdpSocket::bind((address(n), port)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 2_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[&[n], &buffer[..length]].concat(), from);
        }
    });
}

/// Asks by a connected socket, which hears only what comes from the very address that it sends to.
fn ask(target: &str, port: Port, text: &[u8]) -> (UdpSocket, Vec<u8>) {
    let target: IpAddr = target.parse().unwrap();
    let socket = UdpSocket::bind((if target.is_ipv4() { V4 } else { V6 }, 0)).unwrap();
    socket.connect((target, port.number)).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    socket.send(text).unwrap();
    let answer = hear(&socket);
    (socket, answer)
}

fn hear(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2_000];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn datagrams_are_answered_from_the_address_that_was_asked() {
    let (mut proxy, mut control) = start("2");
    answer_datagrams(1, 5301);
    answer_datagrams(2, 5302);
    serve_numbered(2, 8002);
    // The same number for both protocols, and different services.
    let (of_udp, of_tcp) = (udp(5300), tcp(5300));
    proxy.snapshot(vec![publishing("u", 1, &[(of_udp, 5301)]), publishing("t", 2, &[(of_tcp, 8002)])]);
    hand_over(&mut control, of_udp, &sockets(of_udp, 2));
    assert_eq!(hand_over(&mut control, of_tcp, &sockets(of_tcp, 2)), Reply::Ports(vec![of_tcp, of_udp]));
    let mut clients = Vec::new();
    for _ in 0..20 {
        for target in ["127.0.0.1", "127.0.0.9", "127.8.8.8", "::1"] {
            let (client, answer) = ask(target, of_udp, b"where");
            assert_eq!(answer, b"\x01where", "{target}");
            clients.push(client);
        }
    }
    assert_eq!(number(&connect("127.0.0.1", of_tcp)), 2);
    let statistics = proxy.statistics();
    assert_eq!(statistics.datagrams.active, clients.len() as u64);
    assert!(statistics.threads.iter().all(|thread| thread.sessions > 0), "{:?}", statistics.threads);
    // The port moves: sessions stay, new ones go to the new service.
    proxy.snapshot(vec![publishing("u", 1, &[(udp(9), 9)]), publishing("t", 2, &[(of_tcp, 8002), (of_udp, 5302)])]);
    clients[0].send(b"again").unwrap();
    assert_eq!(hear(&clients[0]), b"\x01again");
    assert_eq!(ask("127.0.0.1", of_udp, b"new").1, b"\x02new");
    control.send(&Request::RemovePort(of_udp));
    assert_eq!(control.receive(), Reply::Ports(vec![of_tcp]));
    proxy.wait_for("its sessions end", |statistics| statistics.datagrams.active == 0);
    let refused = clients[0].send(b"gone").and_then(|_| clients[0].recv(&mut [0]));
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
}

#[test]
fn sessions_go_on_by_the_sockets_that_take_the_old_ones_place() {
    let (mut proxy, mut control) = start("1");
    answer_datagrams(1, 5301);
    let port = udp(5300);
    proxy.snapshot(vec![publishing("u", 1, &[(port, 5301)])]);
    hand_over(&mut control, port, &sockets(port, 1));
    let clients = ["127.0.0.1", "::1"].map(|target| ask(target, port, b"first").0);
    for round in 0..10 {
        assert_eq!(hand_over(&mut control, port, &sockets(port, 1)), Reply::Ports(vec![port]));
        for client in &clients {
            client.send(&[round]).unwrap();
            assert_eq!(hear(client), [1, round]);
        }
    }
    assert_eq!(proxy.statistics().datagrams.sessions, 2);
}

#[test]
fn published_ports_do_not_answer_each_other_for_ever() {
    let (mut proxy, mut control) = start("1");
    answer_datagrams(1, 5301);
    let port = udp(5300);
    // The second port is published, and not served, so that the test can send from it.
    proxy.snapshot(vec![publishing("u", 1, &[(port, 5301), (udp(5400), 5301)])]);
    hand_over(&mut control, port, &sockets(port, 1));
    let pretender = UdpSocket::bind("127.0.0.1:5400").unwrap();
    pretender.send_to(b"loop", "127.0.0.1:5300").unwrap();
    proxy.wait_for("it is dropped", |statistics| statistics.datagrams.unanswerable == 1);
}

#[test]
fn a_port_that_is_sent_on_into_the_sandbox_is_found_by_its_number() {
    let listener = support::listen("127.0.9.9:0".parse().unwrap());
    let port = tcp(listener.local_addr().unwrap().port());
    let mut proxy = Proxy::start_without_table(&Options { listeners: vec![listener], ..Options::default() });
    serve_numbered(1, 8001);
    serve_numbered(2, port.number);
    proxy.snapshot(vec![publishing("a", 1, &[(port, 8001)])]);
    assert_eq!(number(&proxy.connect()), 1);
    // A VIP comes first.
    let vip = service("b", proxy.target.ip(), Default::default(), &[backend(2)]);
    proxy.snapshot(vec![publishing("a", 1, &[(port, 8001)]), vip]);
    assert_eq!(number(&proxy.connect()), 2);
}

#[test]
fn what_cannot_serve_a_port_is_refused() {
    let (mut proxy, mut control) = start("2");
    let port = tcp(8080);
    let not_listening = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&"0.0.0.0:8080".parse::<SocketAddr>().unwrap().into()).unwrap();
        OwnedFd::from(socket)
    };
    let good = sockets(port, 2);
    let again = |indices: &[usize]| indices.iter().map(|&index| good[index].try_clone().unwrap()).collect();
    let cases: [(Port, Vec<OwnedFd>, &str); 8] = [
        (port, vec![], "multiple of 2"),
        (port, again(&[0, 1, 2]), "multiple of 2"),
        (port, again(&[0, 2, 1, 3]), "one socket of each address family"),
        (port, vec![not_listening(), not_listening()], "does not listen"),
        (port, sockets(udp(8080), 2), "of another protocol"),
        (tcp(8081), again(&[0, 1, 2, 3]), "not bound to the port"),
        (port, vec![std::io::stdin().as_fd().try_clone_to_owned().unwrap()], "cannot be used"),
        (tcp(0), again(&[0, 1, 2, 3]), "no port 0"),
    ];
    for (asked, sockets, why) in cases {
        let reply = hand_over(&mut control, asked, &sockets);
        let Reply::PortRefused { port, reason } = reply else { panic!("{reply:?} where it {why}") };
        assert!(port == asked && reason.contains(why), "{reason}");
    }
    assert_eq!(hand_over(&mut control, port, &good), Reply::Ports(vec![port]));
    // A refusal leaves what is served as it is.
    serve_numbered(1, 8001);
    proxy.snapshot(vec![publishing("s", 1, &[(port, 8001)])]);
    assert!(matches!(hand_over(&mut control, port, &sockets(udp(8080), 2)), Reply::PortRefused { .. }));
    assert_eq!(number(&connect("127.0.0.1", port)), 1);
}

#[test]
fn what_was_not_announced_closes_the_control_connection() {
    let (mut proxy, mut control) = start("1");
    let port = tcp(8080);
    let sockets = sockets(port, 1);
    control.send(&Request::AddPort { port, sockets: 2 });
    block_on(descriptors::send(control.socket.as_fd(), &[sockets[0].as_fd()])).unwrap();
    assert!(control.is_closed());
    for garbage in [&b"garbage"[..], b"x"] {
        let mut control = proxy.connect_control();
        control.receive();
        control.send(&Request::AddPort { port, sockets: 2 });
        control.socket.send(garbage).unwrap();
        assert!(control.is_closed());
    }
    let mut control = proxy.connect_control();
    control.receive();
    control.send(&Request::AddPort { port, sockets: u32::MAX });
    assert!(control.is_closed());
    // Nothing comes at all.
    let mut control = proxy.connect_control();
    control.receive();
    control.send(&Request::AddPort { port, sockets: 2 });
    assert!(control.is_closed());
    // The others go on.
    assert_eq!(proxy.statistics().generation, 0);
}

#[test]
fn the_next_daemon_gets_all_that_the_proxy_has() {
    let (mut proxy, mut first) = start("2");
    serve_numbered(1, 8001);
    let (of_tcp, of_udp) = (tcp(8080), udp(8080));
    proxy.snapshot(vec![publishing("s", 1, &[(of_tcp, 8001), (of_udp, 8001)])]);
    hand_over(&mut first, of_tcp, &sockets(of_tcp, 2));
    hand_over(&mut first, of_udp, &sockets(of_udp, 2));
    let open = connect("127.0.0.1", of_tcp);
    assert_eq!(number(&open), 1);
    let mut second = proxy.connect_control();
    assert!(matches!(second.receive(), Reply::Hello(_)));
    drop(first);
    let handed = take_over(&mut second);
    let roles: Vec<_> = handed.iter().map(|(role, _)| *role).collect();
    let port = |port, thread| DescriptorRole::Port { port, thread };
    let mut expected = vec![DescriptorRole::Process, DescriptorRole::Control];
    expected.extend([0, 1].map(|thread| DescriptorRole::Listener { thread }));
    for published in [of_tcp, of_udp] {
        expected.extend([0, 0, 1, 1].map(|thread| port(published, thread)));
    }
    assert_eq!(roles, expected);
    is_echoed(&open, b"goes on");
    // It serves the port by the same sockets, and then by what it was handed alone.
    let same: Vec<_> = handed
        .iter()
        .filter(|(role, _)| matches!(role, DescriptorRole::Port { port, .. } if *port == of_tcp))
        .collect();
    let same: Vec<_> = same.iter().map(|(_, socket)| socket.try_clone().unwrap()).collect();
    assert_eq!(hand_over(&mut second, of_tcp, &same), Reply::Ports(vec![of_tcp, of_udp]));
    assert_eq!(number(&connect("::1", of_tcp)), 1);
    proxy.child.kill().unwrap();
    let (_, process) = &handed[0];
    let mut ended = [nix::poll::PollFd::new(process.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut ended, nix::poll::PollTimeout::try_from(patience()).unwrap()).unwrap(), 1);
    support::wait_for_exit(&mut proxy.child);
    let listeners: Vec<_> = same.into_iter().map(TcpListener::from).collect();
    let waiting = connect("127.0.0.1", of_tcp);
    let accepted = listeners.iter().find_map(|listener| {
        listener.set_nonblocking(true).unwrap();
        listener.accept().ok()
    });
    assert_eq!(accepted.unwrap().1, waiting.local_addr().unwrap());
}

#[test]
fn many_ports_are_handed_over_in_parts_and_there_is_a_limit() {
    // All of them come back, and the usual limit is 1,024.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (mut proxy, mut control) = start("1");
    for number in 10_000..11_024 {
        let port = tcp(number);
        let Reply::Ports(ports) = hand_over(&mut control, port, &sockets(port, 1)[..1]) else { panic!("{port}") };
        assert_eq!(ports.len(), usize::from(number) - 9_999);
    }
    let port = tcp(20_000);
    let reply = hand_over(&mut control, port, &sockets(port, 1));
    assert!(matches!(&reply, Reply::PortRefused { reason, .. } if reason.contains("1024")), "{reply:?}");
    let handed = take_over(&mut control);
    assert_eq!(handed.len(), 1_024 + 3);
    drop(handed);
    serve_numbered(1, 8001);
    let all: Vec<_> = (10_000..11_024).map(|number| (tcp(number), 8001)).collect();
    proxy.snapshot(vec![publishing("s", 1, &all)]);
    assert!([10_000, 10_500, 11_023].iter().all(|&port| number(&connect("127.0.0.1", tcp(port))) == 1));
}

#[test]
fn ports_do_not_take_the_last_descriptors() {
    let options = Options { descriptors: Some(100), ..Options::default() };
    let mut proxy = Proxy::start_without_table(&options);
    let mut control = proxy.connect_control();
    control.receive();
    let mut added = 0;
    let refused = (8_000..8_100).map(tcp).find_map(|port| match hand_over(&mut control, port, &sockets(port, 1)) {
        Reply::PortRefused { reason, .. } => Some(reason),
        _ => {
            added += 1;
            None
        }
    });
    assert!(refused.unwrap().contains("RLIMIT_NOFILE") && added > 0, "{added} were added");
    assert_eq!(proxy.statistics().proxy.accepted, 0);
    control.send(&Request::RemovePort(tcp(8_000)));
    control.receive();
    let port = tcp(9_000);
    assert!(matches!(hand_over(&mut control, port, &sockets(port, 1)), Reply::Ports(_)));
}

#[test]
fn ports_do_not_take_from_a_maximum_of_connections_that_was_asked_for() {
    let arguments = vec!["--max-connections", "4"];
    let mut proxy = Proxy::start_without_table(&Options { arguments, ..Options::default() });
    let mut control = proxy.connect_control();
    control.receive();
    serve_numbered(1, 8001);
    let ports: Vec<_> = (8_080..8_090).map(tcp).collect();
    proxy.snapshot(vec![publishing("s", 1, &ports.iter().map(|&port| (port, 8001)).collect::<Vec<_>>())]);
    for &port in &ports {
        assert!(matches!(hand_over(&mut control, port, &sockets(port, 1)), Reply::Ports(_)));
    }
    let open: Vec<_> = ports[..4].iter().map(|&port| connect("127.0.0.1", port)).collect();
    assert!(open.iter().all(|stream| number(stream) == 1));
    let mut fifth = connect("127.0.0.1", ports[4]);
    assert!(fifth.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}
