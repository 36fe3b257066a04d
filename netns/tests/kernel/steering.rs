use crate::support::{
    CLIENT, LB, LB_V6, Network, Stack, VIPS, accept, assert_nothing_to_accept, connect, ip, net, run_in, threads, to,
};
use crate::unprivileged;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use ringlb_netns::{Error, Namespace, SteeredSockets, Steering, SteeringKind, clear};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

/// By `sk_lookup`, which only root can set up.
mod as_root {
    use super::*;

    #[tokio::test]
    async fn every_port_of_every_vip_by_sk_lookup() {
        every_port_of_every_vip("sk-lookup", Stack::Dual, SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn every_port_of_every_ipv4_vip_by_sk_lookup() {
        every_port_of_every_vip("sk-lookup-v4", Stack::V4, SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn every_port_of_every_ipv6_vip_by_sk_lookup() {
        every_port_of_every_vip("sk-lookup-v6", Stack::V6, SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn every_thread_gets_connections_by_sk_lookup() {
        every_thread_gets_connections("sk-lookup-threads", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn a_new_listener_takes_over_by_sk_lookup() {
        a_new_listener_takes_over("sk-lookup-again", 1, SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn new_listeners_of_several_threads_take_over_by_sk_lookup() {
        a_new_listener_takes_over("sk-lookup-again-3", 3, SteeringKind::SkLookup).await;
    }

    /// The listener and the steering of a daemon that was killed live on in its proxy.
    #[tokio::test]
    async fn sk_lookup_lives_in_its_descriptors() {
        let network = Network::new("sk-lookup-descriptors").await;
        let namespace = network.sandbox.namespace();
        let daemon = SteeredSockets::open(namespace, ip(LB), threads(1), Some(SteeringKind::SkLookup)).unwrap();
        assert_eq!(daemon.steering.descriptors().len(), 1);
        let listener = daemon.threads[0].listeners[0].try_clone().unwrap();
        let descriptors: Vec<_> =
            daemon.steering.descriptors().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        drop(daemon);
        let proxy = Steering::from_descriptors(SteeringKind::SkLookup, descriptors).unwrap();
        let address = to(VIPS[0], 80);
        let _client = connect(&network.client, address).unwrap();
        assert_eq!(accept(&listener).local_addr().unwrap(), address);
        drop(proxy);
        assert_eq!(connect(&network.client, address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        Steering::from_descriptors(SteeringKind::SkLookup, Vec::new()).unwrap_err();
        network.remove();
    }
}

#[tokio::test]
async fn every_port_of_every_vip_by_tproxy() {
    every_port_of_every_vip("tproxy", Stack::Dual, SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn every_port_of_every_ipv4_vip_by_tproxy() {
    every_port_of_every_vip("tproxy-v4", Stack::V4, SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn every_port_of_every_ipv6_vip_by_tproxy() {
    every_port_of_every_vip("tproxy-v6", Stack::V6, SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn every_thread_gets_connections_by_tproxy() {
    every_thread_gets_connections("tproxy-threads", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn a_new_listener_takes_over_by_tproxy() {
    a_new_listener_takes_over("tproxy-again", 1, SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn new_listeners_of_several_threads_take_over_by_tproxy() {
    a_new_listener_takes_over("tproxy-again-3", 3, SteeringKind::Tproxy).await;
}

/// In a namespace that goes on without a proxy.
#[tokio::test]
async fn tproxy_can_be_taken_back() {
    let network = Network::of("tproxy-back", Stack::Dual).await;
    let namespace = network.sandbox.namespace();
    // The one that answers neighbour solicitations is taken back as well.
    run_in(namespace, "nft", &["delete", "table", "netdev", "ringlb"]);
    let before = tables(namespace);
    let kind = SteeringKind::Tproxy;
    let steered = SteeredSockets::open(namespace, Stack::Dual.lb(), threads(1), Some(kind)).unwrap();
    assert_eq!(tables(namespace).len(), before.len() + 2);
    let address = to(VIPS[0], 80);
    let mut client = connect(&network.client, address).unwrap();
    let mut server = accept(&steered.threads[0].listeners[0]);
    for _twice in 0..2 {
        let (_, errors) = clear(namespace).await;
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(tables(namespace), before);
    }
    network.sandbox.add_vip_route(net("10.77.0.128/25")).await.unwrap();
    assert_eq!(connect(&network.client, address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    client.write_all(b"hello").unwrap();
    let mut received = [0; 5];
    server.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");
    network.remove();
}

/// The nftables tables of a namespace.
fn tables(namespace: &Namespace) -> Vec<String> {
    run_in(namespace, "nft", &["list", "tables"]).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn without_a_wish_the_kind_suits_the_user() {
    let network = Network::new("choice").await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredSockets::open(namespace, ip(LB), threads(1), None).unwrap();
    if unprivileged::is_real_root() {
        assert_eq!(steered.steering.kind(), SteeringKind::SkLookup);
    } else {
        assert_eq!(steered.steering.kind(), SteeringKind::Tproxy);
        let error = SteeredSockets::open(namespace, ip(LB), threads(1), Some(SteeringKind::SkLookup)).unwrap_err();
        assert!(matches!(&error, Error::Bpf { cause, .. } if cause.raw_os_error() == Some(libc::EPERM)), "{error}");
        assert!(error.to_string().contains("TPROXY"), "{error}");
    }
    let address = to(VIPS[1], 6379);
    let _client = connect(&network.client, address).unwrap();
    assert_eq!(accept(&steered.threads[0].listeners[0]).local_addr().unwrap(), address);
    network.remove();
}

/// A hundred threads' sockets of a dozen sandboxes would not find a port each if they were not shared.
#[tokio::test]
async fn threads_share_a_port_and_groups_do_not() {
    let network = Network::of("ports", Stack::Dual).await;
    let namespace = network.sandbox.namespace();
    let kind = Some(SteeringKind::Tproxy);
    let groups = [0; 2].map(|_| SteeredSockets::open(namespace, Stack::Dual.lb(), threads(8), kind).unwrap());
    let mut ports = Vec::new();
    for group in &groups {
        for family in 0..2 {
            let port = |thread: usize| group.threads[thread].listeners[family].local_addr().unwrap();
            assert!((1..8).all(|thread| port(thread) == port(0)));
            ports.push(port(0));
            let port = |thread: usize| group.threads[thread].datagrams[family].local_addr().unwrap();
            assert!((1..8).all(|thread| port(thread) == port(0)));
        }
    }
    let count = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), count);
    network.remove();
}

async fn every_port_of_every_vip(test: &str, stack: Stack, kind: SteeringKind) {
    let network = Network::of(test, stack).await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredSockets::open(namespace, stack.lb(), threads(1), Some(kind)).unwrap();
    assert_eq!(steered.steering.kind(), kind);
    assert_eq!(steered.threads.len(), 1);
    let listeners = &steered.threads[0].listeners;
    let datagrams = &steered.threads[0].datagrams;
    let families: Vec<_> = stack.lb().iter().map(|address| address.is_ipv4()).collect();
    let is_ipv4 = |address: SocketAddr| address.is_ipv4();
    assert_eq!(listeners.iter().map(|one| is_ipv4(one.local_addr().unwrap())).collect::<Vec<_>>(), families);
    assert_eq!(datagrams.iter().map(|one| is_ipv4(one.local_addr().unwrap())).collect::<Vec<_>>(), families);
    for address in listeners.iter().map(|one| one.local_addr().unwrap()) {
        assert!(address.ip().is_loopback() && address.port() < 1024, "{address}");
    }
    for socket in listeners.iter().map(AsFd::as_fd).chain(datagrams.iter().map(AsFd::as_fd)) {
        assert_is_nonblocking_and_closed_on_exec(socket);
    }
    listeners.iter().for_each(assert_nothing_to_accept);

    let own_port = listeners[0].local_addr().unwrap().port();
    for from in [&network.client, namespace] {
        for vip in stack.vips() {
            let listener = listener_for(listeners, vip);
            for port in [1, 22, 80, own_port, 5432, 6379, 40_000, 65_535] {
                let address = SocketAddr::new(vip, port);
                let mut client = connect(from, address).unwrap();
                let mut accepted = accept(listener);
                assert_eq!(accepted.local_addr().unwrap(), address);
                assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
                exchange(&mut client, &mut accepted);
                exchange(&mut accepted, &mut client);
            }
        }
    }
    if stack.has_v4() {
        assert_eq!(connect(&network.client, to(VIPS[0], 80)).unwrap().local_addr().unwrap().ip(), ip(CLIENT));
        accept(&listeners[0]);
    }

    // The LB endpoint's own addresses and loopback addresses are not steered, and nobody gets at a listener directly.
    let mut refused = Vec::new();
    for (lb, loopback, has) in [(LB, ["127.0.0.1", "127.1.2.3"], stack.has_v4()), (LB_V6, ["::1"; 2], stack.has_v6())] {
        if has {
            refused.extend([
                (&network.client, to(lb, 80)),
                (&network.client, to(lb, own_port)),
                (namespace, to(lb, 80)),
            ]);
            refused.extend(loopback.map(|loopback| (namespace, to(loopback, 80))));
        }
    }
    for (from, address) in refused {
        assert_eq!(connect(from, address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    listeners.iter().for_each(assert_nothing_to_accept);
    for lb in stack.lb().iter() {
        let address = SocketAddr::new(lb, 8080);
        let own = namespace.run(|| TcpListener::bind(address).unwrap()).unwrap();
        connect(&network.client, address).unwrap();
        assert_eq!(own.accept().unwrap().0.local_addr().unwrap(), address);
    }
    listeners.iter().for_each(assert_nothing_to_accept);

    // Nobody accepts for a while: clients queue.
    let vip = stack.vips()[0];
    let queued: Vec<_> =
        (0..500).map(|port| connect(&network.client, SocketAddr::new(vip, 1000 + port)).unwrap()).collect();
    for _connection in &queued {
        accept(listener_for(listeners, vip));
    }
    network.remove();
}

fn listener_for(listeners: &[TcpListener], address: IpAddr) -> &TcpListener {
    listeners.iter().find(|one| one.local_addr().unwrap().is_ipv4() == address.is_ipv4()).unwrap()
}

fn assert_is_nonblocking_and_closed_on_exec(socket: BorrowedFd<'_>) {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).unwrap());
    assert!(flags.contains(OFlag::O_NONBLOCK));
    assert_eq!(fcntl(socket, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
}

/// 120 connections and three threads: that one gets none has a probability of one in 10²⁰.
async fn every_thread_gets_connections(test: &str, kind: SteeringKind) {
    let network = Network::of(test, Stack::Dual).await;
    let steered = SteeredSockets::open(network.sandbox.namespace(), Stack::Dual.lb(), threads(3), Some(kind)).unwrap();
    assert_eq!(steered.threads.len(), 3);
    for vip in Stack::Dual.vips() {
        let clients: Vec<_> = (0..120).map(|_| connect(&network.client, SocketAddr::new(vip, 80)).unwrap()).collect();
        // All handshakes are done, so that every connection waits in one of the queues.
        let accepted = steered.threads.iter().map(|thread| {
            let listener = listener_for(&thread.listeners, vip);
            std::iter::from_fn(|| listener.accept().ok()).count()
        });
        let accepted: Vec<_> = accepted.collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len(), "{accepted:?}");
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
    }
    network.remove();
}

async fn a_new_listener_takes_over(test: &str, count: usize, kind: SteeringKind) {
    let network = Network::new(test).await;
    let namespace = network.sandbox.namespace();
    let open = || SteeredSockets::open(namespace, ip(LB), threads(count), Some(kind)).unwrap();
    let first = open();
    let mut client = connect(&network.client, to(VIPS[0], 80)).unwrap();
    let mut accepted = accept_any(&first);
    let second = open();
    for _connection in 0..20 {
        connect(&network.client, to(VIPS[0], 80)).unwrap();
        accept_any(&second);
    }
    first.threads.iter().for_each(|thread| assert_nothing_to_accept(&thread.listeners[0]));
    // Connections that were accepted go on, also when their listener ends.
    exchange(&mut client, &mut accepted);
    drop(first);
    exchange(&mut accepted, &mut client);
    connect(&network.client, to(VIPS[1], 443)).unwrap();
    accept_any(&second);
    drop(second);
    let refused = connect(&network.client, to(VIPS[0], 80)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    network.remove();
}

fn accept_any(steered: &SteeredSockets) -> std::net::TcpStream {
    crate::support::until("a connection arrives", || {
        steered.threads.iter().find_map(|thread| thread.listeners[0].accept().ok())
    })
    .0
}

fn exchange(from: &mut impl Write, to: &mut impl Read) {
    from.write_all(b"hello").unwrap();
    let mut received = [0; 5];
    to.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");
}
