//! Sockets towards backends, which further connections use again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::BackendSpec;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Proxy, backend, echo, exchange_pattern, listen, patience, reset, serve};

/// The sockets that the proxy has, by their inodes.
fn sockets(proxy: &Proxy) -> BTreeSet<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id())).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.map(|target| target.display().to_string()).filter(|target| target.starts_with("socket:")).collect()
}

fn of_both_families() -> [BackendSpec; 2] {
    [backend(1), BackendSpec { address: IpAddr::V6(Ipv6Addr::LOCALHOST), ..backend(1) }]
}

fn serve_echo(proxy: &Proxy, backend: &BackendSpec) {
    let listener = listen(SocketAddr::new(backend.address, proxy.target.port()));
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(echo));
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !condition() {
        assert!(Instant::now() < deadline, "{what} in time");
        sleep(Duration::from_millis(1));
    }
}

fn ping(client: &mut TcpStream) {
    client.write_all(b"p").and_then(|()| client.read_exact(&mut [0])).unwrap();
}

fn wait_until_closed(proxy: &mut Proxy) {
    proxy.wait_for("all connections are closed", |statistics| statistics.proxy.active == 0);
}

/// Whether a connection is seen that has the socket of the one before, and nothing else of it.
fn one_takes_the_socket_of_another(proxy: &mut Proxy, before: &BTreeSet<String>) -> bool {
    let mut first = proxy.connect();
    ping(&mut first);
    let during = sockets(proxy);
    assert_eq!(during.difference(before).count(), 2, "a client's and a backend's");
    drop(first);
    wait_until_closed(proxy);
    let kept = &sockets(proxy) - before;
    let mut second = proxy.connect();
    ping(&mut second);
    // On a busy machine it may have been closed meanwhile: nobody needed it.
    let taken = &sockets(proxy) & &kept;
    drop(second);
    wait_until_closed(proxy);
    assert!(kept.len() <= 1 && kept.is_subset(&during), "{kept:?}");
    taken.len() == 1
}

#[test]
fn a_connection_takes_the_socket_of_one_that_is_over() {
    for spec in of_both_families() {
        let mut proxy = Proxy::start(std::slice::from_ref(&spec));
        serve_echo(&proxy, &spec);
        let before = sockets(&proxy);
        let deadline = Instant::now() + patience();
        while !one_takes_the_socket_of_another(&mut proxy, &before) {
            assert!(Instant::now() < deadline, "no socket is used again");
        }
        until("what nobody needs is closed", || sockets(&proxy) == before);
        assert_eq!(proxy.statistics().proxy.connect_failures, 0);
    }
}

/// A connection to a backend of one family does not get a socket of the other.
#[test]
fn families_have_sockets_of_their_own() {
    let backends = of_both_families();
    let mut proxy = Proxy::start(&backends);
    backends.iter().for_each(|spec| serve_echo(&proxy, spec));
    (0..50).for_each(|_| ping(&mut proxy.connect()));
    wait_until_closed(&mut proxy);
    let statistics = proxy.statistics();
    let counts: Vec<_> = statistics.services[0].backends.iter().map(|backend| backend.connections).collect();
    assert_eq!((statistics.proxy.connect_failures, counts), (0, vec![25, 25]));
}

/// What could matter to another connection: options of a service, grown buffers, an end that was not a good one.
#[test]
fn a_socket_that_is_not_as_it_was_is_closed() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let before = sockets(&proxy);
    let mut client = proxy.connect();
    ping(&mut client);
    sleep(Duration::from_secs(1));
    ping(&mut client);
    drop(client);
    wait_until_closed(&mut proxy);
    assert_eq!(sockets(&proxy), before, "it may have got options");

    let mut client = proxy.connect();
    let bytes = 1024 * 1024;
    assert_eq!(exchange_pattern(&mut client, bytes).unwrap(), bytes);
    drop(client);
    wait_until_closed(&mut proxy);
    assert_eq!(sockets(&proxy), before, "its buffers may have grown");

    let mut client = proxy.connect();
    ping(&mut client);
    reset(client);
    wait_until_closed(&mut proxy);
    assert_eq!(sockets(&proxy), before, "it was reset");
}

/// A backend that says goodbye and then resets what still comes: the next connection does not hear of it.
#[test]
fn what_went_wrong_after_the_end_is_not_the_next_ones() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), |mut stream| {
        let _ = stream.read(&mut [0]);
        let _ = stream.write_all(b"a");
        let _ = stream.shutdown(Shutdown::Write);
        // Closed with the first byte that comes after that, which is answered by a reset, as all others.
        let _ = stream.read(&mut [0]);
    });
    for _ in 0..100 {
        let mut client = proxy.connect();
        client.write_all(b"q").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"a");
        let _ = client.write_all(b"too ").and_then(|()| client.write_all(b"late"));
        drop(client);
        wait_until_closed(&mut proxy);
    }
    let statistics = proxy.statistics();
    assert_eq!((statistics.proxy.connect_failures, statistics.services[0].backends[0].connections), (0, 100));
}

/// Where clients have always spoken first, the backend hears of a connection with the client's first bytes. One that speaks
/// first itself all at once, and a client that says nothing, are served all the same.
#[test]
fn who_speaks_first_may_change() {
    let mut proxy = Proxy::start(&[backend(1)]);
    let greets = Arc::new(AtomicBool::new(false));
    let does_greet = Arc::clone(&greets);
    serve(1, proxy.target.port(), move |mut stream| {
        if does_greet.load(Ordering::Relaxed) {
            let _ = stream.write_all(b"hello");
        }
        echo(stream);
    });
    for round in 1..=3 {
        greets.store(false, Ordering::Relaxed);
        (0..100).for_each(|_| ping(&mut proxy.connect()));
        greets.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let mut client = proxy.connect();
            let mut greeting = [0; 5];
            client.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"hello");
            ping(&mut client);
        }
        greets.store(false, Ordering::Relaxed);
        (0..100).for_each(|_| ping(&mut proxy.connect()));
        drop(proxy.connect());
        wait_until_closed(&mut proxy);
        assert_eq!(proxy.statistics().services[0].backends[0].connections, round * 204);
    }
    assert_eq!(proxy.statistics().proxy.connect_failures, 0);
}
