//! Several data threads in one proxy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::message::{BackendSpec, Change, Request, Snapshot, Statistics, ThreadStatistics};
use ringlb_proxy::control::settings::DrainTimeout;
use socket2::{Domain, Socket, Type};
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Options, Proxy, address, backend, echo, listen_as_group, serve, service, wait_for_exit};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 1, 1));

/// A proxy of three data threads.
fn start(backends: &[BackendSpec]) -> Proxy {
    start_with(None, backends)
}

fn start_with(descriptors: Option<u64>, backends: &[BackendSpec]) -> Proxy {
    let listeners = listen_as_group(VIP, 3);
    let options = Options { arguments: vec!["--threads", "3"], listeners, descriptors, ..Options::default() };
    Proxy::start_with(&options, Default::default(), backends)
}

/// Backends that say their number, then echo.
fn serve_numbers(proxy: &Proxy, numbers: std::ops::RangeInclusive<u8>) {
    for n in numbers {
        serve(n, proxy.target.port(), move |mut stream| {
            let _ = stream.write_all(&[n]);
            echo(stream);
        });
    }
}

/// The number of the backend that a new connection has reached.
fn number_of(client: &mut TcpStream) -> Result<u8, ErrorKind> {
    let mut number = [0];
    client.read_exact(&mut number).map_err(|error| error.kind())?;
    Ok(number[0])
}

/// Connections with the numbers of their backends.
fn open(proxy: &Proxy, count: usize) -> Vec<(u8, TcpStream)> {
    let open_one = || {
        let mut client = proxy.connect();
        (number_of(&mut client).unwrap(), client)
    };
    (0..count).map(|_| open_one()).collect()
}

fn ping(client: &mut TcpStream) -> Result<(), ErrorKind> {
    client.write_all(b"p").and_then(|()| client.read_exact(&mut [0])).map_err(|error| error.kind())
}

fn is_reset(outcome: Result<(), ErrorKind>) -> bool {
    matches!(outcome, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// All threads have connections.
fn assert_all_busy(statistics: &Statistics) {
    assert!(statistics.threads.iter().all(|thread| thread.active > 0), "{:?}", statistics.threads);
}

/// Several clients at once, so that the threads pick at the same time: every backend gets exactly its turns.
#[test]
fn connections_are_spread_and_turns_are_exact() {
    let mut proxy = start(&[backend(1), backend(2), backend(3)]);
    assert_eq!(proxy.hello.features.threads, 3);
    serve_numbers(&proxy, 1..=3);
    let clients: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&proxy, 75))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut counts = HashMap::<u8, u64>::new();
    clients.iter().for_each(|(number, _)| *counts.entry(*number).or_default() += 1);
    assert_eq!(counts, HashMap::from([(1, 100), (2, 100), (3, 100)]));

    let statistics = proxy.statistics();
    assert_all_busy(&statistics);
    let sum = |of: fn(&ThreadStatistics) -> u64| statistics.threads.iter().map(of).sum::<u64>();
    assert_eq!((sum(|thread| thread.accepted), sum(|thread| thread.active)), (300, 300));
    assert_eq!((statistics.proxy.accepted, statistics.proxy.active), (300, 300));
    assert_eq!(statistics.ring.enters, sum(|thread| thread.enters));
    let active: Vec<_> = statistics.services[0].backends.iter().map(|backend| backend.active).collect();
    assert_eq!(active, [100, 100, 100]);

    drop(clients);
    let statistics = proxy.wait_for("all are closed", |statistics| statistics.proxy.active == 0);
    assert!(statistics.threads.iter().all(|thread| thread.active == 0));
    assert!(statistics.services[0].backends.iter().all(|backend| (backend.active, backend.connections) == (0, 100)));
}

#[test]
fn a_removed_backend_loses_its_connections_on_every_thread() {
    let mut proxy = start(&[backend(1), backend(2)]);
    serve_numbers(&proxy, 1..=2);
    let mut clients = open(&proxy, 100);
    assert_all_busy(&proxy.statistics());
    proxy.remove_backend(address(1));
    for (number, client) in &mut clients {
        let outcome = ping(client);
        assert!(if *number == 1 { is_reset(outcome) } else { outcome == Ok(()) }, "backend {number}: {outcome:?}");
    }
    let statistics = proxy.wait_for("they are closed", |statistics| statistics.proxy.active == 50);
    assert_eq!(statistics.proxy.removed_resets, 50);
}

#[test]
fn a_drain_deadline_ends_connections_on_every_thread() {
    let mut proxy = start(&[]);
    serve_numbers(&proxy, 1..=2);
    let draining_for = |time_ms| {
        let mut spec = service("s", VIP, Default::default(), &[backend(1), backend(2)]);
        spec.settings.drain_timeout = DrainTimeout(Some(Duration::from_millis(time_ms)));
        spec
    };
    let drained = BackendSpec { draining: true, ..backend(1) };
    proxy.snapshot(vec![draining_for(3_600_000)]);
    let mut clients = open(&proxy, 100);
    assert_all_busy(&proxy.statistics());
    proxy.put_backend(drained.clone());
    assert!(clients.iter_mut().all(|(_, client)| ping(client).is_ok()), "they were not given their time");
    proxy.snapshot(vec![draining_for(100)]);
    proxy.put_backend(drained);
    let statistics = proxy.wait_for("the deadline has passed", |statistics| statistics.proxy.active == 50);
    assert_eq!(statistics.proxy.drain_resets, 50);
    assert_eq!((statistics.services[0].backends[0].active, statistics.services[0].backends[1].active), (0, 50));
    for (number, client) in &mut clients {
        let outcome = ping(client);
        assert!(if *number == 1 { is_reset(outcome) } else { outcome == Ok(()) }, "backend {number}: {outcome:?}");
    }
}

/// Clients come at the very moment in which the backend that they get is removed. One that was missed would keep its
/// connection, and wait here in vain for its end.
#[test]
fn no_thread_misses_a_removal() {
    const CONNECTIONS: usize = 600;
    let numbers = 1..=8;
    let mut proxy = start(&[backend(1)]);
    serve_numbers(&proxy, numbers.clone());
    let target = proxy.target;
    let over = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let client = || {
            while !over.load(Ordering::Relaxed) {
                let Ok(mut client) = TcpStream::connect(target) else { continue };
                client.set_read_timeout(Some(support::patience())).unwrap();
                let mut read = || client.read(&mut [0]).map_err(|error| error.kind());
                // The first byte is the backend's, unless its removal was faster.
                let outcome = match read() {
                    Ok(1) => {
                        served.fetch_add(1, Ordering::Relaxed);
                        read()
                    }
                    other => other,
                };
                assert_eq!(outcome, Err(ErrorKind::ConnectionReset));
            }
        };
        for _ in 0..6 {
            scope.spawn(client);
        }
        let deadline = Instant::now() + support::patience();
        for (last, next) in numbers.clone().cycle().zip(numbers.cycle().skip(1)) {
            if served.load(Ordering::Relaxed) >= CONNECTIONS || Instant::now() > deadline {
                break;
            }
            proxy.change(vec![
                Change::PutBackend { service: "s".into(), backend: backend(next) },
                Change::RemoveBackend { service: "s".into(), address: address(last) },
            ]);
            std::thread::sleep(Duration::from_micros(500));
        }
        over.store(true, Ordering::Relaxed);
        proxy.change(vec![Change::RemoveService { service: "s".into() }]);
    });
    let statistics = proxy.wait_for("all are closed", |statistics| statistics.proxy.active == 0);
    assert!(served.into_inner() >= CONNECTIONS, "too few connections for this to mean anything: {statistics:?}");
    assert!(statistics.threads.iter().all(|thread| thread.accepted > 0), "{:?}", statistics.threads);
}

/// Clients at all threads at once get exactly as many connections as the descriptor limit allows, again and again.
#[test]
fn the_descriptor_limit_is_one_for_all_threads() {
    let mut proxy = start_with(Some(200), &[backend(1)]);
    let limit = usize::try_from(proxy.hello.features.max_connections).unwrap();
    assert!((10..60).contains(&limit), "{limit}");
    serve_numbers(&proxy, 1..=1);
    for round in 1..=5u64 {
        let all_at_once = Barrier::new(4);
        let open_some = || {
            all_at_once.wait();
            let try_one = |_| {
                let mut client = proxy.try_connect().ok()?;
                number_of(&mut client).ok().map(|_| client)
            };
            (0..40).filter_map(try_one).collect::<Vec<_>>()
        };
        let mut open: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open_some)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(open.len(), limit, "round {round}");
        assert!(open.iter_mut().all(|client| ping(client).is_ok()));
        let statistics = proxy.statistics();
        assert_eq!(statistics.proxy.refused_at_limit, round * (160 - limit as u64));
        assert_eq!(statistics.services[0].backends[0].connect_failures, 0);
        assert_eq!(statistics.proxy.active, limit as u64);
        open.truncate(limit - 3);
        proxy.wait_for("there is room", |statistics| statistics.proxy.active == limit as u64 - 3);
        let again: Vec<_> = (0..3).map(|_| number_of(&mut proxy.connect())).collect();
        assert_eq!(again, [Ok(1); 3]);
        drop(open);
        proxy.wait_for("all are closed", |statistics| statistics.proxy.active == 0);
    }
    let (code, log) = proxy.shut_down();
    assert_eq!(code, Some(0), "{log}");
}

/// Bulk streams on all threads: the pipes that are open, in use or kept, are never more than the process may have.
#[test]
fn pipes_are_limited_for_all_threads() {
    const STREAMS: usize = 24;
    let mut proxy = start_with(Some(256), &[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let most = 256 / 16;
    let pid = proxy.child.id();
    // Whoever started the test may have left some open for it.
    let inherited = open_pipes(pid);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let transfer = || {
            let bytes = support::bulk(40_000_000);
            let mut writer = proxy.connect();
            let mut reader = writer.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                support::write_pattern(&mut writer, bytes).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            assert_eq!(support::read_pattern(&mut reader).unwrap(), bytes);
            sender.join().unwrap();
        };
        let streams: Vec<_> = (0..STREAMS).map(|_| scope.spawn(transfer)).collect();
        let watch = scope.spawn(|| {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                seen = seen.max(open_pipes(pid) - inherited);
                std::thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        let outcomes: Vec<_> = streams.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(Result::unwrap);
        watch.join().unwrap()
    });
    assert!((most / 2..=most).contains(&seen), "{seen} pipes at once, {most} are allowed");
    let statistics = proxy.statistics();
    assert!(statistics.threads.iter().all(|thread| thread.accepted > 0), "{:?}", statistics.threads);
    proxy.wait_for("all are closed", |statistics| statistics.proxy.active == 0);
    let kept = open_pipes(pid) - inherited;
    assert!(kept <= most / 2, "{kept} pipes are kept at hand");
}

/// The pipes of a process, without its standard streams. It is stopped meanwhile: what comes and goes while a directory is
/// read could be counted together.
fn open_pipes(pid: u32) -> usize {
    let signal = |name: &str| {
        let done = std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
        assert!(done.success());
    };
    let is_stopped = || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let states = threads.map(|thread| std::fs::read_to_string(thread.path().join("status")).unwrap_or_default());
        states.into_iter().all(|status| status.contains("\nState:\tT"))
    };
    signal("STOP");
    let deadline = Instant::now() + support::patience();
    while !is_stopped() {
        assert!(Instant::now() < deadline, "the proxy does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let own = descriptors.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|fd| fd > 2));
    let links = own.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let pipes = links.filter(|link| link.to_string_lossy().starts_with("pipe:")).collect::<HashSet<_>>().len();
    signal("CONT");
    pipes
}

/// A turn of a thread shows as a call of `io_uring_enter(2)`.
#[test]
fn a_change_wakes_only_threads_that_have_connections() {
    let mut proxy = start(&[backend(1)]);
    serve_numbers(&proxy, 1..=1);
    drop(open(&proxy, 30));
    proxy.wait_for("all are closed", |statistics| statistics.proxy.active == 0);

    let before = asleep(&mut proxy);
    for n in 2..30 {
        proxy.put_backend(backend(n));
        proxy.put_backend(BackendSpec { draining: true, ..backend(n) });
        proxy.remove_backend(address(n));
    }
    assert_eq!(asleep(&mut proxy), before, "a change that concerns no connection woke a thread");

    let mut clients = open(&proxy, 1);
    let before = asleep(&mut proxy);
    let busy = proxy.statistics().threads.iter().position(|thread| thread.active == 1).unwrap();
    proxy.remove_backend(address(1));
    assert!(is_reset(ping(&mut clients[0].1)));
    let after = asleep(&mut proxy);
    for (number, (before, after)) in before.into_iter().zip(after).enumerate() {
        assert_eq!(after > before, number == busy, "thread {number}, the connection was at {busy}: {before} {after}");
    }
}

/// What each thread has called, once nothing is added any more.
fn asleep(proxy: &mut Proxy) -> Vec<u64> {
    let mut enters = || -> Vec<u64> { proxy.statistics().threads.iter().map(|thread| thread.enters).collect() };
    let deadline = Instant::now() + support::patience();
    let mut last = enters();
    let mut unchanged = 0;
    while unchanged < 10 {
        assert!(Instant::now() < deadline, "the threads do not come to rest: {last:?}");
        std::thread::sleep(Duration::from_millis(10));
        let now = enters();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn shutdown_ends_every_thread() {
    let proxy = start(&[backend(1)]);
    serve_numbers(&proxy, 1..=1);
    let mut clients = open(&proxy, 60);
    let (code, log) = proxy.shut_down();
    assert_eq!((code, complaints(&log)), (Some(0), vec![]));
    for (_, client) in &mut clients {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// One listener for each family: every thread serves both. A VIP of one family may have backends of the other.
#[test]
fn a_thread_serves_several_listeners() {
    let vip: IpAddr = "::1".parse().unwrap();
    for arguments in [vec!["--threads", "2"], vec!["--threads", "2", "--one-shot-accept"], vec![]] {
        let threads = if arguments.is_empty() { 1 } else { 2 };
        let fourth = listen_as_group(VIP, threads);
        let sixth = listen_as_group(vip, threads);
        let target = sixth[0].local_addr().unwrap();
        let listeners: Vec<TcpListener> = fourth.into_iter().zip(sixth).flat_map(|(four, six)| [four, six]).collect();
        let mut proxy = Proxy::start_without_table(&Options { arguments, listeners, ..Options::default() });
        proxy.snapshot(vec![
            service("four", VIP, Default::default(), &[backend(1)]),
            service("six", vip, Default::default(), &[backend(2)]),
        ]);
        serve_numbers(&proxy, 1..=1);
        serve(2, target.port(), |mut stream| drop(stream.write_all(&[2])));
        for _ in 0..40 {
            assert_eq!(number_of(&mut proxy.connect()), Ok(1));
            assert_eq!(number_of(&mut TcpStream::connect(target).unwrap()), Ok(2));
        }
        let statistics = proxy.statistics();
        assert_eq!(statistics.threads.len(), threads);
        assert!(statistics.threads.iter().all(|thread| thread.accepted > 0), "{:?}", statistics.threads);
        assert_eq!(statistics.proxy.accepted, 80);
    }
}

/// A socket that does not listen: nothing is wrong before its thread accepts from it.
#[test]
fn a_thread_that_fails_ends_the_process() {
    let mut listeners = listen_as_group(VIP, 1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(VIP, 0).into()).unwrap();
    listeners.push(socket.into());
    let mut proxy =
        Proxy::start_without_table(&Options { arguments: vec!["--threads", "2"], listeners, ..Options::default() });
    assert_eq!(proxy.child.try_wait().unwrap(), None);
    let mut control = proxy.connect_control();
    control.send(&Request::Snapshot(Snapshot { generation: 1, services: vec![] }));
    assert_eq!(wait_for_exit(&mut proxy.child).code(), Some(1));
    let mut log = String::new();
    proxy.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let complaints = complaints(&log);
    assert!(complaints.len() == 1 && complaints[0].contains("data-1: cannot accept connections"), "{log}");
}

/// All that a proxy says but for what it has given up.
fn complaints(log: &str) -> Vec<&str> {
    log.lines().filter(|line| !line.contains("what is not needed is given up")).collect()
}

#[test]
fn listeners_that_do_not_go_round_are_refused() {
    let run = |arguments: &str| {
        let program = env!("CARGO_BIN_EXE_ringlb-proxy");
        let script =
            format!("exec {program} --network n --control-fd 3 {arguments} 3</dev/null 4</dev/null 5</dev/null");
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, code, expected) in [
        ("--threads 2 --listener-fd 4", 1, "2 data threads need a multiple of 2 listeners, not 1"),
        ("--threads 3 --listener-fd 4 --listener-fd 5", 1, "3 data threads need a multiple of 3 listeners, not 2"),
        ("--threads 0 --listener-fd 4", 2, "neither `auto` nor a number of threads from 1 to 256"),
        ("--threads many --listener-fd 4", 2, "neither `auto` nor a number of threads from 1 to 256"),
        ("--threads 2", 2, "--listener-fd"),
    ] {
        let (status, said) = run(arguments);
        assert!(status == Some(code) && said.contains(expected), "{arguments}: {status:?} {said}");
    }
}
