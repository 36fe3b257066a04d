//! What happens at a limit, and what an idle connection costs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{BackendSpec, Change};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use support::{Options, Proxy, backend, echo, serve, service};

/// At the descriptor limit new connections are refused, counted and logged; the old ones stay, and when one has ended
/// there is room for another.
#[test]
fn the_descriptor_limit_refuses_and_goes_on() {
    let options = Options { descriptors: Some(200), ..Options::default() };
    let mut proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    let limit = usize::try_from(proxy.hello.features.max_connections).unwrap();
    assert!((10..100).contains(&limit), "{limit}");
    serve(1, proxy.target.port(), echo);
    let ping = |client: &mut std::net::TcpStream| {
        client.write_all(b"p").and_then(|()| client.read_exact(&mut [0])).map_err(|error| error.kind())
    };
    let mut open: Vec<_> = (0..limit).map(|_| proxy.connect()).collect();
    for client in &mut open {
        assert_eq!(ping(client), Ok(()));
    }
    for _ in 0..300 {
        let outcome = proxy.try_connect().map_err(|error| error.kind()).and_then(|mut client| ping(&mut client));
        assert!(matches!(outcome, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{outcome:?}");
    }
    for client in &mut open {
        assert_eq!(ping(client), Ok(()));
    }
    assert_eq!(proxy.statistics().proxy.refused_at_limit, 300);
    open.truncate(limit - 5);
    proxy.wait_for("there is room", |s| s.proxy.active == limit as u64 - 5);
    assert_eq!(ping(&mut proxy.connect()), Ok(()));
    let (code, log) = proxy.shut_down();
    assert_eq!(code, Some(0));
    let lines = log.lines().filter(|line| line.contains("connections are refused")).count();
    assert!((1..30).contains(&lines), "{lines} lines for 300 refusals:\n{log}");
}

/// Whoever read the log is gone: the proxy goes on without it.
#[test]
fn a_log_that_nobody_reads_is_no_reason_to_end() {
    let options = Options { descriptors: Some(200), ..Options::default() };
    let mut proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    let limit = usize::try_from(proxy.hello.features.max_connections).unwrap();
    serve(1, proxy.target.port(), echo);
    drop(proxy.child.stderr.take());
    let open: Vec<_> = (0..limit).map(|_| proxy.connect()).collect();
    proxy.wait_for("all are open", |s| s.proxy.active == limit as u64);
    // One more is refused, which is worth a line in the log.
    drop(proxy.try_connect());
    let statistics = proxy.wait_for("one is refused", |s| s.proxy.refused_at_limit > 0);
    assert_eq!(statistics.proxy.active, open.len() as u64);
}

/// Every descriptor of the process is taken, as by a leak: connections are refused or wait, and are served when there
/// are descriptors again. The operations that accept one connection each meet the limit too (io_uring looks at the
/// limit when an accept is submitted).
#[test]
fn running_out_of_descriptors_is_survived() {
    let options = Options { arguments: vec!["--one-shot-accept"], ..Options::default() };
    let mut proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let pid = proxy.child.id().to_string();
    let set = |soft: &str| {
        let limit = format!("--nofile={soft}:");
        let done = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
        assert!(done.success());
    };
    // Below what is open already.
    set("5");
    let mut clients: Vec<_> = (0..40).filter_map(|_| proxy.try_connect().ok()).collect();
    proxy.wait_for("accepting fails too", |s| s.proxy.refused_at_limit > s.proxy.accepted);
    set("1024");
    let served = clients
        .iter_mut()
        .filter_map(|client| client.write_all(b"p").and_then(|()| client.read_exact(&mut [0])).ok())
        .count();
    let statistics = proxy.statistics();
    assert!(served > 0, "those that waited were not served: {statistics:?}");
    assert_eq!(statistics.services[0].backends[0].connect_failures, 0, "it is not the backend's fault");
    let mut later = proxy.connect();
    later.write_all(b"p").unwrap();
    later.read_exact(&mut [0]).unwrap();
}

/// 8,000 connections that have been used and are idle now: what one costs in the proxy's anonymous memory.
#[test]
fn an_idle_connection_holds_no_buffer() {
    const CONNECTIONS: u64 = 8_000;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 20_000, 20_000).unwrap();
    let mut proxy = Proxy::start(&[backend(1)]);
    let listener = support::listen(std::net::SocketAddr::new(support::address(1), proxy.target.port()));
    let before = proxy.anonymous_memory();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = proxy.connect();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"there").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"back").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        open.push((client, server));
    }
    assert_eq!(proxy.statistics().proxy.active, CONNECTIONS);
    let bytes = (proxy.anonymous_memory() - before) * 1024 / CONNECTIONS;
    println!("{bytes} bytes of anonymous memory for an idle connection");
    assert!(bytes <= 1536, "{bytes} bytes for an idle connection");
}

/// A proxy that has nothing to do: the memory for buffers is not used before something is received.
#[test]
fn an_idle_proxy_takes_little_memory() {
    let proxy = Proxy::start(&[backend(1)]);
    let kib = proxy.anonymous_memory();
    println!("{kib} KiB of anonymous memory");
    assert!(kib <= 3 * 1024, "{kib} KiB");
    // Where the kernel makes them unasked, huge pages would be more than all the rest.
    assert_eq!(proxy.status("THP_enabled"), "0");
}

/// A network of 1,000 services with 100 backends each, made one service after the other.
#[test]
fn a_backend_takes_little_memory() {
    const SERVICES: u16 = 1_000;
    const BACKENDS: u8 = 100;
    let mut proxy = Proxy::start(&[]);
    let before = proxy.anonymous_memory();
    for number in 0..SERVICES {
        let [high, low] = number.to_be_bytes();
        let address = |n| BackendSpec { address: Ipv4Addr::new(10, high, low, n).into(), ..backend(1) };
        let backends: Vec<_> = (0..BACKENDS).map(address).collect();
        let vip = Ipv4Addr::new(10, 200, high, low).into();
        let spec = service(&format!("service-{number}"), vip, Default::default(), &backends);
        proxy.change(vec![Change::PutService(spec.into())]);
    }
    let bytes = (proxy.anonymous_memory() - before) * 1024 / (u64::from(SERVICES) * u64::from(BACKENDS));
    println!("{bytes} bytes of anonymous memory for a backend");
    assert!(bytes <= 160, "{bytes} bytes for a backend");
}
