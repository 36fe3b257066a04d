//! What the program of a bridge's ports does with connections that are in the connection map. The tests relay them, as a proxy
//! would.

use crate::memory::Memory;
use crate::session_map::{BACKEND, LB, Network};
use crate::support::{ip, run_in, until};
use nix::sys::socket::{setsockopt, sockopt};
use ringlb_netns::connection_map as layout;
use ringlb_netns::{Fabric, Namespace, Sandbox};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CLIENT_LEG: usize = 0;
const BACKEND_LEG: usize = 1;

/// A relayed connection.
struct Relayed {
    map: Memory,
    number: usize,
    client: TcpStream,
    backend: TcpStream,
    /// The client's leg, and the backend's.
    sockets: [TcpStream; 2],
    /// What was read from each.
    read: [u32; 2],
}

impl Relayed {
    fn new(network: &Network, number: usize, from: u16) -> Self {
        let map = Memory::of(&network.fabric.connection_map().unwrap().unwrap(), layout::BYTES);
        let vip = network.sandbox.namespace().run(|| TcpListener::bind((LB, 80)).unwrap()).unwrap();
        let service = network.backend.run(|| TcpListener::bind((BACKEND, 8080)).unwrap()).unwrap();
        let client = network.client.run(|| connect_from(from)).unwrap();
        let front = vip.accept().unwrap().0;
        let back = network.sandbox.namespace().run(|| TcpStream::connect((BACKEND, 8080)).unwrap()).unwrap();
        let backend = service.accept().unwrap().0;
        for stream in [&client, &front, &back, &backend] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        let relayed = Self { map, number, client, backend, sockets: [front, back], read: [0; 2] };
        relayed.put();
        relayed
    }

    /// One that passes.
    fn passing(network: &Network, number: usize) -> Self {
        let mut relayed = Self::new(network, number, 0);
        relayed.ask();
        relayed.ask();
        relayed.allow();
        relayed.ask_past();
        relayed
    }

    fn record(&self) -> usize {
        layout::FIRST_RECORD + self.number * layout::RECORD_BYTES
    }

    fn leg(&self, leg: usize) -> usize {
        self.record() + layout::LEGS + leg * layout::LEG_BYTES
    }

    /// Makes the record the connection's.
    fn put(&self) {
        for leg in [CLIENT_LEG, BACKEND_LEG] {
            let socket = &self.sockets[leg];
            let [end, own] = [socket.peer_addr().unwrap(), socket.local_addr().unwrap()].map(v4);
            let ([a, b], [c, d]) = (end.port().to_be_bytes(), own.port().to_be_bytes());
            let ports = u32::from_ne_bytes([a, b, c, d]);
            let [end, own] = [end, own].map(|address| u32::from_ne_bytes(address.ip().octets()));
            for (offset, word) in [(layout::ADDRESSES, end), (layout::ADDRESSES + 4, own), (layout::PORTS, ports)] {
                self.map.write(self.leg(leg) + offset, word);
            }
            let hash = layout::hash_of(end, own, ports);
            let first = layout::bucket_of(hash) * layout::WAYS * layout::SLOT_BYTES;
            let mut slots = (0..layout::WAYS).map(|way| first + way * layout::SLOT_BYTES);
            let slot = slots.find(|slot| self.map.word(slot + layout::SLOT_TAG) == 0).unwrap();
            let number = self.number as u32 | if leg == BACKEND_LEG { layout::SLOT_LEG } else { 0 };
            self.map.write(slot + layout::SLOT_RECORD, number);
            self.map.write(slot + layout::SLOT_TAG, layout::tag_of(hash));
        }
        self.map.write(self.record() + layout::MODE, layout::RELAYS);
    }

    /// Relays that many bytes from one leg to the other one.
    fn relay(&mut self, from: usize, bytes: usize) {
        let data = read(&mut self.sockets[from], bytes);
        self.read[from] += bytes as u32;
        self.map.write(self.leg(from) + layout::READ, self.read[from]);
        self.sockets[1 - from].write_all(&data).unwrap();
    }

    /// A request and its answer.
    fn ask(&mut self) {
        self.client.write_all(b"request").unwrap();
        self.relay(CLIENT_LEG, 7);
        assert_eq!(read(&mut self.backend, 7), b"request");
        self.backend.write_all(b"answer").unwrap();
        self.relay(BACKEND_LEG, 6);
        assert_eq!(read(&mut self.client, 6), b"answer");
    }

    /// The same, which nobody relays.
    fn ask_past(&mut self) {
        self.client.write_all(b"request").unwrap();
        assert_eq!(read(&mut self.backend, 7), b"request");
        self.backend.write_all(b"answer").unwrap();
        assert_eq!(read(&mut self.client, 6), b"answer");
        assert_eq!(self.mode(), layout::PASSES);
        assert!(self.sockets.iter().all(is_quiet));
    }

    /// Says where the legs have begun, once all is at rest.
    fn allow(&self) {
        until("the acknowledgements", || {
            let known = [CLIENT_LEG, BACKEND_LEG].into_iter().all(|leg| {
                let word = |offset| self.map.word(self.leg(leg) + offset);
                word(layout::SOCKET_HAS) == word(layout::END_NEXT) && word(layout::END_HAS) == word(layout::SOCKET_NEXT)
            });
            known.then_some(())
        });
        self.allow_now();
    }

    fn allow_now(&self) {
        for leg in [CLIENT_LEG, BACKEND_LEG] {
            let word = |offset| self.map.word(self.leg(leg) + offset);
            let base = word(layout::END_NEXT).wrapping_sub(self.read[leg]);
            self.map.write(self.leg(leg) + layout::END_BASE, base);
            let base = word(layout::SOCKET_NEXT).wrapping_sub(self.read[1 - leg]);
            self.map.write(self.leg(leg) + layout::SOCKET_BASE, base);
        }
        self.map.write(self.record() + layout::MAY_PASS, 1);
    }

    fn mode(&self) -> u32 {
        self.map.word(self.record() + layout::MODE)
    }

    fn passings(&self) -> u32 {
        self.map.word(self.record() + layout::PASSINGS)
    }

    /// The end, the client first, which everybody hears of.
    fn end(&mut self) {
        self.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.sockets[CLIENT_LEG].read(&mut [0; 9]).unwrap(), 0);
        assert_eq!(self.mode(), layout::RELAYS);
        self.sockets[BACKEND_LEG].shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.backend.read(&mut [0; 9]).unwrap(), 0);
        self.backend.write_all(b"farewell").unwrap();
        self.relay(BACKEND_LEG, 8);
        assert_eq!(read(&mut self.client, 8), b"farewell");
        self.backend.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.sockets[BACKEND_LEG].read(&mut [0; 9]).unwrap(), 0);
        self.sockets[CLIENT_LEG].shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.client.read(&mut [0; 9]).unwrap(), 0);
        let over = layout::END_IS_OVER | layout::SOCKET_IS_OVER;
        assert_eq!(self.map.word(self.record() + layout::OVER), over | over << 2);
    }

    /// How many bytes have gone past the proxy from each end.
    fn passed(&self) -> [u64; 2] {
        [CLIENT_LEG, BACKEND_LEG].map(|leg| self.map.read(self.leg(leg) + layout::PASSED_BYTES))
    }
}

fn connect_from(port: u16) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()).unwrap();
    socket.connect(&SocketAddrV4::new(LB, 80).into()).unwrap();
    socket.into()
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    address
}

fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    stream.read_exact(&mut data).unwrap();
    data
}

/// A number that the kernel counts for a namespace.
fn counter(namespace: &Namespace, file: &str, group: &str, name: &str) -> u64 {
    let path = format!("/proc/thread-self/net/{file}");
    let counters = namespace.run(|| std::fs::read_to_string(path).unwrap()).unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|other| other == name).unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

fn is_quiet(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let quiet = matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    quiet
}

fn is_reset(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

/// By closing it.
fn reset(stream: impl Into<TcpStream>) {
    let stream = stream.into();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_connection_passes_and_comes_back_when_it_ends() {
    let Some(network) = Network::new("connection-map").await else { return };
    let mut relayed = Relayed::passing(&network, 7);
    for _ in 0..100 {
        relayed.ask_past();
    }
    assert_eq!(relayed.passed(), [7 * 101, 6 * 100], "the last answer is not yet acknowledged");
    relayed.end();
    assert_eq!(relayed.passed(), [7 * 101, 6 * 101]);
    drop(relayed);
    network.remove().await;
}

/// A computed checksum is that of what each receiver gets, also of what a socket gets instead of the first segment.
#[tokio::test]
async fn checksums_that_senders_compute_stay_right() {
    let Some(network) = Network::new("connection-map-sums").await else { return };
    for namespace in [&network.client, &network.backend, network.sandbox.namespace()] {
        run_in(namespace, "ethtool", &["-K", "eth0", "tx", "off"]);
    }
    let mut relayed = Relayed::passing(&network, 0);
    relayed.ask_past();
    relayed.end();
    for namespace in [&network.client, &network.backend, network.sandbox.namespace()] {
        assert_eq!(counter(namespace, "snmp", "Tcp:", "InCsumErrors"), 0);
    }
    drop(relayed);
    network.remove().await;
}

/// A socket hears nothing, and asks after a second whether its end is still there.
#[tokio::test]
async fn a_socket_that_asks_is_answered() {
    let Some(network) = Network::new("connection-map-again").await else { return };
    let mut relayed = Relayed::passing(&network, 1);
    for leg in [CLIENT_LEG, BACKEND_LEG] {
        let before = relayed.passings();
        let heard = || counter(network.sandbox.namespace(), "netstat", "TcpExt:", "TCPPureAcks");
        let heard_before = heard();
        setsockopt(&relayed.sockets[leg], sockopt::TcpKeepIdle, &1).unwrap();
        setsockopt(&relayed.sockets[leg], sockopt::TcpKeepInterval, &1).unwrap();
        setsockopt(&relayed.sockets[leg], sockopt::TcpKeepCount, &3).unwrap();
        setsockopt(&relayed.sockets[leg], sockopt::KeepAlive, &true).unwrap();
        // In the name of an end of which something has passed; both others are none the wiser.
        let seen = || relayed.map.word(relayed.leg(leg) + layout::SEEN);
        assert_ne!(seen() & layout::END_LIVES, 0);
        until("the question", || (seen() & layout::END_LIVES == 0).then_some(()));
        until("the answer", || (heard() > heard_before).then_some(()));
        assert_eq!((relayed.passings(), relayed.mode()), (before, layout::PASSES));
        // By the end itself, when nothing has passed since.
        // The end's answer is the next segment that allows it to pass.
        until("the way back and forth", || (relayed.passings() == before + 1).then_some(()));
        setsockopt(&relayed.sockets[leg], sockopt::KeepAlive, &false).unwrap();
        relayed.ask_past();
    }
    relayed.end();
    drop(relayed);
    network.remove().await;
}

#[tokio::test]
async fn resets_arrive_whoever_sends_them() {
    let Some(network) = Network::new("connection-map-resets").await else { return };
    let Relayed { client, backend: mut other_end, sockets: [mut front, back], .. } = Relayed::passing(&network, 1);
    reset(client);
    assert!(is_reset(&mut front));
    reset(back);
    assert!(is_reset(&mut other_end));

    let Relayed { mut client, backend, sockets: [front, mut back], .. } = Relayed::passing(&network, 2);
    reset(backend);
    assert!(is_reset(&mut back));
    reset(front);
    assert!(is_reset(&mut client));

    // Both sockets at once, as when the backend is removed.
    let Relayed { mut client, mut backend, sockets: [front, back], .. } = Relayed::passing(&network, 3);
    reset(front);
    reset(back);
    assert!(is_reset(&mut client) && is_reset(&mut backend));

    // The proxy is killed.
    let Relayed { mut client, mut backend, sockets, .. } = Relayed::passing(&network, 4);
    drop(sockets);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(backend.read(&mut [0]).unwrap(), 0);
    // Whoever goes on sending hears that nobody is there.
    until("the reset", || client.write_all(b"anybody?").is_err().then_some(()));
    drop(client);
    network.remove().await;
}

#[tokio::test]
async fn a_new_connection_of_the_same_addresses_is_another_one() {
    let Some(network) = Network::new("connection-map-new").await else { return };
    let mut relayed = Relayed::new(&network, 1, 5_000);
    relayed.ask();
    relayed.allow();
    relayed.ask_past();
    let Relayed { client, backend, sockets: [mut front, back], map, .. } = relayed;
    reset(client);
    assert!(is_reset(&mut front));
    drop((front, back, backend));
    let mut again = Relayed::new(&network, 2, 5_000);
    again.ask();
    let record = layout::FIRST_RECORD + layout::RECORD_BYTES;
    assert_eq!(map.word(record + layout::MODE), layout::REPLACED);
    drop(again);
    network.remove().await;
}

/// What is of no connection in the map, or is sent by somebody else in its name, goes where it would have gone.
#[tokio::test]
async fn only_the_connection_itself_is_led() {
    let Some(network) = Network::new("connection-map-others").await else { return };
    let mut relayed = Relayed::passing(&network, 1);
    let mut other = Relayed::new(&network, 2, 0);
    other.ask();
    other.ask();
    assert_eq!(other.mode(), layout::RELAYS);
    relayed.ask_past();

    // A container that has the sandbox's hardware address: nothing of what it says is the proxy's.
    let spy = Namespace::create("ringlb-test-connection-map-others-spy").unwrap();
    network.fabric.connect("spy", &spy, "eth0", ip("10.77.0.13")).await.unwrap();
    let port = relayed.client.local_addr().unwrap().port();
    let links = run_in(network.sandbox.namespace(), "ip", &["-o", "link", "show", "type", "veth"]);
    let mac = links.split_once("link/ether ").unwrap().1.split(' ').next().unwrap();
    run_in(&spy, "ip", &["link", "set", "eth0", "address", mac]);
    run_in(&spy, "ip", &["address", "add", &format!("{LB}/32"), "dev", "eth0"]);
    let hello = spy.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddrV4::new(LB, 80).into()).unwrap();
        let client = v4(relayed.client.local_addr().unwrap());
        socket.connect_timeout(&SocketAddrV4::new(*client.ip(), port).into(), Duration::from_millis(200))
    });
    assert!(hello.unwrap().is_err());
    // A connection that begins would have ended this one.
    relayed.ask_past();
    drop((relayed, other));
    Namespace::remove(spy.name().unwrap()).unwrap();
    network.remove().await;
}

/// A stream has no pause: it passes once its ends have been stopped for a moment.
#[tokio::test]
async fn streams_pass_once_they_are_held() {
    const BYTES: usize = 300 << 20;
    let Some(network) = Network::new("connection-map-stream").await else { return };
    let mut relayed = Relayed::new(&network, 1, 0);
    relayed.ask();
    relayed.ask();
    relayed.allow();
    let pattern = |place: usize| (place.wrapping_mul(2_654_435_761) >> 11) as u8;
    let (mut client, mut backend) = (relayed.client.try_clone().unwrap(), relayed.backend.try_clone().unwrap());
    let sent_all = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut place, mut buffer) = (0, vec![0; 1 << 18]);
            while place < BYTES {
                let length = client.read(&mut buffer).unwrap();
                assert!(length > 0, "the end after {place} bytes");
                assert!((place..).zip(&buffer[..length]).all(|(place, byte)| pattern(place) == *byte), "{place}");
                place += length;
            }
        });
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 18];
            for place in (0..BYTES).step_by(buffer.len()) {
                (place..).zip(&mut buffer).for_each(|(place, byte)| *byte = pattern(place));
                backend.write_all(&buffer).unwrap();
            }
            sent_all.store(true, Ordering::Release);
        });
        // The proxy, which reads before it writes, and asks for a pause after the first megabytes.
        let [front, back] = &mut relayed.sockets;
        back.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut buffer = vec![0; 1 << 18];
        while !receiver.is_finished() {
            let length = match back.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => panic!("{error}"),
            };
            relayed.read[BACKEND_LEG] += length as u32;
            let leg = layout::FIRST_RECORD + layout::RECORD_BYTES + layout::LEGS + layout::LEG_BYTES;
            relayed.map.write(leg + layout::READ, relayed.read[BACKEND_LEG]);
            front.write_all(&buffer[..length]).unwrap();
            if relayed.read[BACKEND_LEG] > 4 << 20 && relayed.map.word(leg + layout::PASSED_BYTES) == 0 {
                relayed.map.write(layout::FIRST_RECORD + layout::RECORD_BYTES + layout::HOLD, 3);
            }
        }
        receiver.join().unwrap();
    });
    assert!(sent_all.into_inner());
    let [_, passed] = relayed.passed();
    assert!(passed > 0, "nothing has gone past the proxy");
    // All of it was acknowledged, or will be when it ends.
    relayed.sockets[BACKEND_LEG].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    relayed.end();
    let [_, passed] = relayed.passed();
    assert_eq!(passed + u64::from(relayed.read[BACKEND_LEG]), BYTES as u64 + 2 * 6 + 8);
    drop(relayed);
    network.remove().await;
}

/// The next daemon has the same map and program, at legs of its own too.
#[tokio::test]
async fn connections_pass_on_without_a_daemon_and_with_the_next_one() {
    let Some(mut network) = Network::new("connection-map-lives").await else { return };
    let mut relayed = Relayed::passing(&network, 1);
    network.fabric = Fabric::ensure(&network.plan).await.unwrap();
    relayed.ask_past();
    network.fabric.take_shortcuts().await.unwrap();
    relayed.ask_past();
    network.sandbox = Sandbox::ensure(&network.plan, &network.fabric, ip(&LB.to_string())).await.unwrap();
    relayed.ask_past();
    // Whoever comes later has the program, too.
    network.fabric.disconnect("client").await.unwrap();
    network.fabric.connect("client", &network.client, "eth0", ip("10.77.0.11")).await.unwrap();
    let mut other = Relayed::passing(&network, 2);
    other.ask_past();
    // What has passed can still end when nothing is to pass any more.
    network.fabric.end_shortcuts().await.unwrap();
    other.ask_past();
    other.end();
    drop((relayed, other));
    network.remove().await;
}
