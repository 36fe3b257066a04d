//! A worker's end.

use super::certificates::MANAGER;
use super::line::{MAX_LINE, Message};
use super::pauses::Pauses;
use super::{Certificates, ClusterError, Timing};
use crate::source::docker::facts::ServiceFacts;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{DnsName, ServerName};

/// How it stands with following.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowStatus {
    /// The manager that is followed, while one is.
    pub manager: Option<SocketAddr>,
    /// What went wrong last; `None` again once a manager is followed.
    pub error: Option<String>,
}

/// Following, which ends when this is dropped.
#[derive(Debug)]
pub struct Following {
    /// All services of the swarm as a manager told them last; `None` as long as none has.
    pub services: watch::Receiver<Option<Vec<ServiceFacts>>>,
    /// How it stands.
    pub status: watch::Receiver<FollowStatus>,
    _task: JoinSet<()>,
}

/// Learns from one of the managers, at a time, what it knows of services. When it is lost, the next one is asked.
#[must_use]
pub fn follow(
    managers: watch::Receiver<Vec<SocketAddr>>,
    certificates: Arc<Certificates>,
    timing: Timing,
) -> Following {
    let (services, learned) = watch::channel(None);
    let (status, watched) = watch::channel(FollowStatus::default());
    let mut task = JoinSet::new();
    task.spawn(Follower { managers, certificates, timing, services, status }.run());
    Following { services: learned, status: watched, _task: task }
}

struct Follower {
    managers: watch::Receiver<Vec<SocketAddr>>,
    certificates: Arc<Certificates>,
    timing: Timing,
    services: watch::Sender<Option<Vec<ServiceFacts>>>,
    status: watch::Sender<FollowStatus>,
}

impl Follower {
    async fn run(mut self) {
        let mut pauses = Pauses::new(&self.timing);
        loop {
            let managers = self.managers.borrow_and_update().clone();
            for manager in managers {
                // The one after it is tried at once: it may well be there.
                match self.follow(manager, &mut pauses).await {
                    Ok(()) => self.status.send_modify(|status| status.manager = None),
                    Err(error) => self.failed(&error),
                }
            }
            tokio::select! {
                () = sleep(pauses.failed()) => {}
                changed = self.managers.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Learns from a manager until it ends the connection.
    async fn follow(&self, manager: SocketAddr, pauses: &mut Pauses) -> Result<(), ClusterError> {
        let peer = manager;
        let mut reader = BufReader::new(self.connect(manager).await?);
        loop {
            let after = self.timing.silence;
            let read = timeout(after, Message::read(&mut reader, MAX_LINE)).await;
            let message =
                read.map_err(|_| ClusterError::Silent { peer, after })?.map_err(|cause| match cause.kind() {
                    io::ErrorKind::InvalidData => ClusterError::Message { peer, reason: cause.to_string() },
                    _ => ClusterError::Broken { peer, cause },
                })?;
            let Some(message) = message else { return Ok(()) };
            // Not before it has said something: a manager that does not believe this node says so only then.
            pauses.succeeded();
            self.connected(manager);
            if let Some(services) = message.services {
                self.services.send_if_modified(|current| {
                    let services = Some(services);
                    let changed = *current != services;
                    *current = services;
                    changed
                });
            }
        }
    }

    async fn connect(&self, manager: SocketAddr) -> Result<TlsStream<TcpStream>, ClusterError> {
        let identity = self.certificates.identity()?;
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        let connected = timeout(self.timing.handshake, TcpStream::connect(manager)).await;
        let stream = connected.unwrap_or_else(|_| Err(timed_out()));
        let stream = stream.map_err(|cause| ClusterError::Connect { manager, cause })?;
        let failed = |cause| ClusterError::Handshake { peer: manager, cause };
        let name = DnsName::try_from(MANAGER).map_err(|error| failed(io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::clone(&identity.client));
        let greeting = connector.connect(ServerName::DnsName(name), stream);
        let tls =
            timeout(self.timing.handshake, greeting).await.unwrap_or_else(|_| Err(timed_out())).map_err(failed)?;
        identity.check(manager, tls.get_ref().1, true)?;
        Ok(tls)
    }

    fn connected(&self, manager: SocketAddr) {
        let now = FollowStatus { manager: Some(manager), error: None };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            if changed {
                tracing::info!(%manager, "learning services' labels and ports from a manager");
                *status = now;
            }
            changed
        });
    }

    /// Notes an error; says it in the log if it is not the one that was said before.
    fn failed(&self, error: &ClusterError) {
        let now = FollowStatus { manager: None, error: Some(error.to_string()) };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            if changed {
                tracing::warn!("{error}");
                *status = now;
            }
            changed
        });
    }
}
