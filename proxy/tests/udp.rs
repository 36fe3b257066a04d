//! UDP sessions through a real proxy. A socket that is bound to the VIP stands for a steered one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{Algorithm, BackendSpec, Health, Statistics, UdpSettings};
use ringlb_proxy::control::settings::{DrainTimeout, EjectionFailures, UdpIdleTimeout, UdpResponses};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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

    /// The statistics when so many datagrams have been sent to clients, who may have them before they are counted.
    fn delivered(&mut self, count: u64) -> Statistics {
        self.proxy.wait_for("all are delivered", |statistics| statistics.datagrams.to_clients == count)
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

/// A server on a thread of its own, until it is dropped. Then its port is closed.
struct Server {
    running: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
            answer.extend(bytes);
            socket.send_to(&answer, from).unwrap();
        })
    }

    fn start(address: IpAddr, port: u16, answer: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> Self {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let goes_on = Arc::clone(&running);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while goes_on.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    answer(&socket, &buffer[..length], from);
                }
            }
        });
        Self { running, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        let outcome = self.thread.take().map(JoinHandle::join);
        assert!(matches!(outcome, Some(Ok(()))) || std::thread::panicking(), "a server panicked");
    }
}

/// Sessions and connections that the backends count.
fn active(statistics: &Statistics) -> Vec<u64> {
    let backends = &statistics.services[0].backends;
    assert!(backends.iter().all(|backend| backend.active == backend.active_sessions), "{backends:?}");
    backends.iter().map(|backend| backend.active).collect()
}

#[test]
fn datagrams_of_every_length_come_back_whole() {
    let mut proxy = UdpProxy::start(&[backend(1)]);
    let _servers = proxy.echo(1..=1);
    let client = proxy.client();
    let lengths = [0, 1, 64, 1_200, 1_472, 1_500, 9_000, 65_506];
    for length in lengths {
        let mut datagram = vec![0; length];
        pattern(length as u64, &mut datagram);
        assert_eq!(client.ask(&datagram), (1, datagram), "{length}");
    }
    let (count, bytes) = (lengths.len() as u64, lengths.iter().sum::<usize>() as u64);
    let statistics = proxy.delivered(count);
    let datagrams = &statistics.datagrams;
    assert_eq!(
        (datagrams.sessions, datagrams.active, datagrams.to_backends, datagrams.to_clients),
        (1, 1, count, count)
    );
    assert_eq!((datagrams.bytes_to_backends, datagrams.bytes_to_clients), (bytes, bytes + count));
    let backend = &statistics.services[0].backends[0];
    assert_eq!((backend.datagrams_to_backend, backend.datagrams_to_client), (count, count));
    assert_eq!((backend.bytes_to_backend, backend.bytes_to_client), (bytes, bytes + count));
    assert_eq!((backend.connections, backend.sessions, statistics.services[0].sessions), (1, 1, 1));
}

/// The longest datagram that there is, one way: 65,507 bytes.
#[test]
fn the_longest_datagram_passes() {
    let proxy = UdpProxy::start(&[backend(1)]);
    let _server = Server::start(address(1), proxy.target.port(), |socket, bytes, from| {
        socket.send_to(format!("{}", bytes.len()).as_bytes(), from).unwrap();
        socket.send_to(bytes, from).unwrap();
    });
    let mut longest = vec![0; 65_507];
    pattern(7, &mut longest);
    let client = proxy.client();
    client.send(&longest);
    assert_eq!(client.receive(), b"65507");
    assert!(client.receive() == longest);
}

#[test]
fn a_client_stays_with_its_backend_and_clients_are_spread() {
    let mut proxy = UdpProxy::start(&[backend(1), backend(2), backend(3)]);
    let _servers = proxy.echo(1..=3);
    let clients: Vec<_> = (0..30).map(|_| proxy.client()).collect();
    let first: Vec<u8> = clients.iter().map(Client::number).collect();
    let mut counts = HashMap::<u8, u32>::new();
    first.iter().for_each(|number| *counts.entry(*number).or_default() += 1);
    assert_eq!(counts, HashMap::from([(1, 10), (2, 10), (3, 10)]));
    for _ in 0..3 {
        assert_eq!(clients.iter().map(Client::number).collect::<Vec<u8>>(), first);
    }
    assert_eq!(active(&proxy.proxy.statistics()), [10, 10, 10]);
}

#[test]
fn an_ipv4_client_reaches_an_ipv6_backend() {
    let server = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let proxy = UdpProxy::start(&[BackendSpec { address: server, ..backend(1) }]);
    let _server = Server::echo(server, proxy.target.port());
    assert_eq!(proxy.client().ask(b"across"), (1, b"across".to_vec()));
}

#[test]
fn the_sessions_of_a_removed_backend_move_at_once() {
    let mut proxy = UdpProxy::start(&[backend(1), backend(2), backend(3)]);
    let _servers = proxy.echo(1..=3);
    let clients: Vec<_> = (0..30).map(|_| proxy.client()).collect();
    let before: Vec<u8> = clients.iter().map(Client::number).collect();
    proxy.proxy.remove_backend(address(2));
    // The next datagram, whenever it comes, and what was sent just before.
    let after: Vec<u8> = clients.iter().map(Client::number).collect();
    for (before, after) in before.iter().zip(&after) {
        assert!(*after != 2 && (*before == 2 || after == before), "{before} → {after}");
    }
    let statistics = proxy.proxy.wait_for("all have moved", |statistics| statistics.datagrams.moved == 10);
    assert_eq!(active(&statistics), [15, 15]);
    assert_eq!((statistics.datagrams.sessions, statistics.datagrams.active), (30, 30));
    assert_eq!(statistics.services[0].sessions, 30);
}

#[test]
fn a_draining_backend_keeps_its_sessions_until_its_deadline() {
    let mut proxy = UdpProxy::start(&[]);
    let mut spec = service("s", VIP, Algorithm::Rr, &[backend(1), backend(2)]);
    spec.settings.drain_timeout = DrainTimeout(Some(patience() / 10));
    proxy.proxy.snapshot(vec![spec]);
    let _servers = proxy.echo(1..=2);
    let clients: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    let before: Vec<u8> = clients.iter().map(Client::number).collect();
    proxy.proxy.put_backend(BackendSpec { draining: true, ..backend(1) });
    assert_eq!(clients.iter().map(Client::number).collect::<Vec<u8>>(), before);
    assert!((0..4).all(|_| proxy.client().number() == 2), "a new session went to a draining backend");
    let statistics = proxy.proxy.wait_for("the deadline has passed", |statistics| statistics.datagrams.moved == 5);
    assert_eq!(active(&statistics), [0, 14]);
    assert!(clients.iter().all(|client| client.number() == 2));
}

/// The first datagram of a client is not lost by it, and the client hears no error.
#[test]
fn a_session_that_is_refused_moves_and_its_first_datagram_with_it() {
    let mut proxy = UdpProxy::start(&[backend(1), backend(2), backend(3)]);
    let _servers = proxy.echo(3..=3);
    for _ in 0..20 {
        assert_eq!(proxy.client().number(), 3);
    }
    let statistics = proxy.delivered(20);
    let failures: Vec<u64> = statistics.services[0].backends.iter().map(|backend| backend.connect_failures).collect();
    assert!(failures[0] > 0 && failures[1] > 0 && failures[2] == 0, "{failures:?}");
    assert_eq!(statistics.proxy.connect_failures, failures.iter().sum::<u64>());
    assert_eq!(statistics.datagrams.moved, failures.iter().sum::<u64>());
    assert_eq!(active(&statistics), [0, 0, 20]);
}

/// As with TCP: a port that nobody has answered on says nothing about a backend, one that was answered on does.
#[test]
fn a_backend_that_refuses_what_others_answer_is_ejected() {
    let mut proxy = UdpProxy::start(&[]);
    let mut spec = service("s", VIP, Algorithm::Rr, &[backend(1), backend(2)]);
    spec.settings.ejection.failures = EjectionFailures(2);
    proxy.proxy.snapshot(vec![spec]);
    let health = |statistics: &Statistics| -> Vec<Health> {
        statistics.services[0].backends.iter().map(|backend| backend.health).collect()
    };
    for _ in 0..3 {
        proxy.client().send(b"x");
    }
    let refused = |statistics: &Statistics| statistics.proxy.connect_failures >= 6;
    let statistics = proxy.proxy.wait_for("all have refused all", refused);
    assert_eq!(health(&statistics), [Health::Healthy, Health::Healthy]);
    let _servers = proxy.echo(2..=2);
    let deadline = Instant::now() + patience();
    while health(&proxy.proxy.statistics()) != [Health::Ejected, Health::Healthy] {
        assert_eq!(proxy.client().number(), 2);
        assert!(Instant::now() < deadline, "it is not ejected: {:#?}", proxy.proxy.statistics());
    }
}

#[test]
fn a_session_whose_server_ends_moves_on() {
    let proxy = UdpProxy::start(&[backend(1), backend(2)]);
    let mut servers = proxy.echo(1..=2);
    let client = proxy.client();
    let number = client.number();
    drop(servers.remove(usize::from(number) - 1));
    assert_eq!(client.number(), 3 - number);
    assert_eq!(client.number(), 3 - number);
}

#[test]
fn when_all_refuse_the_datagram_is_lost_and_the_next_one_tries_again() {
    let mut proxy = UdpProxy::start(&[backend(1), backend(2)]);
    let client = proxy.client();
    client.send(b"anybody?");
    let statistics = proxy.proxy.wait_for("all have refused", |statistics| statistics.datagrams.no_backend == 1);
    assert_eq!((statistics.datagrams.active, statistics.datagrams.to_clients), (0, 0));
    assert_eq!(active(&statistics), [0, 0]);
    client.hears_nothing();
    let _servers = proxy.echo(1..=2);
    client.number();
}

#[test]
fn what_nobody_serves_is_dropped_and_counted() {
    let mut proxy = UdpProxy::start(&[]);
    let client = proxy.client();
    client.send(b"no backend");
    proxy.proxy.wait_for("it is dropped", |statistics| statistics.datagrams.no_backend == 1);
    client.hears_nothing();
    proxy.proxy.snapshot(vec![]);
    client.send(b"no service");
    let statistics = proxy.proxy.wait_for("it is dropped", |statistics| statistics.datagrams.no_service == 1);
    client.hears_nothing();
    let datagrams = &statistics.datagrams;
    assert_eq!((datagrams.sessions, datagrams.active, datagrams.to_backends, datagrams.to_clients), (0, 0, 0, 0));
}

/// Else two services would answer each other for ever.
#[test]
fn who_pretends_to_be_a_vip_is_not_served() {
    let mut proxy = UdpProxy::start(&[backend(1)]);
    let other = IpAddr::from([127, 0, 1, 2]);
    let services = [("s", VIP), ("t", other)].map(|(name, vip)| service(name, vip, Algorithm::Rr, &[backend(1)]));
    proxy.proxy.snapshot(services.into());
    let _servers = proxy.echo(1..=1);
    let socket = UdpSocket::bind((other, 0)).unwrap();
    socket.send_to(b"loop", proxy.target).unwrap();
    let statistics = proxy.proxy.wait_for("it is dropped", |statistics| statistics.datagrams.unanswerable == 1);
    assert_eq!((statistics.datagrams.sessions, statistics.datagrams.to_backends), (0, 0));
}

#[test]
fn an_idle_session_ends_and_the_client_is_served_again() {
    let timeout = Duration::from_millis(300);
    let udp = UdpSettings { idle_timeout: UdpIdleTimeout(timeout), ..UdpSettings::default() };
    let mut proxy = UdpProxy::start_with(Options::default(), udp, &[backend(1)]);
    let _servers = proxy.echo(1..=1);
    let client = proxy.client();
    client.number();
    let idle = Instant::now();
    let statistics = proxy.proxy.wait_for("the session has ended", |statistics| statistics.datagrams.active == 0);
    assert!(idle.elapsed() > timeout - Duration::from_millis(50), "it ended after {:?}", idle.elapsed());
    assert_eq!(active(&statistics), [0]);
    client.number();
    // As long as it is used it stays.
    for _ in 0..8 {
        std::thread::sleep(timeout / 4);
        client.number();
    }
    assert_eq!(proxy.proxy.statistics().datagrams.sessions, 2);
}

#[test]
fn a_session_ends_with_its_replies_where_the_service_says_so() {
    let udp = UdpSettings { responses: UdpResponses(1), ..UdpSettings::default() };
    let mut proxy = UdpProxy::start_with(Options::default(), udp, &[backend(1), backend(2)]);
    let _servers = proxy.echo(1..=2);
    let client = proxy.client();
    let numbers: HashSet<u8> = (0..6).map(|_| client.number()).collect();
    assert_eq!(numbers.len(), 2, "each question is a session of its own");
    let statistics = proxy.proxy.wait_for("all are over", |statistics| statistics.datagrams.active == 0);
    assert_eq!(statistics.datagrams.sessions, 6);
    // Two questions at once, as a resolver asks for both kinds of addresses, have two answers.
    client.send(b"a");
    client.send(b"aaaa");
    let mut answers: Vec<usize> = (0..2).map(|_| client.receive().len()).collect();
    answers.sort_unstable();
    assert_eq!(answers, [2, 5]);
    proxy.proxy.wait_for("all are answered", |statistics| statistics.datagrams.active == 0);
}

/// At the descriptor limit the session that has been idle for the longest time makes room, and TCP connections come before
/// sessions.
#[test]
fn the_descriptor_limit_evicts_who_is_idle_longest() {
    let mut proxy = UdpProxy::start_with(
        Options { descriptors: Some(200), ..Options::default() },
        UdpSettings::default(),
        &[backend(1)],
    );
    let limit = usize::try_from(proxy.proxy.hello.features.max_connections).unwrap();
    let _servers = proxy.echo(1..=1);
    let clients: Vec<_> = (0..limit).map(|_| proxy.client()).collect();
    clients.iter().for_each(|client| assert_eq!(client.number(), 1));
    assert_eq!(proxy.proxy.statistics().datagrams.evicted, 0);
    // The first one has been used last now.
    clients[0].number();
    let more: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    more.iter().for_each(|client| assert_eq!(client.number(), 1));
    let statistics = proxy.proxy.statistics();
    assert_eq!((statistics.datagrams.evicted, statistics.datagrams.active), (10, limit as u64));
    assert_eq!(active(&statistics), [limit as u64]);
    clients[0].number();
    clients[11..].iter().for_each(|client| assert_eq!(client.number(), 1));
    assert_eq!(proxy.proxy.statistics().datagrams.evicted, 10, "the wrong ones were evicted");
    let statistics = proxy.proxy.statistics();
    assert_eq!((statistics.datagrams.at_limit, statistics.proxy.refused_at_limit), (0, 0));
    // A connection takes a session's place.
    support::serve(1, proxy.proxy.target.port(), support::echo);
    let mut connection = proxy.proxy.connect();
    std::io::Write::write_all(&mut connection, b"p").unwrap();
    std::io::Read::read_exact(&mut connection, &mut [0]).unwrap();
    assert_eq!(proxy.proxy.statistics().datagrams.evicted, 11);
}

/// Many more datagrams at once than there are buffers: what the kernel has room for arrives, and afterwards all is as
/// before.
#[test]
fn a_flood_is_survived() {
    let mut proxy = UdpProxy::start(&[backend(1)]);
    let _servers = proxy.echo(1..=1);
    let clients: Vec<_> = (0..8).map(|_| proxy.client()).collect();
    clients.iter().for_each(|client| assert_eq!(client.number(), 1));
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| (0..20_000).for_each(|_| client.send(&[1; 1_200])));
        }
    });
    for client in &clients {
        client.0.set_nonblocking(true).unwrap();
        while client.0.recv(&mut [0; 2048]).is_ok() {}
        client.0.set_nonblocking(false).unwrap();
    }
    // What is left of the flood may still fill the socket's queue: then a datagram is lost, as any may be.
    let client = proxy.client();
    client.0.set_read_timeout(Some(MOMENT)).unwrap();
    let deadline = Instant::now() + patience();
    let mut answer = [0; 16];
    while !(client.0.send(b"?").is_ok() && client.0.recv(&mut answer).is_ok()) {
        assert!(Instant::now() < deadline, "nobody answers: {:#?}", proxy.proxy.statistics());
    }
    assert_eq!(answer[0], 1);
    let statistics = proxy.proxy.statistics();
    println!("{:?} {:?}", statistics.datagrams, statistics.ring);
    assert_eq!(statistics.datagrams.active, 9);
}

/// What a proxy that was just started does not know yet waits for its table.
#[test]
fn datagrams_wait_for_the_first_table() {
    let mut proxy = UdpProxy::start_without_table(Options::default(), SocketAddr::new(VIP, 0));
    let client = proxy.client();
    let _servers = proxy.echo(1..=1);
    client.send(b"early");
    client.hears_nothing();
    proxy.serve(VIP, UdpSettings::default(), &[backend(1)]);
    assert_eq!(client.receive(), b"\x01early");
}

#[test]
fn a_shutdown_ends_all_sessions() {
    let proxy = UdpProxy::start(&[backend(1)]);
    let _servers = proxy.echo(1..=1);
    let clients: Vec<_> = (0..50).map(|_| proxy.client()).collect();
    clients.iter().for_each(|client| assert_eq!(client.number(), 1));
    let (code, log) = proxy.proxy.shut_down();
    assert_eq!(code, Some(0), "{log}");
}
