//! Segments that get lost on their way past the proxy.

use super::{MEGABYTE, Pair, Site, receive, send, told};
use crate::node::Container;
use std::net::Shutdown;
use std::thread;

/// Has the namespace drop some of the TCP segments that it receives.
fn lose(container: &Container, percent: u32) {
    let rules = format!(
        "table ip loss {{ chain arrival {{
            type filter hook input priority 0;
            meta l4proto tcp numgen random mod 100 < {percent} drop;
        }}; }}"
    );
    container.output("nft", &[&rules]);
}

fn lose_nothing(container: &Container) {
    container.output("nft", &["delete", "table", "ip", "loss"]);
}

/// A segment for each packet, so that single ones get lost, not what a sender's kernel hands over as one.
fn send_single_segments(site: &Site) {
    for container in [&site.backend, &site.client] {
        container.output("ethtool", &["-K", &container.interface(), "tso", "off", "gso", "off", "gro", "off"]);
    }
}

/// Streams are whole in both directions, whatever gets lost.
fn exchange(site: &Site, percent: u32) {
    for _ in 0..2 {
        let mut pair = site.connect_passing();
        [&site.backend, &site.client].into_iter().for_each(|container| lose(container, percent));
        pair.turn(20 * MEGABYTE, 1);
        pair.turn(1, 20 * MEGABYTE);
        (0..100).for_each(|size| pair.turn(size, 100 + size));
        pair.cross(20 * MEGABYTE);
        pair.end();
        [&site.backend, &site.client].into_iter().for_each(lose_nothing);
    }
    site.connect_passing().end();
    site.wait_until_all_have_ended();
}

#[test]
fn lost_packets_are_repeated() {
    exchange(&Site::new(), 3);
}

#[test]
fn lost_segments_are_repeated() {
    let site = Site::new();
    send_single_segments(&site);
    exchange(&site, 3);
}

/// A half-close brings the connection back in the middle of what gets lost, in both directions.
#[test]
fn what_gets_lost_around_coming_back_is_repeated() {
    let site = Site::new();
    for has_single_segments in [false, true] {
        if has_single_segments {
            send_single_segments(&site);
        }
        for (question, answer) in [(1, 10), (3, 10), (10, 3), (10, 1)] {
            let mut pair = site.connect_passing();
            [&site.backend, &site.client].into_iter().for_each(|container| lose(container, 3));
            let Pair { client, backend, asked, answered } = &mut pair;
            thread::scope(|scope| {
                for (from, to, position, megabytes) in
                    [(&*client, &*backend, asked, question), (&*backend, &*client, answered, answer)]
                {
                    let (begin, end) = (*position, *position + megabytes * MEGABYTE);
                    scope.spawn(move || {
                        send(from, begin, end).unwrap();
                        from.shutdown(Shutdown::Write).unwrap();
                    });
                    scope.spawn(move || {
                        receive(to, begin, end).unwrap();
                        assert_eq!(told(to), Ok(0));
                    });
                }
            });
            [&site.backend, &site.client].into_iter().for_each(lose_nothing);
        }
    }
    site.wait_until_all_have_ended();
}
