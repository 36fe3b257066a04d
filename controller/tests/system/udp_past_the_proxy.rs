//! Busy UDP sessions, whose datagrams go past the proxy.

use crate::node::{Container, Node, PATIENCE, find, snmp_counter, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1));
const PORT: u16 = 4433;

/// More than a session needs to be a busy one.
const MANY: usize = 50;

/// A server that sends every datagram back with a byte before it, the last of its address. It ends when this is dropped.
struct Echo {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Echo {
    fn start(container: &Container) -> Self {
        let socket = container.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let IpAddr::V4(address) = container.address else { panic!("{} is not IPv4", container.address) };
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            buffer[0] = address.octets()[3];
            while !is_ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer[1..]) {
                    let _ = socket.send_to(&buffer[..=length], from);
                }
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A client that counts what it has sent and received.
struct Client {
    socket: UdpSocket,
    sent: u64,
    received: u64,
    next: u64,
}

impl Client {
    /// Its socket is connected: it hears only what comes from the very address that it sends to.
    fn new(container: &Container) -> Self {
        let socket = container.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        container.run(|| socket.connect((VIP, PORT)).unwrap());
        Self { socket, sent: 0, received: 0, next: 0 }
    }

    /// Who has answered, unless the datagram or the answer was lost.
    fn try_ask(&mut self, length: usize, patience: Duration) -> Option<u8> {
        self.next += 1;
        let mut question = self.next.to_ne_bytes().to_vec();
        question.resize(length, self.next as u8);
        // What an earlier datagram was refused with is told here.
        while self.socket.send(&question).is_err() {}
        self.sent += 1;
        let mut answer = vec![0; 70_000];
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.socket.recv(&mut answer) else { continue };
            self.received += 1;
            // An answer that comes late is not for this question.
            if answer[1..length] == question[..] {
                return Some(answer[0]);
            }
        }
    }

    fn ask(&mut self) -> u8 {
        self.try_ask(64, PATIENCE).unwrap()
    }
}

/// How many datagrams the sandbox's sockets have received, and had room for.
fn received_in_sandbox(node: &Node) -> u64 {
    snmp_counter(&node.sandbox(), "Udp", "InDatagrams")
}

/// Whether questions and answers do not come to the proxy.
fn passes(node: &Node, client: &mut Client) -> bool {
    let before = received_in_sandbox(node);
    for _ in 0..5 {
        client.try_ask(64, Duration::from_secs(1));
    }
    received_in_sandbox(node) == before
}

fn wait_until_it_passes(node: &Node, client: &mut Client) {
    wait_until("datagrams go past the proxy", || passes(node, client));
}

/// A counter of the network's datagrams.
fn count(node: &Node, name: &str) -> u64 {
    let status = node.ringlb(&["status"]);
    find(&status, "datagrams").and_then(|datagrams| datagrams[name].as_u64()).unwrap_or_else(|| panic!("{status:#}"))
}

/// Two backends of a service, and a client.
fn populate(node: &Node) -> ([Container; 2], Container) {
    let backends = [node.container(11), node.container(12)];
    node.service("web", VIP, "rr", &[&backends[0], &backends[1]]);
    (backends, node.container(100))
}

fn with_two() -> (Node, [Container; 2], Container) {
    let node = Node::with_network();
    let (backends, client) = populate(&node);
    (node, backends, client)
}

#[test]
fn each_busy_session_passes_and_all_is_counted() {
    let (node, backends, container) = with_two();
    let _servers = backends.each_ref().map(Echo::start);
    let mut clients: Vec<_> = (0..8).map(|_| Client::new(&container)).collect();
    let named: Vec<_> = clients.iter_mut().map(Client::ask).collect();
    assert_eq!(named.iter().filter(|name| **name == 11).count(), 4);
    for client in &mut clients {
        wait_until_it_passes(&node, client);
    }
    // One after the other, the first for so long that it must have passed all the time, or come back and passed again.
    for (client, name) in clients.iter_mut().zip(&named) {
        for length in [8, 9, 64, 1_200, 1_472, 64, 1_473, 9_000, 60_000, 64] {
            assert_eq!(client.try_ask(length, PATIENCE), Some(*name), "{length} bytes");
        }
    }
    let mut bytes = 0;
    for client in &clients {
        assert_eq!(client.sent, client.received);
        bytes += 64 * (client.sent - 10) + 8 + 9 + 3 * 64 + 1_200 + 1_472 + 1_473 + 9_000 + 60_000;
    }
    let sent: u64 = clients.iter().map(|client| client.sent).sum();
    wait_until("all is counted", || count(&node, "to_backends") == sent && count(&node, "to_clients") == sent);
    assert_eq!((count(&node, "sessions"), count(&node, "active")), (8, 8));
    let metrics = node.admin().request("GET", "/metrics", "").1;
    let of_backends = |name: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    };
    assert_eq!(of_backends("ringlb_backend_sent_datagrams_total"), sent, "{metrics}");
    assert_eq!(of_backends("ringlb_backend_received_datagrams_total"), sent);
    assert_eq!(of_backends("ringlb_backend_sent_bytes_total"), bytes);
    assert_eq!(of_backends("ringlb_backend_received_bytes_total"), bytes + sent, "each answer has one byte more");
}

#[test]
fn none_passes_where_there_are_no_shortcuts() {
    let node = Node::start_with(&["--no-shortcuts"]);
    node.create_network(&["10.0.0.0/16"]);
    let (backends, container) = populate(&node);
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let before = received_in_sandbox(&node);
    for _ in 0..MANY {
        client.ask();
    }
    assert_eq!(received_in_sandbox(&node), before + 2 * MANY as u64);
}

/// Where each datagram is to have so many answers, they are counted by the proxy.
#[test]
fn none_passes_whose_answers_end_it() {
    let node = Node::with_network();
    let backend = node.container(11);
    node.ringlb(&["service", "create", "net", "web", "--vip", &VIP.to_string(), "--udp-responses", "1"]);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let _server = Echo::start(&backend);
    let mut client = Client::new(&node.container(100));
    let before = received_in_sandbox(&node);
    for _ in 0..MANY {
        client.ask();
    }
    assert_eq!(received_in_sandbox(&node), before + 2 * MANY as u64);
    assert_eq!(count(&node, "sessions"), MANY as u64);
}

/// What goes one way only passes, too.
#[test]
fn a_stream_without_answers_passes() {
    let (node, backends, container) = with_two();
    let server = backends[0].run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    node.ringlb(&["backend", "rm", "net", "web", "10.0.0.12"]);
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = Client::new(&container);
    let mut number = 0u64;
    let mut send = || {
        number += 1;
        client.socket.send(&number.to_ne_bytes()).unwrap();
        let mut said = [0; 8];
        assert_eq!(server.recv(&mut said).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(said), number);
    };
    wait_until("datagrams go past the proxy", || {
        let before = received_in_sandbox(&node);
        (0..5).for_each(|_| send());
        received_in_sandbox(&node) == before
    });
    wait_until("all is counted", || count(&node, "to_backends") == number);
}

/// What a sender hands to the kernel as one row of datagrams passes as one, and is counted and received as what it is.
#[test]
fn rows_of_datagrams_pass() {
    let (node, backends, container) = with_two();
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    wait_until_it_passes(&node, &mut client);
    let before = received_in_sandbox(&node);
    let row: Vec<u8> = (0..12_345u32).map(|index| (index / 7 % 251) as u8).collect();
    setsockopt(&client.socket, sockopt::UdpGsoSegment, &1_200).unwrap();
    client.socket.send(&row).unwrap();
    setsockopt(&client.socket, sockopt::UdpGsoSegment, &0).unwrap();
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 2_000];
    for part in row.chunks(1_200) {
        let length = client.socket.recv(&mut answer).unwrap();
        assert!(answer[1..length] == *part);
    }
    (client.sent, client.received) = (client.sent + 11, client.received + 11);
    for _ in 0..5 {
        client.ask();
    }
    assert_eq!(received_in_sandbox(&node), before);
    wait_until("all is counted", || {
        count(&node, "to_backends") == client.sent && count(&node, "to_clients") == client.sent
    });
}

/// Where the sender's kernel computes checksums itself, the receiver's checks them.
#[test]
fn checksums_are_right() {
    let (node, backends, container) = with_two();
    let _servers = backends.each_ref().map(Echo::start);
    for namespace in [&backends[0], &backends[1], &container] {
        namespace.output("ethtool", &["-K", &namespace.interface(), "tx", "off"]);
    }
    let mut clients = [Client::new(&container), Client::new(&container)];
    for client in &mut clients {
        wait_until_it_passes(&node, client);
        for length in [8, 9, 63, 64, 1_471, 1_472] {
            assert!(client.try_ask(length, Duration::from_secs(5)).is_some(), "{length} bytes");
        }
    }
    let wrong = |container: &Container| snmp_counter(&container.namespace, "Udp", "InCsumErrors");
    assert_eq!([&backends[0], &backends[1], &container].map(wrong), [0; 3]);
}

/// As soon as the command has returned, nobody is answered by the backend that was removed.
#[test]
fn who_passes_moves_at_once() {
    let (node, backends, container) = with_two();
    let _servers = backends.each_ref().map(Echo::start);
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(&container)).collect();
    for (gone, stays) in [(11, 12), (12, 11)] {
        for client in &mut clients {
            wait_until_it_passes(&node, client);
        }
        node.ringlb(&["backend", "rm", "net", "web", &format!("10.0.0.{gone}")]);
        for client in &mut clients {
            assert_eq!(client.ask(), stays);
        }
        node.ringlb(&["backend", "add", "net", "web", &format!("10.0.0.{gone}")]);
    }
    for client in &mut clients {
        wait_until_it_passes(&node, client);
    }
    // A drain leaves them where they are until its deadline.
    let named: Vec<_> = clients.iter_mut().map(Client::ask).collect();
    for name in [11, 12] {
        node.ringlb(&["backend", "drain", "net", "web", &format!("10.0.0.{name}")]);
    }
    assert_eq!(clients.iter_mut().map(Client::ask).collect::<Vec<_>>(), named);
}

/// The refusal comes to the proxy.
#[test]
fn who_passes_leaves_a_backend_that_refuses() {
    let (node, backends, container) = with_two();
    let [first, second] = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let name = client.ask();
    wait_until_it_passes(&node, &mut client);
    let (_left, other) = if name == 11 {
        drop(first);
        (second, 12)
    } else {
        drop(second);
        (first, 11)
    };
    let mut lost = 0;
    wait_until("the other one answers", || {
        let answer = client.try_ask(64, Duration::from_millis(200));
        lost += u32::from(answer.is_none());
        answer == Some(other)
    });
    assert!(lost <= 2, "{lost} datagrams were lost");
    wait_until_it_passes(&node, &mut client);
    assert_eq!(client.ask(), other);
}

/// A session that passes is not idle, and ends when it is.
#[test]
fn who_passes_is_not_idle() {
    let node = Node::with_network();
    let backend = node.container(11);
    let vip = VIP.to_string();
    node.ringlb(&["service", "create", "net", "web", "--vip", &vip, "--udp-idle-timeout", "300ms"]);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let _server = Echo::start(&backend);
    let mut client = Client::new(&node.container(100));
    wait_until_it_passes(&node, &mut client);
    let sessions = count(&node, "sessions");
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        client.ask();
    }
    assert_eq!(count(&node, "sessions"), sessions);
    wait_until("it has ended", || count(&node, "active") == 0);
    assert_eq!(count(&node, "to_backends"), client.sent);
    // What it left behind in the map would lead the next one to nobody.
    client.ask();
    assert_eq!(count(&node, "sessions"), sessions + 1);
    wait_until_it_passes(&node, &mut client);
}

/// Neither the upgrade itself nor what follows loses a datagram or a count.
#[test]
fn an_upgrade_loses_nothing_of_who_passes() {
    let (node, backends, container) = with_two();
    let _servers = backends.each_ref().map(Echo::start);
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(&container)).collect();
    let named: Vec<_> = clients.iter_mut().map(Client::ask).collect();
    for _ in 0..3 {
        for client in &mut clients {
            wait_until_it_passes(&node, client);
        }
        let before = node.proxy_pid();
        std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| node.ringlb(&["upgrade"]));
            while !upgrade.is_finished() {
                for (client, name) in clients.iter_mut().zip(&named) {
                    assert_eq!(client.try_ask(64, PATIENCE), Some(*name));
                }
            }
        });
        assert_ne!(node.proxy_pid(), before);
        assert_eq!(clients.iter_mut().map(Client::ask).collect::<Vec<_>>(), named);
    }
    let sent: u64 = clients.iter().map(|client| client.sent).sum();
    assert_eq!(sent, clients.iter().map(|client| client.received).sum::<u64>());
    wait_until("all is counted", || count(&node, "to_backends") == sent && count(&node, "to_clients") == sent);
}

/// What was in the map is forgotten with the proxy that has put it there: its sessions are nobody's then.
#[test]
fn sessions_of_a_proxy_that_was_killed_do_not_pass() {
    let (node, backends, container) = with_two();
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let name = client.ask();
    for _ in 0..3 {
        wait_until_it_passes(&node, &mut client);
        let before = node.proxy_pid();
        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        wait_until("there is another proxy", || {
            node.try_ringlb(&["status"]).status.success() && node.proxy_pid() != before
        });
        let sandbox_had = received_in_sandbox(&node);
        wait_until("it serves", || client.try_ask(64, Duration::from_millis(500)).is_some());
        wait_until("it sees the datagrams", || {
            client.try_ask(64, Duration::from_millis(500));
            received_in_sandbox(&node) > sandbox_had
        });
    }
    // Both backends are left; one is removed, and nobody is led there by what an earlier proxy has said.
    wait_until_it_passes(&node, &mut client);
    node.ringlb(&["backend", "rm", "net", "web", &format!("10.0.0.{name}")]);
    assert_ne!(client.ask(), name);
}

/// The programs and what they know are there without a daemon, and the next one takes them over: nothing comes to the proxy.
#[test]
fn a_daemon_that_dies_leaves_who_passes() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--keep", "--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    node.create_network(&["10.0.0.0/16"]);
    let (backends, container) = populate(&node);
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let name = client.ask();
    wait_until_it_passes(&node, &mut client);
    let before = received_in_sandbox(&node);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        node.daemon.signal(signal);
        node.daemon.wait();
        // For so long that the proxy looks at it, and then some until the next daemon has met all.
        ask_for(Duration::from_millis(1_500), &mut client, name);
        let started = AtomicBool::new(false);
        node.daemon = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !started.load(Ordering::Relaxed) {
                    assert_eq!(client.ask(), name, "{signal}");
                }
            });
            // Here, as it ends with the thread that has started it.
            let daemon = Node::start_daemon(node.run_dir.path(), &arguments);
            started.store(true, Ordering::Relaxed);
            daemon
        });
        ask_for(Duration::from_millis(1_500), &mut client, name);
        assert_eq!(received_in_sandbox(&node), before, "{signal}");
    }
    assert_eq!((client.sent, count(&node, "sessions")), (client.received, 1));
    wait_until("all is counted", || {
        count(&node, "to_backends") == client.sent && count(&node, "to_clients") == client.sent
    });
    // It is the proxy's session as ever.
    node.ringlb(&["backend", "rm", "net", "web", &format!("10.0.0.{name}")]);
    assert_ne!(client.ask(), name);
    wait_until_it_passes(&node, &mut client);
    // Whatever is left ends with the last daemon.
    node.daemon.signal(Signal::SIGTERM);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments[1..]);
}

fn ask_for(time: Duration, client: &mut Client, name: u8) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert_eq!(client.ask(), name);
    }
}

/// What a proxy has left that died while there was no daemon is nobody's.
#[test]
fn sessions_of_a_proxy_that_died_without_a_daemon_do_not_pass() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--keep", "--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    node.create_network(&["10.0.0.0/16"]);
    let (backends, container) = populate(&node);
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let name = client.ask();
    wait_until_it_passes(&node, &mut client);
    let proxy = node.proxy_pid();
    node.daemon.signal(Signal::SIGKILL);
    node.daemon.wait();
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    assert_eq!(client.ask(), name);
    let before = received_in_sandbox(&node);
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments);
    wait_until("it sees the datagrams", || {
        client.try_ask(64, Duration::from_millis(500));
        received_in_sandbox(&node) > before
    });
    assert_ne!(node.proxy_pid(), proxy);
    wait_until_it_passes(&node, &mut client);
    node.daemon.signal(Signal::SIGTERM);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments[1..]);
}

/// A daemon that wishes for no shortcuts ends those of an earlier one, and the sessions are the proxy's.
#[test]
fn a_daemon_without_shortcuts_takes_who_passes_back() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--keep", "--state-dir", state_dir.path().to_str().unwrap(), "--no-shortcuts"];
    let mut node = Node::start_with(&arguments[..3]);
    node.create_network(&["10.0.0.0/16"]);
    let (backends, container) = populate(&node);
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let name = client.ask();
    wait_until_it_passes(&node, &mut client);
    node.daemon.signal(Signal::SIGTERM);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments);
    wait_until("all comes to the proxy", || {
        let before = received_in_sandbox(&node);
        (0..MANY).for_each(|_| assert_eq!(client.ask(), name));
        received_in_sandbox(&node) == before + 2 * MANY as u64
    });
    assert_eq!((client.sent, count(&node, "sessions")), (client.received, 1));
    node.daemon.signal(Signal::SIGTERM);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments[1..]);
}

/// The map is the network's, whichever thread has a session.
#[test]
fn sessions_of_all_threads_pass() {
    let node = Node::start_with(&["--threads", "2"]);
    node.create_network(&["10.0.0.0/16"]);
    let (backends, container) = populate(&node);
    let _servers = backends.each_ref().map(Echo::start);
    let mut clients: Vec<_> = (0..16).map(|_| Client::new(&container)).collect();
    for client in &mut clients {
        wait_until_it_passes(&node, client);
    }
    let sent: u64 = clients.iter().map(|client| client.sent).sum();
    wait_until("all is counted", || count(&node, "to_backends") == sent);
}

/// A backend that has vanished without a word: nobody refuses what is sent to it.
#[test]
fn who_passes_leaves_a_backend_that_has_vanished() {
    let (node, backends, container) = with_two();
    // The kernel believes for up to 45 seconds that a neighbour is there, and asks for some more before it says that nobody is.
    let sooner = [("base_reachable_time_ms", "500"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "100")];
    for (parameter, value) in sooner {
        let path = format!("/proc/sys/net/ipv4/neigh/eth0/{parameter}");
        node.sandbox().run(|| std::fs::write(path, value).unwrap()).unwrap();
    }
    let _servers = backends.each_ref().map(Echo::start);
    let mut client = Client::new(&container);
    let name = client.ask();
    wait_until_it_passes(&node, &mut client);
    let gone = backends.iter().find(|backend| backend.address == IpAddr::from([10, 0, 0, name])).unwrap();
    gone.output("ip", &["link", "set", &gone.interface(), "down"]);
    wait_until("the other one answers", || {
        (0..20).any(|_| client.try_ask(64, Duration::from_millis(10)).is_some_and(|answer| answer != name))
    });
}
