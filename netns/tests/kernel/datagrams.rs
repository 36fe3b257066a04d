use crate::support::{CLIENT, CLIENT_V6, LB, LB_V6, Network, PATIENCE, Stack, VIPS, VIPS_V6, ip, threads, to, until};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg, sockopt,
};
use ringlb_netns::{Namespace, SteeredSockets, SteeringKind};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

/// By `sk_lookup`, which only root can set up.
mod as_root {
    use super::*;

    #[tokio::test]
    async fn every_port_of_every_vip_by_sk_lookup() {
        every_port_of_every_vip("udp-sk-lookup", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn every_thread_gets_datagrams_by_sk_lookup() {
        every_thread_gets_datagrams("udp-sk-lookup-threads", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn backends_reach_the_sandboxs_own_sockets_by_sk_lookup() {
        backends_reach_the_sandboxs_own_sockets("udp-sk-lookup-own", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn replies_leave_from_the_vip_by_sk_lookup() {
        replies_leave_from_the_vip("udp-sk-lookup-reply", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn new_sockets_take_over_by_sk_lookup() {
        new_sockets_take_over("udp-sk-lookup-again", SteeringKind::SkLookup).await;
    }

    #[tokio::test]
    async fn root_has_the_whole_receive_buffer() {
        let network = Network::new("udp-buffer").await;
        let steered = SteeredSockets::open(network.sandbox.namespace(), ip(LB), threads(1), None).unwrap();
        // The kernel doubles it (socket(7)).
        let size = getsockopt(&steered.threads[0].datagrams[0], sockopt::RcvBuf).unwrap();
        assert_eq!(size, 16 << 20);
        network.remove();
    }
}

#[tokio::test]
async fn every_port_of_every_vip_by_tproxy() {
    every_port_of_every_vip("udp-tproxy", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn every_thread_gets_datagrams_by_tproxy() {
    every_thread_gets_datagrams("udp-tproxy-threads", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn backends_reach_the_sandboxs_own_sockets_by_tproxy() {
    backends_reach_the_sandboxs_own_sockets("udp-tproxy-own", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn replies_leave_from_the_vip_by_tproxy() {
    replies_leave_from_the_vip("udp-tproxy-reply", SteeringKind::Tproxy).await;
}

#[tokio::test]
async fn new_sockets_take_over_by_tproxy() {
    new_sockets_take_over("udp-tproxy-again", SteeringKind::Tproxy).await;
}

async fn every_port_of_every_vip(test: &str, kind: SteeringKind) {
    let network = Network::of(test, Stack::Dual).await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredSockets::open(namespace, Stack::Dual.lb(), threads(1), Some(kind)).unwrap();
    let sockets = &steered.threads[0].datagrams;
    let own_port = sockets[0].local_addr().unwrap().port();
    for from in [&network.client, namespace] {
        for vip in Stack::Dual.vips() {
            for port in [1, 53, 80, own_port, 443, 5353, 40_000, 65_535] {
                let address = SocketAddr::new(vip, port);
                let client = client(from, address);
                client.send(b"question").unwrap();
                let datagram = receive(socket_for(sockets, vip));
                assert_eq!(datagram.bytes, b"question");
                assert_eq!(datagram.source, client.local_addr().unwrap());
                assert_eq!(datagram.vip, Some(vip));
                assert_eq!(datagram.destination, Some(address));
            }
        }
    }

    // Large ones, in fragments.
    let large: Vec<_> = (0..60_000u32).map(|number| number as u8).collect();
    for vip in [VIPS[0], VIPS_V6[0]] {
        client(&network.client, to(vip, 53)).send(&large).unwrap();
        let datagram = receive(socket_for(sockets, ip(vip)));
        assert!(datagram.bytes == large);
        assert_eq!(datagram.destination, Some(to(vip, 53)));
    }

    // The LB endpoint's own addresses and loopback addresses are not steered.
    let others = [
        (&network.client, to(LB, 53)),
        (&network.client, to(LB, own_port)),
        (&network.client, to(LB_V6, 53)),
        (&network.client, to(LB_V6, own_port)),
        (namespace, to(LB, 53)),
        (namespace, to("127.1.2.3", 53)),
        (namespace, to("::1", 53)),
    ];
    for (from, address) in others {
        let client = client(from, address);
        client.send(b"question").unwrap();
        let refused = client.recv(&mut [0]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    // Nor what is for everybody.
    let everybody = network.client.run(|| UdpSocket::bind(to(CLIENT, 0)).unwrap()).unwrap();
    everybody.set_broadcast(true).unwrap();
    for address in ["10.77.0.255", "255.255.255.255", "224.0.0.251"] {
        everybody.send_to(b"question", to(address, 53)).unwrap();
    }
    // What comes after it is the next.
    everybody.send_to(b"last", to(VIPS[0], 53)).unwrap();
    assert_eq!(receive(socket_for(sockets, ip(LB))).bytes, b"last");
    sockets.iter().for_each(assert_nothing_to_receive);
    network.remove();
}

/// 120 clients and three threads: that one gets none has a probability of one in 10²⁰.
async fn every_thread_gets_datagrams(test: &str, kind: SteeringKind) {
    let network = Network::of(test, Stack::Dual).await;
    let steered = SteeredSockets::open(network.sandbox.namespace(), Stack::Dual.lb(), threads(3), Some(kind)).unwrap();
    for vip in Stack::Dual.vips() {
        let mut counts = [0; 3];
        for _client in 0..120 {
            let client = client(&network.client, SocketAddr::new(vip, 53));
            // A client's datagrams all meet the same thread.
            let mut threads = [0; 2].map(|_| {
                client.send(b"question").unwrap();
                until("a datagram arrives", || {
                    steered
                        .threads
                        .iter()
                        .position(|thread| socket_for(&thread.datagrams, vip).recv_from(&mut [0]).is_ok())
                })
            });
            threads.sort_unstable();
            assert_eq!(threads[0], threads[1]);
            counts[threads[0]] += 1;
        }
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
    network.remove();
}

/// A proxy's sockets towards backends have the LB endpoint's address.
async fn backends_reach_the_sandboxs_own_sockets(test: &str, kind: SteeringKind) {
    let network = Network::of(test, Stack::Dual).await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredSockets::open(namespace, Stack::Dual.lb(), threads(2), Some(kind)).unwrap();
    for (backend, lb, any) in [(CLIENT, LB, "0.0.0.0"), (CLIENT_V6, LB_V6, "::")] {
        let backend = network.client.run(|| bound(to(backend, 53))).unwrap();
        let address = backend.local_addr().unwrap();
        // Connected, bound to the address, and bound to none.
        let connected = namespace.run(|| bound(to(any, 0))).unwrap();
        connected.connect(address).unwrap();
        for socket in
            [connected, namespace.run(|| bound(to(lb, 0))).unwrap(), namespace.run(|| bound(to(any, 0))).unwrap()]
        {
            if socket.peer_addr().is_ok() {
                socket.send(b"question").unwrap();
            } else {
                socket.send_to(b"question", address).unwrap();
            }
            let (_length, from) = backend.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(from, SocketAddr::new(ip(lb), socket.local_addr().unwrap().port()));
            backend.send_to(b"answer", from).unwrap();
            let mut answer = [0; 6];
            assert_eq!(socket.recv_from(&mut answer).unwrap(), (6, address));
            assert_eq!(&answer, b"answer");
        }
    }
    for thread in &steered.threads {
        thread.datagrams.iter().for_each(assert_nothing_to_receive);
    }
    network.remove();
}

async fn replies_leave_from_the_vip(test: &str, kind: SteeringKind) {
    let network = Network::of(test, Stack::Dual).await;
    let namespace = network.sandbox.namespace();
    let steered = SteeredSockets::open(namespace, Stack::Dual.lb(), threads(1), Some(kind)).unwrap();
    for vip in Stack::Dual.vips() {
        let steered = socket_for(&steered.threads[0].datagrams, vip);
        let vip_port = SocketAddr::new(vip, 53);
        let any = if vip.is_ipv4() { "0.0.0.0" } else { "::" };

        // From the steered socket: from the VIP, but from the socket's own port.
        let client = network.client.run(|| bound(to(any, 0))).unwrap();
        client.send_to(b"question", vip_port).unwrap();
        let client_address = receive(steered).source;
        send_from(steered, vip, client_address, b"answer");
        let own_port = steered.local_addr().unwrap().port();
        assert_eq!(client.recv_from(&mut [0; 6]).unwrap().1, SocketAddr::new(vip, own_port));

        // From sockets bound to VIP:port, as many as there may be threads: it is what a connected client takes.
        let reply_sockets = [0; 2].map(|_| namespace.run(|| reply_socket(vip_port)).unwrap());
        let clients = [0; 2].map(|_| self::client(&network.client, vip_port));
        for client in &clients {
            for reply_socket in &reply_sockets {
                // They get nothing.
                client.send(b"question").unwrap();
                let datagram = receive(steered);
                assert_eq!(datagram.source, client.local_addr().unwrap());
                reply_socket.send_to(b"answer", datagram.source).unwrap();
                let mut answer = [0; 6];
                assert_eq!(client.recv(&mut answer).unwrap(), 6);
                assert_eq!(&answer, b"answer");
            }
        }
        reply_sockets.iter().for_each(assert_nothing_to_receive);

        // One that is connected gets its client's further datagrams, and no other's.
        let connected = namespace.run(|| reply_socket(vip_port)).unwrap();
        connected.connect(clients[0].local_addr().unwrap()).unwrap();
        clients[0].send(b"more").unwrap();
        let mut more = [0; 4];
        until("the connected socket gets it", || connected.recv(&mut more).ok());
        assert_eq!(&more, b"more");
        connected.send(b"answer").unwrap();
        clients[0].recv(&mut [0; 6]).unwrap();
        assert_nothing_to_receive(steered);
        clients[1].send(b"other").unwrap();
        assert_eq!(receive(steered).bytes, b"other");
        assert_nothing_to_receive(&connected);
        drop(connected);
        clients[0].send(b"again").unwrap();
        assert_eq!(receive(steered).bytes, b"again");
    }
    network.remove();
}

async fn new_sockets_take_over(test: &str, kind: SteeringKind) {
    let network = Network::of(test, Stack::Dual).await;
    let open = |count| {
        SteeredSockets::open(network.sandbox.namespace(), Stack::Dual.lb(), threads(count), Some(kind)).unwrap()
    };
    let first = open(2);
    let second = open(1);
    let clients = Stack::Dual.vips().into_iter().map(|vip| client(&network.client, SocketAddr::new(vip, 53)));
    let clients: Vec<_> = clients.collect();
    for client in &clients {
        client.send(b"question").unwrap();
        receive(socket_for(&second.threads[0].datagrams, client.peer_addr().unwrap().ip()));
    }
    for thread in &first.threads {
        thread.datagrams.iter().for_each(assert_nothing_to_receive);
    }
    drop((first, second));
    for client in &clients {
        client.send(b"question").unwrap();
        assert_eq!(client.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    network.remove();
}

/// What [`ringlb_netns::ThreadSockets`] says about replies.
fn reply_socket(address: SocketAddr) -> UdpSocket {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
        socket.set_freebind_v6(true).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.into()
}

fn bound(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn client(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = namespace.run(|| bound(to(any, 0))).unwrap();
    socket.connect(address).unwrap();
    socket
}

fn socket_for(sockets: &[UdpSocket], address: IpAddr) -> &UdpSocket {
    sockets.iter().find(|one| one.local_addr().unwrap().is_ipv4() == address.is_ipv4()).unwrap()
}

#[derive(Debug)]
struct Datagram {
    bytes: Vec<u8>,
    source: SocketAddr,
    vip: Option<IpAddr>,
    destination: Option<SocketAddr>,
}

fn receive(socket: &UdpSocket) -> Datagram {
    until("a datagram arrives", || try_receive(socket).ok())
}

fn assert_nothing_to_receive(socket: &UdpSocket) {
    assert_eq!(try_receive(socket).unwrap_err(), nix::Error::EAGAIN);
}

fn try_receive(socket: &UdpSocket) -> nix::Result<Datagram> {
    let mut bytes = vec![0; 65_536];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let mut space = vec![0; 256];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
    let source = std_address(message.address.unwrap());
    let (mut vip, mut destination) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                vip = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => vip = Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            ControlMessageOwned::Ipv4OrigDstAddr(address) => {
                let (ip, port) = (address.sin_addr.s_addr.to_ne_bytes(), u16::from_be(address.sin_port));
                destination = Some(SocketAddr::from((ip, port)));
            }
            ControlMessageOwned::Ipv6OrigDstAddr(address) => {
                destination = Some(SocketAddr::from((address.sin6_addr.s6_addr, u16::from_be(address.sin6_port))));
            }
            other => panic!("{other:?}"),
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok(Datagram { bytes, source, vip, destination })
}

fn send_from(socket: &UdpSocket, from: IpAddr, to: SocketAddr, bytes: &[u8]) {
    let v4 = |address: std::net::Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
    let info_v4;
    let info_v6;
    let control = match from {
        IpAddr::V4(from) => {
            info_v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: v4(from), ipi_addr: v4(from) };
            ControlMessage::Ipv4PacketInfo(&info_v4)
        }
        IpAddr::V6(from) => {
            info_v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&info_v6)
        }
    };
    let to = SockaddrStorage::from(to);
    let sent = sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], &[control], MsgFlags::empty(), Some(&to));
    assert_eq!(sent.unwrap(), bytes.len());
}

fn std_address(address: SockaddrStorage) -> SocketAddr {
    if let Some(address) = address.as_sockaddr_in() {
        return SocketAddrV4::from(*address).into();
    }
    SocketAddrV6::from(*address.as_sockaddr_in6().unwrap()).into()
}
