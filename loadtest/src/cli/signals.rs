//! SIGINT and SIGTERM.

use super::Failure;
use nix::sys::signal::{SigSet, Signal};
use std::process::exit;

/// Calls `first` at the first SIGINT or SIGTERM and ends the process at the second. Must be called before any other
/// thread is started: signals are blocked in the threads that come later, so that they wait for the one that takes them.
pub(super) fn on_end(first: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().map_err(|errno| Failure::Signals(errno.into()))?;
    std::thread::Builder::new()
        .name("ringlb-signals".to_owned())
        .spawn(move || {
            if signals.wait().is_ok() {
                first();
            }
            if let Ok(signal) = signals.wait() {
                exit(128 + signal as i32);
            }
        })
        .map_err(Failure::Signals)?;
    Ok(())
}
