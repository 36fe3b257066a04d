//! The fuzz targets as ordinary tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../fuzz/bodies/control_messages.rs"]
mod control_messages;
mod corpus;
#[path = "../../fuzz/bodies/proxy_header.rs"]
mod proxy_header;
#[path = "../../fuzz/replay.rs"]
mod replay;

use ringlb_proxy::control::message::PROTOCOL_VERSION;
use std::path::{Path, PathBuf};

fn corpus_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
fn control_messages() {
    if std::env::var_os("RINGLB_WRITE_CORPUS").is_some() {
        corpus::write(&corpus_of("control_messages"));
    }
    // Variable-length integers at their edges, the header of a packet, and one that says that more follow.
    let [whole, part] = [0, 1].map(|more| [&b"RLB1"[..], &PROTOCOL_VERSION.to_le_bytes(), &[more, 0]].concat());
    let words: [&[u8]; 9] = [
        &whole,
        &part,
        b"\x80",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x80\x80\x80\x80\x04",
        b"\x04web0",
        b"\0\x0a\0\0\x01",
    ];
    replay::run(&corpus_of("control_messages"), &words, 20_000, control_messages::check);
}

#[test]
fn proxy_header() {
    let words: [&[u8]; 12] = [
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"\r\n",
        b" ",
        b"255.255.255.255",
        b"::ffff:1.2.3.4",
        b"65535",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\x21\x11\x00\x0c",
        b"\x03\x00\x04",
    ];
    replay::run(&corpus_of("proxy_header"), &words, 20_000, proxy_header::check);
}
