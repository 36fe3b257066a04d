//! The fuzz targets as ordinary tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../fuzz/bodies/apply_file.rs"]
mod apply_file;
#[path = "../../fuzz/bodies/model.rs"]
mod model;
#[path = "../../../proxy/fuzz/replay.rs"]
mod replay;
#[path = "../../fuzz/bodies/request_bodies.rs"]
mod request_bodies;

use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

const WORDS: [&[u8]; 24] = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"",
    b"\\u0000",
    b"\xff",
    b"\xe2\x80\xae",
    b"-1",
    b"0",
    b"65536",
    b"1e400",
    b"18446744073709551616",
    b"10.1.0.0",
    b"10.1.0.255",
    b"/33",
    b"::1",
    b"fd00::/64",
    b"0s",
    b"18446744073709551615h",
    b"never",
    b"\"weight\":",
    b"- name: a\n",
    b"&a [*a]",
];

#[test]
fn apply_files() {
    replay::run(&corpus("apply_file"), &WORDS, 10_000, apply_file::check);
}

#[test]
fn request_bodies() {
    replay::run(&corpus("request_bodies"), &WORDS, 10_000, request_bodies::check);
}
