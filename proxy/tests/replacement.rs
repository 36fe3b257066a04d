//! A proxy takes the place of another one on the same sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::descriptors;
use ringlb_proxy::control::message::{Algorithm, BackendSpec, Duty, PROTOCOL_VERSION, Reply, Request, Retired};
use ringlb_proxy::control::version::OLDEST_VERSION;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Control, Options, Proxy, address, backend, echo, listen, patience, serve, service, wait_for_exit};

ringlb_netns::isolate_before_main!();

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// The sockets that the old proxy and the new one have.
struct Sockets {
    listener: TcpListener,
    datagrams: UdpSocket,
}

impl Sockets {
    fn new() -> Self {
        let listener = listen(SocketAddr::new(VIP, 0));
        Self { datagrams: UdpSocket::bind(listener.local_addr().unwrap()).unwrap(), listener }
    }

    fn proxy(&self) -> Proxy {
        let (listener, datagrams) = (self.listener.try_clone().unwrap(), self.datagrams.try_clone().unwrap());
        Proxy::start_without_table(&Options {
            listeners: vec![listener],
            datagrams: vec![datagrams],
            ..Options::default()
        })
    }

    fn target(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }
}

fn duty(control: &mut Control) -> Duty {
    control.send(&Request::Introduce);
    match control.receive() {
        Reply::Introduction(introduction) => introduction.duty,
        other => panic!("{other:?}"),
    }
}

/// Tells a proxy something that a socket belongs to.
fn tell(control: &mut Control, request: &Request, socket: OwnedFd) -> Reply {
    control.send(request);
    block_on(descriptors::send(control.socket.as_fd(), &[socket.as_fd()])).unwrap();
    drop(socket);
    control.receive()
}

/// Has the new proxy wait for sessions; gives the end for the old one.
fn await_sessions(new: &mut Proxy) -> OwnedFd {
    let (near, far) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let reply = tell(&mut new.control, &Request::AwaitSessions, near.into());
    assert!(matches!(reply, Reply::Introduction(introduction) if introduction.duty == Duty::AwaitingSessions));
    far.into()
}

fn retire(old: &mut Proxy, drain_ms: Option<u64>, heir: Option<OwnedFd>) -> Retired {
    let request = Request::Retire { drain_ms, hands_over: heir.is_some() };
    let reply = match heir {
        Some(heir) => tell(&mut old.control, &request, heir),
        None => old.request(&request),
    };
    let Reply::Retired(retired) = reply else { panic!("{reply:?}") };
    retired
}

fn give_table(proxy: &mut Proxy, backends: &[BackendSpec]) {
    proxy.snapshot(vec![service("s", VIP, Algorithm::Rr, backends)]);
}

fn exchange(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text)?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, text);
    Ok(())
}

/// Connections come without a pause, and none of them is lost; those that the old proxy has go on.
#[test]
fn no_connection_is_lost() {
    let sockets = Sockets::new();
    serve(1, sockets.target().port(), echo);
    let mut old = sockets.proxy();
    give_table(&mut old, &[backend(1)]);
    let mut lasting: Vec<_> = (0..50).map(|_| old.connect()).collect();
    lasting.iter_mut().for_each(|stream| exchange(stream, b"before").unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let target = sockets.target();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(target).unwrap();
                    stream.set_read_timeout(Some(patience())).unwrap();
                    exchange(&mut stream, b"short").unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    for _ in 0..15 {
        let mut new = sockets.proxy();
        let heir = await_sessions(&mut new);
        give_table(&mut new, &[backend(1)]);
        old.wait_for("it serves", |statistics| statistics.proxy.accepted > 0);
        // All clients wait for an answer now and then, so that no later connection wakes anybody for an earlier one.
        retire(&mut old, None, Some(heir));
        // Without connections it ends by itself, at any moment from here on.
        if !lasting.is_empty() {
            assert!(matches!(duty(&mut old.control), Duty::Retiring { left_ms: None }));
            let accepted = old.statistics().proxy.accepted;
            new.wait_for("the new one serves", |statistics| statistics.proxy.accepted > 10);
            // What comes by then is the new one's.
            assert_eq!(old.statistics().proxy.accepted, accepted);
            lasting.iter_mut().for_each(|stream| exchange(stream, b"between").unwrap());
            old.wait_for("only the lasting ones are left", |statistics| {
                statistics.proxy.active == lasting.len() as u64
            });
            lasting.clear();
        }
        new.wait_for("the new one serves", |statistics| statistics.proxy.accepted > 10);
        // The last it says is what it has counted.
        let Reply::Statistics(last) = old.control.receive() else { panic!("no statistics") };
        assert!(last.proxy.active == 0 && last.proxy.accepted > 0, "{last:?}");
        assert!(old.control.is_closed());
        assert_eq!(wait_for_exit(&mut old.child).code(), Some(0));
        old = new;
    }
    over.store(true, Ordering::Relaxed);
    let count: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(count > 50, "{count}");
}

/// What is still open at the deadline is reset, and the process ends; a later request replaces the deadline.
#[test]
fn the_deadline_ends_what_is_left() {
    let sockets = Sockets::new();
    serve(1, sockets.target().port(), echo);
    let mut old = sockets.proxy();
    give_table(&mut old, &[backend(1)]);
    let mut stream = old.connect();
    exchange(&mut stream, b"before").unwrap();
    let hour = Duration::from_secs(3600).as_millis() as u64;
    let retired = retire(&mut old, Some(hour), None);
    assert_eq!(retired, Retired { connections: 1, sessions: 0, handed_over: 0 });
    assert!(
        matches!(duty(&mut old.control), Duty::Retiring { left_ms: Some(left) } if left <= hour && left > hour / 2)
    );
    exchange(&mut stream, b"between").unwrap();
    assert_eq!(retire(&mut old, Some(1), None).connections, 1);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(wait_for_exit(&mut old.child).code(), Some(0));
}

/// A backend that answers when it is told to, and tells who has asked.
fn udp_backend(n: u8, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address(n), port)).unwrap();
    socket.set_read_timeout(Some(patience())).unwrap();
    socket
}

fn heard(backend: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 100];
    let (length, from) = backend.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

/// A session stays with its backend and its socket there: an answer to what the old proxy has sent comes by the new one, and the
/// backend sees the same client.
#[test]
fn udp_sessions_are_handed_over() {
    let sockets = Sockets::new();
    let port = sockets.target().port();
    let backends = [udp_backend(1, port), udp_backend(2, port)];
    let mut old = sockets.proxy();
    give_table(&mut old, &[backend(1), backend(2)]);
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(sockets.target()).unwrap();
            socket.set_read_timeout(Some(patience())).unwrap();
            socket
        })
        .collect();
    // One after the other, so that it is known whose backend has heard.
    let mut asked = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        client.send(format!("before {number}").as_bytes()).unwrap();
        let backend = &backends[number % 2];
        let (text, from) = heard(backend);
        assert_eq!(text, format!("before {number}").as_bytes());
        asked.push((backend, from));
    }
    let mut new = sockets.proxy();
    let heir = await_sessions(&mut new);
    // In another order: who began anew would find another backend.
    give_table(&mut new, &[backend(2), backend(1)]);
    let retired = retire(&mut old, None, Some(heir));
    assert_eq!(retired, Retired { connections: 0, sessions: 0, handed_over: 300 });
    new.wait_for("it has the sessions", |statistics| statistics.datagrams.active == 300);
    assert_eq!(duty(&mut new.control), Duty::Serving);
    assert_eq!(wait_for_exit(&mut old.child).code(), Some(0));
    for (number, (client, (backend, from))) in clients.iter().zip(asked).enumerate() {
        backend.send_to(b"late", from).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
        client.send(format!("after {number}").as_bytes()).unwrap();
        assert_eq!(heard(backend), (format!("after {number}").into_bytes(), from));
    }
    let statistics = new.statistics();
    assert_eq!((statistics.datagrams.active, statistics.datagrams.sessions), (300, 0), "{statistics:?}");
    assert_eq!(statistics.services[0].backends.iter().map(|b| b.active_sessions).collect::<Vec<_>>(), [150, 150]);
}

/// What comes between the two waits in the socket. Without sessions to come the new proxy waits until it is told.
#[test]
fn datagrams_wait_for_the_new_proxy() {
    let sockets = Sockets::new();
    let server = udp_backend(1, sockets.target().port());
    let mut new = sockets.proxy();
    let heir = await_sessions(&mut new);
    give_table(&mut new, &[backend(1)]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"early", sockets.target()).unwrap();
    // The old one has ended without a word.
    drop(heir);
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(server.recv(&mut [0; 10]).is_err());
    server.set_read_timeout(Some(patience())).unwrap();
    assert_eq!(duty(&mut new.control), Duty::AwaitingSessions);
    let reply = new.request(&Request::ReceiveDatagrams);
    assert!(matches!(reply, Reply::Introduction(introduction) if introduction.duty == Duty::Serving));
    assert_eq!(heard(&server).0, b"early");
}

/// Where nobody takes its sessions, a proxy that retires delivers what their backends still say.
#[test]
fn sessions_that_stay_hear_their_backends() {
    let sockets = Sockets::new();
    let server = udp_backend(1, sockets.target().port());
    let mut old = sockets.proxy();
    give_table(&mut old, &[backend(1)]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(sockets.target()).unwrap();
    client.set_read_timeout(Some(patience())).unwrap();
    client.send(b"one").unwrap();
    let (_, from) = heard(&server);
    assert_eq!(retire(&mut old, Some(60_000), None), Retired { connections: 0, sessions: 1, handed_over: 0 });
    server.send_to(b"late", from).unwrap();
    assert_eq!(client.recv(&mut [0; 10]).unwrap(), 4);
    // What the client says from now on is for whoever has the socket.
    client.send(b"two").unwrap();
    let mut buffer = [0; 10];
    sockets.datagrams.set_read_timeout(Some(patience())).unwrap();
    assert_eq!(sockets.datagrams.recv(&mut buffer).unwrap(), 3);
    // Whoever asks again gets them all the same.
    let (near, far) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    assert_eq!(retire(&mut old, None, Some(near.into())).handed_over, 1);
    drop(far);
    assert_eq!(wait_for_exit(&mut old.child).code(), Some(0));
}

/// A proxy that retires closes its sockets: when the last of them is closed, nobody is let in.
#[test]
fn a_proxy_that_retires_gives_its_sockets_up() {
    let sockets = Sockets::new();
    let target = sockets.target();
    serve(1, target.port(), echo);
    let mut old = sockets.proxy();
    give_table(&mut old, &[backend(1)]);
    let mut stream = old.connect();
    exchange(&mut stream, b"before").unwrap();
    retire(&mut old, None, None);
    old.control.send(&Request::Descriptors);
    let Reply::Descriptors { roles, more: false } = old.control.receive() else { panic!("no descriptors") };
    assert_eq!(roles.len(), 2, "its process and its control socket: {roles:?}");
    block_on(descriptors::receive(old.control.socket.as_fd(), roles.len())).unwrap();
    drop(sockets);
    old.drop_listeners();
    assert_eq!(TcpStream::connect(target).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    exchange(&mut stream, b"after").unwrap();
}

/// Each end speaks what the other one understands.
#[test]
fn neighbouring_versions_understand_each_other() {
    let mut proxy = Proxy::start_without_table(&Options::default());
    assert_eq!(proxy.control.heard_version(), OLDEST_VERSION, "it greets so that everybody understands it");
    assert_eq!(duty(&mut proxy.control), Duty::Serving);
    assert_eq!(proxy.control.heard_version(), PROTOCOL_VERSION);
    // A daemon of the version before.
    let mut older = proxy.connect_control();
    older.version = OLDEST_VERSION;
    assert!(matches!(older.receive(), Reply::Hello(_)));
    older.send(&Request::Statistics);
    assert!(matches!(older.receive(), Reply::Statistics(_)));
    assert_eq!(older.heard_version(), OLDEST_VERSION);
    // A proxy of the version before.
    let options = Options { arguments: vec!["--protocol", "4"], ..Options::default() };
    let mut proxy = Proxy::start_without_table(&options);
    proxy.control.version = OLDEST_VERSION;
    proxy.snapshot(vec![service("s", proxy.target.ip(), Algorithm::Rr, &[])]);
    let mut newer = proxy.connect_control();
    assert!(matches!(newer.receive(), Reply::Hello(_)));
    newer.send(&Request::Introduce);
    assert!(newer.is_closed());
    assert_eq!(proxy.statistics().services.len(), 1);
}
