//! IPVS is imitated, so that the tests run on a kernel without it: an engine's rules mark packets as they do for IPVS, and
//! what begins anew with a mark is refused instead of balanced.

use crate::support::{CLIENT, LB, Network, VIPS, connect, to, until};
use ringlb_netns::{Error, Namespace, PortProtocol, TakenOver, Takeover};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
/// Longer than a test.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn what_is_taken_over_is_served_here_and_nothing_else() {
    let engine = Engine::new("takeover").await;
    for vip in VIPS {
        assert!(!engine.is_served_here(vip, 80));
    }
    let mut takeover = engine.begin(&served(&VIPS[..2], &[]), LONG);
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, 80)), [true, true, false]);
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, PORT)), [true, true, false]);
    assert!(!engine.is_served_here(LB, PORT));

    takeover.refresh(&served(&VIPS[1..], &[PortProtocol::Tcp]), LONG).unwrap();
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, 80)), [false, true, true]);
    assert!(engine.is_served_here(LB, PORT) && !engine.datagrams_are_served_here(LB, PORT));

    takeover.refresh(&served(&[], &[PortProtocol::Udp]), LONG).unwrap();
    assert!(!engine.is_served_here(LB, PORT) && engine.datagrams_are_served_here(LB, PORT));
    engine.remove();
}

#[tokio::test]
async fn connections_go_on_when_the_takeover_begins_and_ends() {
    let engine = Engine::new("takeover-open").await;
    // Not marked, so that it is there before.
    let before = engine.open(LB, 80);
    let takeover = engine.begin(&served(&VIPS, &[PortProtocol::Tcp]), LONG);
    echo(&before);
    let during: Vec<_> = VIPS.into_iter().map(|vip| engine.open(vip, 80)).chain([engine.open(LB, PORT)]).collect();
    drop(takeover);
    assert!(engine.is_served_here(VIPS[0], 80), "its elements end by themselves");
    Takeover::remove(engine.namespace()).unwrap();
    assert!(!engine.is_served_here(VIPS[0], 80) && !engine.is_served_here(LB, PORT));
    for pair in during.iter().chain([&before]) {
        echo(pair);
    }
    engine.remove();
}

#[tokio::test]
async fn without_a_refresh_it_ends_by_itself() {
    let engine = Engine::new("takeover-ends").await;
    let both = served(&VIPS[..1], &[PortProtocol::Tcp]);
    let mut takeover = engine.begin(&both, SHORT);
    takeover.refresh(&both, LONG).unwrap();
    thread::sleep(2 * SHORT);
    assert!(engine.is_served_here(VIPS[0], 80) && engine.is_served_here(LB, PORT), "a refresh makes it longer");
    takeover.refresh(&both, SHORT).unwrap();
    until("the takeover ends", || {
        (!engine.is_served_here(VIPS[0], 80) && !engine.is_served_here(LB, PORT)).then_some(())
    });
    takeover.refresh(&both, LONG).unwrap();
    assert!(engine.is_served_here(VIPS[0], 80) && engine.is_served_here(LB, PORT), "it can go on after its end");
    engine.remove();
}

#[tokio::test]
async fn it_can_begin_and_end_again() {
    let engine = Engine::new("takeover-again").await;
    Takeover::remove(engine.namespace()).unwrap();
    let mut first = engine.begin(&served(&VIPS[..1], &[]), LONG);
    let _second = engine.begin(&served(&VIPS[1..2], &[]), LONG);
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, 80)), [false, true, false]);
    // One who has not noticed speaks for the table that there is.
    first.refresh(&served(&VIPS[..1], &[]), LONG).unwrap();
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, 80)), [true, false, false]);
    for _twice in 0..2 {
        Takeover::remove(engine.namespace()).unwrap();
        assert!(!engine.is_served_here(VIPS[0], 80));
    }
    let error = first.refresh(&served(&VIPS[..1], &[]), LONG).unwrap_err();
    assert!(matches!(error, Error::Takeover { .. }), "{error}");
    engine.remove();
}

/// A network's services can be more than one message holds.
#[tokio::test]
async fn thousands_of_vips_are_taken_over() {
    let engine = Engine::new("takeover-many").await;
    let many = (0..5000).map(|number| Ipv4Addr::from_bits(0x0a58_0000 + number)).collect::<Vec<_>>();
    let last = VIPS[2].parse().unwrap();
    let taken_over = TakenOver { vips: many.into_iter().chain([last]).collect(), ports: Vec::new() };
    let mut takeover = engine.begin(&taken_over, LONG);
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, 80)), [false, false, true]);
    takeover.refresh(&taken_over, LONG).unwrap();
    assert_eq!(VIPS.map(|vip| engine.is_served_here(vip, 80)), [false, false, true]);
    engine.remove();
}

/// A network whose sandbox has the engine's rules, an echo server on two ports, and one for datagrams.
struct Engine {
    network: Network,
    listeners: Vec<TcpListener>,
    datagrams: UdpSocket,
}

impl Engine {
    async fn new(test: &str) -> Self {
        let network = Network::new(test).await;
        let namespace = network.sandbox.namespace();
        let [first, second, third] = VIPS;
        let rules = format!(
            "table ip engine {{
                chain arrival {{
                    type filter hook prerouting priority mangle;
                    tcp dport {PORT} meta mark set 0x100
                    udp dport {PORT} meta mark set 0x100
                }}
                chain marking {{
                    type filter hook input priority mangle;
                    ip daddr {{ {first}, {second}, {third} }} meta mark set 0x101
                }}
                chain balancing {{
                    type filter hook input priority 99;
                    meta mark != 0 tcp flags & (syn | ack) == syn reject with tcp reset
                    meta mark != 0 meta l4proto udp reject
                }}
            }}"
        );
        let mut nft = Command::new("nft");
        nft.arg(rules);
        namespace.enter_on_exec(&mut nft).unwrap();
        let output = nft.output().expect("nftables is needed");
        assert!(output.status.success(), "{output:?}");
        let (listeners, datagrams) = namespace
            .run(|| {
                let listeners = [80, PORT].map(|port| TcpListener::bind(to("0.0.0.0", port)).unwrap());
                (listeners.into(), UdpSocket::bind(to("0.0.0.0", PORT)).unwrap())
            })
            .unwrap();
        Self { network, listeners, datagrams }
    }

    fn namespace(&self) -> &Namespace {
        self.network.sandbox.namespace()
    }

    fn begin(&self, taken_over: &TakenOver, lifetime: Duration) -> Takeover {
        Takeover::begin(self.namespace(), taken_over, lifetime).unwrap()
    }

    fn is_served_here(&self, address: &str, port: u16) -> bool {
        match connect(&self.network.client, to(address, port)) {
            Ok(_client) => {
                self.accept(port);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => false,
            Err(error) => panic!("{address}:{port}: {error}"),
        }
    }

    fn datagrams_are_served_here(&self, address: &str, port: u16) -> bool {
        let client = self.network.client.run(|| UdpSocket::bind(to(CLIENT, 0)).unwrap()).unwrap();
        client.connect(to(address, port)).unwrap();
        client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        client.send(b"hello").unwrap();
        self.datagrams.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        // The refusal has come when sending returns, as the namespaces are on one machine.
        if client.take_error().unwrap().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return false;
        }
        let mut buffer = [0; 16];
        let (length, from) = self.datagrams.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (b"hello".as_slice(), client.local_addr().unwrap()));
        true
    }

    /// A connection's both ends.
    fn open(&self, address: &str, port: u16) -> (TcpStream, TcpStream) {
        let client = connect(&self.network.client, to(address, port)).unwrap();
        (client, self.accept(port))
    }

    fn accept(&self, port: u16) -> TcpStream {
        let listener = self.listeners.iter().find(|listener| listener.local_addr().unwrap().port() == port).unwrap();
        listener.accept().unwrap().0
    }

    fn remove(self) {
        self.network.remove();
    }
}

fn served(vips: &[&str], protocols: &[PortProtocol]) -> TakenOver {
    TakenOver {
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports: protocols.iter().map(|protocol| (*protocol, PORT)).collect(),
    }
}

fn echo((client, server): &(TcpStream, TcpStream)) {
    for (mut from, mut to) in [(client, server), (server, client)] {
        from.write_all(b"hello").unwrap();
        to.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        let mut buffer = [0; 5];
        to.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
    }
}
