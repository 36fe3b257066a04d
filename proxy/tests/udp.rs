//! UDP sessions through a real proxy. A socket that is bound to the VIP stands for a steered one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{Algorithm, BackendSpec, Statistics, UdpSettings};
use ringlb_proxy::control::settings::{DrainTimeout, UdpIdleTimeout};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use support::{Options, Proxy, address, backend, patience, pattern, service};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));
/// Long enough to be sure that nothing comes: on loopback it would have come in a fraction of that.
const MOMENT: Duration = Duration::from_millis(200);

/// A proxy with a steered socket, and where clients send to.
struct UdpProxy {
    proxy: Proxy,
    target: SocketAddr,
}

impl UdpProxy {
    fn start(backends: &[BackendSpec]) -> Self {
        Self::start_with(Options::default(), UdpSettings::default(), backends)
    }

    fn start_with(options: Options, udp: UdpSettings, backends: &[BackendSpec]) -> Self {
        let mut started = Self::start_without_table(options, SocketAddr::new(VIP, 0));
        started.serve(VIP, udp, backends);
        started
    }

    fn start_without_table(options: Options, address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let target = socket.local_addr().unwrap();
        Self { proxy: Proxy::start_without_table(&Options { datagrams: vec![socket], ..options }), target }
    }

    fn serve(&mut self, vip: IpAddr, udp: UdpSettings, backends: &[BackendSpec]) {
        let mut spec = service("s", vip, Algorithm::Rr, backends);
        spec.settings.udp = udp;
        self.proxy.snapshot(vec![spec]);
    }

    fn client(&self) -> Client {
        Client::connect(self.target)
    }

    fn echo(&self, numbers: std::ops::RangeInclusive<u8>) -> Vec<Server> {
        numbers.map(|n| Server::echo(address(n), self.target.port())).collect()
    }
}

/// A client whose socket is connected: it hears only what comes from the very address that it sends to.
struct Client(UdpSocket);

impl Client {
    fn connect(target: SocketAddr) -> Self {
        let socket = UdpSocket::bind((if target.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        Self(socket)
    }

    fn send(&self, bytes: &[u8]) {
        assert_eq!(self.0.send(bytes).unwrap(), bytes.len());
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let length = self.0.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The server that answered, and the rest of the answer.
    fn ask(&self, bytes: &[u8]) -> (u8, Vec<u8>) {
        self.send(bytes);
        let mut answer = self.receive();
        (answer.remove(0), answer)
    }

    fn number(&self) -> u8 {
        let (number, rest) = self.ask(b"who");
        assert_eq!(rest, b"who");
        number
    }

    fn hears_nothing(&self) {
        self.0.set_read_timeout(Some(MOMENT)).unwrap();
        let error = self.0.recv(&mut [0; 2048]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.0.set_read_timeout(Some(patience())).unwrap();
    }
}

/// A server on a thread of its own, until it is dropped.
struct Server {
    socket: UdpSocket,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Sends everything back with its number, the last part of its address, before it.
    fn echo(address: IpAddr, port: u16) -> Self {
        let number = match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        Self::start(address, port, move |socket, bytes, from| {
            let mut answer = vec![number];
            // The longest datagram has no room for a number.
            answer.extend(&bytes[..bytes.len().min(65_506)]);
            socket.send_to(&answer, from).unwrap();
        })
    }

    fn start(address: IpAddr, port: u16, answer: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> Self {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (copy, stopped) = (socket.try_clone().unwrap(), socket.try_clone().unwrap());
        drop(stopped);
        let running = std::sync::Arc::new(());
        let watch = std::sync::Arc::downgrade(&running);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while watch.strong_count() > 0 {
                if let Ok((length, from)) = copy.recv_from(&mut buffer) {
                    answer(&copy, &buffer[..length], from);
                }
            }
        });
        RUNNING.with_borrow_mut(|all| all.push(running));
        Self { socket, thread: Some(thread) }
    }
}

thread_local! {
    static RUNNING: std::cell::RefCell<Vec<std::sync::Arc<()>>> = const { std::cell::RefCell::new(Vec::new()) };
}
