//! The server's answers to datagrams, asked for by a plain client.

use crate::support::{DEADLINE, ask, connect, datagram_client, options, read_to_end, server, wait_until};
use ringlb_load::{Exchange, Load, LoadError, Server, ServerHandle, ServerOptions, Workload, pattern};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

fn server_at(addresses: &[&str]) -> ServerHandle {
    let mut options = ServerOptions::new("backend-1".parse().unwrap());
    options.listen = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Server::start(options).unwrap()
}

#[test]
fn datagrams_of_any_size_come_back_over_both_families() {
    let server = server_at(&["127.0.0.1:0", "[::1]:0"]);
    for address in server.addresses() {
        let client = datagram_client(*address);
        let largest = if address.is_ipv4() { 65_507 } else { 65_527 };
        let sizes = [0, 1, 2, 3, 64, 1472, 1473, 9000, 65_507, largest];
        for size in sizes {
            let data = pattern::chunk(size, size);
            assert!(ask(&client, data) == data, "{size} bytes to {address}");
        }
    }
    wait_until("all are counted", || server.counters().datagrams_answered == 20);
    assert_eq!(server.counters().datagrams_received, 20);
    assert_eq!(server.counters().datagrams_dropped, 0);
}

#[test]
fn a_server_names_itself_where_there_is_room() {
    let server = server("backend-1");
    let client = datagram_client(server.addresses()[0]);
    assert_eq!(ask(&client, b"ID\n and some room"), b"backend-1\n");
    assert_eq!(ask(&client, b"ID\n"), b"bac");
    assert_eq!(ask(&client, b"ECHO\n12345 and so on"), b"backend-1\n and so on");
    assert_eq!(ask(&client, b"ECHO\n1"), b"ECHO\n1");
    // What would be longer than the question, or is none.
    for text in [&b"SOURCE 1000000\n"[..], b"DISCARD\n", b"ID", b"hello"] {
        assert_eq!(ask(&client, text), text);
    }
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    // As VIPs are: local by a route, without an address.
    let added = Command::new("ip").args(["-6", "route", "replace", "local", "fd07::/64", "dev", "lo"]).status();
    assert!(added.unwrap().success());
    let server = server_at(&["0.0.0.0:0", "[::]:0"]);
    let port_of = |index: usize| server.addresses()[index].port();
    for (address, port) in [
        ("127.0.0.1", port_of(0)),
        ("127.7.8.9", port_of(0)),
        ("::1", port_of(1)),
        ("fd07::5", port_of(1)),
        ("127.0.0.1", port_of(1)),
        ("127.7.8.9", port_of(1)),
    ] {
        let target = SocketAddr::new(address.parse().unwrap(), port);
        // Not connected: it takes answers from anywhere.
        let client = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send_to(b"hello", target).unwrap();
        let mut answer = [0; 16];
        let (length, source) = client.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], source), (&b"hello"[..], target));
    }
}

#[test]
fn the_ipv6_wildcard_serves_ipv4_too_over_tcp_and_udp() {
    let server = server_at(&["[::]:0"]);
    let port = server.addresses()[0].port();
    for ip in ["127.0.0.1", "::1"] {
        let target = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port);
        assert_eq!(ask(&datagram_client(target), b"ID\n12345678"), b"backend-1\n");
        let mut client = connect(target);
        client.write_all(b"ID\n").unwrap();
        assert_eq!(read_to_end(&mut client), b"backend-1\n");
    }
}

#[test]
fn both_wildcards_may_have_the_same_port() {
    let free = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let server = server_at(&[&format!("[::]:{free}"), &format!("0.0.0.0:{free}")]);
    for ip in ["127.0.0.1", "::1"] {
        let target = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), free);
        assert_eq!(ask(&datagram_client(target), b"hello"), b"hello");
        assert_eq!(read_to_end_of_id(target), b"backend-1\n");
    }
    assert_eq!(server.counters().accepted, 2);
}

fn read_to_end_of_id(target: SocketAddr) -> Vec<u8> {
    let mut client = connect(target);
    client.write_all(b"ID\n").unwrap();
    read_to_end(&mut client)
}

#[test]
fn a_udp_port_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _again = UdpSocket::bind(taken).unwrap();
    let mut options = ServerOptions::new("second".parse().unwrap());
    options.listen = vec![taken];
    let error = Server::start(options).unwrap_err();
    assert!(matches!(error, LoadError::Listen { protocol: "UDP", address, .. } if address == taken), "{error}");
}

#[test]
fn a_delayed_server_answers_datagrams_no_sooner_and_holds_up_no_others() {
    let mut options = ServerOptions::new("slow".parse().unwrap());
    options.delay = Duration::from_millis(60);
    let server = Server::start(options).unwrap();
    let client = datagram_client(server.addresses()[0]);
    let begun = Instant::now();
    for number in 0..100_u8 {
        client.send(&[number]).unwrap();
    }
    let mut seen = [false; 100];
    for _ in 0..100 {
        let mut answer = [0; 2];
        assert_eq!(client.recv(&mut answer).unwrap(), 1);
        assert!(begun.elapsed() >= Duration::from_millis(60));
        seen[usize::from(answer[0])] = true;
    }
    assert_eq!(seen, [true; 100]);
    // One after the other they would have taken 6 s.
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_flood_of_datagrams_does_not_keep_connections_waiting() {
    let server = server("backend-1");
    let flood = Workload::Udp { exchange: Exchange::Bulk, size_bytes: 64, names: false };
    let mut flood = options(&[&server], flood);
    flood.timeout = Duration::from_millis(100);
    let load = Load::start(flood).unwrap();
    wait_until("datagrams come", || server.counters().datagrams_received > 1000);
    for _ in 0..20 {
        assert_eq!(read_to_end_of_id(server.addresses()[0]), b"backend-1\n");
    }
    load.stop();
    assert!(load.join().unwrap().requests > 1000);
}

#[test]
fn a_stopped_server_refuses_datagrams() {
    let server = server("backend-1");
    let client = datagram_client(server.addresses()[0]);
    assert_eq!(ask(&client, b"hello"), b"hello");
    server.stop();
    client.send(b"hello").unwrap();
    let error = client.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
