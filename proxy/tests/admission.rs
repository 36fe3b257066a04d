//! Who may come in, with real connections on several data threads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{BackendSpec, Change, ServiceSettings, ServiceSpec, Statistics};
use ringlb_proxy::control::settings::{
    ClientRate, MaxConnections, MaxConnectionsPerBackend, MaxConnectionsPerClient, Prefixes, Queue, QueueLength,
    QueueTimeout, RateBurst, RatePerSecond,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Options, Proxy, backend, echo, listen, listen_as_group, patience, reset, serve};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 1, 1));

/// A proxy of three data threads, whose service has these settings.
fn start(settings: ServiceSettings, backends: &[BackendSpec]) -> Proxy {
    start_at(VIP, settings, backends)
}

fn start_at(vip: IpAddr, settings: ServiceSettings, backends: &[BackendSpec]) -> Proxy {
    let options =
        Options { arguments: vec!["--threads", "3"], listeners: listen_as_group(vip, 3), ..Options::default() };
    let mut proxy = Proxy::start_without_table(&options);
    proxy.snapshot(vec![spec(vip, settings, backends)]);
    proxy
}

fn spec(vip: IpAddr, settings: ServiceSettings, backends: &[BackendSpec]) -> ServiceSpec {
    ServiceSpec { name: "s".into(), vips: vec![vip], settings, published: Vec::new(), backends: backends.to_vec() }
}

fn set(proxy: &mut Proxy, settings: ServiceSettings, backends: &[BackendSpec]) {
    let vip = proxy.target.ip();
    proxy.change(vec![Change::PutService(Arc::new(spec(vip, settings, backends)))]);
}

fn ping(client: &mut TcpStream) -> Result<(), ErrorKind> {
    client.write_all(b"p").and_then(|()| client.read_exact(&mut [0])).map_err(|error| error.kind())
}

fn ping_once(proxy: &Proxy) -> Result<TcpStream, ErrorKind> {
    let mut client = proxy.try_connect().map_err(|error| error.kind())?;
    ping(&mut client).map(|()| client)
}

fn is_refused<T>(outcome: &Result<T, ErrorKind>) -> bool {
    matches!(outcome, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// Echoes, and notes how many connections there were at most at once.
#[derive(Default)]
struct Watch {
    open: AtomicU64,
    most: AtomicU64,
}

fn serve_watched(n: u8, port: u16) -> Arc<Watch> {
    let watch = Arc::new(Watch::default());
    let watched = Arc::clone(&watch);
    serve(n, port, move |stream| {
        let open = watched.open.fetch_add(1, Ordering::SeqCst) + 1;
        watched.most.fetch_max(open, Ordering::SeqCst);
        let mut copy = stream.try_clone().unwrap();
        let mut buffer = [0];
        // Not `echo`: what is counted out must be so before the proxy can know that the connection is over.
        while let Ok(1) = (&stream).read(&mut buffer) {
            let _ = copy.write_all(&buffer);
        }
        watched.open.fetch_sub(1, Ordering::SeqCst);
    });
    watch
}

/// Nobody is left anywhere.
fn assert_all_given_back(proxy: &mut Proxy) {
    proxy.wait_for("all is given back", |statistics| {
        let active: u64 = statistics.services.iter().flat_map(|service| &service.backends).map(|b| b.active).sum();
        (statistics.proxy.active, statistics.proxy.waiting, active) == (0, 0, 0)
    });
}

/// Many clients at once: never more than the limit, all of the limit is used, and every refusal is counted.
fn race(settings: ServiceSettings, limit: usize, refused: fn(&Statistics) -> u64) {
    const CLIENTS: usize = 60;
    let mut proxy = start(settings, &[backend(1), backend(2)]);
    serve(1, proxy.target.port(), echo);
    serve(2, proxy.target.port(), echo);
    for round in 1..=3 {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ping_once(&proxy))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let inside = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(inside, limit, "round {round}");
        assert!(outcomes.iter().all(|outcome| outcome.is_ok() || is_refused(outcome)), "{outcomes:?}");
        assert_eq!(refused(&proxy.statistics()), (round * (CLIENTS - limit)) as u64);
        drop(outcomes);
        assert_all_given_back(&mut proxy);
    }
    let (_, log) = proxy.shut_down();
    let lines = log.lines().filter(|line| line.contains("connections are refused")).count();
    assert!((1..30).contains(&lines), "{lines} lines:\n{log}");
}

#[test]
fn a_service_has_exactly_its_maximum() {
    let settings = ServiceSettings { max_connections: MaxConnections(7), ..ServiceSettings::default() };
    race(settings, 7, |statistics| statistics.proxy.refused_service_full);
}

#[test]
fn a_client_has_exactly_its_maximum() {
    let settings =
        ServiceSettings { max_connections_per_client: MaxConnectionsPerClient(5), ..ServiceSettings::default() };
    race(settings, 5, |statistics| statistics.proxy.refused_client_full);
}

#[test]
fn backends_have_exactly_their_maximum() {
    let settings =
        ServiceSettings { max_connections_per_backend: MaxConnectionsPerBackend(4), ..ServiceSettings::default() };
    race(settings, 8, |statistics| statistics.proxy.refused_backends_full);
}

#[test]
fn a_proxy_has_exactly_its_maximum() {
    let options = Options {
        arguments: vec!["--threads", "3", "--max-connections", "9"],
        listeners: listen_as_group(VIP, 3),
        ..Options::default()
    };
    let mut proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    assert_eq!(proxy.hello.features.max_connections, 9);
    serve(1, proxy.target.port(), echo);
    let open: Vec<_> = (0..9).map(|_| ping_once(&proxy).unwrap()).collect();
    assert!(is_refused(&ping_once(&proxy)));
    assert_eq!(proxy.statistics().proxy.refused_at_limit, 1);
    drop(open);
    assert_all_given_back(&mut proxy);
}

#[test]
fn other_clients_are_not_held_back() {
    let settings = ServiceSettings {
        max_connections_per_client: MaxConnectionsPerClient(1),
        client_rate: ClientRate { per_second: RatePerSecond(1), burst: RateBurst(3) },
        ..ServiceSettings::default()
    };
    let mut proxy = start(settings, &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let from = |proxy: &Proxy, last: u8| {
        let mut client = proxy.try_connect_from([127, 0, 3, last].into()).map_err(|error| error.kind())?;
        ping(&mut client).map(|()| client)
    };
    let first = from(&proxy, 1).unwrap();
    assert!(is_refused(&from(&proxy, 1)));
    let second = from(&proxy, 2).unwrap();
    drop((first, second));
    assert_all_given_back(&mut proxy);
    // The burst is used up, then one a second.
    let begun = Instant::now();
    let mut inside = 1;
    while begun.elapsed() < Duration::from_millis(1500) {
        if from(&proxy, 1).is_ok() {
            inside += 1;
        }
        proxy.wait_for("it has ended", |statistics| statistics.proxy.active == 0);
    }
    let seconds = begun.elapsed().as_secs() + 1;
    assert!((3..=3 + seconds).contains(&inside), "{inside} in {seconds} s");
    let statistics = proxy.statistics();
    assert!(statistics.proxy.refused_client_rate > 0 && statistics.proxy.refused_client_full == 1, "{statistics:?}");
    assert!(from(&proxy, 3).is_ok());
}

#[test]
fn lists_decide_and_change_at_once_without_breaking_a_connection() {
    let prefixes = |text: &[&str]| Prefixes(text.iter().map(|one| one.parse().unwrap()).collect());
    let allow = ServiceSettings {
        allow: prefixes(&["127.0.3.0/24"]),
        deny: prefixes(&["127.0.3.9"]),
        ..ServiceSettings::default()
    };
    let mut proxy = start(allow, &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let from = |proxy: &Proxy, address: [u8; 4]| {
        let mut client = proxy.try_connect_from(address.into()).map_err(|error| error.kind())?;
        ping(&mut client).map(|()| client)
    };
    let mut kept = from(&proxy, [127, 0, 3, 1]).unwrap();
    for address in [[127, 0, 3, 9], [127, 0, 4, 1]] {
        assert!(is_refused(&from(&proxy, address)));
    }
    let deny = ServiceSettings { deny: prefixes(&["127.0.3.0/24"]), ..ServiceSettings::default() };
    set(&mut proxy, deny, &[backend(1)]);
    assert_eq!(ping(&mut kept), Ok(()));
    assert!(is_refused(&from(&proxy, [127, 0, 3, 1])) && from(&proxy, [127, 0, 4, 1]).is_ok());
    assert_eq!(proxy.statistics().proxy.refused_denied, 3);
}

#[test]
fn over_ipv6() {
    let vip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let settings = ServiceSettings {
        max_connections_per_client: MaxConnectionsPerClient(2),
        allow: Prefixes(vec!["::1".parse().unwrap()]),
        ..ServiceSettings::default()
    };
    // A v6 VIP with a v4 backend.
    let mut proxy = start_at(vip, settings, &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let open = [ping_once(&proxy).unwrap(), ping_once(&proxy).unwrap()];
    assert!(is_refused(&ping_once(&proxy)));
    let deny = ServiceSettings { deny: Prefixes(vec!["::/64".parse().unwrap()]), ..ServiceSettings::default() };
    set(&mut proxy, deny, &[backend(1)]);
    assert!(is_refused(&ping_once(&proxy)));
    let statistics = proxy.statistics();
    assert_eq!((statistics.proxy.refused_client_full, statistics.proxy.refused_denied), (1, 1));
    drop(open);
    assert_all_given_back(&mut proxy);
}

/// A limit that is set while there are connections counts them, and breaks none.
#[test]
fn a_limit_set_later_counts_what_there_is() {
    let mut proxy = start(ServiceSettings::default(), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let mut open: Vec<_> = (0..5).map(|_| ping_once(&proxy).unwrap()).collect();
    let settings = ServiceSettings { max_connections: MaxConnections(3), ..ServiceSettings::default() };
    set(&mut proxy, settings, &[backend(1)]);
    assert!(open.iter_mut().all(|client| ping(client).is_ok()));
    assert!(is_refused(&ping_once(&proxy)));
    open.truncate(2);
    proxy.wait_for("three have ended", |statistics| statistics.proxy.active == 2);
    open.push(ping_once(&proxy).unwrap());
    assert!(is_refused(&ping_once(&proxy)));
}

fn queued(length: u16, timeout: Duration) -> ServiceSettings {
    ServiceSettings {
        max_connections_per_backend: MaxConnectionsPerBackend(1),
        queue: Queue { length: QueueLength(length), timeout: QueueTimeout(timeout) },
        ..ServiceSettings::default()
    }
}

/// Clients that come one after the other and wait are served one after the other, whatever thread has them.
#[test]
fn who_waits_is_served_in_the_order_of_arrival() {
    const WAITING: u64 = 12;
    let mut proxy = start(queued(20, Duration::from_secs(60)), &[backend(1)]);
    let watch = serve_watched(1, proxy.target.port());
    let first = ping_once(&proxy).unwrap();
    let mut waiting = Vec::new();
    for count in 1..=WAITING {
        // What it says meanwhile is kept for it.
        let mut client = proxy.connect();
        client.write_all(b"p").unwrap();
        waiting.push(client);
        proxy.wait_for("it waits", |statistics| statistics.proxy.waiting == count);
    }
    drop(first);
    for (mut client, left) in waiting.into_iter().zip((0..WAITING).rev()) {
        client.read_exact(&mut [0]).unwrap();
        proxy.wait_for("only one was served", |statistics| statistics.proxy.waiting == left);
    }
    assert_all_given_back(&mut proxy);
    assert_eq!(watch.most.load(Ordering::SeqCst), 1, "the backend had more than its maximum");
    assert_eq!(proxy.statistics().proxy.accepted, WAITING + 1);
}

/// Far more clients than places, all at once: everybody is served, and no backend ever has more than it may.
#[test]
fn nobody_is_forgotten_in_a_crowd() {
    const CLIENTS: usize = 40;
    const TURNS: usize = 15;
    let mut proxy = start(queued(1000, Duration::from_secs(60)), &[backend(1), backend(2)]);
    let watches = [1, 2].map(|n| serve_watched(n, proxy.target.port()));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..TURNS).for_each(|_| drop(ping_once(&proxy).unwrap())));
        }
    });
    for watch in watches {
        assert_eq!(watch.most.load(Ordering::SeqCst), 1);
    }
    assert_all_given_back(&mut proxy);
    let statistics = proxy.statistics();
    let served: u64 = statistics.services[0].backends.iter().map(|backend| backend.connections).sum();
    assert_eq!((served, statistics.proxy.refused_queue_timeout), ((CLIENTS * TURNS) as u64, 0));
}

#[test]
fn a_queue_is_bounded_in_length_and_time() {
    let mut proxy = start(queued(2, Duration::from_millis(300)), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let mut first = ping_once(&proxy).unwrap();
    let begun = Instant::now();
    let waiting = [proxy.connect(), proxy.connect()];
    proxy.wait_for("they wait", |statistics| statistics.proxy.waiting == 2);
    assert!(is_refused(&ping_once(&proxy)));
    assert_eq!(proxy.statistics().proxy.refused_queue_full, 1);
    for mut client in waiting {
        let outcome = client.read(&mut [0]).map_err(|error| error.kind());
        assert!(is_refused(&outcome), "{outcome:?}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let statistics = proxy.wait_for("nobody waits", |statistics| statistics.proxy.waiting == 0);
    assert_eq!(statistics.proxy.refused_queue_timeout, 2);
    assert_eq!(ping(&mut first), Ok(()));
}

/// A client that resets its connection while it waits takes no place from those behind it.
#[test]
fn who_is_gone_gives_its_turn_away() {
    let mut proxy = start(queued(10, Duration::from_secs(60)), &[backend(1)]);
    let watch = serve_watched(1, proxy.target.port());
    let first = ping_once(&proxy).unwrap();
    let gone = proxy.connect();
    proxy.wait_for("it waits", |statistics| statistics.proxy.waiting == 1);
    let mut behind = proxy.connect();
    proxy.wait_for("both wait", |statistics| statistics.proxy.waiting == 2);
    reset(gone);
    drop(first);
    assert_eq!(ping(&mut behind), Ok(()));
    let statistics = proxy.statistics();
    assert_eq!(statistics.services[0].backends[0].connections, 2, "the one that was gone was connected");
    assert_eq!((statistics.proxy.waiting, statistics.proxy.client_resets), (0, 1));
    drop(behind);
    assert_all_given_back(&mut proxy);
    assert_eq!(watch.most.load(Ordering::SeqCst), 1);
}

/// What changes while connections wait: a limit, a backend, the service itself, the end of the proxy.
#[test]
fn a_new_table_counts_for_those_who_wait() {
    let settings = queued(10, Duration::from_secs(60));
    let mut proxy = start(settings.clone(), &[backend(1)]);
    for n in [1, 2] {
        serve(n, proxy.target.port(), echo);
    }
    let wait = |proxy: &mut Proxy, count: u64| {
        let client = proxy.connect();
        proxy.wait_for("it waits", |statistics| statistics.proxy.waiting == count);
        client
    };
    let mut open = vec![ping_once(&proxy).unwrap()];
    let mut waiting = [wait(&mut proxy, 1), wait(&mut proxy, 2)];
    proxy.put_backend(backend(2));
    assert_eq!(ping(&mut waiting[0]), Ok(()));
    assert_eq!(proxy.statistics().proxy.waiting, 1);
    let more = ServiceSettings { max_connections_per_backend: MaxConnectionsPerBackend(2), ..settings.clone() };
    set(&mut proxy, more, &[backend(1), backend(2)]);
    assert_eq!(ping(&mut waiting[1]), Ok(()));
    open.extend(waiting);
    set(&mut proxy, settings, &[backend(1), backend(2)]);
    let mut lost = wait(&mut proxy, 1);
    proxy.change(vec![Change::RemoveService { service: "s".into() }]);
    assert!(is_refused(&lost.read(&mut [0]).map_err(|error| error.kind())));
    assert_all_given_back(&mut proxy);
}

#[test]
fn a_proxy_ends_with_connections_that_wait() {
    let mut proxy = start(queued(10, Duration::from_secs(60)), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let _first = ping_once(&proxy).unwrap();
    let mut waiting = proxy.connect();
    proxy.wait_for("it waits", |statistics| statistics.proxy.waiting == 1);
    assert_eq!(proxy.shut_down().0, Some(0));
    assert!(is_refused(&waiting.read(&mut [0]).map_err(|error| error.kind())));
}

/// A backend that does not answer to a SYN holds its place while it is tried; those who wait get it when it is given back.
#[test]
fn a_failed_attempt_gives_its_place_back() {
    let settings = ServiceSettings { retries: ringlb_proxy::control::settings::Retries(0), ..queued(10, patience()) };
    let mut proxy = start(settings, &[backend(1)]);
    // Nothing listens: every attempt fails.
    for _ in 0..20 {
        assert!(is_refused(&ping_once(&proxy)));
    }
    assert_all_given_back(&mut proxy);
    let _listener = listen(SocketAddr::new(support::address(1), proxy.target.port()));
    drop(proxy.connect());
    proxy.wait_for("it is served", |statistics| statistics.services[0].backends[0].connections == 1);
}
