//! A manager's end.

use super::connected::{Worker, greet};
use super::line::{MAX_LINE, Message};
use super::pauses::Pauses;
use super::places::{self, Places};
use super::{Certificates, ClusterError, Timing};
use crate::source::docker::facts::ServiceFacts;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// The most workers that are served at once. A worker that finds no place goes to another manager.
const MAX_WORKERS: usize = 2048;

/// How it stands with serving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServeStatus {
    /// Where workers can connect, while they can.
    pub listening: Option<SocketAddr>,
    /// How many nodes of the swarm are connected.
    pub workers: usize,
    /// What cannot be done, or else what went wrong lately with somebody who connected.
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
    let server = Server {
        address,
        certificates,
        facts,
        timing,
        status,
        line,
        handshakes: JoinSet::new(),
        places: Places::new(places::MAX, places::MAX_PER_CLIENT),
        workers: JoinSet::new(),
        listening: None,
        error: None,
        of_client: None,
    };
    task.spawn(server.run());
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
    /// Those who have connected, and may be workers or not.
    handshakes: JoinSet<Result<Worker, ClusterError>>,
    places: Places<AbortHandle>,
    workers: JoinSet<Result<(), ClusterError>>,
    listening: Option<SocketAddr>,
    /// What cannot be done.
    error: Option<ClusterError>,
    /// What went wrong with somebody who connected, and until when that is shown.
    of_client: Option<(ClusterError, Instant)>,
}

impl Server {
    async fn run(mut self) {
        self.write_line();
        let mut pauses = Pauses::new(&self.timing);
        let listener = loop {
            // A node without certificates has nobody to serve, and the status is to say so.
            match self.listen().await {
                Ok(listener) => break listener,
                Err(error) => self.failed(error),
            }
            sleep(pauses.failed()).await;
        };
        loop {
            let forget = self.of_client.as_ref().map(|(_, until)| *until);
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        pauses.succeeded();
                        self.error.take_if(|error| matches!(error, ClusterError::Listen { .. }));
                        self.greet(stream, peer);
                    }
                    Err(cause) => {
                        self.failed(ClusterError::Listen { address: self.address, cause });
                        // Such as too many open files: it would fail again at once.
                        sleep(pauses.failed()).await;
                    }
                },
                Some(ended) = self.handshakes.join_next_with_id() => self.greeted(ended),
                Some(ended) = self.workers.join_next() => {
                    if let Ok(Err(error)) = ended {
                        self.client_failed(error);
                    }
                }
                changed = self.facts.changed() => match changed {
                    Ok(()) => self.write_line(),
                    Err(_) => return,
                },
                () = sleep_until(forget.unwrap_or_else(Instant::now)), if forget.is_some() => self.of_client = None,
            }
            self.show();
        }
    }

    async fn listen(&mut self) -> Result<TcpListener, ClusterError> {
        self.certificates.identity()?;
        let failed = |cause| ClusterError::Listen { address: self.address, cause };
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "serving what this manager knows of services to the swarm's workers");
        self.listening = Some(address);
        self.error.take_if(|error| !matches!(error, ClusterError::TooMuch { .. }));
        self.show();
        Ok(listener)
    }

    /// Writes down once what is sent to each worker.
    fn write_line(&mut self) {
        let line = Message::of(&self.facts.borrow_and_update()).line();
        if line.len() > MAX_LINE {
            self.failed(ClusterError::TooMuch { bytes: line.len() });
            return;
        }
        self.error.take_if(|error| matches!(error, ClusterError::TooMuch { .. }));
        let line: Arc<[u8]> = line.into();
        self.line.send_if_modified(|current| {
            let changed = *current != line;
            *current = line;
            changed
        });
    }

    fn greet(&mut self, stream: TcpStream, peer: SocketAddr) {
        let greeting = greet(stream, peer, Arc::clone(&self.certificates), self.timing);
        let handshake = self.handshakes.spawn(greeting);
        if let Some(oldest) = self.places.take(peer.ip(), handshake) {
            tracing::debug!(%peer, "too many handshakes at once: the oldest gives way");
            oldest.abort();
        }
    }

    fn greeted(&mut self, ended: Result<(Id, Result<Worker, ClusterError>), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.places.give_back(|handshake| handshake.id() == id);
        match ended {
            Ok((_, Ok(worker))) if self.workers.len() < MAX_WORKERS => {
                self.workers.spawn(worker.tell(self.line.subscribe()));
            }
            Ok((_, Ok(worker))) => {
                tracing::debug!(peer = %worker.peer(), "{MAX_WORKERS} workers are connected, which is the most");
            }
            Ok((_, Err(error))) => self.client_failed(error),
            // It has given way.
            Err(_) => {}
        }
    }

    /// Notes what went wrong with somebody who connected.
    fn client_failed(&mut self, error: ClusterError) {
        // Whoever scans ports can cause these, so they are not worth a warning each, nor to be shown for ever.
        tracing::debug!("{error}");
        self.of_client = Some((error, Instant::now() + self.timing.shown));
    }

    /// Notes what cannot be done; says it in the log if it is not what was said before.
    fn failed(&mut self, error: ClusterError) {
        let text = error.to_string();
        if self.error.as_ref().map(ClusterError::to_string).as_ref() != Some(&text) {
            tracing::warn!("{text}");
        }
        self.error = Some(error);
        self.show();
    }

    fn show(&self) {
        let error = self.error.as_ref().or(self.of_client.as_ref().map(|(error, _)| error));
        let now = ServeStatus {
            listening: self.listening,
            workers: self.workers.len(),
            error: error.map(ClusterError::to_string),
        };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }
}
