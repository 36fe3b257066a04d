//! Waiting for what should happen, and running what must succeed.

use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for everything that should happen, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// Gives how long it took.
pub(crate) fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// Runs a command to its end; it must succeed. Gives what it printed, without white space around it.
pub(crate) fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {} {printed}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// Runs `ip` (ip(8)) with these words.
pub(crate) fn ip(words: &str) {
    finish(Command::new("ip").args(words.split(' ')));
}
