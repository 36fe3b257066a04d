//! Whoever has connected to a manager: nobody knows who, and then a worker.

use super::line::Message;
use super::{Certificates, ClusterError, Timing};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A node of the swarm.
pub(super) struct Worker {
    peer: SocketAddr,
    tls: TlsStream<TcpStream>,
    timing: Timing,
    /// Until when it is served.
    end: Instant,
}

/// Lets the other end prove that it is a node of the swarm.
///
/// # Errors
/// If it does not, or not in time.
pub(super) async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    certificates: Arc<Certificates>,
    timing: Timing,
) -> Result<Worker, ClusterError> {
    let end = Instant::now() + timing.connection;
    let identity = certificates.identity()?;
    let accepted = timeout(timing.greeting, TlsAcceptor::from(Arc::clone(&identity.server)).accept(stream));
    let tls = accepted.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let tls = tls.map_err(|cause| ClusterError::Handshake { peer, cause })?;
    identity.check(peer, tls.get_ref().1, false)?;
    Ok(Worker { peer, tls, timing, end })
}

impl Worker {
    /// Who it is.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends the line, and each one that takes its place, until the worker goes or its time is over.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(super) async fn tell(mut self, mut lines: watch::Receiver<Arc<[u8]>>) -> Result<(), ClusterError> {
        let mut line = lines.borrow_and_update().clone();
        let heartbeat: Arc<[u8]> = Message::default().line().into();
        loop {
            self.send(&line).await?;
            let mut nothing = [0];
            line = tokio::select! {
                changed = lines.changed() => match changed {
                    Ok(()) => lines.borrow_and_update().clone(),
                    Err(_) => break,
                },
                () = sleep(self.timing.heartbeat) => heartbeat.clone(),
                // A worker has nothing to say: it has gone, or is none.
                _ = self.tls.read(&mut nothing) => break,
                () = sleep_until(self.end) => break,
            };
        }
        // It need not hear that this was all: it comes again in any case.
        let _ = timeout(self.timing.handshake, self.tls.shutdown()).await;
        Ok(())
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), ClusterError> {
        let send = async {
            self.tls.write_all(line).await?;
            self.tls.flush().await
        };
        let sent = timeout(self.timing.silence, send).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.map_err(|cause| ClusterError::Broken { peer: self.peer, cause })
    }
}
