//! The server's protocol, spoken by a plain client.

use crate::support::{connect, read_exactly, read_to_end, server, wait_until};
use ringlb_load::pattern;
use ringlb_load::{LoadError, Server, ServerOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn identify_is_answered_by_the_name_and_the_server_closes_first() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    client.write_all(b"ID\n").unwrap();
    assert_eq!(read_to_end(&mut client), b"backend-1\n");
}

#[test]
fn the_echo_command_is_answered_by_the_name_and_then_everything_comes_back() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    // What looks like a command later is none.
    client.write_all(b"ECHO\nfirst").unwrap();
    assert_eq!(read_exactly(&mut client, 15), b"backend-1\nfirst");
    client.write_all(b"ID\n").unwrap();
    assert_eq!(read_exactly(&mut client, 3), b"ID\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn a_command_may_come_in_pieces() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    client.set_nodelay(true).unwrap();
    for byte in b"SOURCE 5 0\n" {
        client.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let answer = read_to_end(&mut client);
    assert_eq!(answer, [b"backend-1\n", pattern::chunk(0, 5)].concat());
}

#[test]
fn anything_else_is_echoed_from_the_first_byte() {
    let server = server("backend-1");
    for text in [&b"hello"[..], b"\n", b"ID?", b"ECHO 1\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut client = connect(server.addresses()[0]);
        client.write_all(text).unwrap();
        assert_eq!(read_exactly(&mut client, text.len()), text);
        client.write_all(b"more").unwrap();
        assert_eq!(read_exactly(&mut client, 4), b"more");
    }
}

#[test]
fn what_could_have_become_a_command_is_echoed_when_the_client_ends_its_direction() {
    let server = server("backend-1");
    for text in [&b""[..], b"I", b"ID", b"SOURCE 12"] {
        let mut client = connect(server.addresses()[0]);
        client.write_all(text).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client), text);
    }
}

#[test]
fn large_data_is_echoed_whole() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    let data: Vec<u8> = (0..40).flat_map(|index| pattern::chunk(index * 100_000, 100_000)).copied().collect();
    let mut writer = client.try_clone().unwrap();
    let sent = data.clone();
    let thread = std::thread::spawn(move || {
        // Something that is no command first.
        writer.write_all(b"!").unwrap();
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let answer = read_to_end(&mut client);
    thread.join().unwrap();
    assert_eq!(answer.len(), data.len() + 1);
    assert!(answer[1..] == data);
}

#[test]
fn small_data_after_large_data_is_echoed_too() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    for size in [1, 256, 257, 5000, 3, 100_000, 255, 1] {
        let data = [b"!", pattern::chunk(7, size)].concat();
        client.write_all(&data).unwrap();
        assert!(read_exactly(&mut client, data.len()) == data, "{size} bytes");
    }
}

#[test]
fn discard_judges_the_stream() {
    let server = server("backend-1");
    let data = pattern::chunk(1000, 200_000);
    let mut wrong = data.to_vec();
    wrong[150_000] ^= 0x40;
    for (data, verdict) in [
        (data, "received 200000\n"),
        (&data[..0], "received 0\n"),
        (&wrong[..], "mismatch 150000\n"),
        (&data[1..], "mismatch 0\n"),
    ] {
        let mut client = connect(server.addresses()[0]);
        client.write_all(b"DISCARD 1000\n").unwrap();
        client.write_all(data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(String::from_utf8(read_to_end(&mut client)).unwrap(), format!("backend-1\n{verdict}"));
    }
}

#[test]
fn an_endless_source_stops_when_the_client_ends_its_direction() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    client.write_all(b"SOURCE 0 77\n").unwrap();
    let data = read_exactly(&mut client, 3_000_010);
    assert_eq!(pattern::first_difference(77, &data[10..]), None);
    client.shutdown(Shutdown::Write).unwrap();
    let rest = read_to_end(&mut client);
    assert_eq!(pattern::first_difference(77 + 3_000_000, &rest), None);
    wait_until("the connection has ended", || server.counters().active == 0);
}

#[test]
fn a_source_ends_for_a_client_that_keeps_its_direction_open() {
    let server = server("backend-1");
    let mut client = connect(server.addresses()[0]);
    client.write_all(b"SOURCE 1000000\n").unwrap();
    let answer = read_to_end(&mut client);
    assert_eq!(answer.len(), 1_000_010);
    // The client has not closed; the server must not wait for that.
    wait_until("the connection has ended", || server.counters().active == 0);
}

#[test]
fn a_greeting_comes_before_anything_is_sent() {
    let mut options = ServerOptions::new("greeter".parse().unwrap());
    options.greeting = true;
    let server = Server::start(options).unwrap();
    let mut client = connect(server.addresses()[0]);
    assert_eq!(read_exactly(&mut client, 8), b"greeter\n");
    client.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
}

#[test]
fn a_delayed_server_answers_no_sooner() {
    let mut options = ServerOptions::new("slow".parse().unwrap());
    options.delay = Duration::from_millis(60);
    let server = Server::start(options).unwrap();
    for request in [&b"ID\n"[..], b"hello"] {
        let mut client = connect(server.addresses()[0]);
        let begun = Instant::now();
        client.write_all(request).unwrap();
        read_exactly(&mut client, 5);
        assert!(begun.elapsed() >= Duration::from_millis(60));
    }
}

#[test]
fn several_listeners_serve_alike() {
    let mut options = ServerOptions::new("many".parse().unwrap());
    options.listen = ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"].map(|address| address.parse().unwrap()).to_vec();
    let server = Server::start(options).unwrap();
    assert_eq!(server.addresses().len(), 3);
    for address in server.addresses() {
        assert_ne!(address.port(), 0);
        let mut client = connect(*address);
        client.write_all(b"ID\n").unwrap();
        assert_eq!(read_to_end(&mut client), b"many\n");
    }
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let first = server("first");
    let mut options = ServerOptions::new("second".parse().unwrap());
    options.listen = first.addresses().to_vec();
    let error = Server::start(options).unwrap_err();
    assert!(matches!(error, LoadError::Listen { address, .. } if address == first.addresses()[0]), "{error}");
}

#[test]
fn a_thread_that_cannot_be_prepared_is_an_error() {
    let options = ServerOptions::new("unprepared".parse().unwrap());
    let error = Server::start_in(options, || Err(io::Error::other("no such namespace"))).unwrap_err();
    assert!(error.to_string().contains("no such namespace"), "{error}");
}

#[test]
fn two_thousand_idle_connections_are_served_and_ended() {
    ringlb_load::raise_descriptor_limit().unwrap();
    let server = server("backend-1");
    let mut clients: Vec<_> = (0..2000).map(|_| connect(server.addresses()[0])).collect();
    wait_until("all are accepted", || server.counters().active == 2000);
    for client in clients.iter_mut().step_by(97) {
        client.write_all(b"hello").unwrap();
        assert_eq!(read_exactly(client, 5), b"hello");
    }
    drop(clients.split_off(1000));
    wait_until("the closed ones are gone", || server.counters().active == 1000);
    server.stop();
    for client in &mut clients {
        // An end or a reset, but not silence.
        match client.read(&mut [0; 8]) {
            Ok(0) => {}
            Ok(more) => panic!("{more} bytes from a server that was stopped"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}
