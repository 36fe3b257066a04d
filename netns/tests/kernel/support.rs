//! What several tests need.

use ringlb_netns::{Addresses, Fabric, Namespace, NetworkPlan, Sandbox, Subnets};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const LB: &str = "10.77.0.2";
pub(crate) const CLIENT: &str = "10.77.0.10";
pub(crate) const VIPS: [&str; 3] = ["10.77.0.129", "10.77.0.200", "10.99.1.1"];
pub(crate) const LB_V6: &str = "fd77::2";
pub(crate) const CLIENT_V6: &str = "fd77::10";
pub(crate) const VIPS_V6: [&str; 3] = ["fd77::1:0", "fd77::1:ffff", "fd99::1:1"];

/// Which families a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    V4,
    V6,
    Dual,
}

impl Stack {
    pub(crate) fn subnets(self) -> Subnets {
        let (v4, v6) = ("10.77.0.0/24".parse().unwrap(), "fd77::/64".parse().unwrap());
        Subnets { v4: self.has_v4().then_some(v4), v6: self.has_v6().then_some(v6) }
    }

    pub(crate) fn addresses(self, v4: &str, v6: &str) -> Addresses {
        let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
        Addresses { v4: self.has_v4().then_some(v4), v6: self.has_v6().then_some(v6) }
    }

    pub(crate) fn lb(self) -> Addresses {
        self.addresses(LB, LB_V6)
    }

    pub(crate) fn vips(self) -> Vec<IpAddr> {
        let v4 = VIPS.into_iter().filter(|_| self.has_v4());
        v4.chain(VIPS_V6.into_iter().filter(|_| self.has_v6())).map(ip).collect()
    }

    fn vip_prefixes(self) -> Vec<ipnet::IpNet> {
        let v4 = ["10.77.0.128/25", "10.99.1.1/32"].into_iter().filter(|_| self.has_v4());
        v4.chain(["fd77::1:0/112", "fd99::1:1/128"].into_iter().filter(|_| self.has_v6())).map(net).collect()
    }

    pub(crate) fn has_v4(self) -> bool {
        self != Self::V6
    }

    pub(crate) fn has_v6(self) -> bool {
        self != Self::V4
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

pub(crate) fn to(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

pub(crate) fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// Namespaces are named after the test, because those of one binary share a directory when they run as threads.
pub(crate) fn plan(test: &str) -> NetworkPlan {
    NetworkPlan::new("ringlb-test-", test, Stack::V4.subnets())
}

/// A network with a sandbox, whose VIPs are those above, and a client.
pub(crate) struct Network {
    pub(crate) fabric: Fabric,
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Namespace,
}

impl Network {
    pub(crate) async fn new(test: &str) -> Self {
        Self::of(test, Stack::V4).await
    }

    pub(crate) async fn of(test: &str, stack: Stack) -> Self {
        let plan = NetworkPlan { subnets: stack.subnets(), ..plan(test) };
        let fabric = Fabric::ensure(&plan).await.unwrap();
        let sandbox = Sandbox::ensure(&plan, &fabric, stack.lb()).await.unwrap();
        for prefix in stack.vip_prefixes() {
            sandbox.add_vip_route(prefix).await.unwrap();
        }
        let client = Namespace::create(&format!("ringlb-test-{test}-client")).unwrap();
        fabric.connect("client", &client, "eth0", stack.addresses(CLIENT, CLIENT_V6)).await.unwrap();
        add_default_routes(&client, stack);
        Self { fabric, sandbox, client }
    }

    pub(crate) fn remove(&self) {
        self.fabric.plan().remove().unwrap();
        Namespace::remove(self.client.name().unwrap()).unwrap();
    }
}

/// VIPs outside the subnet are on the link as well: whoever asks for their neighbour gets an answer from the sandbox.
fn add_default_routes(namespace: &Namespace, stack: Stack) {
    for (family, wanted) in [("-4", stack.has_v4()), ("-6", stack.has_v6())] {
        if wanted {
            iproute2(namespace, &[family, "route", "add", "default", "dev", "eth0"]);
        }
    }
}

/// Runs `ip` with the arguments in the namespace and returns what it prints.
pub(crate) fn iproute2(namespace: &Namespace, arguments: &[&str]) -> String {
    run_in(namespace, "ip", arguments)
}

/// Runs the program with the arguments in the namespace and returns what it prints.
pub(crate) fn run_in(namespace: &Namespace, program: &str, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    namespace.enter_on_exec(&mut command).unwrap();
    let output = command.output().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
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
    let address = ip(address);
    from.run(|| ping_from_here(address, attempts, patience)).unwrap()
}

fn ping_from_here(address: IpAddr, attempts: u32, patience: Duration) -> bool {
    // The kernel gives an IPv4 packet with its header (raw(7)), and fills in the checksum of an ICMPv6 message.
    let (domain, protocol, header, answer) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 20, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 0, 129),
    };
    // Any socket that takes and gives datagrams.
    let socket = UdpSocket::from(Socket::new(domain, Type::RAW, Some(protocol)).unwrap());
    let mut request = echo_request();
    if address.is_ipv6() {
        request[0] = 128;
    }
    for _attempt in 0..attempts {
        if socket.send_to(&request, (address, 0)).is_err() {
            return false;
        }
        let deadline = Instant::now() + patience;
        while let Some(rest) = deadline.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            socket.set_read_timeout(Some(rest)).unwrap();
            let mut packet = [0; 256];
            let Ok((length, source)) = socket.recv_from(&mut packet) else { break };
            let message = &packet[header..length];
            let from_address = source.ip() == address;
            if from_address && message[0] == answer && message[4..] == request[4..] {
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
