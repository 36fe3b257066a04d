//! UDP sessions of a network with both address families, through sockets that are steered to for real.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_netns::{Addresses, Fabric, Namespace, NetworkPlan, Sandbox, SteeredSockets, SteeringKind, Subnets};
use ringlb_proxy::control::message::{Algorithm, BackendSpec};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use support::{Options, Proxy, backend, patience, service};

ringlb_netns::isolate_before_main!();

const VIPS: [&str; 2] = ["10.77.0.200", "fd77::1:1"];
const SERVERS: [&str; 2] = ["10.77.0.11", "fd77::11"];

/// A network with a client and a server, and a proxy in its sandbox.
struct Network {
    proxy: Proxy,
    client: Namespace,
    server: Namespace,
}

impl Network {
    fn start(kind: SteeringKind, threads: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let subnets = Subnets { v4: "10.77.0.0/24".parse().ok(), v6: "fd77::/64".parse().ok() };
        let name = format!("udp-{kind}-{threads}");
        let plan = NetworkPlan::new("ringlb-test-", name.as_str(), subnets);
        let pair = |v4: &str, v6: &str| Addresses { v4: v4.parse().ok(), v6: v6.parse().ok() };
        let lb = pair("10.77.0.2", "fd77::2");
        let namespaces =
            ["client", "server"].map(|end| Namespace::create(&format!("ringlb-test-{name}-{end}")).unwrap());
        let sandbox = runtime.block_on(async {
            let fabric = Fabric::ensure(&plan).await.unwrap();
            let sandbox = Sandbox::ensure(&plan, &fabric, lb).await.unwrap();
            for prefix in ["10.77.0.192/26", "fd77::1:0/112"] {
                sandbox.add_vip_route(prefix.parse().unwrap()).await.unwrap();
            }
            let addresses = [pair("10.77.0.100", "fd77::100"), pair(SERVERS[0], SERVERS[1])];
            for ((namespace, addresses), port) in namespaces.iter().zip(addresses).zip(["client", "server"]) {
                fabric.connect(port, namespace, "eth0", addresses).await.unwrap();
            }
            sandbox
        });
        let steered =
            SteeredSockets::open(sandbox.namespace(), lb, NonZeroUsize::new(threads).unwrap(), Some(kind)).unwrap();
        let listeners: Vec<TcpListener> =
            steered.threads.iter().flat_map(|thread| &thread.listeners).map(|s| s.try_clone().unwrap()).collect();
        let datagrams: Vec<UdpSocket> =
            steered.threads.iter().flat_map(|thread| &thread.datagrams).map(|s| s.try_clone().unwrap()).collect();
        let arguments = if threads == 1 { vec![] } else { vec!["--threads", "2"] };
        let options = Options { arguments, listeners, datagrams, ..Options::default() };
        // The proxy is a child of the thread that has entered the sandbox.
        let mut proxy = sandbox.namespace().run(|| Proxy::start_without_table(&options)).unwrap();
        // Each VIP has the server of the other family.
        let services = VIPS.iter().zip(SERVERS.iter().rev()).enumerate().map(|(number, (vip, server))| {
            let server = BackendSpec { address: server.parse().unwrap(), ..backend(1) };
            service(&format!("s{number}"), vip.parse().unwrap(), Algorithm::Rr, &[server])
        });
        proxy.snapshot(services.collect());
        // The program lives as long as this.
        std::mem::forget(steered);
        let [client, server] = namespaces;
        Self { proxy, client, server }
    }

    /// Sends everything back that comes to that port, from the address that it came to.
    fn echo(&self, port: u16) {
        for address in SERVERS {
            let address: IpAddr = address.parse().unwrap();
            let socket = self.server.run(|| UdpSocket::bind((address, port)).unwrap()).unwrap();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 70_000];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            });
        }
    }

    fn client(&self, target: SocketAddr) -> UdpSocket {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.client.run(|| {
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(target).unwrap();
            socket
        });
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        socket
    }
}

fn each_family_reaches_the_other_through_any_port(kind: SteeringKind, threads: usize) {
    let mut network = Network::start(kind, threads);
    let ports = [53, 4433, 65_535];
    ports.into_iter().for_each(|port| network.echo(port));
    let clients: Vec<UdpSocket> = (0..20)
        .flat_map(|_| VIPS.iter().flat_map(|vip| ports.map(|port| SocketAddr::new(vip.parse().unwrap(), port))))
        .map(|target| network.client(target))
        .collect();
    let mut buffer = vec![0; 70_000];
    for client in &clients {
        for length in [0, 1_200, 9_000, 60_000] {
            let mut datagram = vec![0; length];
            support::pattern(length as u64, &mut datagram);
            client.send(&datagram).unwrap();
            let answer = client.recv(&mut buffer).unwrap();
            assert!(buffer[..answer] == datagram, "{:?}: {answer} for {length}", client.peer_addr());
        }
    }
    let statistics = network.proxy.statistics();
    assert_eq!(statistics.datagrams.active, clients.len() as u64);
    assert!(statistics.threads.iter().all(|thread| thread.sessions > 0), "{:?}", statistics.threads);
    // With one reply socket for each VIP:port and thread, and one socket for each session.
    let pid = network.proxy.child.id();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open <= clients.len() + VIPS.len() * ports.len() * threads + 32, "{open} descriptors");
    // Nobody listens there: an ICMP error, of either family, and then nobody is left.
    for vip in VIPS {
        network.client(SocketAddr::new(vip.parse().unwrap(), 9)).send(b"discard").unwrap();
    }
    network.proxy.wait_for("both have refused", |statistics| statistics.datagrams.no_backend == 2);
}

#[test]
fn by_sk_lookup() {
    each_family_reaches_the_other_through_any_port(SteeringKind::SkLookup, 1);
}

#[test]
fn by_sk_lookup_with_two_threads() {
    each_family_reaches_the_other_through_any_port(SteeringKind::SkLookup, 2);
}

#[test]
fn by_tproxy() {
    each_family_reaches_the_other_through_any_port(SteeringKind::Tproxy, 1);
}
