//! Streams without a pause.

use super::{MEGABYTE, Pair, Site, check, finish};
use ringlb_load::pattern;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// As much as no receiver has room for: at least a half of it goes through the proxy's sockets if it is relayed.
const PART: u64 = 64 * MEGABYTE;
/// How much a stream has at least.
const LEAST: u64 = 200 * MEGABYTE;
/// When a stream's ends are stopped in vain, it is tried again ten seconds later, and then twice as long after that.
const LONGEST: Duration = Duration::from_secs(100);

/// Sends the pattern until it is told to stop, and then that this is the end. Gives how much it was.
fn send_until(mut stream: &TcpStream, position: u64, stop: &AtomicBool) -> u64 {
    let mut end = position;
    while !stop.load(Ordering::Relaxed) {
        let chunk = pattern::chunk(end, MEGABYTE);
        stream.write_all(chunk).unwrap();
        end += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    end
}

/// Receives to the end; has the stream stopped once a part has gone past the proxy, and it has been long enough. Gives how much it
/// was.
fn receive_until_passed(site: &Site, mut stream: &TcpStream, position: u64, stop: &AtomicBool) -> u64 {
    let (mut end, mut buffer, began) = (position, vec![0; 1 << 18], Instant::now());
    let (mut part, mut before, mut has_passed) = (end, site.segments(), false);
    loop {
        let length = stream.read(&mut buffer).unwrap();
        check(end, &buffer[..length]);
        end += length as u64;
        if length == 0 {
            assert!(has_passed, "it ended after {end} bytes, before any of it went past the proxy");
            return end;
        }
        if end - part >= PART {
            let now = site.segments();
            has_passed |= now == before;
            (part, before) = (end, now);
            stop.store(has_passed && end - position >= LEAST || began.elapsed() >= LONGEST, Ordering::Relaxed);
        }
    }
}

fn stream(site: &Site, from: &TcpStream, to: &TcpStream, position: &mut u64) {
    let stop = AtomicBool::new(false);
    *position = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(from, *position, &stop));
        let received = receive_until_passed(site, to, *position, &stop);
        assert_eq!(sender.join().unwrap(), received);
        received
    });
}

fn assert_it_is_counted(site: &Site, pair: Pair) {
    let sent = pair.sent();
    drop(pair);
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}

#[test]
fn a_stream_from_the_backend_passes() {
    let site = Site::new();
    let mut pair = site.connect();
    pair.turn(100, 100);
    stream(&site, &pair.backend, &pair.client, &mut pair.answered);
    finish(&pair.client, &pair.backend);
    assert_it_is_counted(&site, pair);
}

#[test]
fn a_stream_from_the_client_passes() {
    let site = Site::new();
    let mut pair = site.connect();
    stream(&site, &pair.client, &pair.backend, &mut pair.asked);
    finish(&pair.backend, &pair.client);
    assert_it_is_counted(&site, pair);
}

/// The backend sends back what it is sent, and ends when that does.
#[test]
fn an_echoed_stream_passes() {
    let site = Site::new();
    let mut pair = site.connect();
    let stop = AtomicBool::new(false);
    let (asked, answered) = thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&pair.client, 0, &stop));
        scope.spawn(|| {
            let (mut stream, mut buffer) = (&pair.backend, vec![0; 1 << 18]);
            loop {
                let length = stream.read(&mut buffer).unwrap();
                if length == 0 {
                    return stream.shutdown(Shutdown::Write).unwrap();
                }
                stream.write_all(&buffer[..length]).unwrap();
            }
        });
        let received = receive_until_passed(&site, &pair.client, 0, &stop);
        (sender.join().unwrap(), received)
    });
    assert_eq!(asked, answered);
    (pair.asked, pair.answered) = (asked, answered);
    assert_it_is_counted(&site, pair);
}

/// Neither depends on the other.
#[test]
fn streams_both_ways_at_once_are_whole() {
    let site = Site::new();
    let mut pair = site.connect();
    pair.cross(300 * MEGABYTE);
    site.wait_until_it_passes(&mut pair);
    pair.cross(300 * MEGABYTE);
    let sent = pair.end();
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}

/// One stream after the other on the same connection, which was busy with small things before.
#[test]
fn streams_and_turns_in_turn() {
    let site = Site::new();
    let mut pair = site.connect_passing();
    for _ in 0..5 {
        pair.turn(20 * MEGABYTE, 1);
        (0..20).for_each(|_| pair.turn(100, 100));
        pair.turn(1, 20 * MEGABYTE);
        pair.cross(20 * MEGABYTE);
    }
    site.wait_until_it_passes(&mut pair);
    site.wait_until_counted(pair.sent());
    let sent = pair.end();
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}

/// With windows that do not fit into a header without a scale.
#[test]
fn a_stream_into_little_memory_passes() {
    let site = Site::new();
    let mut pair = site.connect();
    for stream in [&pair.client, &pair.backend] {
        socket2::SockRef::from(stream).set_recv_buffer_size(20_000).unwrap();
    }
    pair.turn(5 * MEGABYTE, 5 * MEGABYTE);
    site.wait_until_it_passes(&mut pair);
    pair.turn(5 * MEGABYTE, 5 * MEGABYTE);
    pair.cross(5 * MEGABYTE);
    let sent = pair.end();
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}
