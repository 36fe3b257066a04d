//! What the version before of the control protocol looks like was recorded when it was the newest: this program still reads it as
//! it was meant, and writes the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use ringlb_proxy::control::frame::{Reassembler, encode_in};
use ringlb_proxy::control::message::{Protocol, Reply, Request};
use ringlb_proxy::control::version::{Message, OLDEST_VERSION, PROTOCOL_VERSION};
use serde::de::DeserializeOwned;
use std::path::Path;

const HEADER: usize = 8;

/// The packets of a file: each has its length before it.
fn packets(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Some((&length, rest)) = bytes.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(u16::from_le_bytes(length).into());
        packets.push(packet);
        bytes = rest;
    }
    packets
}

/// The messages of such packets; none if they are not of that kind.
fn read<T: DeserializeOwned>(packets: &[&[u8]]) -> Option<Vec<T>> {
    let mut reassembler = Reassembler::default();
    let mut messages = Vec::new();
    for packet in packets {
        messages.extend(reassembler.push(packet).ok()?);
    }
    assert_eq!(reassembler.version(), OLDEST_VERSION);
    Some(messages)
}

/// Whether the bodies of these messages are those of the packets, however they are cut.
fn writes_the_same<T: Message>(messages: &[T], packets: &[&[u8]]) -> bool {
    let written = messages.iter().flat_map(|message| encode_in(OLDEST_VERSION, message).unwrap());
    let written: Vec<_> = written.flat_map(|packet| packet[HEADER..].to_vec()).collect();
    let recorded: Vec<_> = packets.iter().flat_map(|packet| packet[HEADER..].to_vec()).collect();
    written == recorded
}

#[test]
fn the_version_before_is_read_and_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/recorded/{OLDEST_VERSION}"));
    let (mut requests, mut replies) = (0, 0);
    for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let packets = packets(&bytes);
        let name = path.display();
        // A file has what one end says. What is a message of both kinds is one of them as it was written.
        let as_requests = read::<Request>(&packets).filter(|messages| writes_the_same(messages, &packets));
        let as_replies = read::<Reply>(&packets).filter(|messages| writes_the_same(messages, &packets));
        assert!(as_requests.is_some() || as_replies.is_some(), "{name} is not read, or not written as it was");
        requests += as_requests.map_or(0, |messages| messages.len());
        replies += as_replies.map_or(0, |messages| messages.len());
    }
    assert!(requests > 40 && replies > 5, "{requests} requests, {replies} replies");
}

/// What only the newest version has is not said in the one before.
#[test]
fn what_is_new_is_not_said_to_the_older() {
    let retire = Request::Retire { drain_ms: None, hands_over: true };
    let new = [
        Request::Introduce,
        Request::AwaitSessions,
        retire,
        Request::Digests,
        Request::AwaitBusySessions,
        Request::PassSessions(Protocol::Udp),
    ];
    for request in new {
        assert!(encode_in(PROTOCOL_VERSION, &request).is_ok());
        assert!(encode_in(OLDEST_VERSION, &request).unwrap_err().to_string().contains("the other end speaks 4"));
    }
}
