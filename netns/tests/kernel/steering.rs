use crate::support::{CLIENT, LB, Network, VIPS, accept, assert_nothing_to_accept, connect, ip, to};
use crate::unprivileged;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use ringlb_netns::{Error, Namespace, SteeredListener, Steering, SteeringKind};
use std::io::{self, Read, Write};
use std::net::TcpListener;

/// By `sk_lookup`, which only root can set up.
mod as_root {
    use super::*;

    #[tokio::test]
    async fn every_port_of_every_vip_by_sk_lookup() {
        every_port_of_every_vip("sk-lookup", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn a_new_listener_takes_over_by_sk_lookup() {
        a_new_listener_takes_over("sk-lookup-again", SteeringKind::SkLookup).await;
    }

    /// The listener and the steering of a daemon that was killed live on in its proxy.
    #[tokio::test]
    async fn sk_lookup_lives_in_its_descriptors() {
        let network = Network::new("sk-lookup-descriptors").await;
        let namespace = network.sandbox.namespace();
        let daemon = SteeredListener::open(namespace, ip(LB), Some(SteeringKind::SkLookup)).unwrap();
        assert_eq!(daemon.steering.descriptors().len(), 1);
        let listener = daemon.listener.try_clone().unwrap();
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
        remove(&network);
    }
}

#[tokio::test]
async fn every_port_of_every_vip_by_tproxy() {
    every_port_of_every_vip("tproxy", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn a_new_listener_takes_over_by_tproxy() {
    a_new_listener_takes_over("tproxy-again", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn without_a_wish_the_kind_suits_the_user() {
    let network = Network::new("choice").await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredListener::open(namespace, ip(LB), None).unwrap();
    if unprivileged::is_real_root() {
        assert_eq!(steered.steering.kind(), SteeringKind::SkLookup);
    } else {
        assert_eq!(steered.steering.kind(), SteeringKind::Tproxy);
        let error = SteeredListener::open(namespace, ip(LB), Some(SteeringKind::SkLookup)).unwrap_err();
        assert!(matches!(&error, Error::Bpf { cause, .. } if cause.raw_os_error() == Some(libc::EPERM)), "{error}");
        assert!(error.to_string().contains("TPROXY"), "{error}");
    }
    let address = to(VIPS[1], 6379);
    let _client = connect(&network.client, address).unwrap();
    assert_eq!(accept(&steered.listener).local_addr().unwrap(), address);
    remove(&network);
}

#[test]
fn an_ipv6_address_is_refused() {
    let namespace = Namespace::current().unwrap();
    for wanted in [None, Some(SteeringKind::SkLookup), Some(SteeringKind::Tproxy)] {
        let error = SteeredListener::open(&namespace, ip("fd00::1"), wanted).unwrap_err();
        assert!(matches!(error, Error::Ipv6Unsupported { .. }), "{error}");
    }
}

async fn every_port_of_every_vip(test: &str, kind: SteeringKind) {
    let network = Network::new(test).await;
    let namespace = network.sandbox.namespace();
    let SteeredListener { listener, steering } = SteeredListener::open(namespace, ip(LB), Some(kind)).unwrap();
    assert_eq!(steering.kind(), kind);
    assert!(listener.local_addr().unwrap().port() < 1024);
    let flags = OFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFL).unwrap());
    assert!(flags.contains(OFlag::O_NONBLOCK));
    assert_eq!(fcntl(&listener, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    assert_nothing_to_accept(&listener);

    let own_port = listener.local_addr().unwrap().port();
    for from in [&network.client, namespace] {
        for vip in VIPS {
            for port in [1, 22, 80, own_port, 5432, 6379, 40_000, 65_535] {
                let address = to(vip, port);
                let mut client = connect(from, address).unwrap();
                let mut accepted = accept(&listener);
                assert_eq!(accepted.local_addr().unwrap(), address);
                assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
                exchange(&mut client, &mut accepted);
                exchange(&mut accepted, &mut client);
            }
        }
    }
    assert_eq!(connect(&network.client, to(VIPS[0], 80)).unwrap().local_addr().unwrap().ip(), ip(CLIENT));
    accept(&listener);

    // The LB endpoint's own address and loopback addresses are not steered, and nobody gets at the listener directly.
    let refused = [
        (&network.client, to(LB, 80)),
        (&network.client, to(LB, own_port)),
        (namespace, to(LB, 80)),
        (namespace, to("127.0.0.1", 80)),
        (namespace, to("127.1.2.3", 80)),
    ];
    for (from, address) in refused {
        assert_eq!(connect(from, address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    assert_nothing_to_accept(&listener);
    let own = namespace.run(|| TcpListener::bind(to(LB, 8080)).unwrap()).unwrap();
    connect(&network.client, to(LB, 8080)).unwrap();
    assert_eq!(own.accept().unwrap().0.local_addr().unwrap(), to(LB, 8080));
    assert_nothing_to_accept(&listener);

    // Nobody accepts for a while: clients queue.
    let queued: Vec<_> = (0..500).map(|port| connect(&network.client, to(VIPS[0], 1000 + port)).unwrap()).collect();
    for _connection in &queued {
        accept(&listener);
    }
    remove(&network);
}

async fn a_new_listener_takes_over(test: &str, kind: SteeringKind) {
    let network = Network::new(test).await;
    let namespace = network.sandbox.namespace();
    let first = SteeredListener::open(namespace, ip(LB), Some(kind)).unwrap();
    let mut client = connect(&network.client, to(VIPS[0], 80)).unwrap();
    let mut accepted = accept(&first.listener);
    let second = SteeredListener::open(namespace, ip(LB), Some(kind)).unwrap();
    connect(&network.client, to(VIPS[0], 80)).unwrap();
    accept(&second.listener);
    assert_nothing_to_accept(&first.listener);
    // Connections that were accepted go on, also when their listener ends.
    exchange(&mut client, &mut accepted);
    drop(first);
    exchange(&mut accepted, &mut client);
    connect(&network.client, to(VIPS[1], 443)).unwrap();
    accept(&second.listener);
    drop(second);
    let refused = connect(&network.client, to(VIPS[0], 80)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    remove(&network);
}

fn exchange(from: &mut impl Write, to: &mut impl Read) {
    from.write_all(b"hello").unwrap();
    let mut received = [0; 5];
    to.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");
}

fn remove(network: &Network) {
    network.fabric.plan().remove().unwrap();
    Namespace::remove(network.client.name().unwrap()).unwrap();
}
