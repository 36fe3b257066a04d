//! A manager's end.

use super::line::{MAX_LINE, Message};
use super::pauses::Pauses;
use super::{Certificates, ClusterError, Timing};
use crate::source::docker::facts::ServiceFacts;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The most workers that are served at once. A worker that finds no place goes to another manager.
const MAX_CLIENTS: usize = 2048;

/// How it stands with serving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServeStatus {
    /// Where workers can connect, while they can.
    pub listening: Option<SocketAddr>,
    /// How many are connected.
    pub workers: usize,
    /// What went wrong last.
    pub error: Option<String>,
}

/// Serving, which ends when this is dropped.
#[derive(Debug)]
pub struct Serving {
    /// How it stands.
    pub status: watch::Receiver<ServeStatus>,
    _task: JoinSet<()>,
}

/// Serves what this manager knows of services to the swarm's nodes, at `address`. What goes wrong is shown in the status
/// and tried again.
#[must_use]
pub fn serve(
    address: SocketAddr,
    certificates: Arc<Certificates>,
    facts: watch::Receiver<Vec<ServiceFacts>>,
    timing: Timing,
) -> Serving {
    let (status, watched) = watch::channel(ServeStatus::default());
    let (line, _) = watch::channel(Arc::default());
    let mut task = JoinSet::new();
    task.spawn(Server { address, certificates, facts, timing, status, line, clients: JoinSet::new() }.run());
    Serving { status: watched, _task: task }
}

struct Server {
    address: SocketAddr,
    certificates: Arc<Certificates>,
    facts: watch::Receiver<Vec<ServiceFacts>>,
    timing: Timing,
    status: watch::Sender<ServeStatus>,
    /// What every worker is to have heard last.
    line: watch::Sender<Arc<[u8]>>,
    clients: JoinSet<Result<(), ClusterError>>,
}

impl Server {
    async fn run(mut self) {
        self.write_line();
        let mut pauses = Pauses::new(&self.timing);
        let listener = loop {
            // A node without certificates has nobody to serve, and the status is to say so.
            match self.listen().await {
                Ok(listener) => break listener,
                Err(error) => self.failed(&error),
            }
            sleep(pauses.failed()).await;
        };
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.accept(stream, peer),
                    Err(cause) => {
                        self.failed(&ClusterError::Listen { address: self.address, cause });
                        // Such as too many open files: it would fail again at once.
                        sleep(pauses.failed()).await;
                    }
                },
                Some(ended) = self.clients.join_next() => {
                    self.status.send_modify(|status| status.workers = self.clients.len());
                    if let Ok(Err(error)) = ended {
                        // Whoever scans ports can cause these, so they are not worth a warning each.
                        tracing::debug!("{error}");
                        self.status.send_modify(|status| status.error = Some(error.to_string()));
                    }
                }
                changed = self.facts.changed() => match changed {
                    Ok(()) => self.write_line(),
                    Err(_) => return,
                },
            }
        }
    }

    async fn listen(&self) -> Result<TcpListener, ClusterError> {
        self.certificates.identity()?;
        let failed = |cause| ClusterError::Listen { address: self.address, cause };
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "serving what this manager knows of services to the swarm's workers");
        self.status.send_modify(|status| *status = ServeStatus { listening: Some(address), ..ServeStatus::default() });
        Ok(listener)
    }

    /// Writes down once what is sent to each worker.
    fn write_line(&mut self) {
        let line = Message::of(&self.facts.borrow_and_update()).line();
        if line.len() > MAX_LINE {
            self.failed(&ClusterError::TooMuch { bytes: line.len() });
            return;
        }
        let line: Arc<[u8]> = line.into();
        self.line.send_if_modified(|current| {
            let changed = *current != line;
            *current = line;
            changed
        });
    }

    fn accept(&mut self, stream: TcpStream, peer: SocketAddr) {
        if self.clients.len() >= MAX_CLIENTS {
            tracing::debug!(%peer, "{MAX_CLIENTS} workers are connected, which is the most");
            return;
        }
        let client = Client {
            peer,
            certificates: Arc::clone(&self.certificates),
            lines: self.line.subscribe(),
            timing: self.timing,
        };
        self.clients.spawn(client.run(stream));
        self.status.send_modify(|status| status.workers = self.clients.len());
    }

    /// Notes an error; says it in the log if it is not the one that was said before.
    fn failed(&self, error: &ClusterError) {
        let text = error.to_string();
        self.status.send_if_modified(|status| {
            let changed = status.error.as_ref() != Some(&text);
            if changed {
                tracing::warn!("{text}");
                status.error = Some(text);
            }
            changed
        });
    }
}

/// One worker.
struct Client {
    peer: SocketAddr,
    certificates: Arc<Certificates>,
    lines: watch::Receiver<Arc<[u8]>>,
    timing: Timing,
}

impl Client {
    async fn run(mut self, stream: TcpStream) -> Result<(), ClusterError> {
        let end = Instant::now() + self.timing.connection;
        let mut tls = self.greet(stream).await?;
        let mut line = self.lines.borrow_and_update().clone();
        let heartbeat: Arc<[u8]> = Message::default().line().into();
        loop {
            self.send(&mut tls, &line).await?;
            let mut nothing = [0];
            line = tokio::select! {
                changed = self.lines.changed() => match changed {
                    Ok(()) => self.lines.borrow_and_update().clone(),
                    Err(_) => break,
                },
                () = sleep(self.timing.heartbeat) => heartbeat.clone(),
                // A worker has nothing to say: it has gone, or is none.
                _ = tls.read(&mut nothing) => break,
                () = sleep_until(end) => break,
            };
        }
        // It need not hear that this was all: it comes again in any case.
        let _ = timeout(self.timing.handshake, tls.shutdown()).await;
        Ok(())
    }

    async fn greet(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, ClusterError> {
        let peer = self.peer;
        let identity = self.certificates.identity()?;
        let accepted = timeout(self.timing.handshake, TlsAcceptor::from(Arc::clone(&identity.server)).accept(stream));
        let tls = accepted.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let tls = tls.map_err(|cause| ClusterError::Handshake { peer, cause })?;
        identity.check(peer, tls.get_ref().1, false)?;
        Ok(tls)
    }

    async fn send(&self, tls: &mut TlsStream<TcpStream>, line: &[u8]) -> Result<(), ClusterError> {
        let send = async {
            tls.write_all(line).await?;
            tls.flush().await
        };
        let patience: Duration = self.timing.silence;
        let sent = timeout(patience, send).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.map_err(|cause| ClusterError::Broken { peer: self.peer, cause })
    }
}
