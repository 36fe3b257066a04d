//! How connections end that pass.

use super::{MEGABYTE, Pair, RESET, Site, TARGET, carry, finish, told};
use crate::node::{PATIENCE, wait_until};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One end has nothing more to say, and the other one much.
#[test]
fn what_comes_after_a_half_close_is_whole() {
    let site = Site::new();
    let mut sent = [0; 2];
    for client_is_first in [true, false] {
        let mut pair = site.connect_passing();
        let Pair { client, backend, asked, answered } = &mut pair;
        let (first, second, from_first, from_second) =
            if client_is_first { (client, backend, asked, answered) } else { (backend, client, answered, asked) };
        carry(first, second, from_first, 1_000).unwrap();
        finish(first, second);
        carry(second, first, from_second, 20 * MEGABYTE).unwrap();
        for size in 1..100 {
            carry(second, first, from_second, size).unwrap();
        }
        finish(second, first);
        sent = [sent[0] + pair.asked, sent[1] + pair.answered];
        drop(pair);
        site.wait_until_all_have_ended();
        assert_eq!(site.counted(), sent);
    }
}

/// What is left of the connection before, which has had the same addresses and ports, is in nobody's way.
#[test]
fn a_connection_from_the_same_port_passes() {
    let site = Site::new();
    let mut sent = [0; 2];
    for _ in 0..3 {
        let client = site.client.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], 4_000)).into()).unwrap();
            socket.connect(&TARGET.into()).unwrap();
            TcpStream::from(socket)
        });
        let mut pair = site.join(client);
        site.wait_until_it_passes(&mut pair);
        // Whoever ends first keeps the ports for a minute: not the client.
        finish(&pair.backend, &pair.client);
        finish(&pair.client, &pair.backend);
        sent = [sent[0] + pair.asked, sent[1] + pair.answered];
        drop(pair);
        site.wait_until_all_have_ended();
    }
    assert_eq!(site.counted(), sent);
}

/// The last data and the end come together.
#[test]
fn an_end_right_behind_data_comes_after_it() {
    let site = Site::new();
    for size in [1, 1_448, 10_000, 3 * MEGABYTE] {
        let mut pair = site.connect_passing();
        let end = pair.asked + size;
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                super::send(&pair.client, pair.asked, end).unwrap();
                pair.client.shutdown(std::net::Shutdown::Write).unwrap();
            });
            super::receive(&pair.backend, pair.asked, end).unwrap();
            assert_eq!(told(&pair.backend), Ok(0));
            client.join().unwrap();
        });
        pair.turn(0, size);
        finish(&pair.backend, &pair.client);
    }
    site.wait_until_all_have_ended();
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn a_reset_comes_to_the_other_end() {
    let site = Site::new();
    let Pair { client, backend, .. } = site.connect_passing();
    reset(client);
    assert_eq!(told(&backend), RESET);
    let Pair { client, backend, .. } = site.connect_passing();
    reset(backend);
    assert_eq!(told(&client), RESET);
    site.wait_until_all_have_ended();
}

/// Whoever sends all the time is told, too.
#[test]
fn a_reset_comes_to_an_end_that_sends() {
    let site = Site::new();
    for client_sends in [true, false] {
        let Pair { client, backend, .. } = site.connect_passing();
        let (mut sender, receiver) = if client_sends { (client, backend) } else { (backend, client) };
        let error = thread::scope(|scope| {
            let error = scope.spawn(|| {
                loop {
                    if let Err(error) = sender.write_all(&[b'x'; 10_000]) {
                        return error.kind();
                    }
                }
            });
            super::Read::read_exact(&mut &receiver, &mut vec![0; 5_000_000]).unwrap();
            reset(receiver);
            error.join().unwrap()
        });
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error), "{error}");
        site.wait_until_all_have_ended();
    }
}

/// Both ends of a connection that passes are told the same as those of a relayed one.
#[test]
fn a_removal_resets() {
    let site = Site::new();
    let mut relayed = site.connect();
    relayed.turn(10, 10);
    let passing = [site.connect_passing(), site.connect_passing()];
    site.node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
    for pair in passing.iter().chain([&relayed]) {
        assert_eq!([&pair.client, &pair.backend].map(told), [RESET; 2]);
    }
    site.node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    site.connect_passing().end();
    site.wait_until_all_have_ended();
}

/// The same while data is on its way.
#[test]
fn a_removal_resets_streams() {
    let site = Site::new();
    for _ in 0..3 {
        let mut pair = site.connect_passing();
        let ended = AtomicBool::new(false);
        let error = thread::scope(|scope| {
            let turns = scope.spawn(|| {
                let mut turns = 0;
                loop {
                    if let Err(error) = pair.try_turn(500_000, 500_000) {
                        ended.store(true, Ordering::Relaxed);
                        return (turns, error.kind());
                    }
                    turns += 1;
                }
            });
            thread::sleep(Duration::from_millis(100));
            site.node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
            wait_until("it has ended", || ended.load(Ordering::Relaxed));
            turns.join().unwrap().1
        });
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error), "{error}");
        site.node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    }
}

/// Turns until the connection has ended; gives when that was, and how.
fn turn_to_the_end(pair: &mut Pair) -> (Instant, ErrorKind) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it goes on");
        if let Err(error) = pair.try_turn(100, 100) {
            return (Instant::now(), error.kind());
        }
    }
}

#[test]
fn a_drain_has_a_deadline() {
    let site = Site::with(&[], &["--drain-timeout", "2s"]);
    let (mut busy, silent) = (site.connect_passing(), site.connect_passing());
    let began = Instant::now();
    site.node.ringlb(&["backend", "drain", "net", "web", "10.0.0.11"]);
    let (ended, error) = turn_to_the_end(&mut busy);
    assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error), "{error}");
    assert!(ended - began >= Duration::from_secs(2), "{:?}", ended - began);
    assert_eq!([&silent.client, &silent.backend].map(told), [RESET; 2]);
    site.wait_until_all_have_ended();
}

/// What passes is looked at once a second.
#[test]
fn a_connection_that_passes_is_not_idle() {
    let site = Site::with(&[], &["--idle-timeout", "1s"]);
    let mut pair = site.connect_passing();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        pair.turn(10, 10);
        thread::sleep(Duration::from_millis(50));
    }
    site.wait_until_it_passes(&mut pair);
    assert_eq!([&pair.client, &pair.backend].map(told), [RESET; 2]);
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), pair.sent());
}
