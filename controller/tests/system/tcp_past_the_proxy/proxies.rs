//! Proxies that end while connections go past them.

use super::{MEGABYTE, Pair, Site, told};
use crate::node::{Node, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// An end is told soon that its connection is over, in whatever way.
fn assert_it_is_over(pair: &Pair) {
    for stream in [&pair.client, &pair.backend] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let said = told(stream);
        assert!(said == Ok(0) || said == Err(ErrorKind::ConnectionReset), "{said:?}");
    }
}

#[test]
fn connections_end_with_a_proxy_that_is_killed() {
    let site = Site::new();
    for _ in 0..3 {
        let pairs = [site.connect_passing(), site.connect_passing(), site.connect_passing()];
        let before = site.node.proxy_pid();
        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        pairs.iter().for_each(assert_it_is_over);
        wait_until("there is another proxy", || {
            site.node.try_ringlb(&["status"]).status.success() && site.node.proxy_pid() != before
        });
    }
    site.connect_passing().end();
}

/// Whoever is in the middle of something is told, too, and gets nothing wrong.
#[test]
fn streams_end_with_a_proxy_that_is_killed() {
    let site = Site::new();
    for _ in 0..3 {
        let mut pair = site.connect_passing();
        let before = site.node.proxy_pid();
        let over = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
        thread::scope(|scope| {
            let turns = scope.spawn(|| {
                loop {
                    if let Err(error) = pair.try_turn(500_000, 500_000) {
                        return error.kind();
                    }
                }
            });
            thread::sleep(Duration::from_millis(50));
            kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
            let error = turns.join().unwrap();
            assert!(over.contains(&error), "{error}");
        });
        wait_until("there is another proxy", || {
            site.node.try_ringlb(&["status"]).status.success() && site.node.proxy_pid() != before
        });
    }
    site.connect_passing().end();
}

/// What passes goes on, by the proxy that was replaced; what is new goes past its successor.
#[test]
fn an_upgrade_loses_nothing() {
    let site = Site::new();
    let mut pairs = vec![site.connect_passing(), site.connect_passing()];
    for _ in 0..3 {
        let before = site.node.proxy_pid();
        let is_upgraded = AtomicBool::new(false);
        thread::scope(|scope| {
            let (stream, others) = pairs.split_first_mut().unwrap();
            let streams = scope.spawn(|| {
                while !is_upgraded.load(Ordering::Relaxed) {
                    stream.turn(MEGABYTE, MEGABYTE);
                }
            });
            let upgrade = scope.spawn(|| {
                site.node.ringlb(&["upgrade"]);
                is_upgraded.store(true, Ordering::Relaxed);
            });
            while !upgrade.is_finished() {
                others.iter_mut().for_each(|pair| pair.turn(100, 100));
            }
            streams.join().unwrap();
        });
        assert_ne!(site.node.proxy_pid(), before);
        pairs.push(site.connect());
        pairs.iter_mut().for_each(|pair| site.wait_until_it_passes(pair));
    }
    let sent = pairs.into_iter().map(Pair::end).fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
    site.wait_until_all_have_ended();
    site.wait_until_counted(sent);
}

/// A proxy that was replaced resets what it still has at its deadline.
#[test]
fn what_passes_at_the_deadline_of_an_upgrade_is_reset() {
    let site = Site::new();
    let pair = site.connect_passing();
    site.node.ringlb(&["upgrade", "--drain-timeout", "300ms"]);
    assert_eq!([&pair.client, &pair.backend].map(told), [super::RESET; 2]);
    site.connect_passing().end();
}

/// The daemon's death is nothing to what passes, nor is the next daemon.
#[test]
fn connections_pass_on_without_a_daemon_and_with_the_next_one() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--keep", "--state-dir", state_dir.path().to_str().unwrap()];
    let mut site = Site::with(&arguments, &[]);
    let mut pair = site.connect_passing();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let before = site.segments();
        site.node.daemon.signal(signal);
        site.node.daemon.wait();
        (0..100).for_each(|_| pair.turn(100, 100));
        site.node.daemon = Node::start_daemon(site.node.run_dir.path(), &arguments);
        (0..100).for_each(|_| pair.turn(100, 100));
        assert_eq!(site.segments(), before, "something came to the proxy");
        let mut other = site.connect_passing();
        other.turn(100, 100);
        other.end();
        site.wait_until_it_passes(&mut pair);
    }
    let sent = pair.end();
    site.wait_until_all_have_ended();
    assert!(site.counted()[0] > sent[0] && site.counted()[1] > sent[1]);
    site.node.daemon.signal(Signal::SIGTERM);
    site.node.daemon.wait();
    site.node.daemon = Node::start_daemon(site.node.run_dir.path(), &arguments[1..]);
}
