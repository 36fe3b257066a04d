//! What is seen of connections: times, and lines in the access log.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ringlb_proxy::control::histogram::{CONNECT, SESSION};
use ringlb_proxy::control::message::{BackendSpec, Change, ServiceSettings};
use ringlb_proxy::control::settings::{
    AccessLog, AccessLogFormat, AccessLogSample, DrainTimeout, IdleTimeout, Retries,
};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::{Options, Proxy, address, backend, echo, patience, reset, serve, service};
use tempfile::NamedTempFile;

/// A proxy that writes a line for each connection, and its log.
struct Logged {
    proxy: Proxy,
    log: NamedTempFile,
}

impl Logged {
    fn start(backends: &[BackendSpec], settings: ServiceSettings) -> Self {
        let log = NamedTempFile::new().unwrap();
        let append = File::options().append(true).open(log.path()).unwrap();
        let options = Options { access_log: Some(append), ..Options::default() };
        let mut proxy = Proxy::start_without_table(&options);
        let mut spec = service("s", proxy.target.ip(), Default::default(), backends);
        spec.settings = settings;
        proxy.snapshot(vec![spec]);
        Self { proxy, log }
    }

    /// Waits for so many lines.
    fn lines(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + patience();
        loop {
            let text = std::fs::read_to_string(self.log.path()).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count && text.ends_with('\n') {
                assert_eq!(lines.len(), count, "{text}");
                return lines;
            }
            assert!(Instant::now() < deadline, "{count} lines do not come: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last of so many lines.
    fn last(&self, count: usize) -> Value {
        serde_json::from_str(&self.lines(count)[count - 1]).unwrap()
    }
}

fn logging() -> ServiceSettings {
    let access_log = AccessLog { format: AccessLogFormat::Json, sample: AccessLogSample(1) };
    ServiceSettings { access_log, ..ServiceSettings::default() }
}

fn ping(client: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn a_line_tells_of_a_connection() {
    let logged = Logged::start(&[backend(1)], logging());
    serve(1, logged.proxy.target.port(), echo);
    let mut client = logged.proxy.connect();
    ping(&mut client);
    let own_address = client.local_addr().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let line = logged.last(1);
    assert_eq!(line["network"], "test");
    assert_eq!(line["service"], "s");
    assert_eq!(line["client"], own_address.to_string());
    assert_eq!(line["vip"], logged.proxy.target.to_string());
    assert_eq!(line["backend"], SocketAddr::new(address(1), logged.proxy.target.port()).to_string());
    assert_eq!((&line["termination"], &line["attempts"]), (&"--".into(), &1.into()));
    assert_eq!((&line["bytes_to_backend"], &line["bytes_to_client"]), (&4.into(), &4.into()));
    assert!(line["connect_us"].as_u64().unwrap() <= line["duration_us"].as_u64().unwrap(), "{line}");
}

#[test]
fn terminations_say_who_and_when() {
    let mut logged = Logged::start(&[backend(1), backend(2)], logging());
    let port = logged.proxy.target.port();
    serve(1, port, echo);
    let termination = |logged: &Logged, count| logged.last(count)["termination"].as_str().unwrap().to_owned();

    // Backend 2 refuses, backend 1 serves.
    let mut client = logged.proxy.connect();
    ping(&mut client);
    reset(client);
    assert_eq!(termination(&logged, 1), "CD");

    let mut client = logged.proxy.connect();
    ping(&mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(termination(&logged, 2), "--");

    let mut client = logged.proxy.connect();
    ping(&mut client);
    logged.proxy.remove_backend(address(1));
    client.read(&mut [0]).unwrap_err();
    assert_eq!(termination(&logged, 3), "DD");

    // Only the one that refuses is left.
    let client = logged.proxy.try_connect();
    assert_eq!(termination(&logged, 4), "SC");
    drop(client);
    let line = logged.last(4);
    assert_eq!(line["backend"], SocketAddr::new(address(2), port).to_string());
    assert!(line["connect_us"].is_null(), "{line}");

    logged.proxy.remove_backend(address(2));
    let client = logged.proxy.try_connect();
    assert_eq!(termination(&logged, 5), "PC");
    drop(client);
    assert!(logged.last(5)["backend"].is_null());
}

#[test]
fn timeouts_have_letters_of_their_own() {
    let settings = ServiceSettings {
        idle_timeout: IdleTimeout(Some(Duration::from_secs(1))),
        drain_timeout: DrainTimeout(Some(Duration::from_millis(100))),
        retries: Retries(0),
        ..logging()
    };
    let mut logged = Logged::start(&[backend(1)], settings);
    serve(1, logged.proxy.target.port(), echo);
    let mut client = logged.proxy.connect();
    ping(&mut client);
    client.read(&mut [0]).unwrap_err();
    assert_eq!(logged.last(1)["termination"], "cD");

    let mut client = logged.proxy.connect();
    ping(&mut client);
    logged.proxy.put_backend(BackendSpec { draining: true, ..backend(1) });
    client.read(&mut [0]).unwrap_err();
    assert_eq!(logged.last(2)["termination"], "KD");
}

#[test]
fn lines_are_text_or_a_sample_or_none() {
    let with = |format, sample| ServiceSettings {
        access_log: AccessLog { format, sample: AccessLogSample(sample) },
        ..ServiceSettings::default()
    };
    let mut logged = Logged::start(&[backend(1)], with(AccessLogFormat::Off, 1));
    serve(1, logged.proxy.target.port(), |_| {});
    let set = |proxy: &mut Proxy, settings| {
        let mut spec = service("s", proxy.target.ip(), Default::default(), &[backend(1)]);
        spec.settings = settings;
        proxy.change(vec![Change::PutService(spec.into())]);
    };
    let connect = |proxy: &Proxy, count| {
        for _ in 0..count {
            assert_eq!(proxy.connect().read(&mut [0]).unwrap(), 0);
        }
    };
    connect(&logged.proxy, 5);
    logged.proxy.wait_for("all have ended", |statistics| statistics.proxy.active == 0);
    set(&mut logged.proxy, with(AccessLogFormat::Text, 1));
    connect(&logged.proxy, 1);
    let line = logged.lines(1).remove(0);
    assert!(line.contains(" network=test service=s client=127.0.0.1:"), "{line}");

    // One of ten by chance: of 400, fewer than 10 or more than 100 come once in more than 10⁸ runs.
    set(&mut logged.proxy, with(AccessLogFormat::Text, 10));
    connect(&logged.proxy, 400);
    logged.proxy.wait_for("all have ended", |statistics| statistics.proxy.active == 0);
    set(&mut logged.proxy, with(AccessLogFormat::Json, 1));
    connect(&logged.proxy, 1);
    let deadline = Instant::now() + patience();
    let sampled = loop {
        let text = std::fs::read_to_string(logged.log.path()).unwrap();
        if text.trim_end().ends_with('}') {
            break text.lines().count() - 2;
        }
        assert!(Instant::now() < deadline, "the last line does not come: {text}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!((10..=100).contains(&sampled), "{sampled}");
    assert_eq!(logged.proxy.statistics().proxy.access_log_dropped, 0);
}

#[test]
fn times_are_counted() {
    let mut proxy = Proxy::start(&[backend(1), backend(2)]);
    serve(1, proxy.target.port(), |mut stream| {
        std::thread::sleep(Duration::from_millis(20));
        let _ = stream.write_all(b"x");
    });
    for _ in 0..10 {
        proxy.connect().read_exact(&mut [0]).unwrap();
    }
    let statistics = proxy.wait_for("all have ended", |statistics| statistics.proxy.active == 0);
    let service = &statistics.services[0];
    // Backend 2 refuses: only what succeeded counts.
    assert!(statistics.proxy.connect_failures > 0);
    assert_eq!(service.connect_times.buckets.len(), CONNECT.buckets());
    assert_eq!(service.connect_times.buckets.iter().sum::<u64>(), 10);
    assert_eq!(service.session_times.buckets.iter().sum::<u64>(), 10);
    let short = SESSION.bucket(20_000 - 1);
    assert_eq!(service.session_times.buckets[..short].iter().sum::<u64>(), 0, "{service:?}");
    assert!(service.session_times.sum_us >= 10 * 20_000);
}
