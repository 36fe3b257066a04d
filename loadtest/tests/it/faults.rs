//! Servers that misbehave: every failure is counted as what it is.

use crate::support::{Misbehaving, open, reset, run, wait_until};
use ringlb_load::{Direction, ErrorKind, Load, LoadOptions, Report, Workload, pattern};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PINGPONG: Workload = Workload::Pingpong { size_bytes: 1000 };

/// Every request failed, and as `kind`.
#[track_caller]
fn assert_all_failed(report: &Report, kind: ErrorKind, count: u64) {
    assert_eq!((report.requests, report.failures), (0, count), "{report}");
    assert_eq!(report.failures_of(kind), count, "{report}");
    assert_eq!(report.errors.len(), 1, "{report}");
    assert_eq!(report.targets[0].failures, count);
    let in_time: u64 = report.timeline.buckets.iter().flat_map(|bucket| bucket.errors.values()).sum();
    assert_eq!(in_time, count);
    assert!(report.latency.total.is_none());
}

fn with_requests(mut options: LoadOptions, requests: u64) -> LoadOptions {
    options.connections = 2;
    options.requests = Some(requests);
    options
}

#[test]
fn a_closed_port_refuses() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = LoadOptions::new(vec![closed], Workload::Connect);
    let report = run(with_requests(options.clone(), 30));
    assert_all_failed(&report, ErrorKind::Refused, 30);
    assert_eq!(report.connections_opened, 0);
    assert!(report.errors[&ErrorKind::Refused].example.starts_with("connecting: Connection refused"));

    // An open loop does not slow down for it.
    let mut options = with_requests(options, 100);
    options.rate = Some(1000.0);
    let report = run(options);
    assert_all_failed(&report, ErrorKind::Refused, 100);
    assert_eq!(report.not_begun, 0);
}

#[test]
fn connect_with_a_size_checks_what_comes_back() {
    let echo = Workload::ConnectEcho { size_bytes: 64 };
    let ends = Misbehaving::start(|mut stream| stream.read_exact(&mut [0; 64]));
    let report = run(with_requests(ends.options(echo), 10));
    assert_all_failed(&report, ErrorKind::UnexpectedEnd, 10);
    let changes = Misbehaving::start(|mut stream| {
        let mut bytes = [0; 64];
        stream.read_exact(&mut bytes)?;
        bytes[63] ^= 1;
        stream.write_all(&bytes)
    });
    let report = run(with_requests(changes.options(echo), 10));
    assert_all_failed(&report, ErrorKind::Mismatch, 10);
    assert!(report.errors[&ErrorKind::Mismatch].example.contains("63"), "{report}");
}

#[test]
fn pingpong_counts_the_connections_that_failed_before_the_start_as_well() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = run(with_requests(LoadOptions::new(vec![closed], PINGPONG), 5));
    assert_all_failed(&report, ErrorKind::Refused, 2 + 5);
}

#[test]
fn a_reset_is_a_reset() {
    let server = Misbehaving::start(|mut stream| {
        stream.read_exact(&mut [0; 3])?;
        reset(stream)
    });
    let report = run(with_requests(server.options(Workload::Connect), 10));
    assert_all_failed(&report, ErrorKind::Reset, 10);
    assert_eq!(report.connections_opened, 10);
}

#[test]
fn a_reset_after_the_answer_is_a_failure_too() {
    let server = Misbehaving::start(|mut stream| {
        open(&mut stream)?;
        // Once the answer has arrived: a reset overtakes what is still on its way.
        std::thread::sleep(Duration::from_millis(20));
        reset(stream)
    });
    let report = run(with_requests(server.options(Workload::Connect), 4));
    assert_all_failed(&report, ErrorKind::Reset, 4);
}

#[test]
fn a_silent_server_is_a_timeout() {
    for workload in [
        Workload::Connect,
        Workload::Bulk { direction: Direction::Up, size_bytes: Some(1) },
        Workload::Bulk { direction: Direction::Down, size_bytes: Some(1) },
    ] {
        let server = Misbehaving::start(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
        let mut options = with_requests(server.options(workload), 4);
        options.timeout = Duration::from_millis(50);
        let report = run(options);
        assert_all_failed(&report, ErrorKind::Timeout, 4);
        let example = &report.errors[&ErrorKind::Timeout].example;
        assert!(example.contains("reading the server's name: not done after 50ms"), "{example}");
    }
}

#[test]
fn a_server_that_stalls_in_the_middle_is_a_timeout() {
    let stalling = |mut stream: TcpStream| {
        open(&mut stream)?;
        let mut data = [0; 100];
        stream.read_exact(&mut data)?;
        stream.write_all(&data)?;
        // Takes nothing more and gives nothing more, until the client gives up.
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    };
    for workload in [
        PINGPONG,
        Workload::Bulk { direction: Direction::Up, size_bytes: Some(1 << 40) },
        Workload::Bulk { direction: Direction::Both, size_bytes: Some(1 << 40) },
    ] {
        let server = Misbehaving::start(stalling);
        let mut options = with_requests(server.options(workload), 2);
        options.timeout = Duration::from_millis(60);
        let report = run(options);
        assert_all_failed(&report, ErrorKind::Timeout, 2);
        assert_eq!(report.backends[0].failures, 2);
    }
}

#[test]
fn connections_given_up_hold_no_descriptors() {
    // A queue of one that is full: the kernel drops what comes, and connecting takes for ever.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(address).unwrap();

    let mut options = LoadOptions::new(vec![address], Workload::Connect);
    options.connections = 5;
    options.timeout = Duration::from_millis(20);
    let load = Load::start(options).unwrap();
    let mut most = 0;
    wait_until("many were given up", || {
        most = most.max(sockets_towards(address));
        load.snapshot().failures >= 100
    });
    load.stop();
    let report = load.join().unwrap();
    assert_all_failed(&report, ErrorKind::Timeout, report.failures);
    assert!(report.errors[&ErrorKind::Timeout].example.starts_with("connecting: not done after"));
    assert!((1..=10).contains(&most), "{most} sockets for 5 connections");
}

/// The sockets that are connecting to `address`, of the whole network namespace.
fn sockets_towards(address: SocketAddr) -> usize {
    const SYN_SENT: &str = "02";
    let remote = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>());
    fields.filter(|fields| *fields == [remote.as_str(), SYN_SENT]).count()
}

#[test]
fn a_connection_that_ends_early_is_an_unexpected_end() {
    let silent = Misbehaving::start(|mut stream| stream.read_exact(&mut [0; 3]));
    let report = run(with_requests(silent.options(Workload::Connect), 5));
    assert_all_failed(&report, ErrorKind::UnexpectedEnd, 5);

    let half_a_name = Misbehaving::start(|mut stream| {
        stream.read_exact(&mut [0; 3])?;
        stream.write_all(b"half")
    });
    let report = run(with_requests(half_a_name.options(Workload::Connect), 5));
    assert_all_failed(&report, ErrorKind::UnexpectedEnd, 5);

    let half_an_echo = Misbehaving::start(|mut stream| {
        open(&mut stream)?;
        let mut data = [0; 1000];
        stream.read_exact(&mut data)?;
        stream.write_all(&data[..500])
    });
    let report = run(with_requests(half_an_echo.options(PINGPONG), 5));
    assert_all_failed(&report, ErrorKind::UnexpectedEnd, 5);
    assert!(report.errors[&ErrorKind::UnexpectedEnd].example.contains("after 500 bytes"));

    let half_a_stream = Misbehaving::start(|mut stream| {
        open(&mut stream)?;
        // The pattern's right part; the stream's start is the client's choice and not known to this server.
        stream.write_all(b"")
    });
    let down = Workload::Bulk { direction: Direction::Down, size_bytes: Some(10_000) };
    let report = run(with_requests(half_a_stream.options(down), 5));
    assert_all_failed(&report, ErrorKind::UnexpectedEnd, 5);
}

#[test]
fn an_answer_that_is_no_name_is_a_mismatch() {
    for answer in [&b"\n"[..], b"two words\n", b"name\nmore", &[b'x'; 200]] {
        let server = Misbehaving::start(move |mut stream| {
            stream.read_exact(&mut [0; 3])?;
            stream.write_all(answer)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        let report = run(with_requests(server.options(Workload::Connect), 3));
        assert_all_failed(&report, ErrorKind::Mismatch, 3);
    }
}

/// Echoes a stream after `corrupt` has had its hands on each piece; the number is the piece's offset.
fn corrupting(corrupt: impl Fn(usize, &mut Vec<u8>) + Send + Sync + 'static) -> Misbehaving {
    Misbehaving::start(move |mut stream| {
        open(&mut stream)?;
        let mut offset = 0;
        loop {
            let mut piece = vec![0; 1000];
            let length = stream.read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            piece.truncate(length);
            corrupt(offset, &mut piece);
            offset += length;
            stream.write_all(&piece)?;
        }
    })
}

#[test]
fn a_corrupted_answer_is_a_mismatch() {
    let flip = corrupting(|_, piece| piece[0] ^= 1);
    let report = run(with_requests(flip.options(PINGPONG), 5));
    assert_all_failed(&report, ErrorKind::Mismatch, 5);
    assert_eq!(report.backends[0].failures, 5);

    let repeat = corrupting(|_, piece| piece.extend_from_within(..1));
    let report = run(with_requests(repeat.options(PINGPONG), 5));
    // What is too much may come too late for its own request; then it spoils the next one's answer.
    assert!(report.failures >= 2, "{report}");
    assert_eq!(report.failures_of(ErrorKind::Mismatch), report.failures, "{report}");
}

#[test]
fn a_stream_that_was_corrupted_late_is_a_mismatch_there() {
    let both = Workload::Bulk { direction: Direction::Both, size_bytes: Some(100_000) };
    let flip = corrupting(|offset, piece| {
        if (offset..offset + piece.len()).contains(&70_000) {
            piece[70_000 - offset] ^= 1;
        }
    });
    let report = run(with_requests(flip.options(both), 3));
    assert_all_failed(&report, ErrorKind::Mismatch, 3);
    assert!(report.errors[&ErrorKind::Mismatch].example.ends_with("wrong from byte 70000 on"), "{report}");

    let lose = corrupting(|offset, piece| {
        if offset > 0 && offset <= 1000 {
            piece.clear();
        }
    });
    let report = run(with_requests(lose.options(both), 3));
    assert_all_failed(&report, ErrorKind::Mismatch, 3);
}

#[test]
fn a_verdict_that_does_not_agree_is_a_mismatch() {
    for verdict in ["received 9999\n", "mismatch 17\n"] {
        let server = Misbehaving::start(move |mut stream| {
            open(&mut stream)?;
            stream.read_to_end(&mut Vec::new())?;
            stream.write_all(verdict.as_bytes())
        });
        let up = Workload::Bulk { direction: Direction::Up, size_bytes: Some(10_000) };
        let report = run(with_requests(server.options(up), 3));
        assert_all_failed(&report, ErrorKind::Mismatch, 3);
    }
}

#[test]
fn a_stream_of_other_bytes_is_a_mismatch() {
    let server = Misbehaving::start(|mut stream| {
        open(&mut stream)?;
        stream.write_all(pattern::chunk(3, 10_000))
    });
    let down = Workload::Bulk { direction: Direction::Down, size_bytes: Some(10_000) };
    let report = run(with_requests(server.options(down), 3));
    assert_all_failed(&report, ErrorKind::Mismatch, 3);
}

#[test]
fn pingpong_makes_a_new_connection_after_a_failure_and_goes_on() {
    let server = Misbehaving::start(|mut stream| {
        open(&mut stream)?;
        let mut data = [0; 1000];
        for _ in 0..10 {
            stream.read_exact(&mut data)?;
            stream.write_all(&data)?;
        }
        stream.read_exact(&mut data)?;
        reset(stream)
    });
    let mut options = server.options(PINGPONG);
    options.requests = Some(110);
    let report = run(options);
    assert_eq!((report.requests, report.failures), (100, 10), "{report}");
    assert_eq!(report.failures_of(ErrorKind::Reset), 10, "{report}");
    assert_eq!(report.backends[0].connections, 10);
}

#[test]
fn a_failure_does_not_hide_the_successes() {
    let count = AtomicUsize::new(0);
    let server = Misbehaving::start(move |mut stream| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if number % 4 == 3 {
            return reset(stream);
        }
        open(&mut stream)
    });
    let mut options = server.options(Workload::Connect);
    options.requests = Some(40);
    let report = run(options);
    assert_eq!((report.requests, report.failures), (30, 10), "{report}");
    assert_eq!(report.failures_of(ErrorKind::Reset), 10, "{report}");
    assert_eq!(report.requests_of("misbehaving"), 30);
}
