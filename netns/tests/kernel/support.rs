//! What several tests need.

use ringlb_netns::{Fabric, Namespace, NetworkPlan, Sandbox};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const LB: &str = "10.77.0.2";
pub(crate) const CLIENT: &str = "10.77.0.10";
pub(crate) const VIPS: [&str; 3] = ["10.77.0.129", "10.77.0.200", "10.99.1.1"];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

pub(crate) fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// Namespaces are named after the test, because those of one binary share a directory when they run as threads.
pub(crate) fn plan(test: &str) -> NetworkPlan {
    NetworkPlan::new("ringlb-test-", test, net("10.77.0.0/24"))
}

/// A network with a sandbox, whose VIPs are those above, and a client.
pub(crate) struct Network {
    pub(crate) fabric: Fabric,
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Namespace,
}

impl Network {
    pub(crate) async fn new(test: &str) -> Self {
        let plan = plan(test);
        let fabric = Fabric::ensure(&plan).await.unwrap();
        let sandbox = Sandbox::ensure(&plan, &fabric, ip(LB)).await.unwrap();
        sandbox.add_vip_route(net("10.77.0.128/25")).await.unwrap();
        sandbox.add_vip_route(net("10.99.1.1/32")).await.unwrap();
        let client = Namespace::create(&format!("ringlb-test-{test}-client")).unwrap();
        fabric.connect("client", &client, "eth0", ip(CLIENT)).await.unwrap();
        add_default_route(&client);
        Self { fabric, sandbox, client }
    }
}

/// VIPs outside the subnet are on the link as well: whoever asks for them by ARP gets an answer from the sandbox.
fn add_default_route(namespace: &Namespace) {
    let mut command = std::process::Command::new("ip");
    command.args(["route", "add", "default", "dev", "eth0"]);
    namespace.enter_on_exec(&mut command).unwrap();
    assert!(command.status().expect("iproute2 is needed").success());
}

pub(crate) fn connect(from: &Namespace, address: SocketAddr) -> io::Result<TcpStream> {
    from.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap()
}

/// Waits for a connection that has been made already.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    until("a connection arrives", || listener.accept().ok()).0
}

pub(crate) fn assert_nothing_to_accept(listener: &TcpListener) {
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the address answers one of a few ICMP echo requests (RFC 792).
pub(crate) fn ping(from: &Namespace, address: &str) -> bool {
    ping_often(from, address, 5, Duration::from_secs(1))
}

/// Whether the address leaves an ICMP echo request unanswered for as long as an answer may take.
pub(crate) fn is_silent(from: &Namespace, address: &str) -> bool {
    !ping_often(from, address, 1, Duration::from_millis(300))
}

fn ping_often(from: &Namespace, address: &str, attempts: u32, patience: Duration) -> bool {
    let IpAddr::V4(address) = ip(address) else { panic!("IPv4 only") };
    from.run(|| ping_from_here(address, attempts, patience)).unwrap()
}

fn ping_from_here(address: Ipv4Addr, attempts: u32, patience: Duration) -> bool {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let request = echo_request();
    for _attempt in 0..attempts {
        if socket.send_to(&request, &SockAddr::from(SocketAddr::from((address, 0)))).is_err() {
            return false;
        }
        let deadline = Instant::now() + patience;
        while let Some(rest) = deadline.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            socket.set_read_timeout(Some(rest)).unwrap();
            let mut packet = [0; 256];
            let Ok(length) = socket.read(&mut packet) else { break };
            let (header, message) = packet[..length].split_at(20);
            if header[12..16] == address.octets() && message[0] == 0 && message[4..] == request[4..] {
                return true;
            }
        }
    }
    false
}

fn echo_request() -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, b'r', b'l', 0, 1];
    message.extend_from_slice(b"ringlb ping test");
    let mut sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

/// A kernel parameter of the namespace, or `None` if the kernel does not have it there.
pub(crate) fn sysctl(namespace: &Namespace, path: &str) -> Option<String> {
    let read = namespace.run(|| fs::read_to_string(Path::new("/proc/sys").join(path))).unwrap();
    match read {
        Ok(value) => Some(value.split_whitespace().collect::<Vec<_>>().join(" ")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{path}: {error}"),
    }
}
