//! Connections that do not pass.

use super::{Site, receive};
use crate::node::PATIENCE;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn none_passes_where_there_are_no_shortcuts() {
    let site = Site::with(&["--no-shortcuts"], &[]);
    let mut pair = site.connect();
    site.assert_it_does_not_pass(&mut pair);
    pair.end();
}

#[test]
fn none_passes_by_a_published_port() {
    let site = Site::with(&[], &["--publish", "18080:80/tcp"]);
    let client = TcpStream::connect("127.0.0.1:18080").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut pair = site.join(client);
    site.assert_it_does_not_pass(&mut pair);
    pair.cross(5_000_000);
    site.assert_it_does_not_pass(&mut pair);
    let published = pair.end();
    // By the VIP they do.
    let sent = site.connect_passing().end();
    site.wait_until_all_have_ended();
    assert_eq!(site.counted(), [published[0] + sent[0], published[1] + sent[1]]);
}

/// A part of what the backend has received is from the proxy.
#[test]
fn none_passes_whose_backend_is_told_of_the_client() {
    let site = Site::with(&[], &["--proxy-protocol", "v1"]);
    let client = site.client.connect(super::TARGET);
    let told = format!("PROXY TCP4 10.0.0.100 10.0.200.1 {} 80\r\n", client.local_addr().unwrap().port());
    let mut pair = site.join(client);
    // It is sent with the first data, or before.
    pair.client.write_all(ringlb_load::pattern::chunk(0, 10)).unwrap();
    let mut header = vec![0; told.len()];
    pair.backend.read_exact(&mut header).unwrap();
    assert_eq!(String::from_utf8(header).unwrap(), told);
    receive(&pair.backend, 0, 10).unwrap();
    pair.asked = 10;
    site.assert_it_does_not_pass(&mut pair);
    pair.end();
}

/// A part of what the client has sent is for the proxy.
#[test]
fn none_passes_that_says_who_the_client_is() {
    let site = Site::with(&[], &["--accept-proxy-protocol", "10.0.0.100"]);
    let mut client = site.client.connect(super::TARGET);
    client.write_all(b"PROXY TCP4 192.0.2.1 10.0.200.1 4000 80\r\n").unwrap();
    let mut pair = site.join(client);
    site.assert_it_does_not_pass(&mut pair);
    pair.end();
}
