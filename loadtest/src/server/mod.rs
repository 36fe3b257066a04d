//! The server of [`protocol`](crate::protocol).

mod bind;
mod buffers;
mod connection;
mod counters;
mod datagrams;
mod listener;
mod options;
mod shared;

pub use counters::ServerCounters;
pub use options::ServerOptions;

use crate::LoadError;
use crate::thread::{self, Prepare, Started};
use crate::uring;
use bind::Sockets;
use counters::Counters;
use shared::Shared;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use tokio::sync::watch;

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
        self.counters.read()
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

async fn serve(
    options: ServerOptions,
    counters: Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
    ready: mpsc::SyncSender<Vec<SocketAddr>>,
) -> Result<(), LoadError> {
    let shared = Rc::new(Shared::new(&options, counters));
    let mut addresses = Vec::with_capacity(options.listen.len());
    for index in 0..options.listen.len() {
        let Sockets { tcp, udp, address } = Sockets::bind(&options.listen, index)?;
        datagrams::start(udp, &shared).map_err(|source| LoadError::Listen { protocol: "UDP", address, source })?;
        listener::start(tcp, &shared);
        addresses.push(address);
    }
    // A caller that is gone has dropped its handle, which stops this server below.
    let _ = ready.send(addresses);
    // An error says that the handle is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    Ok(())
}
