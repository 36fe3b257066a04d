//! What this proxy does: it serves, waits for the sessions of the one before it, or retires.

use super::handover;
use super::health::Health;
use super::message::{Duty, Introduction, Protocol, Reply, Retired};
use super::ports::Ports;
use super::thread::Channel;
use crate::connection_map::ConnectionMap;
use crate::session_map::SessionMap;
use crate::shared::{HandedSession, Shared};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The time between two looks whether a proxy that retires has anything left.
const LOOK: Duration = Duration::from_millis(50);

/// A proxy's duty, and what it takes to change it.
pub(super) struct Duties {
    shared: Arc<Shared>,
    health: Rc<Health>,
    ports: Rc<Ports>,
    build: String,
    most_version: u16,
    present: RefCell<Present>,
    /// Held while the duty changes, so that changes happen one after the other.
    changing: tokio::sync::Mutex<()>,
}

enum Present {
    Serving,
    AwaitingSessions,
    Retiring(Retiring),
}

struct Retiring {
    deadline: Option<Instant>,
    handed_over: u64,
    /// Who is told what was counted until the end.
    told: Rc<Channel>,
}

impl Duties {
    pub(super) fn new(
        shared: Arc<Shared>,
        health: Rc<Health>,
        ports: Rc<Ports>,
        build: String,
        most_version: u16,
    ) -> Self {
        let present = RefCell::new(Present::Serving);
        Self { shared, health, ports, build, most_version, present, changing: tokio::sync::Mutex::default() }
    }

    pub(super) fn introduction(&self) -> Reply {
        let duty = match &*self.present.borrow() {
            Present::Serving => Duty::Serving,
            Present::AwaitingSessions => Duty::AwaitingSessions,
            Present::Retiring(Retiring { deadline, .. }) => Duty::Retiring {
                left_ms: deadline.map(|deadline| {
                    let left = deadline.saturating_duration_since(Instant::now());
                    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
                }),
            },
        };
        Reply::Introduction(Introduction { most_version: self.most_version, build: self.build.clone(), duty })
    }

    /// Receives no datagrams until the sessions have come by `socket`, or it is told to.
    pub(super) fn await_sessions(self: &Rc<Self>, socket: OwnedFd) {
        // Another daemon may go on where one has ended that has said so before.
        if matches!(*self.present.borrow(), Present::Retiring(_)) {
            return;
        }
        *self.present.borrow_mut() = Present::AwaitingSessions;
        self.shared.hold_datagrams();
        let duties = Rc::clone(self);
        tokio_uring::spawn(async move {
            match handover::receive(socket).await {
                Ok(sessions) => duties.take_sessions(sessions),
                // The one before goes on, or has ended: whoever is told to go on by the daemon knows.
                Err(error) => tracing::info!(network = %duties.shared.network, "no UDP sessions come: {error}"),
            }
        });
    }

    /// Receives datagrams, whatever sessions have come.
    pub(super) fn receive_datagrams(&self) {
        self.take_sessions(Vec::new());
    }

    /// Has busy UDP sessions, or connections, go past this proxy, by the map of that descriptor; not if another one has the
    /// sessions.
    pub(super) fn pass_sessions(&self, protocol: Protocol, map: &OwnedFd) {
        if matches!(*self.present.borrow(), Present::Retiring(_)) {
            return;
        }
        let mapped = match protocol {
            Protocol::Udp => SessionMap::new(map).map(|map| self.shared.pass_sessions(map)),
            Protocol::Tcp => ConnectionMap::new(map).map(|map| self.shared.pass_connections(map)),
        };
        if let Err(errno) = mapped {
            tracing::warn!(network = %self.shared.network, ?protocol, %errno, "nothing goes past the proxy");
        }
    }

    fn take_sessions(&self, sessions: Vec<HandedSession>) {
        let mut present = self.present.borrow_mut();
        if matches!(*present, Present::Retiring(_)) {
            return;
        }
        if matches!(*present, Present::AwaitingSessions) || !sessions.is_empty() {
            *present = Present::Serving;
            self.shared.release_datagrams(sessions);
        }
    }

    /// Accepts no more, hands the UDP sessions over by `heir` if there is one, and ends the process when nothing is left or the
    /// time is over. Returns when nothing more is accepted and all is handed over.
    pub(super) async fn retire(
        self: &Rc<Self>,
        drain: Option<Duration>,
        heir: Option<OwnedFd>,
        told: Rc<Channel>,
    ) -> Reply {
        let _changing = self.changing.lock().await;
        let deadline = drain.and_then(|drain| Instant::now().checked_add(drain));
        let hands_over = heir.is_some();
        let is_first = match &mut *self.present.borrow_mut() {
            Present::Retiring(retiring) => {
                (retiring.deadline, retiring.told) = (deadline, told);
                false
            }
            present => {
                *present = Present::Retiring(Retiring { deadline, handed_over: 0, told });
                true
            }
        };
        let (done, parcel) = self.shared.retire(hands_over);
        done.wait().await;
        self.ports.retire(hands_over).await;
        if let Some(heir) = heir {
            let sessions = parcel.take();
            let count = sessions.len() as u64;
            match handover::send(heir, sessions).await {
                Ok(()) => self.note_handed_over(count),
                Err(error) => {
                    tracing::warn!(network = %self.shared.network, count, "UDP sessions are not handed over: {error}");
                }
            }
        }
        if is_first {
            tracing::info!(
                network = %self.shared.network, connections = self.connections(), sessions = self.sessions(),
                "another proxy has taken over"
            );
            let duties = Rc::clone(self);
            tokio_uring::spawn(async move { duties.await_end().await });
        }
        Reply::Retired(Retired {
            connections: self.connections(),
            sessions: self.sessions(),
            handed_over: match &*self.present.borrow() {
                Present::Retiring(retiring) => retiring.handed_over,
                _ => 0,
            },
        })
    }

    fn note_handed_over(&self, count: u64) {
        if let Present::Retiring(retiring) = &mut *self.present.borrow_mut() {
            retiring.handed_over += count;
        }
    }

    async fn await_end(&self) {
        while self.connections() + self.sessions() > 0 && !self.is_over() {
            sleep(LOOK).await;
        }
        let told = match &*self.present.borrow() {
            Present::Retiring(retiring) => Rc::clone(&retiring.told),
            _ => return,
        };
        let mut statistics = self.shared.statistics();
        self.health.complete(&mut statistics);
        // Whoever has asked may be gone.
        let _ = told.send(&Reply::Statistics(Box::new(statistics))).await;
        tracing::info!(network = %self.shared.network, left = self.connections(), "ending, as another proxy has taken over");
        self.shared.shut_down();
    }

    fn is_over(&self) -> bool {
        match &*self.present.borrow() {
            Present::Retiring(retiring) => retiring.deadline.is_some_and(|deadline| deadline <= Instant::now()),
            _ => false,
        }
    }

    fn connections(&self) -> u64 {
        self.shared.threads.iter().map(|thread| thread.active()).sum()
    }

    fn sessions(&self) -> u64 {
        self.shared.threads.iter().map(|thread| thread.sessions()).sum()
    }
}
