//! Busy TCP connections, whose segments go past the proxy.

mod apart;
mod ends;
mod exchanges;
mod lossy;
mod many;
mod proxies;
mod streams;

use crate::exposition::Exposition;
use crate::node::{Container, Node, PATIENCE, snmp_counter, wait_until};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringlb_load::pattern;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1)), 80);

/// More than a connection needs to be a busy one.
const MANY: usize = 50;
/// What fits into the buffers of a connection that nobody reads from.
const SMALL: u64 = 10_000;
const MEGABYTE: u64 = 1_000_000;

/// A service with one backend, and a client.
struct Site {
    listener: TcpListener,
    backend: Container,
    client: Container,
    // Last, so that it is dropped after what the containers use.
    node: Node,
}

/// Both ends of a connection through the proxy, and how much each has been sent.
struct Pair {
    client: TcpStream,
    backend: TcpStream,
    asked: u64,
    answered: u64,
}

impl Site {
    fn new() -> Self {
        Self::with(&[], &[])
    }

    /// With these arguments of the daemon, and flags of the service.
    fn with(arguments: &[&str], flags: &[&str]) -> Self {
        let node = Node::start_with(arguments);
        node.create_network(&["10.0.0.0/16"]);
        let (backend, client) = (node.container(11), node.container(100));
        let vip = TARGET.ip().to_string();
        node.ringlb(&[&["service", "create", "net", "web", "--vip", &vip][..], flags].concat());
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
        Self { listener: backend.listen(TARGET.port()), backend, client, node }
    }

    fn connect(&self) -> Pair {
        self.join(self.client.connect(TARGET))
    }

    /// The backend's end of what the client has connected.
    fn join(&self, client: TcpStream) -> Pair {
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        let ready = poll(&mut [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)], patience).unwrap();
        assert_eq!(ready, 1, "nobody comes to the backend");
        let backend = self.listener.accept().unwrap().0;
        for stream in [&client, &backend] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        Pair { client, backend, asked: 0, answered: 0 }
    }

    /// A connection that passes.
    fn connect_passing(&self) -> Pair {
        let mut pair = self.connect();
        self.wait_until_it_passes(&mut pair);
        pair
    }

    /// How many segments the sandbox's sockets have received.
    fn segments(&self) -> u64 {
        snmp_counter(&self.node.sandbox(), "Tcp", "InSegs")
    }

    /// Whether questions and answers do not come to the proxy. Nothing else may go through it.
    fn passes(&self, pair: &mut Pair) -> bool {
        let before = self.segments();
        (0..5).for_each(|_| pair.turn(64, 64));
        self.segments() == before
    }

    fn wait_until_it_passes(&self, pair: &mut Pair) {
        wait_until("the connection goes past the proxy", || self.passes(pair));
    }

    /// Has enough turns for a busy connection, and asserts that each comes to the proxy.
    fn assert_it_does_not_pass(&self, pair: &mut Pair) {
        for _ in 0..MANY {
            let before = self.segments();
            pair.turn(64, 64);
            assert!(self.segments() > before, "a question and its answer went past the proxy");
        }
    }

    /// How many bytes were counted to the backend, and from it.
    fn counted(&self) -> [u64; 2] {
        let metrics = Exposition::read(&self.node.admin().request("GET", "/metrics", "").1);
        let labels = [("network", "net"), ("service", "web"), ("backend", "10.0.0.11")];
        ["sent", "received"].map(|way| metrics.value(&format!("ringlb_backend_{way}_bytes_total"), &labels).unwrap())
    }

    fn wait_until_all_have_ended(&self) {
        wait_until("the proxy has no connection", || self.node.active() == 0);
    }

    /// Waits for it: it is counted once a second.
    fn wait_until_counted(&self, bytes: [u64; 2]) {
        let deadline = Instant::now() + PATIENCE;
        while self.counted() != bytes {
            assert!(Instant::now() < deadline, "{bytes:?} were sent, {:?} are counted", self.counted());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Pair {
    /// So many bytes from the client, and then so many from the backend.
    fn turn(&mut self, question: u64, answer: u64) {
        self.try_turn(question, answer).unwrap();
    }

    fn try_turn(&mut self, question: u64, answer: u64) -> io::Result<()> {
        carry(&self.client, &self.backend, &mut self.asked, question)?;
        carry(&self.backend, &self.client, &mut self.answered, answer)
    }

    /// As much both ways at once.
    fn cross(&mut self, bytes: u64) {
        let Self { client, backend, asked, answered } = self;
        thread::scope(|scope| {
            let asks = scope.spawn(|| carry(client, backend, asked, bytes));
            carry(backend, client, answered, bytes).unwrap();
            asks.join().unwrap().unwrap();
        });
    }

    fn sent(&self) -> [u64; 2] {
        [self.asked, self.answered]
    }

    /// First one end stops, then the other: each is told, and nobody of a reset.
    fn end(self) -> [u64; 2] {
        finish(&self.client, &self.backend);
        finish(&self.backend, &self.client);
        self.sent()
    }
}

/// Sends so many bytes of the pattern from one end to the other, where they are checked.
fn carry(from: &TcpStream, to: &TcpStream, position: &mut u64, bytes: u64) -> io::Result<()> {
    let (begin, end) = (*position, *position + bytes);
    if bytes <= SMALL {
        send(from, begin, end)?;
        receive(to, begin, end)?;
    } else {
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(from, begin, end));
            receive(to, begin, end)?;
            sender.join().unwrap()
        })?;
    }
    *position = end;
    Ok(())
}

fn send(mut stream: &TcpStream, mut position: u64, end: u64) -> io::Result<()> {
    while position < end {
        let chunk = pattern::chunk(position, end - position);
        stream.write_all(chunk)?;
        position += chunk.len() as u64;
    }
    Ok(())
}

fn receive(mut stream: &TcpStream, mut position: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; (end - position).min(1 << 18) as usize];
    while position < end {
        let most = (end - position).min(buffer.len() as u64) as usize;
        let length = stream.read(&mut buffer[..most])?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        check(position, &buffer[..length]);
        position += length as u64;
    }
    Ok(())
}

fn check(position: u64, bytes: &[u8]) {
    let difference = pattern::first_difference(position, bytes);
    assert_eq!(difference, None, "after {position} bytes, of {} that follow", bytes.len());
}

/// Half-closes, which the other end is told, after all that it was sent.
fn finish(from: &TcpStream, mut to: &TcpStream) {
    from.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to.read(&mut [0]).unwrap(), 0);
}

/// What an end is told that has nothing to read.
fn told(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    stream.read(&mut [0]).map_err(|error| error.kind())
}

const RESET: Result<usize, ErrorKind> = Err(ErrorKind::ConnectionReset);
