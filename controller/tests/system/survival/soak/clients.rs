//! Clients of all kinds, most of them bad ones. Each does one thing in a turn.

use super::super::site::Site;
use super::tally::{TIMEOUT, Tally};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// The services, by the number of their VIPs.
pub(super) const STEADY: u16 = 0;
pub(super) const ECHO: u16 = 1;
pub(super) const CHURNED: u16 = 2;
pub(super) const ABANDONED: u16 = 3;
pub(super) const SLOW: u16 = 4;
pub(super) const RESET: u16 = 5;
pub(super) const FULL: u16 = 6;
pub(super) const HOLED: u16 = 7;

/// How long a connection may be idle that its client has abandoned.
pub(super) const IDLE_TIMEOUT: &str = "2s";
/// What a slow reader asks for: more than the buffers on its way hold.
const STREAM: usize = 8_000_000;
const ABANDONED_AT_ONCE: u64 = 5;

/// A kind of clients: what one does in its turn, and how long it rests after it.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) turn: fn(&Site, &mut Tally),
    pub(super) rest: Duration,
}

/// All that live in the client's namespace.
pub(super) const KINDS: [Kind; 7] = [
    Kind { name: "echo", turn: echo, rest: Duration::from_millis(10) },
    Kind { name: "half-close", turn: half_close, rest: Duration::from_millis(30) },
    Kind { name: "slow reader", turn: read_slowly, rest: Duration::ZERO },
    Kind { name: "reset", turn: reset, rest: Duration::from_millis(20) },
    Kind { name: "churn", turn: meet_changes, rest: Duration::from_millis(5) },
    Kind { name: "full backlog", turn: meet_full_backlog, rest: Duration::from_millis(100) },
    Kind { name: "black hole", turn: meet_black_hole, rest: Duration::from_millis(50) },
];

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text)?;
    let mut echoed = vec![0; text.len()];
    stream.read_exact(&mut echoed)?;
    if echoed == text { Ok(()) } else { Err(io::Error::new(ErrorKind::InvalidData, "other bytes came back")) }
}

fn echo(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    let outcome = connect(site.target(ECHO)).and_then(|mut stream| exchange(&mut stream, &[b'e'; 1_000]));
    if outcome.is_ok() {
        tally.sent += 1_000;
        tally.received += 1_000;
    }
    tally.count(began, outcome);
}

/// Ends its direction first, and reads what comes after that.
fn half_close(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    let outcome = connect(site.target(ECHO)).and_then(|mut stream| {
        stream.write_all(&[b'h'; 2_000])?;
        stream.shutdown(Shutdown::Write)?;
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed)?;
        if echoed == [b'h'; 2_000] { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    });
    if outcome.is_ok() {
        tally.sent += 2_000;
        tally.received += 2_000;
    }
    tally.count(began, outcome);
}

/// Reads so slowly that all on the way to it is full; every fourth goes away in the middle.
fn read_slowly(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    let gives_up = (tally.done + tally.injected) % 4 == 3;
    let mut gave_up = false;
    let outcome = connect(site.target(SLOW)).and_then(|mut stream| {
        SockRef::from(&stream).set_recv_buffer_size(32 * 1024)?;
        stream.write_all(format!("SOURCE {STREAM} 0\n").as_bytes())?;
        let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                length => total += length,
            }
            if gives_up && total > STREAM / 4 {
                gave_up = true;
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let named = site.server(0).to_string().len() + 1;
        if total == STREAM + named { Ok(()) } else { Err(io::Error::other(format!("{total} bytes came"))) }
    });
    if gave_up {
        tally.injected += 1;
        return;
    }
    if outcome.is_ok() {
        tally.received += STREAM as u64;
    }
    tally.count(began, outcome);
}

/// Goes away by a reset.
fn reset(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    let outcome = connect(site.target(RESET)).and_then(|mut stream| {
        exchange(&mut stream, b"reset")?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    });
    match outcome {
        Ok(()) => tally.injected += 1,
        Err(error) => tally.count(began, Err(error)),
    }
}

/// Connects to a service whose backends come and go. Being cut off is no failure, but being forgotten is.
fn meet_changes(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    let outcome = connect(site.target(CHURNED)).and_then(|mut stream| {
        for _ in 0..3 {
            exchange(&mut stream, &[b'c'; 64])?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    match outcome {
        Err(error) if is_cut(&error) => tally.injected += 1,
        outcome => tally.count(began, outcome),
    }
}

/// Connects to a service whose only backend takes no connections: it must be cut off, and soon.
fn meet_full_backlog(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    match connect(site.target(FULL)).and_then(|mut stream| exchange(&mut stream, b"anybody?")) {
        Err(error) if is_cut(&error) => tally.injected += 1,
        Err(error) => tally.count(began, Err(error)),
        Ok(()) => tally.count(began, Err(io::Error::other("a backend with a full backlog has answered"))),
    }
}

/// Connects to a service one of whose backends never answers: the other one must.
fn meet_black_hole(site: &Site, tally: &mut Tally) {
    let began = Instant::now();
    let outcome = connect(site.target(HOLED)).and_then(|mut stream| exchange(&mut stream, b"anybody?"));
    tally.count(began, outcome);
}

/// Makes connections and vanishes without a word, as a machine does that loses its power. `leg` is the interface, which is
/// away for a moment. Called in the namespace of those clients.
pub(super) fn vanish(site: &Site, leg: &str, tally: &mut Tally) {
    let began = Instant::now();
    let opened: io::Result<Vec<_>> = (0..ABANDONED_AT_ONCE)
        .map(|_| {
            let mut stream = connect(site.target(ABANDONED))?;
            exchange(&mut stream, b"here")?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            Ok(stream)
        })
        .collect();
    let set = |state: &str| assert!(Command::new("ip").args(["link", "set", leg, state]).status().unwrap().success());
    match opened {
        Ok(streams) => {
            set("down");
            // Their resets are lost.
            drop(streams);
            std::thread::sleep(Duration::from_millis(50));
            set("up");
            tally.injected += ABANDONED_AT_ONCE;
        }
        Err(error) => tally.count(began, Err(error)),
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe)
}
