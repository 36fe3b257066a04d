//! Questions and answers.

use super::{MANY, MEGABYTE, Pair, SMALL, Site, TARGET, receive, send};
use crate::node::{Container, wait_until};
use std::time::{Duration, Instant};

const SIZES: [u64; 10] = [1, 2, 100, 1_447, 1_448, 1_449, SMALL, 60_000, 200_000, 3];

#[test]
fn answers_are_right_and_all_is_counted() {
    let site = Site::new();
    let mut pair = site.connect_passing();
    let before = site.segments();
    for size in SIZES {
        pair.turn(size, size);
        pair.turn(1, size);
        pair.turn(size, 1);
    }
    assert_eq!(site.segments(), before, "it has come back");
    site.wait_until_counted(pair.sent());
    pair.turn(5, 7);
    let sent = pair.end();
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}

/// What the kernel has counted of the connection before, whose socket it takes, does not matter.
#[test]
fn a_connection_after_a_short_one_passes() {
    let site = Site::new();
    let mut sent = [0; 2];
    for _ in 0..3 {
        let mut short = site.connect();
        (0..3).for_each(|_| short.turn(1_000, 2_000));
        let mut all = vec![short.end()];
        site.wait_until_all_have_ended();
        let mut pair = site.connect_passing();
        pair.turn(MEGABYTE, SMALL);
        all.push(pair.end());
        site.wait_until_all_have_ended();
        sent = all.into_iter().fold(sent, |[a, b], [c, d]| [a + c, b + d]);
    }
    assert_eq!(site.counted(), sent);
}

/// The handshake with its backend ended with the client's first bytes.
#[test]
fn a_connection_on_which_the_client_has_spoken_first_passes() {
    let site = Site::new();
    let speak_first = || {
        let client = site.client.connect(TARGET);
        send(&client, 0, SMALL).unwrap();
        let pair = Pair { asked: SMALL, ..site.join(client) };
        receive(&pair.backend, 0, SMALL).unwrap();
        pair
    };
    for _ in 0..70 {
        speak_first().end();
    }
    let mut pair = speak_first();
    site.wait_until_it_passes(&mut pair);
    pair.turn(MEGABYTE, SMALL);
    pair.end();
    site.wait_until_all_have_ended();
}

#[test]
fn each_of_several_connections_passes() {
    let site = Site::with(&["--threads", "2"], &[]);
    let mut pairs: Vec<_> = (0..8).map(|_| site.connect()).collect();
    pairs.iter_mut().for_each(|pair| site.wait_until_it_passes(pair));
    let before = site.segments();
    for _ in 0..MANY {
        pairs.iter_mut().for_each(|pair| pair.turn(100, 300));
    }
    assert_eq!(site.segments(), before);
    let sent = pairs.into_iter().map(Pair::end).fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}

/// The client acknowledges, and says nothing.
#[test]
fn small_messages_one_way_pass() {
    let site = Site::new();
    let mut pair = site.connect();
    let say = |pair: &mut Pair| pair.turn(0, 1 + pair.answered % 90);
    // One after the other, which are acknowledged together.
    wait_until("messages go past the proxy", || {
        let before = site.segments();
        (0..MANY).for_each(|_| say(&mut pair));
        site.segments() == before
    });
    // Each is acknowledged before the next one.
    let before = site.segments();
    for _ in 0..10 {
        say(&mut pair);
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(site.segments(), before);
    site.wait_until_counted(pair.sent());
    pair.end();
}

/// The proxy's sockets ask silent ends whether they are still there. That brings the connection back, and it passes again.
#[test]
fn a_silent_connection_comes_back_and_passes_again() {
    let flags = ["--keepalive-idle", "1s", "--keepalive-interval", "1s", "--keepalive-probes", "2"];
    let site = Site::with(&[], &flags);
    let mut pair = site.connect();
    for _ in 0..3 {
        site.wait_until_it_passes(&mut pair);
        let before = site.segments();
        wait_until("both ends have answered", || site.segments() >= before + 2);
        SIZES.into_iter().for_each(|size| pair.turn(size, size));
    }
    // Nor is one taken for dead that has long passed.
    let before = Instant::now();
    while before.elapsed() < Duration::from_secs(5) {
        pair.turn(100, 100);
    }
    site.wait_until_it_passes(&mut pair);
    let sent = pair.end();
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), sent);
}

/// Says to a namespace's kernel what its connections may have.
fn set(container: &Container, parameter: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv4/{parameter}");
    container.run(|| std::fs::write(path, value).unwrap());
}

/// Whether such connections pass or not, they work.
#[test]
fn ends_that_differ_work() {
    let site = Site::new();
    for (parameter, value) in
        [("tcp_timestamps", "0"), ("tcp_sack", "0"), ("tcp_window_scaling", "0"), ("tcp_ecn", "1")]
    {
        let path = format!("/proc/sys/net/ipv4/{parameter}");
        let usual = site.client.run(|| std::fs::read_to_string(&path).unwrap());
        for [of_client, of_backend] in [[value, &usual], [&usual, value], [value, value]] {
            set(&site.client, parameter, of_client);
            set(&site.backend, parameter, of_backend);
            let mut pair = site.connect();
            (0..2 * MANY).for_each(|_| pair.turn(100, 100));
            SIZES.into_iter().for_each(|size| pair.turn(size, size));
            pair.turn(20 * MEGABYTE, 20 * MEGABYTE);
            pair.cross(20 * MEGABYTE);
            (0..MANY).for_each(|_| pair.turn(100, 100));
            pair.end();
        }
        set(&site.client, parameter, &usual);
        set(&site.backend, parameter, &usual);
    }
    // Nothing of that is left.
    site.connect_passing().end();
}
