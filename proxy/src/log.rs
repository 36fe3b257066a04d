//! The log: lines on standard error, of the daemon and the proxies alike.

/// Starts logging. To be called once, by a program's `main`.
pub fn start() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // It would tell of a line that cannot be written on standard error, and panic when that is what is closed.
        .log_internal_errors(false)
        .init();
}
