//! Single requests from inside a namespace.

use crate::wait::PATIENCE;
use ringlb_netns::Namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long a single request may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the server's name on a connection of its own.
pub(crate) fn ask(from: &Namespace, target: SocketAddr) -> io::Result<String> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"ID\n")?;
        let mut name = String::new();
        stream.read_to_string(&mut name)?;
        named(&name)
    })
    .unwrap()
}

/// Asks for the server's name by a datagram from a port of its own.
pub(crate) fn ask_udp(from: &Namespace, target: SocketAddr) -> io::Result<String> {
    from.run(|| {
        let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.send(format!("ID\n{:60}", "").as_bytes())?;
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer)?;
        named(&String::from_utf8_lossy(&answer[..length]))
    })
    .unwrap()
}

/// Asks so many times; all must be answered. Gives how often each server answered.
#[track_caller]
pub(crate) fn ask_all(from: &Namespace, target: SocketAddr, count: u32) -> BTreeMap<String, u32> {
    let mut answers = BTreeMap::new();
    for number in 0..count {
        match ask(from, target) {
            Ok(name) => *answers.entry(name).or_default() += 1,
            Err(error) => panic!("request {number} to {target}: {error}"),
        }
    }
    answers
}

/// Waits until requests there are answered by exactly these servers, each by each in turn.
#[track_caller]
pub(crate) fn wait_for_servers(from: &Namespace, target: SocketAddr, servers: &[String]) -> Duration {
    let mut seen = BTreeSet::new();
    let expected: BTreeSet<String> = servers.iter().cloned().collect();
    let begun = Instant::now();
    while seen != expected {
        assert!(begun.elapsed() < PATIENCE, "{target} should be {expected:?} and is {seen:?}");
        seen = (0..2 * servers.len()).filter_map(|_| ask(from, target).ok()).collect();
    }
    begun.elapsed()
}

fn named(answer: &str) -> io::Result<String> {
    match answer.strip_suffix('\n') {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("no name in {answer:?}"))),
    }
}
