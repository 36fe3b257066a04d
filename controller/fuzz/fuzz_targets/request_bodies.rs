#![no_main]

#[path = "../bodies/model.rs"]
mod model;

#[path = "../bodies/request_bodies.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    body::check(input);
});
