//! Connections through a real proxy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use support::{Proxy, backend, bulk, echo, exchange_pattern, read_pattern, reset, serve, write_pattern};

#[test]
fn an_echo_comes_back_in_every_size() {
    let proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), echo);
    for size in [0, 1, 64, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 300_000, 3_000_000] {
        let mut client = proxy.connect();
        assert_eq!(exchange_pattern(&mut client, size).unwrap(), size);
    }
}

#[test]
fn round_robin_counts_differ_by_at_most_one() {
    let mut proxy = Proxy::start(&[backend(1), backend(2), backend(3)]);
    for n in 1..=3 {
        serve(n, proxy.target.port(), move |mut stream| drop(stream.write_all(&[n])));
    }
    let mut counts = HashMap::<u8, u32>::new();
    for _ in 0..100 {
        let mut name = [0];
        proxy.connect().read_exact(&mut name).unwrap();
        *counts.entry(name[0]).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| (33..=34).contains(count)), "{counts:?}");
    let statistics = proxy.wait_for("all are closed", |s| s.proxy.active == 0);
    assert_eq!(statistics.proxy.accepted, 100);
    assert_eq!(statistics.services[0].connections, 100);
    for backend in &statistics.services[0].backends {
        assert_eq!((backend.active, backend.bytes_to_client), (0, backend.connections));
    }
}

#[test]
fn a_half_close_passes_through_each_way() {
    let proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(format!("got {} bytes", request.len()).as_bytes()).unwrap();
    });
    let mut client = proxy.connect();
    client.write_all(b"a request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "got 9 bytes");
}

#[test]
fn a_server_that_ends_first_still_hears_the_client() {
    let (heard, hears) = mpsc::channel();
    let proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), move |mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        heard.send(rest).unwrap();
    });
    let mut client = proxy.connect();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "bye");
    client.write_all(b"still here").unwrap();
    drop(client);
    assert_eq!(hears.recv_timeout(support::patience()).unwrap(), b"still here");
}

#[test]
fn a_reset_passes_through_each_way() {
    let (seen, sees) = mpsc::channel();
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), move |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        if byte[0] == b'r' {
            reset(stream);
        } else {
            stream.write_all(b"x").unwrap();
            seen.send(stream.read(&mut byte).map_err(|error| error.kind())).unwrap();
        }
    });
    let mut client = proxy.connect();
    client.write_all(b"r").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let mut client = proxy.connect();
    client.write_all(b"c").unwrap();
    client.read_exact(&mut [0]).unwrap();
    reset(client);
    assert_eq!(sees.recv_timeout(support::patience()).unwrap(), Err(ErrorKind::ConnectionReset));
    let statistics = proxy.wait_for("both are closed", |s| s.proxy.active == 0);
    assert_eq!((statistics.proxy.client_resets, statistics.proxy.backend_resets), (1, 1));
}

/// A server that answers and closes without reading what else the client sent makes the kernel reset the connection.
/// The answer must reach the client all the same.
#[test]
fn an_answer_before_a_reset_is_delivered() {
    let proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), |mut stream| {
        stream.read_exact(&mut [0; 10]).unwrap();
        stream.write_all(&[b'a'; 50_000]).unwrap();
        // Wait until more has come, so that closing with it unread is a reset.
        while stream.peek(&mut [0]).unwrap_or(0) == 0 {}
    });
    for _ in 0..20 {
        let mut client = proxy.connect();
        client.write_all(&[b'q'; 10]).unwrap();
        let mut reply = vec![0; 20_000];
        client.read_exact(&mut reply).unwrap();
        client.write_all(&[b'q'; 1000]).unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert_eq!(rest.len(), 30_000);
    }
}

#[test]
fn both_directions_at_once_and_by_splice() {
    let total = bulk(200_000_000);
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), move |mut stream| {
        let mut writer = stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            write_pattern(&mut writer, total).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        assert_eq!(read_pattern(&mut stream).unwrap(), total);
        sender.join().unwrap();
    });
    let mut client = proxy.connect();
    let mut writer = client.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        write_pattern(&mut writer, total).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(read_pattern(&mut client).unwrap(), total);
    sender.join().unwrap();
    let statistics = proxy.wait_for("it is closed", |s| s.proxy.active == 0);
    assert_eq!(statistics.ring.spliced_directions, 2);
    let backend = &statistics.services[0].backends[0];
    assert_eq!((backend.bytes_to_backend, backend.bytes_to_client), (total, total));
    assert!(statistics.ring.spliced_bytes > total);
}

/// Bulk, then silence longer than a pipe is kept, then small messages, then bulk again.
#[test]
fn a_direction_goes_from_copy_to_splice_and_back() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let mut client = proxy.connect();
    let mut exchange = |bytes: usize| {
        let mut writer = client.try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&vec![7; bytes]).unwrap());
        let mut reply = vec![0; bytes];
        client.read_exact(&mut reply).unwrap();
        assert!(reply.iter().all(|byte| *byte == 7));
        sender.join().unwrap();
    };
    exchange(4_000_000);
    std::thread::sleep(Duration::from_millis(2_500));
    let before = proxy.statistics().ring;
    assert!(before.spliced_directions >= 1, "{before:?}");
    exchange(100);
    let now = proxy.statistics().ring;
    assert_eq!(now.spliced_bytes, before.spliced_bytes, "small messages after a silence must be copied");
    exchange(4_000_000);
    assert!(proxy.statistics().ring.spliced_directions > before.spliced_directions);
}

/// Echo connections whose clients write and do not read fill every buffer on the way. Others must go on, and in the end
/// nothing may be lost.
#[test]
fn readers_that_stop_do_not_stop_others() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), echo);
    let stuck: Vec<_> = (0..80)
        .map(|_| {
            let client = proxy.connect();
            let mut writer = client.try_clone().unwrap();
            // Small pieces, so that reads do not fill buffers and nothing is spliced.
            let sender = std::thread::spawn(move || {
                for _ in 0..3_000 {
                    writer.write_all(&[9; 3_001]).unwrap();
                }
                writer.shutdown(Shutdown::Write).unwrap();
            });
            (client, sender)
        })
        .collect();
    proxy.wait_for("buffers run out", |s| s.ring.buffers_exhausted > 0);
    for _ in 0..50 {
        let mut client = proxy.connect();
        client.write_all(b"ping").unwrap();
        let mut reply = [0; 4];
        client.read_exact(&mut reply).unwrap();
    }
    for (mut client, sender) in stuck {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert!(all.len() == 3_000 * 3_001 && all.iter().all(|byte| *byte == 9));
        sender.join().unwrap();
    }
}

/// A large reply to a client that reads slowly: the proxy must not take it all in.
#[test]
fn a_slow_reader_costs_bounded_memory() {
    let mut proxy = Proxy::start(&[backend(1)]);
    serve(1, proxy.target.port(), |mut stream| drop(write_pattern(&mut stream, 200_000_000)));
    let before = proxy.anonymous_memory();
    let mut client = proxy.connect();
    for _ in 0..20 {
        client.read_exact(&mut [0; 1024]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let held = proxy.anonymous_memory() - before;
    assert!(held < 6 * 1024, "{held} KiB for one slow reader");
    let delivered = proxy.statistics().services[0].backends[0].bytes_to_client;
    assert!(delivered < 50_000_000, "{delivered} bytes were taken from the backend");
}

/// The same work with one accept operation for each connection, as on kernels with an unsound multishot accept.
#[test]
fn one_shot_accept_serves_many_clients() {
    let options = support::Options { arguments: vec!["--one-shot-accept"], ..Default::default() };
    let proxy = Proxy::start_with(&options, Default::default(), &[backend(1)]);
    assert!(!proxy.hello.features.multishot_accept);
    serve(1, proxy.target.port(), echo);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut client = proxy.connect();
                    client.write_all(b"ping").unwrap();
                    let mut reply = [0; 4];
                    let ok = client.read_exact(&mut reply).is_ok() && &reply == b"ping";
                    failed.fetch_or(!ok, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(!failed.into_inner());
}
