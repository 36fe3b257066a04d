//! Algorithms through a real proxy: shares by weight, and clients that keep their backends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{Algorithm, BackendSpec};
use ringlb_proxy::control::settings::EjectionFailures;
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::IpAddr;
use support::{Options, Proxy, backend, service};

fn start(algorithm: Algorithm, backends: &[BackendSpec]) -> Proxy {
    Proxy::start_with(&Options::default(), algorithm, backends)
}

/// Backends that say their number.
fn serve(proxy: &Proxy, numbers: impl Iterator<Item = u8>) {
    for n in numbers {
        support::serve(n, proxy.target.port(), move |mut stream| drop(stream.write_all(&[n])));
    }
}

fn client(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 3, number])
}

/// The number of the backend that a connection from that address reaches.
fn reached(proxy: &Proxy, from: IpAddr) -> u8 {
    let mut name = [0];
    proxy.connect_from(from).read_exact(&mut name).unwrap();
    name[0]
}

/// Where each of many clients gets.
fn map(proxy: &Proxy) -> HashMap<IpAddr, u8> {
    (1..=100).map(client).map(|client| (client, reached(proxy, client))).collect()
}

/// Turns go on from table to table, so the shares are those of one sequence: 60, 120 and 300 of 480, within 2 + log_φ(480)
/// = 14.8.
#[test]
fn weighted_round_robin_follows_the_weights() {
    let weighted = |n, weight| BackendSpec { weight, ..backend(n) };
    let mut proxy = start(Algorithm::Wrr, &[weighted(1, 1), weighted(2, 2), weighted(3, 5), weighted(4, 0)]);
    serve(&proxy, 1..=4);
    let mut counts = HashMap::<u8, u64>::new();
    for batch in 0..12 {
        for _ in 0..40 {
            *counts.entry(reached(&proxy, client(1))).or_default() += 1;
        }
        proxy.put_backend(BackendSpec { weight: 0, ..backend(10 + batch) });
    }
    for (n, share) in [(1, 60), (2, 120), (3, 300)] {
        assert!(counts[&n].abs_diff(share) <= 14, "{counts:?}");
    }
    assert_eq!(counts.len(), 3, "{counts:?}");
}

/// The other backends' shares follow when a weight changes.
#[test]
fn a_changed_weight_counts_at_once() {
    let mut proxy = start(Algorithm::Wrr, &[backend(1), backend(2)]);
    serve(&proxy, 1..=2);
    proxy.put_backend(BackendSpec { weight: 0, ..backend(1) });
    assert!((0..20).all(|_| reached(&proxy, client(1)) == 2));
    proxy.put_backend(BackendSpec { weight: 9, ..backend(1) });
    let first = (0..100).filter(|_| reached(&proxy, client(1)) == 1).count();
    assert!(first.abs_diff(90) <= 11, "{first}");
}

/// Clients of several addresses keep their backends: from connection to connection, in tables in which something else
/// changed, while another backend drains, and in another proxy that learnt of the backends in another order.
#[test]
fn a_client_keeps_its_backend() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let backends: Vec<_> = (1..=5).map(backend).collect();
        let mut proxy = start(algorithm, &backends);
        serve(&proxy, 1..=6);
        let first = map(&proxy);
        assert_eq!(first.values().collect::<HashSet<_>>().len(), 5, "{algorithm:?}: {first:?}");
        assert_eq!(map(&proxy), first, "{algorithm:?}: the same table");

        proxy.put_backend(BackendSpec { weight: 0, ..backend(9) });
        proxy.snapshot(vec![
            service("s", proxy.target.ip(), algorithm, &backends),
            service("other", IpAddr::from([127, 0, 1, 2]), algorithm, &backends[..2]),
        ]);
        assert_eq!(map(&proxy), first, "{algorithm:?}: another table, the same backends");

        proxy.put_backend(BackendSpec { draining: true, ..backend(3) });
        assert_moved(algorithm, &first, &map(&proxy), 3);
        proxy.remove_backend(support::address(3));
        assert_moved(algorithm, &first, &map(&proxy), 3);
        proxy.put_backend(backend(3));
        assert_eq!(map(&proxy), first, "{algorithm:?}: the backend is back, at the end of the list");

        proxy.put_backend(backend(6));
        assert_moved(algorithm, &map(&proxy), &first, 6);

        let mut other = start(algorithm, &[]);
        serve(&other, 1..=5);
        for backend in backends.into_iter().rev() {
            other.put_backend(backend);
        }
        assert_eq!(map(&other), first, "{algorithm:?}: another proxy");
    }
}

/// From the table with backend `gone` to the one without: its clients move. With source-hash no others do; with Maglev few
/// others, far below the bound of 1/n on top.
fn assert_moved(algorithm: Algorithm, with: &HashMap<IpAddr, u8>, without: &HashMap<IpAddr, u8>, gone: u8) {
    assert!(without.values().all(|&backend| backend != gone), "{algorithm:?}: {without:?}");
    assert!(with.values().any(|&backend| backend == gone), "{algorithm:?}: {with:?}");
    let others = with.iter().filter(|&(client, &backend)| backend != gone && without[client] != backend).count();
    let most = if algorithm == Algorithm::Maglev { 5 } else { 0 };
    assert!(others <= most, "{algorithm:?}: {others} clients of other backends moved");
}

/// Backends that refuse are passed over, for one client always in favour of the same one.
#[test]
fn a_client_has_a_next_choice() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let mut proxy = Proxy::start_without_table(&Options::default());
        let mut service = service("s", proxy.target.ip(), algorithm, &(1..=3).map(backend).collect::<Vec<_>>());
        // An ejected one would be no choice at all.
        service.settings.ejection.failures = EjectionFailures(0);
        proxy.snapshot(vec![service]);
        serve(&proxy, 1..=2);
        let first = map(&proxy);
        assert_eq!(first.values().collect::<HashSet<_>>(), HashSet::from([&1, &2]), "{algorithm:?}: {first:?}");
        assert_eq!(map(&proxy), first, "{algorithm:?}");
        let statistics = proxy.wait_for("all are closed", |statistics| statistics.proxy.active == 0);
        assert!(statistics.proxy.retries > 0, "{algorithm:?}: nobody's first choice is the one that refuses");
        assert_eq!(statistics.proxy.no_backend, 0);
    }
}
