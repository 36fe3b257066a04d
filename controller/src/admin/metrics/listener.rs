//! The TCP listener for scrapers, on a thread of its own: whatever they do, changes do not wait for it.

use super::Metrics;
use crate::admin::{router, server};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use tokio::runtime;
use tokio::sync::watch;

/// Listens on `address`; gives the address with the port that was chosen if it has none.
///
/// # Errors
/// The kernel's answer.
pub fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves `/metrics` and `/healthz`, and nothing else, until `end` changes.
///
/// # Errors
/// If the thread cannot be started.
pub fn serve(listener: TcpListener, metrics: Metrics, end: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let router = router::metrics_router(metrics);
    let serve = move || runtime.block_on(server::serve_metrics(listener, router, end));
    thread::Builder::new().name("metrics".to_owned()).spawn(serve)
}
