//! The `ringlb` program.
fn main() {}
