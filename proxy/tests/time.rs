//! How long connections and attempts last.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{BackendSpec, ServiceSettings};
use ringlb_proxy::control::settings::{
    DrainPolicy, DrainTimeout, IdleTimeout, MaxLifetime, Retries, RetryBudget, RetryMinimum, RetryPercent,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::{Proxy, address, backend, echo, patience, serve, service};

/// Puts the service again, with these settings.
fn set(proxy: &mut Proxy, backends: &[BackendSpec], settings: ServiceSettings) {
    let mut spec = service("s", proxy.target.ip(), Default::default(), backends);
    spec.settings = settings;
    proxy.snapshot(vec![spec]);
}

fn ping(client: &mut TcpStream) {
    client.write_all(b"p").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn is_reset(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn an_idle_connection_is_reset_and_a_busy_one_is_not() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let (mut idle, mut busy) = (proxy.connect(), proxy.connect());
    ping(&mut idle);
    ping(&mut busy);
    // Set while both are open.
    let timeout = IdleTimeout(Some(Duration::from_secs(2)));
    set(&mut proxy, &[backend(1)], ServiceSettings { idle_timeout: timeout, ..ServiceSettings::default() });
    idle.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + patience();
    while !is_reset(&mut idle) {
        assert!(Instant::now() < deadline, "the idle connection goes on");
        ping(&mut busy);
        std::thread::sleep(Duration::from_millis(50));
    }
    ping(&mut busy);
    assert_eq!(proxy.statistics().proxy.idle_resets, 1);

    // Taken back while one is open that would be next.
    set(&mut proxy, &[backend(1)], ServiceSettings::default());
    std::thread::sleep(Duration::from_secs(4));
    ping(&mut busy);
    assert_eq!(proxy.statistics().proxy.idle_resets, 1);
}

/// Data that flows in one direction only, spliced, is no idleness for the other.
#[test]
fn a_bulk_transfer_is_not_idle() {
    let mut proxy = Proxy::start(&[]);
    // Longer than a slow machine takes to make room in full socket buffers: until then nothing moves.
    let timeout = patience() / 10;
    let settings = ServiceSettings { idle_timeout: IdleTimeout(Some(timeout)), ..ServiceSettings::default() };
    set(&mut proxy, &[backend(1)], settings);
    // As fast as it can: what the client takes is what flows.
    serve(1, proxy.target.port(), |mut stream| while stream.write_all(&[0; 64 * 1024]).is_ok() {});
    let mut client = proxy.connect();
    let mut buffer = vec![0; 64 * 1024];
    let started = Instant::now();
    while started.elapsed() < 3 * timeout {
        client.read_exact(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let statistics = proxy.statistics();
    assert_eq!(statistics.proxy.idle_resets, 0);
    assert!(statistics.ring.spliced_bytes > 0);
}

#[test]
fn a_connection_ends_with_its_lifetime_and_not_before() {
    let mut proxy = Proxy::start(&[]);
    let lifetime = MaxLifetime(Some(Duration::from_secs(4)));
    set(&mut proxy, &[backend(1)], ServiceSettings { max_lifetime: lifetime, ..ServiceSettings::default() });
    serve(1, proxy.target.port(), echo);
    let opened = Instant::now();
    let (mut silent, mut busy) = (proxy.connect(), proxy.connect());
    silent.set_nonblocking(true).unwrap();
    // Busy without a pause, it lasts its whole time; the silent one may end in the last tenth of it.
    let mut silent_ended = None;
    loop {
        if silent_ended.is_none() && is_reset(&mut silent) {
            silent_ended = Some(opened.elapsed());
        }
        if busy.write_all(b"p").and_then(|()| busy.read_exact(&mut [0])).is_err() {
            break;
        }
        assert!(opened.elapsed() < patience(), "the busy connection goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(opened.elapsed() >= Duration::from_secs(4), "{:?}", opened.elapsed());
    assert!(silent_ended.is_none_or(|after| after >= Duration::from_millis(3600)), "{silent_ended:?}");
    proxy.wait_for("both ended by their lifetime", |statistics| statistics.proxy.lifetime_resets == 2);
}

#[test]
fn connections_of_a_kept_drain_outlive_the_deadline() {
    let mut proxy = Proxy::start(&[]);
    let settings = |drain_policy| ServiceSettings {
        drain_timeout: DrainTimeout(Some(Duration::from_millis(300))),
        drain_policy,
        ..ServiceSettings::default()
    };
    set(&mut proxy, &[backend(1)], settings(DrainPolicy::Keep));
    serve(1, proxy.target.port(), echo);
    let mut client = proxy.connect();
    ping(&mut client);
    let drained = BackendSpec { draining: true, ..backend(1) };
    proxy.put_backend(drained.clone());
    std::thread::sleep(Duration::from_millis(900));
    ping(&mut client);
    // A policy that is changed counts for what drains already.
    set(&mut proxy, &[drained], settings(DrainPolicy::Reset));
    assert!(is_reset(&mut client));
    assert_eq!(proxy.statistics().proxy.drain_resets, 1);
}

/// Backends 1 to 4 refuse; 5 serves.
fn start_with_one_of_five() -> Proxy {
    let proxy = Proxy::start(&[]);
    serve(5, proxy.target.port(), echo);
    proxy
}

#[test]
fn so_many_retries_as_are_set() {
    let mut proxy = start_with_one_of_five();
    let backends: Vec<_> = (1..=5).map(backend).collect();
    let settings = |retries| ServiceSettings { retries: Retries(retries), ..ServiceSettings::default() };
    set(&mut proxy, &backends, settings(4));
    for _ in 0..5 {
        ping(&mut proxy.connect());
    }
    let statistics = proxy.statistics().proxy;
    assert_eq!((statistics.retries, statistics.retries_denied), (statistics.connect_failures, 0));
    assert!(statistics.retries >= 4, "{statistics:?}");

    set(&mut proxy, &backends[..2], settings(0));
    assert!(proxy.try_connect().map_or(true, |mut client| is_reset(&mut client)));
    let after = proxy.statistics().proxy;
    assert_eq!((after.retries, after.retries_denied, after.no_backend), (statistics.retries, 1, 1));
}

#[test]
fn a_budget_without_retries_allows_none() {
    let mut proxy = start_with_one_of_five();
    let backends: Vec<_> = (1..=4).map(backend).collect();
    let budget = |percent, minimum| ServiceSettings {
        retry_budget: RetryBudget { percent: RetryPercent(percent), minimum: RetryMinimum(minimum) },
        ..ServiceSettings::default()
    };
    set(&mut proxy, &backends, budget(0, 0));
    for _ in 0..10 {
        assert!(proxy.try_connect().map_or(true, |mut client| is_reset(&mut client)));
    }
    let statistics = proxy.statistics().proxy;
    assert_eq!((statistics.connect_failures, statistics.retries, statistics.retries_denied), (10, 0, 10));

    // One retry for each connection, together: the ten above count too.
    set(&mut proxy, &backends, budget(100, 0));
    for _ in 0..10 {
        assert!(proxy.try_connect().map_or(true, |mut client| is_reset(&mut client)));
    }
    let statistics = proxy.statistics().proxy;
    assert!((10..=20).contains(&statistics.retries), "{statistics:?}");
}

/// The kernel shows the timers of connections in /proc/net/tcp: 02 is the keepalive timer (Documentation/networking/
/// proc_net_tcp.rst).
#[test]
fn connections_that_last_have_keepalive() {
    let proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let mut client = proxy.connect();
    ping(&mut client);
    let towards_client = (proxy.target, client.local_addr().unwrap());
    let towards_backend = SocketAddr::new(address(1), proxy.target.port());
    let has_keepalive = |local: Option<SocketAddr>, remote: SocketAddr| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let fits = fields[2] == hexadecimal(remote) && local.is_none_or(|local| fields[1] == hexadecimal(local));
            fits && fields[3] == "01" && fields[5].starts_with("02:")
        })
    };
    let deadline = Instant::now() + patience();
    while !(has_keepalive(Some(towards_client.0), towards_client.1) && has_keepalive(None, towards_backend)) {
        assert!(Instant::now() < deadline, "no keepalive: {}", std::fs::read_to_string("/proc/net/tcp").unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    ping(&mut client);
}

fn hexadecimal(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not an IPv4 address") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}
