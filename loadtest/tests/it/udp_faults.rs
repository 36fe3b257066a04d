//! UDP servers that misbehave: what becomes of each datagram is counted as what it is.

use crate::support::{MisbehavingUdp, run, server, wait_until};
use ringlb_load::{DatagramReport, ErrorKind, Exchange, Load, LoadOptions, Report, Server, ServerOptions, Workload};
use std::net::UdpSocket;
use std::time::Duration;

const PINGPONG: Workload = Workload::Udp { exchange: Exchange::Pingpong, size_bytes: 200, names: false };
const BULK: Workload = Workload::Udp { exchange: Exchange::Bulk, size_bytes: 200, names: false };
const CONNECT: Workload = Workload::Udp { exchange: Exchange::Connect, size_bytes: 200, names: false };

/// Few enough to fit into the buffers on the way.
fn with_requests(mut options: LoadOptions, requests: u64) -> LoadOptions {
    options.requests = Some(requests);
    options.timeout = Duration::from_millis(250);
    options
}

fn counts(report: &Report) -> DatagramReport {
    report.datagrams.unwrap()
}

#[test]
fn every_tenth_is_lost() {
    for workload in [PINGPONG, CONNECT, BULK] {
        let mut count = 0;
        let server = MisbehavingUdp::start(move |socket, datagram, client| {
            count += 1;
            if count % 10 != 0 {
                socket.send_to(datagram, client).unwrap();
            }
        });
        let report = run(with_requests(server.options(workload), 50));
        assert_eq!((report.requests, report.failures), (45, 5), "{report}");
        assert_eq!(report.failures_of(ErrorKind::Timeout), 5, "{report}");
        assert_eq!((counts(&report).sent, counts(&report).received, counts(&report).lost), (50, 45, 5), "{report}");
        assert_eq!(report.targets[0].failures, 5);
        assert!(report.errors[&ErrorKind::Timeout].example.contains("not done after 250ms"), "{report}");
    }
}

#[test]
fn a_silent_server_does_not_slow_an_open_loop_down() {
    let server = MisbehavingUdp::start(|_, _, _| {});
    let mut options = with_requests(server.options(PINGPONG), 50);
    options.connections = 50;
    options.rate = Some(1000.0);
    let report = run(options);
    assert_eq!((report.requests, report.failures, report.not_begun), (0, 50, 0), "{report}");
    assert_eq!(counts(&report).lost, 50);
}

#[test]
fn duplicates_are_no_answers() {
    let server = MisbehavingUdp::start(|socket, datagram, client| {
        // Both are there when the load receives the next one's answer.
        socket.send_to(datagram, client).unwrap();
        socket.send_to(datagram, client).unwrap();
    });
    for workload in [PINGPONG, BULK] {
        let mut options = with_requests(server.options(workload), 100);
        options.rate = Some(1000.0);
        let report = run(options);
        assert_eq!((report.requests, report.failures), (100, 0), "{report}");
        // The last one's may come after the end.
        assert!((98..=100).contains(&counts(&report).duplicates), "{report}");
        assert_eq!(counts(&report).late + counts(&report).foreign + counts(&report).reordered, 0, "{report}");
    }
}

#[test]
fn pairs_in_the_wrong_order_are_reordered() {
    let mut held = None;
    let server = MisbehavingUdp::start(move |socket, datagram, client| match held.take() {
        None => held = Some(datagram.to_vec()),
        Some(earlier) => {
            socket.send_to(datagram, client).unwrap();
            socket.send_to(&earlier, client).unwrap();
        }
    });
    let report = run(with_requests(server.options(BULK), 100));
    assert_eq!((report.requests, report.failures), (100, 0), "{report}");
    assert_eq!(counts(&report).reordered, 50, "{report}");
    assert_eq!(counts(&report).duplicates + counts(&report).late, 0, "{report}");
}

#[test]
fn an_answer_after_the_timeout_is_late_and_does_not_pass_for_the_next_ones() {
    let mut held: Option<Vec<u8>> = None;
    let mut count = 0;
    let server = MisbehavingUdp::start(move |socket, datagram, client| {
        count += 1;
        if count == 3 {
            held = Some(datagram.to_vec());
            return;
        }
        if let Some(earlier) = held.take() {
            socket.send_to(&earlier, client).unwrap();
        }
        socket.send_to(datagram, client).unwrap();
    });
    let report = run(with_requests(server.options(PINGPONG), 10));
    assert_eq!((report.requests, report.failures), (9, 1), "{report}");
    assert_eq!((counts(&report).lost, counts(&report).late, counts(&report).received), (1, 1, 10), "{report}");
    assert_eq!(counts(&report).reordered, 0, "{report}");
}

#[test]
fn whatever_is_changed_on_the_way_is_corrupt() {
    type Change = fn(&[u8]) -> Vec<u8>;
    let changes: [(&str, Change); 5] = [
        ("a bit of the pattern", |bytes| flip(bytes, 150)),
        ("the mark", |bytes| flip(bytes, 0)),
        ("the sequence number", |bytes| flip(bytes, 16)),
        ("the end", |bytes| bytes[..199].to_vec()),
        ("one byte more", |bytes| [bytes, b"x"].concat()),
    ];
    for (what, change) in changes {
        for workload in [PINGPONG, BULK] {
            let mut count = 0;
            let server = MisbehavingUdp::start(move |socket, datagram, client| {
                count += 1;
                let answer = if count % 5 == 0 { change(datagram) } else { datagram.to_vec() };
                socket.send_to(&answer, client).unwrap();
            });
            let report = run(with_requests(server.options(workload), 20));
            assert_eq!((report.requests, report.failures), (16, 4), "{what}: {report}");
            assert_eq!(report.failures_of(ErrorKind::Mismatch), 4, "{what}: {report}");
            assert_eq!((counts(&report).corrupt, counts(&report).lost), (4, 0), "{what}: {report}");
        }
    }
}

fn flip(bytes: &[u8], index: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[index] ^= 1;
    bytes
}

#[test]
fn answers_to_others_are_foreign() {
    let mut before: Option<(Vec<u8>, std::net::SocketAddr)> = None;
    let mut crossed = 0;
    let server = MisbehavingUdp::start(move |socket, datagram, client| {
        // Once each client's datagram goes to the other, and then to whom it belongs.
        if let Some((other, other_client)) = before.take()
            && other_client != client
            && crossed < 10
        {
            crossed += 1;
            socket.send_to(&other, client).unwrap();
        }
        before = Some((datagram.to_vec(), client));
        socket.send_to(datagram, client).unwrap();
    });
    let mut options = with_requests(server.options(PINGPONG), 2000);
    options.connections = 2;
    let report = run(options);
    assert_eq!((report.requests, report.failures), (2000, 0), "{report}");
    assert!((8..=10).contains(&counts(&report).foreign), "{report}");
    assert_eq!(counts(&report).corrupt, 0, "{report}");
}

#[test]
fn an_answer_from_another_address_is_none() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut count = 0;
    let server = MisbehavingUdp::start(move |socket, datagram, client| {
        count += 1;
        let from = if count % 5 == 0 { &other } else { socket };
        from.send_to(datagram, client).unwrap();
    });
    let report = run(with_requests(server.options(PINGPONG), 10));
    assert_eq!((report.requests, counts(&report).lost, counts(&report).received), (8, 2, 8), "{report}");
}

#[test]
fn datagrams_of_another_run_are_foreign() {
    let (give, take) = std::sync::mpsc::channel();
    let recording = MisbehavingUdp::start(move |socket, datagram, client| {
        give.send(datagram.to_vec()).unwrap();
        socket.send_to(datagram, client).unwrap();
    });
    assert_eq!(run(with_requests(recording.options(PINGPONG), 1)).requests, 1);
    let old = take.recv().unwrap();
    let replaying = MisbehavingUdp::start(move |socket, datagram, client| {
        socket.send_to(&old, client).unwrap();
        socket.send_to(datagram, client).unwrap();
    });
    let report = run(with_requests(replaying.options(PINGPONG), 10));
    assert_eq!((report.requests, report.failures, counts(&report).foreign), (10, 0, 10), "{report}");
}

#[test]
fn a_closed_port_refuses() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let six = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    for target in [closed, six] {
        for workload in [PINGPONG, CONNECT] {
            let mut options = LoadOptions::new(vec![target], workload);
            options.connections = 2;
            // Linux sends at most 1,000 ICMP errors a second (net.ipv4.icmp_msgs_per_sec).
            options.rate = Some(100.0);
            let report = run(with_requests(options, 20));
            assert_eq!((report.requests, report.failures), (0, 20), "{report}");
            assert_eq!(report.failures_of(ErrorKind::Refused), 20, "{report}");
            assert_eq!(counts(&report).lost, 0, "{report}");
        }
        let mut options = LoadOptions::new(vec![target], BULK);
        options.rate = Some(100.0);
        let report = run(with_requests(options, 20));
        assert_eq!((report.requests, report.failures, counts(&report).sent), (0, 20, 20), "{report}");
        assert_eq!(report.failures_of(ErrorKind::Refused), 20, "{report}");
    }
}

#[test]
fn a_server_that_comes_back_is_found_again_by_the_same_socket() {
    let first = server("first");
    let address = first.addresses()[0];
    let workload = Workload::Udp { exchange: Exchange::Pingpong, size_bytes: 128, names: true };
    let load = Load::start(LoadOptions::new(vec![address], workload)).unwrap();
    wait_until("the first answers", || load.snapshot().requests_by_backend.contains_key("first"));
    first.stop();
    wait_until("it is missed", || load.snapshot().failures_by_kind.contains_key(&ErrorKind::Refused));
    let mut options = ServerOptions::new("second".parse().unwrap());
    options.listen = vec![address];
    let second = Server::start(options).unwrap();
    wait_until("the second answers", || load.snapshot().requests_by_backend.contains_key("second"));
    load.stop();
    let report = load.join().unwrap();
    assert_eq!(report.connections_opened, 1, "{report}");
    assert_eq!(report.backends.iter().map(|backend| backend.connections).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(report.backends[0].failures, report.failures, "{report}");
    second.stop();
}

#[test]
fn a_network_that_is_not_there_is_unreachable() {
    // Without a route, in the namespace of these tests.
    for workload in [PINGPONG, CONNECT, BULK] {
        let options = LoadOptions::new(vec!["192.0.2.1:9".parse().unwrap()], workload);
        let report = run(with_requests(options, 5));
        assert_eq!(report.requests, 0, "{report}");
        assert!(report.failures_of(ErrorKind::Unreachable) >= 5, "{report}");
        assert_eq!(report.failures_of(ErrorKind::Unreachable), report.failures, "{report}");
    }
}
