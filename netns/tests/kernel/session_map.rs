//! What the programs of a bridge's ports do with what is in the session map.

use crate::memory::Memory;
use crate::programs::number_of;
use crate::support::{ip, iproute2, plan};
use crate::unprivileged::is_real_root;
use ringlb_netns::session_map::{
    BYTES, DATAGRAMS, ENTRY_BYTES, KEY_ADDRESSES, KEY_PORTS, NEW_ADDRESSES, NEW_PORTS, PAYLOAD_BYTES, SEQUENCE, WAYS,
    bucket_of,
};
use ringlb_netns::{Fabric, Namespace, NetworkPlan, Sandbox};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) const LB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
pub(crate) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);

/// A sandbox, a client and a backend.
pub(crate) struct Network {
    pub(crate) plan: NetworkPlan,
    pub(crate) fabric: Fabric,
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Namespace,
    pub(crate) backend: Namespace,
}

impl Network {
    /// `None` where the kernel has no programs at ports.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        let plan = plan(test);
        let mut fabric = Fabric::ensure(&plan).await.unwrap();
        if fabric.take_shortcuts().await.is_err() {
            assert!(!is_real_root() || !crate::shortcuts::kernel_has_tcx());
            fabric.remove().await.unwrap();
            plan.remove().unwrap();
            return None;
        }
        let sandbox = Sandbox::ensure(&plan, &fabric, ip(&LB.to_string())).await.unwrap();
        let container = |name| Namespace::create(&format!("ringlb-test-{test}-{name}")).unwrap();
        let (client, backend) = (container("client"), container("backend"));
        for (name, namespace, address) in [("client", &client, CLIENT), ("backend", &backend, BACKEND)] {
            fabric.connect(name, namespace, "eth0", ip(&address.to_string())).await.unwrap();
        }
        Some(Self { plan, fabric, sandbox, client, backend })
    }

    pub(crate) async fn remove(self) {
        self.sandbox.remove(&self.fabric).await.unwrap();
        self.fabric.remove().await.unwrap();
        self.plan.remove().unwrap();
        for container in [self.client, self.backend] {
            Namespace::remove(container.name().unwrap()).unwrap();
        }
    }
}

/// The map, as a proxy has it.
struct Map(Memory);

impl Map {
    fn of(descriptor: &OwnedFd) -> Self {
        Self(Memory::of(descriptor, BYTES))
    }

    /// Has what comes from and for `from` go on from and for `to`. Gives the entry's offset.
    fn put(&self, from: [SocketAddrV4; 2], to: [SocketAddrV4; 2]) -> usize {
        let (key_addresses, key_ports) = words(from);
        let (new_addresses, new_ports) = words(to);
        let entry = bucket_of(key_addresses[0], key_addresses[1], key_ports) * WAYS * ENTRY_BYTES;
        for (offset, word) in [
            (KEY_ADDRESSES, key_addresses[0]),
            (KEY_ADDRESSES + 4, key_addresses[1]),
            (KEY_PORTS, key_ports),
            (NEW_ADDRESSES, new_addresses[0]),
            (NEW_ADDRESSES + 4, new_addresses[1]),
            (NEW_PORTS, new_ports),
        ] {
            self.0.write(entry + offset, word);
        }
        entry
    }
}

/// As they lie in memory.
fn words([source, destination]: [SocketAddrV4; 2]) -> ([u32; 2], u32) {
    let address = |address: SocketAddrV4| u32::from_ne_bytes(address.ip().octets());
    let ([a, b], [c, d]) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
    ([address(source), address(destination)], u32::from_ne_bytes([a, b, c, d]))
}

fn socket(namespace: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, port)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// The first datagram that comes, and from whom.
fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddrV4) {
    let mut buffer = [0; 2_000];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    let std::net::SocketAddr::V4(from) = from else { panic!("{from} is not IPv4") };
    (buffer[..length].to_vec(), from)
}

#[tokio::test]
async fn what_is_in_the_map_goes_on_with_other_addresses() {
    let Some(network) = Network::new("session-map").await else { return };
    let map = Map::of(&network.fabric.session_map().unwrap().unwrap());
    let client = socket(&network.client, CLIENT, 5_000);
    let lb = socket(network.sandbox.namespace(), LB, 53);
    let backend = socket(&network.backend, BACKEND, 5_300);
    let at = SocketAddrV4::new;
    let (from, to) = ([at(CLIENT, 5_000), at(LB, 53)], [at(LB, 777), at(BACKEND, 5_300)]);
    client.send_to(b"before", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"before".to_vec(), from[0]));

    let entry = map.put(from, to);
    client.send_to(b"past", at(LB, 53)).unwrap();
    assert_eq!(receive(&backend), (b"past".to_vec(), to[0]));
    // An empty one, and one that fits into a packet just so.
    client.send_to(b"", at(LB, 53)).unwrap();
    assert_eq!(receive(&backend), (Vec::new(), to[0]));
    client.send_to(&[7; 1_472], at(LB, 53)).unwrap();
    assert_eq!(receive(&backend), (vec![7; 1_472], to[0]));
    assert_eq!((map.0.read(entry + DATAGRAMS), map.0.read(entry + PAYLOAD_BYTES)), (3, 1_476));

    // Fragments, who is another one, and whoever is being written about, come to the sandbox.
    client.send_to(&[8; 1_473], at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (vec![8; 1_473], from[0]));
    let other = socket(&network.client, CLIENT, 5_001);
    other.send_to(b"other", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"other".to_vec(), at(CLIENT, 5_001)));
    map.0.write(entry + SEQUENCE, 1);
    client.send_to(b"written", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"written".to_vec(), from[0]));
    map.0.write(entry + SEQUENCE, 2);
    client.send_to(b"past", at(LB, 53)).unwrap();
    assert_eq!(receive(&backend), (b"past".to_vec(), to[0]));

    // Nobody has that address.
    map.put(from, [to[0], at(Ipv4Addr::new(10, 77, 0, 99), 5_300)]);
    client.send_to(b"nobody", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"nobody".to_vec(), from[0]));
    map.put(from, to);
    client.send_to(b"past", at(LB, 53)).unwrap();
    assert_eq!(receive(&backend), (b"past".to_vec(), to[0]));
    network.fabric.forget_sessions().unwrap();
    client.send_to(b"forgotten", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"forgotten".to_vec(), from[0]));
    assert_eq!(map.0.read(entry + DATAGRAMS), 0);
    drop(map);
    network.remove().await;
}

/// Whoever has the map may not turn what containers say to each other.
#[tokio::test]
async fn what_was_not_sent_to_the_sandbox_is_not_looked_up() {
    let Some(network) = Network::new("session-map-others").await else { return };
    let map = Map::of(&network.fabric.session_map().unwrap().unwrap());
    let client = socket(&network.client, CLIENT, 5_000);
    let backend = socket(&network.backend, BACKEND, 5_300);
    let spy = socket(network.sandbox.namespace(), LB, 53);
    spy.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let at = SocketAddrV4::new;
    let entry = map.put([at(CLIENT, 5_000), at(BACKEND, 5_300)], [at(CLIENT, 5_000), at(LB, 53)]);
    for _ in 0..5 {
        client.send_to(b"secret", at(BACKEND, 5_300)).unwrap();
        assert_eq!(receive(&backend), (b"secret".to_vec(), at(CLIENT, 5_000)));
    }
    assert!(spy.recv(&mut [0; 9]).is_err());
    assert_eq!(map.0.read(entry + DATAGRAMS), 0);
    drop(map);
    network.remove().await;
}

/// The proxy need not notice: the next daemon has the same map, and what is in it goes on.
#[tokio::test]
async fn the_map_outlives_the_daemon() {
    let Some(mut network) = Network::new("session-map-lives").await else { return };
    let before = network.fabric.session_map().unwrap().unwrap();
    let (map, number) = (Map::of(&before), number_of(&before, "map_id"));
    drop(before);
    let client = socket(&network.client, CLIENT, 5_000);
    let lb = socket(network.sandbox.namespace(), LB, 53);
    let backend = socket(&network.backend, BACKEND, 5_300);
    let at = SocketAddrV4::new;
    let (from, to) = ([at(CLIENT, 5_000), at(LB, 53)], [at(LB, 777), at(BACKEND, 5_300)]);
    let entry = map.put(from, to);
    let passes = || {
        client.send_to(b"past", at(LB, 53)).unwrap();
        assert_eq!(receive(&backend), (b"past".to_vec(), to[0]));
    };
    passes();
    network.fabric = Fabric::ensure(&network.plan).await.unwrap();
    passes();
    network.fabric.take_shortcuts().await.unwrap();
    passes();
    network.sandbox = Sandbox::ensure(&network.plan, &network.fabric, ip(&LB.to_string())).await.unwrap();
    passes();
    assert_eq!(number_of(&network.fabric.session_map().unwrap().unwrap(), "map_id"), number);
    passes();
    assert_eq!(map.0.read(entry + DATAGRAMS), 5);
    network.fabric.forget_sessions().unwrap();
    client.send_to(b"forgotten", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"forgotten".to_vec(), from[0]));

    // Whoever takes the programs away ends the map with them.
    network.fabric.end_shortcuts().await.unwrap();
    map.put(from, to);
    client.send_to(b"alone", at(LB, 53)).unwrap();
    assert_eq!(receive(&lb), (b"alone".to_vec(), from[0]));
    network.fabric.take_shortcuts().await.unwrap();
    assert_ne!(number_of(&network.fabric.session_map().unwrap().unwrap(), "map_id"), number);
    drop(map);
    network.remove().await;
}

/// A container goes with its interface when it likes.
#[tokio::test]
async fn the_map_is_made_although_a_port_is_gone() {
    let Some(network) = Network::new("session-map-gone").await else { return };
    let other = Namespace::create("ringlb-test-session-map-gone-other").unwrap();
    network.fabric.connect("other", &other, "eth0", ip("10.77.0.13")).await.unwrap();
    iproute2(&other, &["link", "delete", "eth0"]);
    let map = Map::of(&network.fabric.session_map().unwrap().unwrap());
    let client = socket(&network.client, CLIENT, 5_000);
    let backend = socket(&network.backend, BACKEND, 5_300);
    let at = SocketAddrV4::new;
    map.put([at(CLIENT, 5_000), at(LB, 53)], [at(LB, 777), at(BACKEND, 5_300)]);
    client.send_to(b"past", at(LB, 53)).unwrap();
    assert_eq!(receive(&backend), (b"past".to_vec(), at(LB, 777)));
    drop(map);
    Namespace::remove(other.name().unwrap()).unwrap();
    network.remove().await;
}
