//! Every workload against servers that behave.

use crate::support::{options, run, server, wait_until};
use ringlb_load::{Direction, EndReason, Load, LoadError, LoadOptions, Server, ServerOptions, Workload};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const PINGPONG: Workload = Workload::Pingpong { size_bytes: 64 };

#[test]
fn connect_asks_each_target_alike_and_counts_by_backend() {
    let servers = [server("a"), server("b"), server("c")];
    let mut options = options(&servers.each_ref(), Workload::Connect);
    options.connections = 8;
    options.requests = Some(300);
    let report = run(options);
    assert_eq!((report.requests, report.failures, report.ended_by), (300, 0, EndReason::Requests));
    assert_eq!(report.connections_opened, 300);
    assert_eq!((report.bytes_sent, report.bytes_received), (300 * 3, 300 * 2));
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(report.requests_of(name), 100);
        assert_eq!(report.targets[index].requests, 100);
        assert_eq!(servers[index].counters().accepted, 100);
    }
    assert_eq!(report.requests_of("d"), 0);
    let latency = report.latency;
    assert!(latency.wait.is_none());
    for summary in [latency.connect, latency.first_byte, latency.total].map(Option::unwrap) {
        assert_eq!(summary.count, 300);
        assert!(summary.min_us <= summary.p50_us && summary.p50_us <= summary.p99_us);
        assert!(summary.p99_us <= summary.p999_us && summary.p999_us <= summary.max_us);
    }
    assert!(latency.first_byte.unwrap().max_us <= latency.total.unwrap().max_us);
    assert_eq!(report.timeline.buckets.iter().map(|bucket| bucket.requests).sum::<u64>(), 300);
}

#[test]
fn connect_ends_when_its_time_is_over() {
    let server = server("a");
    let mut options = options(&[&server], Workload::Connect);
    options.connections = 4;
    options.duration = Some(Duration::from_millis(300));
    let report = run(options);
    assert_eq!((report.failures, report.ended_by), (0, EndReason::Duration));
    assert!(report.elapsed() >= Duration::from_millis(300));
    assert!(report.requests > 0);
    assert_eq!(report.requests, server.counters().accepted);
}

#[test]
fn connect_with_a_size_sends_bytes_and_closes_first() {
    let servers = [server("a"), server("b")];
    for size_bytes in [1, 64, 300_000] {
        let mut options = options(&servers.each_ref(), Workload::ConnectEcho { size_bytes });
        options.connections = 8;
        options.requests = Some(100);
        let report = run(options);
        assert_eq!((report.requests, report.failures, report.ended_by), (100, 0, EndReason::Requests), "{report}");
        assert_eq!(report.connections_opened, 100);
        assert_eq!((report.bytes_sent, report.bytes_received), (100 * size_bytes, 100 * size_bytes));
        assert!(report.backends.is_empty() && report.targets.iter().all(|target| target.requests == 50), "{report}");
        assert_eq!(report.latency.first_byte.unwrap().count, 100);
    }
    wait_until("all connections are closed", || servers.iter().all(|server| server.counters().active == 0));
    assert_eq!(servers.iter().map(|server| server.counters().accepted).sum::<u64>(), 300);
}

#[test]
fn pingpong_keeps_its_connections() {
    let servers = [server("a"), server("b")];
    let mut options = options(&servers.each_ref(), PINGPONG);
    options.connections = 50;
    options.requests = Some(5000);
    let report = run(options);
    assert_eq!((report.requests, report.failures), (5000, 0));
    assert_eq!(report.connections_opened, 50);
    assert_eq!((report.bytes_sent, report.bytes_received), (5000 * 64, 5000 * 64));
    for (server, backend) in servers.iter().zip(&report.backends) {
        assert_eq!((server.counters().accepted, backend.connections), (25, 25));
        assert_eq!(backend.total.unwrap().count, backend.requests);
    }
    assert_eq!(report.backends.iter().map(|backend| backend.requests).sum::<u64>(), 5000);
}

#[test]
fn pingpong_of_any_size_comes_back_whole() {
    let server = server("a");
    // The last is more than all buffers on the way hold.
    for (size_bytes, requests) in [(1, 100), (256, 100), (257, 100), (65_536, 50), (1_000_003, 20), (50_000_000, 2)] {
        let mut options = options(&[&server], Workload::Pingpong { size_bytes });
        options.connections = 2;
        options.requests = Some(requests);
        let report = run(options);
        assert_eq!((report.requests, report.failures), (requests, 0), "{size_bytes} bytes: {report}");
        assert_eq!(report.bytes_received, requests * size_bytes);
    }
}

#[test]
fn bulk_moves_exactly_what_was_asked_for() {
    let server = server("a");
    const SIZE: u64 = 3_000_001;
    for (direction, sent, received) in
        [(Direction::Up, SIZE, 0), (Direction::Down, 0, SIZE), (Direction::Both, SIZE, SIZE)]
    {
        let mut options = options(&[&server], Workload::Bulk { direction, size_bytes: Some(SIZE) });
        options.connections = 3;
        options.requests = Some(10);
        let report = run(options);
        assert_eq!((report.requests, report.failures, report.interrupted), (10, 0, 0), "{direction:?}: {report}");
        assert_eq!((report.bytes_sent, report.bytes_received), (10 * sent, 10 * received), "{direction:?}");
        assert_eq!(report.backends[0].connections, 10);
    }
}

#[test]
fn a_stream_without_a_size_ends_with_the_run() {
    let server = server("a");
    for direction in [Direction::Up, Direction::Down, Direction::Both] {
        let mut options = options(&[&server], Workload::Bulk { direction, size_bytes: None });
        options.connections = 2;
        options.duration = Some(Duration::from_millis(200));
        let report = run(options);
        assert_eq!((report.requests, report.failures), (2, 0), "{direction:?}: {report}");
        assert!(report.bytes_sent + report.bytes_received > 0);
        if direction == Direction::Both {
            assert_eq!(report.bytes_sent, report.bytes_received);
        }
    }
}

#[test]
fn a_stream_with_a_size_is_cut_short_by_the_end_of_the_run() {
    let server = server("a");
    for direction in [Direction::Up, Direction::Down, Direction::Both] {
        let mut options = options(&[&server], Workload::Bulk { direction, size_bytes: Some(1 << 50) });
        options.duration = Some(Duration::from_millis(100));
        let report = run(options);
        assert_eq!((report.requests, report.failures, report.interrupted), (0, 0, 1), "{direction:?}: {report}");
    }
}

#[test]
fn a_load_without_end_goes_on_until_it_is_stopped() {
    let server = server("a");
    let mut options = options(&[&server], PINGPONG);
    options.connections = 4;
    let mut load = Load::start(options).unwrap();
    wait_until("some requests are done", || load.snapshot().requests > 100);
    let before = load.snapshot();
    assert!(!load.wait(Duration::from_millis(20)));
    wait_until("more requests are done", || load.snapshot().requests > before.requests);
    let now = load.snapshot();
    assert!(now.elapsed > before.elapsed);
    assert!(now.total.is_some());
    assert!(now.requests_by_backend["a"] >= before.requests);
    load.stop();
    wait_until("it has ended", || load.wait(Duration::from_millis(10)));
    let report = load.join().unwrap();
    assert_eq!((report.ended_by, report.failures), (EndReason::Stopped, 0));
    assert!(report.requests >= now.requests);
}

#[test]
fn a_load_can_be_stopped_from_elsewhere_and_by_dropping_it() {
    let server = server("a");
    let load = Load::start(options(&[&server], PINGPONG)).unwrap();
    let stopper = load.stopper();
    let thread = std::thread::spawn(move || stopper.stop());
    assert_eq!(load.join().unwrap().ended_by, EndReason::Stopped);
    thread.join().unwrap();

    let load = Load::start(options(&[&server], PINGPONG)).unwrap();
    wait_until("it is connected", || load.snapshot().requests > 0);
    drop(load);
    wait_until("its connection is gone", || server.counters().active == 0);
}

#[test]
fn connections_come_from_the_source_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = LoadOptions::new(vec![listener.local_addr().unwrap()], Workload::Connect);
    options.source = Some("127.0.0.9".parse().unwrap());
    options.requests = Some(1);
    let load = Load::start(options).unwrap();
    let (stream, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
    drop(stream);
    load.join().unwrap();
}

#[test]
fn ipv6_works_alike() {
    let mut server_options = ServerOptions::new("six".parse().unwrap());
    server_options.listen = vec!["[::1]:0".parse().unwrap()];
    let server = Server::start(server_options).unwrap();
    let mut options = options(&[&server], Workload::Connect);
    options.requests = Some(20);
    options.source = Some("::1".parse().unwrap());
    let report = run(options);
    assert_eq!((report.requests, report.failures, report.requests_of("six")), (20, 0, 20), "{report}");
}

#[test]
fn a_slow_backend_shows_in_its_own_line() {
    let fast = server("fast");
    let mut slow_options = ServerOptions::new("slow".parse().unwrap());
    slow_options.delay = Duration::from_millis(30);
    let slow = Server::start(slow_options).unwrap();
    let mut options = options(&[&fast, &slow], Workload::Connect);
    options.connections = 4;
    options.requests = Some(40);
    let report = run(options);
    let of = |name| report.backends.iter().find(|backend| backend.name == name).unwrap().total.unwrap();
    assert!(of("slow").min_us >= 30_000);
    assert!(of("fast").min_us < 30_000);
}

#[test]
fn thousands_of_connections_are_kept() {
    ringlb_load::raise_descriptor_limit().unwrap();
    let server = server("a");
    let mut options = options(&[&server], PINGPONG);
    options.connections = 4000;
    options.requests = Some(8000);
    options.timeout = Duration::from_secs(15);
    let report = run(options);
    assert_eq!((report.requests, report.failures, report.connections_opened), (8000, 0, 4000), "{report}");
}

#[test]
fn handles_can_be_shared_between_threads() {
    const fn shareable<T: Send + Sync + 'static>() {}
    const { shareable::<ringlb_load::LoadHandle>() };
    const { shareable::<ringlb_load::ServerHandle>() };
    let server = server("a");
    let load = Load::start(options(&[&server], PINGPONG)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| wait_until("requests are done", || load.snapshot().requests > 0));
    });
    load.stop();
    assert!(load.join().unwrap().requests > 0);
}

#[test]
fn options_that_make_no_sense_start_nothing() {
    let begun = Instant::now();
    let error = Load::start(LoadOptions::new(Vec::new(), Workload::Connect)).unwrap_err();
    assert!(matches!(error, LoadError::Option { option: "TARGET", .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
