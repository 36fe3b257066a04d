//! UDP load against servers that behave.

use crate::support::{MisbehavingUdp, options, run, server, wait_until};
use ringlb_load::{EndReason, Exchange, Load, Report, Server, ServerOptions, Workload};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn udp(exchange: Exchange, size_bytes: u64, names: bool) -> Workload {
    Workload::Udp { exchange, size_bytes, names }
}

/// All datagrams were answered, once, and nothing else came.
#[track_caller]
fn assert_all_answered(report: &Report, count: u64) {
    assert_eq!((report.requests, report.failures, report.not_begun), (count, 0, 0), "{report}");
    let counts = report.datagrams.unwrap();
    assert_eq!((counts.sent, counts.received), (count, count), "{report}");
    assert_eq!((counts.lost, counts.late, counts.duplicates), (0, 0, 0), "{report}");
    assert_eq!((counts.reordered, counts.corrupt, counts.foreign), (0, 0, 0), "{report}");
    assert_eq!(report.latency.total.unwrap().count, count);
    assert!(report.latency.first_byte.is_none() && report.latency.connect.is_none());
}

#[test]
fn pingpong_counts_by_target_and_by_server() {
    let servers = [server("a"), server("b")];
    let mut options = options(&servers.each_ref(), udp(Exchange::Pingpong, 128, true));
    options.connections = 10;
    options.requests = Some(2000);
    let report = run(options);
    assert_all_answered(&report, 2000);
    assert_eq!(report.ended_by, EndReason::Requests);
    assert_eq!(report.connections_opened, 10);
    assert_eq!((report.bytes_sent, report.bytes_received), (2000 * 128, 2000 * 128));
    assert!(report.datagrams.unwrap().goodput_bits_per_second > 0.0);
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let backend = &report.backends[index];
        assert_eq!((backend.name.as_str(), backend.connections), (name, 5));
        assert_eq!(report.targets[index].requests, backend.requests);
        assert_eq!(servers[index].counters().datagrams_received, backend.requests);
        assert_eq!(backend.total.unwrap().count, backend.requests);
    }
    assert_eq!(report.requests_of("a") + report.requests_of("b"), 2000);
}

#[test]
fn without_names_no_server_is_asked() {
    let server = server("a");
    let mut options = options(&[&server], udp(Exchange::Pingpong, 64, false));
    options.requests = Some(100);
    let report = run(options);
    assert_all_answered(&report, 100);
    assert!(report.backends.is_empty());
}

#[test]
fn every_size_goes_there_and_back() {
    let server = server("a");
    for (size, names) in
        [(32, false), (33, false), (96, true), (1472, true), (1473, true), (9000, true), (65_507, true)]
    {
        for exchange in [Exchange::Pingpong, Exchange::Connect] {
            let mut options = options(&[&server], udp(exchange, size, names));
            options.connections = 2;
            options.requests = Some(50);
            let report = run(options);
            assert_all_answered(&report, 50);
            assert_eq!(report.bytes_received, 50 * size);
            assert_eq!(report.requests_of("a"), if names { 50 } else { 0 });
        }
    }
}

#[test]
fn bulk_sends_without_waiting_and_misses_nothing_at_a_rate() {
    let server = server("a");
    for connections in [1, 7] {
        let mut options = options(&[&server], udp(Exchange::Bulk, 1400, true));
        options.connections = connections;
        options.rate = Some(5000.0);
        options.requests = Some(2000);
        let report = run(options);
        assert_all_answered(&report, 2000);
        assert_eq!(report.requests_of("a"), 2000);
        assert_eq!(report.backends[0].connections, connections as u64);
        assert_eq!(report.latency.wait.unwrap().count, 2000);
        assert!(report.elapsed() >= Duration::from_millis(390), "{report}");
    }
}

#[test]
fn bulk_as_fast_as_it_goes_accounts_for_every_datagram() {
    let server = server("a");
    let mut options = options(&[&server], udp(Exchange::Bulk, 64, false));
    options.connections = 3;
    options.duration = Some(Duration::from_millis(300));
    options.timeout = Duration::from_millis(500);
    let report = run(options);
    assert_eq!(report.ended_by, EndReason::Duration);
    let counts = report.datagrams.unwrap();
    assert!(report.requests > 100, "{report}");
    assert_eq!(report.requests + report.failures, counts.sent, "{report}");
    assert_eq!(counts.lost, report.failures, "{report}");
    assert_eq!(counts.corrupt + counts.foreign + counts.duplicates, 0, "{report}");
}

/// A server that notes its clients.
fn noting() -> (MisbehavingUdp, Arc<Mutex<HashSet<SocketAddr>>>) {
    let clients = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&clients);
    let server = MisbehavingUdp::start(move |socket, datagram, client| {
        seen.lock().unwrap().insert(client);
        socket.send_to(datagram, client).unwrap();
    });
    (server, clients)
}

#[test]
fn each_client_has_a_port_of_its_own_and_keeps_it() {
    for exchange in [Exchange::Pingpong, Exchange::Bulk] {
        let (server, clients) = noting();
        let mut options = server.options(udp(exchange, 64, false));
        options.connections = 20;
        options.rate = Some(2000.0);
        options.requests = Some(500);
        assert_all_answered(&run(options), 500);
        assert!((2..=20).contains(&clients.lock().unwrap().len()));
    }
    let (server, clients) = noting();
    let mut options = server.options(udp(Exchange::Pingpong, 64, false));
    options.connections = 20;
    options.requests = Some(500);
    assert_all_answered(&run(options), 500);
    assert_eq!(clients.lock().unwrap().len(), 20);
}

#[test]
fn connect_uses_a_new_port_each_time() {
    let (server, clients) = noting();
    let mut options = server.options(udp(Exchange::Connect, 64, false));
    options.connections = 5;
    options.requests = Some(200);
    let report = run(options);
    assert_all_answered(&report, 200);
    assert_eq!(report.connections_opened, 200);
    // The system chooses at random, from 28,000.
    assert!(clients.lock().unwrap().len() > 150);
}

#[test]
fn datagrams_come_from_the_source_address() {
    let (server, clients) = noting();
    let mut options = server.options(udp(Exchange::Pingpong, 64, false));
    options.source = Some("127.0.0.9".parse().unwrap());
    options.requests = Some(1);
    assert_all_answered(&run(options), 1);
    let clients = clients.lock().unwrap();
    assert_eq!(clients.iter().next().unwrap().ip().to_string(), "127.0.0.9");
}

#[test]
fn ipv6_works_alike() {
    let mut server_options = ServerOptions::new("six".parse().unwrap());
    server_options.listen = vec!["[::1]:0".parse().unwrap()];
    let server = Server::start(server_options).unwrap();
    for exchange in [Exchange::Connect, Exchange::Pingpong, Exchange::Bulk] {
        let mut options = options(&[&server], udp(exchange, 9000, true));
        options.source = Some("::1".parse().unwrap());
        options.connections = 2;
        options.requests = Some(20);
        let report = run(options);
        assert_all_answered(&report, 20);
        assert_eq!(report.requests_of("six"), 20);
    }
}

#[test]
fn a_stall_shows_in_the_open_loop() {
    let mut count = 0;
    let server = MisbehavingUdp::start(move |socket, datagram, client| {
        count += 1;
        if count == 50 {
            std::thread::sleep(Duration::from_millis(500));
        }
        socket.send_to(datagram, client).unwrap();
    });
    let mut options = server.options(udp(Exchange::Pingpong, 64, false));
    options.rate = Some(500.0);
    options.requests = Some(1000);
    let report = run(options);
    assert_all_answered(&report, 1000);
    let total = report.latency.total.unwrap();
    assert!(total.max_us >= 500_000 && total.p99_us >= 400_000 && total.p90_us >= 200_000, "{report}");
    let wait = report.latency.wait.unwrap();
    assert_eq!(wait.count, 1000);
    assert!(wait.p99_us >= 400_000, "{report}");
}

#[test]
fn eight_thousand_clients_are_served() {
    ringlb_load::raise_descriptor_limit().unwrap();
    let server = server("a");
    let mut options = options(&[&server], udp(Exchange::Pingpong, 128, true));
    options.connections = 8000;
    options.rate = Some(10_000.0);
    options.requests = Some(10_000);
    options.timeout = Duration::from_secs(15);
    let report = run(options);
    assert_all_answered(&report, 10_000);
    assert_eq!(report.connections_opened, 8000);
}

#[test]
fn a_load_can_be_stopped() {
    let server = server("a");
    for exchange in [Exchange::Connect, Exchange::Pingpong, Exchange::Bulk] {
        let mut options = options(&[&server], udp(exchange, 64, false));
        options.connections = 4;
        options.timeout = Duration::from_millis(200);
        let load = Load::start(options).unwrap();
        wait_until("some are answered", || load.snapshot().requests > 100);
        load.stop();
        assert_eq!(load.join().unwrap().ended_by, EndReason::Stopped);
    }
}
