//! The server of [`protocol`](crate::protocol).

mod buffers;
mod connection;
mod listener;

use crate::LoadError;
use crate::protocol::ServerName;
use crate::thread::{self, Prepare, Started};
use crate::uring;
use connection::Shared;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::watch;

/// How a server answers, and where.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The name that it answers with.
    pub name: ServerName,
    /// Where it listens. Port 0 is a port of the system's choice.
    pub listen: Vec<SocketAddr>,
    /// It answers that much later, to imitate a slow backend: each line and each piece of echoed data.
    pub delay: Duration,
    /// It says its name on every connection before anything is received, as SMTP and MySQL servers do. This crate's
    /// load does not expect that.
    pub greeting: bool,
}

impl ServerOptions {
    /// A server on a port of 127.0.0.1 that the system chooses, which answers at once.
    #[must_use]
    pub fn new(name: ServerName) -> Self {
        Self { name, listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], delay: Duration::ZERO, greeting: false }
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a server on a thread of its own and returns when it listens.
    ///
    /// # Errors
    /// [`LoadError`], if it cannot listen on one of the addresses or cannot use io_uring.
    pub fn start(options: ServerOptions) -> Result<ServerHandle, LoadError> {
        Self::start_in(options, || Ok(()))
    }

    /// As [`start`](Self::start); `prepare` is called first on the server's thread, for example to enter a network
    /// namespace. The listening sockets are made after it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn start_in(
        options: ServerOptions,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<ServerHandle, LoadError> {
        let (stop, stopped) = watch::channel(false);
        let (ready, listening) = mpsc::sync_channel(1);
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let prepare: Prepare = Box::new(prepare);
        let Started { thread, result } =
            thread::start(WHAT, prepare, move || uring::run(serve(options, shared, stopped, ready)).flatten())?;
        let mut handle = ServerHandle { addresses: Vec::new(), counters, stop, thread: Some(thread) };
        match listening.recv() {
            Ok(addresses) => {
                handle.addresses = addresses;
                Ok(handle)
            }
            // The thread gave up before it listened, and says why.
            Err(_) => match result.recv() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) | Err(_) => Err(LoadError::Ended { what: WHAT }),
            },
        }
    }
}

const WHAT: &str = "server";

/// A running server. It ends when this is dropped, and with it every connection.
#[derive(Debug)]
pub struct ServerHandle {
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ServerHandle {
    /// Where it listens, in the order of the options, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        ServerCounters {
            accepted: self.counters.accepted.load(Ordering::Relaxed),
            active: self.counters.active.load(Ordering::Relaxed),
            accept_failures: self.counters.accept_failures.load(Ordering::Relaxed),
        }
    }

    /// Ends the server and its connections, and waits for that. So does dropping the handle.
    pub fn stop(self) {}
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}

/// What a server has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub active: u64,
    /// Attempts to accept that failed, mostly for want of descriptors. The connections wait in the listener's queue.
    pub accept_failures: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    active: AtomicU64,
    accept_failures: AtomicU64,
}

async fn serve(
    options: ServerOptions,
    counters: Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
    ready: mpsc::SyncSender<Vec<SocketAddr>>,
) -> Result<(), LoadError> {
    let shared = Rc::new(Shared::new(&options, counters));
    let mut addresses = Vec::with_capacity(options.listen.len());
    for address in options.listen {
        addresses.push(listener::start(address, &shared)?);
    }
    // A caller that is gone has dropped its handle, which stops this server below.
    let _ = ready.send(addresses);
    // An error says that the handle is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    Ok(())
}
