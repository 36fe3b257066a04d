//! Health through a real proxy: backends that cannot be reached, checks, backups, local ones first, rising shares.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{
    BackendSpec, BackendStatistics, Change, Health, ServiceSettings, ServiceSpec, Statistics,
};
use ringlb_proxy::control::settings::{
    CheckFall, CheckInterval, CheckPort, CheckRise, CheckText, CheckTimeout, Ejection, EjectionBase, EjectionFailures,
    EjectionShare, HealthCheck, PanicThreshold, SlowStart,
};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Options, Proxy, address, backend, listen, patience};

/// A server that says its text to everybody, until it is dropped: then its port refuses.
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(n: u8, port: u16, text: &'static str) -> Self {
        let listener = listen(SocketAddr::new(address(n), port));
        let accepting = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            for mut stream in accepting.incoming().map_while(Result::ok) {
                drop(stream.write_all(text.as_bytes()));
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the accept that waits (EINVAL, shutdown(2) of a listening socket).
        socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A proxy that serves `s` with these settings and backends.
fn start(settings: &ServiceSettings, backends: &[BackendSpec]) -> Proxy {
    let mut proxy = Proxy::start_without_table(&Options::default());
    let vips = vec![proxy.target.ip()];
    proxy.snapshot(vec![ServiceSpec {
        name: "s".into(),
        vips,
        settings: settings.clone(),
        published: Vec::new(),
        backends: backends.to_vec(),
    }]);
    proxy
}

fn set(proxy: &mut Proxy, settings: &ServiceSettings, backends: &[BackendSpec]) {
    let (name, vips) = ("s".to_owned(), vec![proxy.target.ip()]);
    let spec =
        ServiceSpec { name, vips, settings: settings.clone(), published: Vec::new(), backends: backends.to_vec() };
    proxy.change(vec![Change::PutService(Arc::new(spec))]);
}

fn ejecting(failures: u16, base: Duration, max_share: u16) -> ServiceSettings {
    let ejection = Ejection {
        failures: EjectionFailures(failures),
        base: EjectionBase(base),
        max_share: EjectionShare(max_share),
        ..Ejection::default()
    };
    ServiceSettings { ejection, ..ServiceSettings::default() }
}

/// Quick checks of that port, each of which counts.
fn checking(port: u16) -> HealthCheck {
    HealthCheck {
        port: CheckPort(port),
        interval: CheckInterval(Duration::from_millis(100)),
        timeout: CheckTimeout(Duration::from_millis(500)),
        rise: CheckRise(1),
        fall: CheckFall(1),
        ..HealthCheck::default()
    }
}

/// What the backend that a connection reaches says; `None` if there is none.
fn reached(proxy: &Proxy) -> Option<String> {
    let mut text = String::new();
    proxy.try_connect().and_then(|mut stream| stream.read_to_string(&mut text)).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

fn of(statistics: &Statistics, n: u8) -> &BackendStatistics {
    statistics.services[0].backends.iter().find(|backend| backend.address == address(n)).unwrap()
}

/// Connects again and again until the statistics are as wanted.
fn connect_until(proxy: &mut Proxy, what: &str, wanted: impl Fn(&Statistics) -> bool) -> Statistics {
    let deadline = Instant::now() + patience();
    loop {
        let _ = reached(proxy);
        let statistics = proxy.statistics();
        if wanted(&statistics) {
            return statistics;
        }
        assert!(Instant::now() < deadline, "connected in vain until {what}: {statistics:#?}");
    }
}

/// Backend 1 serves for a moment: so the port is one that refusals count on.
fn serve_once(proxy: &mut Proxy) {
    let _server = Server::start(1, proxy.target.port(), "one");
    connect_until(proxy, "it is reached", |s| of(s, 1).connections > 0);
}

/// A VIP has every port. A client that tries those on which nobody listens must not take backends away from the others.
#[test]
fn refusals_on_ports_that_nobody_serves_eject_nobody() {
    let settings = ejecting(1, Duration::from_secs(3600), 100);
    let mut proxy = start(&settings, &[backend(1), backend(2)]);
    connect_until(&mut proxy, "both have refused", |s| (1..=2).all(|n| of(s, n).connect_failures >= 5));
    assert!((1..=2).all(|n| of(&proxy.statistics(), n).health == Health::Healthy));
    let port = proxy.target.port();
    let (_one, two) = (Server::start(1, port, "one"), Server::start(2, port, "two"));
    connect_until(&mut proxy, "both are reached", |s| (1..=2).all(|n| of(s, n).connections > 0));
    drop(two);
    connect_until(&mut proxy, "it is ejected", |s| of(s, 2).health == Health::Ejected);
}

#[test]
fn a_backend_that_refuses_is_ejected_and_comes_back() {
    let mut proxy = start(&ejecting(0, Duration::from_secs(3600), 50), &[backend(1), backend(2)]);
    let port = proxy.target.port();
    let _two = Server::start(2, port, "two");
    connect_until(&mut proxy, "the port is known to be served", |s| of(s, 2).connections > 0);
    set(&mut proxy, &ejecting(3, Duration::from_secs(3600), 50), &[backend(1), backend(2)]);
    let earlier = of(&proxy.statistics(), 1).connect_failures;
    // No client notices: each failure is followed by an attempt elsewhere.
    let deadline = Instant::now() + patience();
    while of(&proxy.statistics(), 1).health != Health::Ejected {
        assert_eq!(reached(&proxy).as_deref(), Some("two"));
        assert!(Instant::now() < deadline, "{:#?}", proxy.statistics());
    }
    let before = proxy.statistics();
    assert_eq!((of(&before, 1).ejections, of(&before, 1).connect_failures), (1, earlier + 3));
    assert!(of(&before, 1).ejected_for_ms > 3_500_000);
    assert!((0..20).all(|_| reached(&proxy).as_deref() == Some("two")));
    assert_eq!(of(&proxy.statistics(), 1).connect_failures, earlier + 3, "it is left alone");

    // Ejections end when they are switched off; the generation is the one of the change.
    let mut settings = ejecting(0, Duration::from_secs(3600), 50);
    set(&mut proxy, &settings, &[backend(1), backend(2)]);
    assert_eq!(of(&proxy.statistics(), 1).health, Health::Healthy);
    assert_eq!(of(&proxy.statistics(), 1).ejections, 1);

    // And by themselves.
    settings = ejecting(3, Duration::from_millis(200), 50);
    set(&mut proxy, &settings, &[backend(1), backend(2)]);
    connect_until(&mut proxy, "it is ejected once more", |s| of(s, 1).ejections == 2);
    let _one = Server::start(1, port, "one");
    connect_until(&mut proxy, "it is used again", |s| of(s, 1).connections > 0);
    assert_eq!(of(&proxy.statistics(), 1).health, Health::Healthy);
}

#[test]
fn no_more_than_the_largest_share_is_ejected() {
    let settings = ejecting(2, Duration::from_secs(3600), 50);
    let mut proxy = start(&settings, &[backend(1), backend(2), backend(3), backend(4)]);
    serve_once(&mut proxy);
    let ejected = |s: &Statistics| (1..=4).filter(|&n| of(s, n).health == Health::Ejected).count();
    connect_until(&mut proxy, "half of them are ejected", |s| ejected(s) == 2);
    let before = proxy.statistics().proxy.connect_failures;
    let after =
        connect_until(&mut proxy, "the others have failed long enough", |s| s.proxy.connect_failures >= before + 40);
    assert_eq!(ejected(&after), 2);
    assert_eq!(after.services[0].backends.iter().map(|backend| backend.ejections).sum::<u64>(), 2);
}

/// Both of two may be ejected here. Then, in panic, both are used; without, none.
#[test]
fn in_panic_all_are_used() {
    let mut settings = ejecting(2, Duration::from_secs(3600), 100);
    let mut proxy = start(&settings, &[backend(1), backend(2)]);
    serve_once(&mut proxy);
    connect_until(&mut proxy, "both are ejected", |s| (1..=2).all(|n| of(s, n).health == Health::Ejected));
    let port = proxy.target.port();
    let (_one, _two) = (Server::start(1, port, "one"), Server::start(2, port, "two"));
    let mut seen: Vec<_> = (0..10).filter_map(|_| reached(&proxy)).collect();
    assert_eq!(seen.len(), 10);
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["one", "two"]);
    settings.panic_threshold = PanicThreshold(0);
    set(&mut proxy, &settings, &[backend(1), backend(2)]);
    assert_eq!(reached(&proxy), None);
}

#[test]
fn backups_take_over_and_hand_back() {
    let mut proxy = Proxy::start_without_table(&Options::default());
    let port = proxy.target.port();
    let settings = ServiceSettings { health_check: checking(port), ..ejecting(0, Duration::from_secs(1), 100) };
    let (one, two) = (Server::start(1, port, "one"), Server::start(2, port, "two"));
    let _three = Server::start(3, port, "three");
    let backends = [backend(1), backend(2), BackendSpec { backup: true, ..backend(3) }];
    let spec = ServiceSpec {
        name: "s".into(),
        vips: vec![proxy.target.ip()],
        settings,
        published: Vec::new(),
        backends: backends.to_vec(),
    };
    proxy.snapshot(vec![spec]);
    assert!((0..10).all(|_| reached(&proxy).is_some_and(|name| name != "three")));
    drop(one);
    proxy.wait_for("one is seen to be down", |s| of(s, 1).health == Health::Unhealthy);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("two")), "a primary is left");
    drop(two);
    // Before that is seen, a connection that no primary takes goes to the backup too.
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("three")));
    proxy.wait_for("two is seen to be down", |s| of(s, 2).health == Health::Unhealthy);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("three")));
    let _two = Server::start(2, port, "two");
    proxy.wait_for("two is seen to be up", |s| of(s, 2).health == Health::Healthy);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("two")));
}

#[test]
fn local_backends_come_first() {
    let mut proxy = Proxy::start_without_table(&Options::default());
    let port = proxy.target.port();
    let mut settings =
        ServiceSettings { health_check: checking(port), prefer_local: true, ..ServiceSettings::default() };
    let one = Server::start(1, port, "one");
    let _two = Server::start(2, port, "two");
    let backends = [BackendSpec { local: true, ..backend(1) }, backend(2)];
    let spec = ServiceSpec {
        name: "s".into(),
        vips: vec![proxy.target.ip()],
        settings: settings.clone(),
        published: Vec::new(),
        backends: backends.to_vec(),
    };
    proxy.snapshot(vec![spec]);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("one")));
    drop(one);
    // No connection is lost before the proxy knows.
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("two")));
    proxy.wait_for("one is seen to be down", |s| of(s, 1).health == Health::Unhealthy);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("two")));
    let _one = Server::start(1, port, "one");
    proxy.wait_for("one is seen to be up", |s| of(s, 1).health == Health::Healthy);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("one")));
    settings.prefer_local = false;
    set(&mut proxy, &settings, &backends);
    let both: Vec<_> = (0..2).filter_map(|_| reached(&proxy)).collect();
    assert!(both.contains(&"one".to_owned()) && both.contains(&"two".to_owned()), "{both:?}");
}

/// A window of an hour stands still at 5 % of the weight for this test: 5/105 of 420 turns are 20, within 2 + log_φ(420) =
/// 14.6. A window of a second rises to the whole weight, step by step.
#[test]
fn a_new_backends_share_rises() {
    let slow = |window: Duration| ServiceSettings { slow_start: SlowStart(window), ..ServiceSettings::default() };
    let mut proxy = start(&slow(Duration::from_secs(3600)), &[backend(1)]);
    let port = proxy.target.port();
    let (_one, _two) = (Server::start(1, port, "one"), Server::start(2, port, "two"));
    assert_eq!(of(&proxy.statistics(), 1).warmth, 100, "what is there first is not new");
    proxy.put_backend(backend(2));
    assert_eq!(of(&proxy.statistics(), 2).warmth, 5);
    let count = |proxy: &Proxy, of: usize| (0..of).filter(|_| reached(proxy).as_deref() == Some("two")).count();
    let cold = count(&proxy, 420);
    assert!((5..=35).contains(&cold), "{cold}");

    set(&mut proxy, &slow(Duration::from_secs(3600)), &[backend(1)]);
    set(&mut proxy, &slow(Duration::from_secs(1)), &[backend(1), backend(2)]);
    let deadline = Instant::now() + patience();
    let (mut before, generation) = (0, proxy.statistics().generation);
    while before < 100 {
        let statistics = proxy.statistics();
        let now = of(&statistics, 2).warmth;
        assert!(now >= before, "{before} to {now}");
        assert!(Instant::now() < deadline);
        before = now;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(proxy.statistics().generation, generation, "a step is no new generation");
    assert_eq!(count(&proxy, 100), 50);
}

/// Connecting works with a server that hangs, as the kernel takes the connection: only what it says shows how it is.
#[test]
fn checks_find_servers_that_hang_or_say_the_wrong_thing() {
    let mut settings = ServiceSettings { panic_threshold: PanicThreshold(0), ..ServiceSettings::default() };
    let mut proxy = start(&settings, &[backend(1), backend(2), backend(3)]);
    let port = proxy.target.port();
    let check_port = listen(SocketAddr::new(address(1), 0)).local_addr().unwrap().port();
    let _hangs = listen(SocketAddr::new(address(1), check_port));
    let wrong = Server::start(2, check_port, "status: bad\n");
    let _right = Server::start(3, check_port, "some greeting first, status: good\n");
    let _servers = [(1, "one"), (2, "two"), (3, "three")].map(|(n, name)| Server::start(n, port, name));
    settings.health_check = checking(check_port);
    set(&mut proxy, &settings, &[backend(1), backend(2), backend(3)]);
    // Fifty checks each, at least.
    std::thread::sleep(Duration::from_millis(500));
    assert!((1..=3).all(|n| of(&proxy.statistics(), n).health == Healthy), "{:#?}", proxy.statistics());

    settings.health_check.send = CheckText("how are you?\n".into());
    settings.health_check.expect = CheckText("status: good".into());
    set(&mut proxy, &settings, &[backend(1), backend(2), backend(3)]);
    let health = |s: &Statistics| [1, 2, 3].map(|n| of(s, n).health);
    use Health::{Healthy, Unhealthy};
    proxy.wait_for("two are found out", |s| health(s) == [Unhealthy, Unhealthy, Healthy]);
    assert!((0..10).all(|_| reached(&proxy).as_deref() == Some("three")));
    drop(wrong);
    let _right_now = Server::start(2, check_port, "status: good\n");
    let statistics = proxy.wait_for("the second is well", |s| health(s) == [Unhealthy, Healthy, Healthy]);
    assert!(of(&statistics, 1).check_failures > 0 && of(&statistics, 3).check_failures == 0, "{statistics:#?}");
    settings.health_check.port = CheckPort(0);
    (settings.health_check.send, settings.health_check.expect) = Default::default();
    set(&mut proxy, &settings, &[backend(1), backend(2), backend(3)]);
    assert_eq!(health(&proxy.statistics()), [Healthy; 3], "without checks nothing is known");
}

/// One failed check of many and one passed of many are not enough; draining backends are not asked.
#[test]
fn it_takes_some_checks_to_fall_and_to_rise() {
    let check_port = listen(SocketAddr::new(address(1), 0)).local_addr().unwrap().port();
    let mut settings = ServiceSettings { health_check: checking(check_port), ..ServiceSettings::default() };
    settings.health_check.expect = CheckText("ok".into());
    (settings.health_check.rise, settings.health_check.fall) = (CheckRise(3), CheckFall(3));
    let good = Server::start(1, check_port, "ok");
    let mut proxy = start(&settings, &[backend(1)]);
    // Its first check must have been passed: until then the first failure is enough.
    std::thread::sleep(Duration::from_millis(500));
    drop(good);
    let failures = |s: &Statistics| of(s, 1).check_failures;
    let fallen = proxy.wait_for("it has fallen", |s| of(s, 1).health == Health::Unhealthy);
    assert_eq!(failures(&fallen), 3);
    let before = failures(&proxy.wait_for("it fails on", |s| failures(s) > 3));
    proxy.put_backend(BackendSpec { draining: true, ..backend(1) });
    let drained = failures(&proxy.statistics());
    std::thread::sleep(Duration::from_millis(500));
    // One that was under way may have ended.
    assert!(failures(&proxy.statistics()) <= drained + 1, "{before}, {drained}");
    assert_eq!(of(&proxy.statistics(), 1).health, Health::Unhealthy, "what is known stays known");
    let _good = Server::start(1, check_port, "ok");
    proxy.put_backend(backend(1));
    proxy.wait_for("it has risen", |s| of(s, 1).health == Health::Healthy);
}

/// More checks than are made at a time, all of servers that hang: the control channel and connections go on.
#[test]
fn many_hanging_checks_hold_nothing_up() {
    let check_port = listen(SocketAddr::new(address(1), 0)).local_addr().unwrap().port();
    let mut settings = ServiceSettings { health_check: checking(check_port), ..ServiceSettings::default() };
    settings.health_check.expect = CheckText("never".into());
    let hanging: Vec<_> = (1..=100).map(|n| listen(SocketAddr::new(address(n), check_port))).collect();
    let backends: Vec<_> = (1..=100).map(backend).collect();
    let mut proxy = start(&settings, &backends);
    let _server = Server::start(1, proxy.target.port(), "one");
    let all_fail = |s: &Statistics| (1..=100).all(|n| of(s, n).health == Health::Unhealthy);
    let statistics = proxy.wait_for("all are found out", all_fail);
    assert_eq!(hanging.len(), statistics.services[0].backends.len());
    set(&mut proxy, &ServiceSettings::default(), &[backend(1)]);
    assert_eq!(reached(&proxy).as_deref(), Some("one"));
}
