//! What the daemon can make a proxy do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use ringlb_proxy::control::frame::encode;
use ringlb_proxy::control::message::{BackendSpec, Change, Delta, Reply, Request, Snapshot};
use ringlb_proxy::control::settings::{
    CheckInterval, CheckPort, CheckTimeout, ConnectTimeout, DrainTimeout, PanicThreshold,
};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use support::{Proxy, address, backend, echo, serve, service};

/// Sends a byte and gives it back, or the error.
fn ping(client: &mut TcpStream) -> Result<(), ErrorKind> {
    client.write_all(b"p").map_err(|error| error.kind())?;
    client.read_exact(&mut [0]).map_err(|error| error.kind())
}

/// Whom a new connection reaches: each backend sends its number.
fn whom(proxy: &Proxy) -> u8 {
    let mut number = [0];
    proxy.connect().read_exact(&mut number).unwrap();
    number[0]
}

/// Whether a new connection is reset.
fn refuses(proxy: &Proxy) -> bool {
    let outcome = proxy.try_connect().and_then(|mut client| client.read(&mut [0]));
    matches!(outcome.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset))
}

fn serve_numbers(proxy: &Proxy, numbers: std::ops::RangeInclusive<u8>) {
    for n in numbers {
        serve(n, proxy.target.port(), move |mut stream| {
            let _ = stream.write_all(&[n]);
            echo(stream);
        });
    }
}

#[test]
fn a_removed_backend_loses_its_connections_and_no_other_does() {
    let mut proxy = Proxy::start(&[backend(1), backend(2)]);
    serve_numbers(&proxy, 1..=2);
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = proxy.connect();
            let mut number = [0];
            client.read_exact(&mut number).unwrap();
            (number[0], client)
        })
        .collect();
    proxy.remove_backend(address(1));
    for (number, client) in &mut clients {
        let outcome = ping(client);
        assert_eq!(outcome.is_ok(), *number == 2, "backend {number}: {outcome:?}");
        if *number == 1 {
            assert!(matches!(outcome, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{outcome:?}");
        }
    }
    for _ in 0..10 {
        assert_eq!(whom(&proxy), 2);
    }
    assert_eq!(proxy.statistics().proxy.removed_resets, 10);
}

#[test]
fn a_removed_service_is_reset_and_its_vip_refuses() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve_numbers(&proxy, 1..=1);
    let mut client = proxy.connect();
    client.read_exact(&mut [0]).unwrap();
    proxy.change(vec![Change::RemoveService { service: "s".into() }]);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(refuses(&proxy));
    assert_eq!(proxy.statistics().proxy.no_service, 1);
}

#[test]
fn a_draining_backend_keeps_its_connections_until_the_deadline() {
    let mut proxy = Proxy::start(&[]);
    let mut spec = service("s", proxy.target.ip(), Default::default(), &[backend(1), backend(2)]);
    spec.settings.drain_timeout = DrainTimeout(Some(Duration::from_millis(600)));
    proxy.snapshot(vec![spec]);
    serve_numbers(&proxy, 1..=2);
    let mut old = proxy.connect();
    let mut number = [0];
    old.read_exact(&mut number).unwrap();
    let drained = BackendSpec { draining: true, ..backend(number[0]) };
    proxy.put_backend(drained.clone());
    for _ in 0..10 {
        assert_ne!(whom(&proxy), number[0]);
    }
    assert_eq!(ping(&mut old), Ok(()));

    // Put back before the deadline, nothing happens at the deadline.
    proxy.put_backend(backend(number[0]));
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(ping(&mut old), Ok(()));

    proxy.put_backend(drained);
    assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let statistics = proxy.statistics();
    assert_eq!((statistics.proxy.drain_resets, statistics.proxy.removed_resets), (1, 0));
}

#[test]
fn a_failed_connect_goes_to_another_backend() {
    let mut proxy = Proxy::start(&[backend(1), backend(2), backend(3)]);
    serve_numbers(&proxy, 3..=3);
    for _ in 0..30 {
        assert_eq!(whom(&proxy), 3);
    }
    let statistics = proxy.statistics();
    assert!(statistics.proxy.retries > 0 && statistics.proxy.no_backend == 0, "{statistics:?}");
    // The third attempt is the last one.
    proxy.snapshot(vec![service(
        "s",
        proxy.target.ip(),
        Default::default(),
        &[backend(11), backend(12), backend(13), backend(14)],
    )]);
    let before = proxy.statistics().proxy.connect_failures;
    assert!(refuses(&proxy));
    assert_eq!(proxy.statistics().proxy.connect_failures - before, 3);
}

/// A backend that answers no SYN, because its accept queue is full, as long as what is given back lives.
fn silent_backend(n: u8, port: u16) -> Vec<Socket> {
    let target = SocketAddr::new(address(n), port).into();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&target).unwrap();
    listener.listen(0).unwrap();
    let fill = || {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        // It is in progress, or waits for ever.
        let _ = filler.connect(&target);
        filler
    };
    let mut sockets: Vec<_> = (0..3).map(|_| fill()).collect();
    sockets.push(listener);
    sockets
}

/// Only the connect timeout helps.
#[test]
fn a_backend_that_does_not_answer_is_given_up() {
    let mut proxy = Proxy::start(&[]);
    let _silent = silent_backend(1, proxy.target.port());
    serve_numbers(&proxy, 2..=2);
    let mut spec = service("s", proxy.target.ip(), Default::default(), &[backend(1), backend(2)]);
    spec.settings.connect_timeout = ConnectTimeout(Duration::from_millis(200));
    proxy.snapshot(vec![spec]);
    for _ in 0..4 {
        assert_eq!(whom(&proxy), 2);
    }
    assert_eq!(proxy.statistics().services[0].backends[0].connect_failures, 2);
}

#[test]
fn a_connection_waiting_for_a_removed_backend_goes_elsewhere() {
    let mut proxy = Proxy::start(&[]);
    let _silent = silent_backend(1, proxy.target.port());
    let mut spec = service("s", proxy.target.ip(), Default::default(), &[backend(1)]);
    spec.settings.connect_timeout = ConnectTimeout(Duration::from_secs(60));
    proxy.snapshot(vec![spec]);
    let mut client = proxy.connect();
    proxy.wait_for("it connects", |s| s.services[0].backends[0].active == 1);
    serve_numbers(&proxy, 2..=2);
    proxy.change(vec![
        Change::PutBackend { service: "s".into(), backend: backend(2) },
        Change::RemoveBackend { service: "s".into(), address: address(1) },
    ]);
    let mut number = [0];
    client.read_exact(&mut number).unwrap();
    assert_eq!(number, [2]);
}

/// A backend that is gone without a word drains, or fails its checks, long before the attempt's time is over.
#[test]
fn a_connection_waiting_for_a_backend_that_gets_no_more_goes_elsewhere() {
    let mut proxy = Proxy::start(&[]);
    let _silent = silent_backend(1, proxy.target.port());
    serve_numbers(&proxy, 2..=2);
    let mut spec = service("s", proxy.target.ip(), Default::default(), &[backend(1)]);
    spec.settings.connect_timeout = ConnectTimeout(Duration::from_secs(60));
    proxy.snapshot(vec![spec.clone()]);
    let wait_in_vain = |proxy: &mut Proxy| {
        let client = proxy.connect();
        proxy.wait_for("it connects", |s| s.services[0].backends[0].active == 1);
        client
    };
    let whom = |mut client: TcpStream| {
        let mut number = [0];
        client.read_exact(&mut number).unwrap();
        number[0]
    };
    let put = |backend| Change::PutBackend { service: "s".into(), backend };

    let client = wait_in_vain(&mut proxy);
    let drained = BackendSpec { draining: true, ..backend(1) };
    proxy.change(vec![put(drained.clone())]);
    // Nobody else is there, and it may answer yet.
    assert_eq!(proxy.statistics().services[0].backends[0].active, 1);
    proxy.change(vec![put(backend(1))]);
    proxy.change(vec![put(backend(2)), put(drained)]);
    assert_eq!(whom(client), 2);

    spec.backends = vec![backend(1)];
    proxy.snapshot(vec![spec.clone()]);
    let client = wait_in_vain(&mut proxy);
    spec.backends.push(backend(2));
    spec.settings.health_check.port = CheckPort(proxy.target.port());
    spec.settings.health_check.interval = CheckInterval(Duration::from_millis(100));
    spec.settings.health_check.timeout = CheckTimeout(Duration::from_millis(100));
    spec.settings.panic_threshold = PanicThreshold(0);
    proxy.snapshot(vec![spec]);
    assert_eq!(whom(client), 2);
}

#[test]
fn requests_that_do_not_apply_change_nothing() {
    let mut proxy = Proxy::start(&[backend(1)]);
    let refused = |reply: Reply, part: &str| match reply {
        Reply::Refused { generation: 1, reason } => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    };
    let wrong_start = Request::Delta(Delta { from: 7, to: 8, changes: vec![] });
    refused(proxy.request(&wrong_start), "send a snapshot");
    let unknown = Change::RemoveService { service: "none".into() };
    let half = vec![Change::RemoveService { service: "s".into() }, unknown];
    refused(proxy.request(&Request::Delta(Delta { from: 1, to: 2, changes: half })), "no service");
    refused(proxy.request(&Request::Snapshot(Snapshot { generation: 1, services: vec![] })), "not newer");
    assert_eq!(proxy.statistics().services.len(), 1);
}

/// A packet that is not understood closes its connection; the table, the other connections and the proxy stay.
#[test]
fn garbage_closes_the_control_connection() {
    let mut proxy = Proxy::start(&[backend(1)]);
    let good = encode(&Request::Statistics).unwrap().remove(0);
    let mut wrong_version = good.clone();
    wrong_version[4] ^= 0x40;
    let mut more_than_it_says = good.clone();
    more_than_it_says.push(0);
    let snapshot = Request::Snapshot(Snapshot {
        generation: 99,
        services: vec![service("x", proxy.target.ip(), Default::default(), &[backend(1)]).into()],
    });
    let cut = encode(&snapshot).unwrap().remove(0);
    let long_claim = [&good[..8], &[0, 99, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let cases: Vec<Vec<u8>> = vec![
        b"x".to_vec(),
        vec![0xff; 1000],
        wrong_version,
        more_than_it_says,
        cut[..cut.len() - 3].to_vec(),
        long_claim,
        [&good[..6], &[0xff, 0xff], &good[8..]].concat(),
        vec![0; 100_000],
    ];
    for (number, packet) in cases.iter().enumerate() {
        let control = proxy.connect_control();
        control.socket.send(packet).unwrap();
        assert!(control.is_closed(), "case {number} was not closed");
    }
    let statistics = proxy.statistics();
    assert_eq!((statistics.generation, statistics.services.len()), (1, 1));
}

/// A table that needs many packets.
#[test]
fn a_large_table_arrives_whole() {
    let mut proxy = Proxy::start(&[]);
    let services = (0..2_000u32).map(|index| {
        let [_, _, high, low] = index.to_be_bytes();
        let backends: Vec<_> = (1..=50).map(backend).collect();
        service(&format!("service-{index}"), [127, 9, high, low].into(), Default::default(), &backends)
    });
    proxy.snapshot(services.collect());
    let statistics = proxy.statistics();
    assert_eq!(statistics.services.len(), 2_000);
    assert!(statistics.services.iter().all(|service| service.backends.len() == 50));
}

/// A proxy that takes a dead one's place finds connections in the listener's queue before it has a table.
#[test]
fn connections_wait_for_the_first_table() {
    let mut proxy = Proxy::start_without_table(&Default::default());
    serve_numbers(&proxy, 1..=1);
    let mut waiting = proxy.connect();
    // Another answer shows that the proxy is up and had its chance to go wrong.
    assert_eq!(proxy.statistics().proxy.accepted, 0);
    proxy.snapshot(vec![service("s", proxy.target.ip(), Default::default(), &[backend(1)])]);
    let mut number = [0];
    waiting.read_exact(&mut number).unwrap();
    assert_eq!(number, [1]);
}

#[test]
fn shutdown_resets_what_is_open_and_ends() {
    let proxy = Proxy::start(&[backend(1)]);
    serve_numbers(&proxy, 1..=1);
    let mut client = proxy.connect();
    client.read_exact(&mut [0]).unwrap();
    let (code, log) = proxy.shut_down();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// So that one that does not answer any more can be found by its control socket.
#[test]
fn whoever_connects_learns_which_process_the_proxy_is() {
    let proxy = Proxy::start(&[]);
    let peer = getsockopt(&proxy.connect_control().socket, PeerCredentials).unwrap();
    assert_eq!(peer.pid().cast_unsigned(), proxy.child.id());
}
