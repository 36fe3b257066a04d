//! The TCP listener for scrapers, on a thread of its own: whatever they do, changes do not wait for it.

use super::Metrics;
use crate::admin::{router, server};
use std::io;
use std::thread::{self, JoinHandle};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::watch;

/// Serves `/metrics` and `/healthz`, and nothing else, until `end` changes.
///
/// # Errors
/// If the thread cannot be started.
pub fn serve(listener: TcpListener, metrics: Metrics, end: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // From the runtime that it was made in to that of the thread.
    let listener = listener.into_std()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let router = router::metrics_router(metrics);
    let serve = move || runtime.block_on(server::serve_metrics(listener, router, end));
    thread::Builder::new().name("metrics".to_owned()).spawn(serve)
}
