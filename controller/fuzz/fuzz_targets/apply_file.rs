#![no_main]

#[path = "../bodies/model.rs"]
mod model;

#[path = "../bodies/apply_file.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    body::check(input);
});
