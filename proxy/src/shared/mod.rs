//! What the data threads and the control thread share: the table, what all of them may have together, and for each data
//! thread its counters and a mailbox for what a new table means for its connections.

mod budget;
mod busy;
mod counters;
mod mailbox;
mod parcel;
mod statistics;
mod suspects;
mod thread;

pub use budget::Budget;
pub use busy::Busy;
pub use counters::{Counter, Counters, LostDatagrams};
pub use mailbox::{AllDone, Done, Mailbox, Order, PortSocket};
pub use parcel::{HandedSession, Parcel};
pub use suspects::{Suspect, Suspects};
pub use thread::DataThread;

use crate::access_log::AccessLog;
use crate::admission::Gate;
use crate::connection_map::ConnectionMap;
use crate::control::message::{Delta, Features, Generation, Port, Protocol, Snapshot};
use crate::session_map::SessionMap;
use crate::table::{Condition, Consequence, Destination, SharedIdentity, Table, Transition, TransitionError};
use crate::worker::Limits;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// What all threads see.
#[derive(Debug)]
pub struct Shared {
    /// The moment from which all threads count time.
    pub started: Instant,
    /// The network's name.
    pub network: String,
    /// What the kernel offers.
    pub features: Features,
    /// The table in use. A connection loads it once, at its pick.
    pub table: ArcSwap<Table>,
    /// Where records of connections that ended go.
    pub access_log: AccessLog,
    /// The open connections and UDP sessions of all data threads.
    pub connections: Budget,
    /// What published ports may take of the descriptors before they take from that of connections.
    pub spare: Budget,
    /// The pipes of all data threads.
    pub pipes: Budget,
    /// The sockets that each data thread may have at hand.
    pub used_sockets: usize,
    /// What the services have let in.
    pub gate: Gate,
    /// Connections of all data threads that wait for a place at a backend.
    pub waiting: AtomicU64,
    /// What belongs to one data thread each.
    pub threads: Vec<Arc<DataThread>>,
    /// Backends that could not be reached, for the control thread.
    pub suspects: Suspects,
    /// What has been so busy that it should go past the proxy.
    pub busy_sessions: watch::Sender<Busy>,
}

/// Which data threads are woken for their orders. Those that are not find them before their next sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Nobody,
    /// Those that have connections or UDP sessions.
    Busy,
    Everybody,
}

impl Shared {
    /// State with an empty table, for so many data threads.
    ///
    /// # Errors
    /// If the kernel gives no eventfd.
    pub fn new(
        network: String,
        features: Features,
        limits: Limits,
        threads: usize,
        access_log: AccessLog,
    ) -> Result<Self, nix::Error> {
        let threads = (0..threads).map(|_| DataThread::new().map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self {
            started: Instant::now(),
            network,
            features,
            table: ArcSwap::default(),
            access_log,
            connections: Budget::new(limits.connections),
            spare: Budget::new(limits.spare),
            pipes: Budget::new(limits.pipes),
            used_sockets: limits.used_sockets,
            gate: Gate::default(),
            waiting: AtomicU64::new(0),
            threads,
            suspects: Suspects::default(),
            busy_sessions: watch::Sender::new(Busy::default()),
        })
    }

    /// The generation in use.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.table.load().generation()
    }

    /// Replaces the table. To be called from one thread only.
    ///
    /// # Errors
    /// If the snapshot is not valid; nothing changes then.
    pub fn replace(&self, snapshot: &Snapshot) -> Result<Generation, TransitionError> {
        let transition = self.table.load().replaced_by(snapshot)?;
        Ok(self.publish(transition))
    }

    /// Changes the table. To be called from one thread only.
    ///
    /// # Errors
    /// If the delta does not apply; nothing changes then.
    pub fn change(&self, delta: &Delta) -> Result<Generation, TransitionError> {
        let transition = self.table.load().changed_by(delta)?;
        Ok(self.publish(transition))
    }

    /// Puts what is known of a service's backends into the table, in the same generation. To be called from one thread
    /// only, the one that replaces and changes the table.
    pub fn note_conditions(&self, service: &str, conditions: &[Condition]) {
        let before = self.table.load_full();
        let Some(table) = before.with_conditions(service, conditions) else { return };
        let services = before.service(service).zip(table.service(service));
        let loses = services.is_some_and(|(before, after)| before.loses_eligible(after));
        self.table.store(Arc::new(table));
        let mut orders = Vec::new();
        // A backend that may be used again has places for who waits.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            orders.push(Order::AllTurns);
        }
        if loses {
            orders.push(Order::GiveUpAttempts);
        }
        if !orders.is_empty() {
            self.tell(&orders, Wake::Busy);
        }
    }

    /// Makes the table visible to every later pick, then deals with the connections of what is gone.
    fn publish(&self, transition: Transition) -> Generation {
        let generation = transition.table.generation();
        let first = self.table.swap(Arc::new(transition.table)).generation() == 0;
        let mut orders = Vec::new();
        let mut wake = if first { Wake::Everybody } else { Wake::Nobody };
        if first {
            orders.push(Order::Accept);
        }
        let (mut removed, mut draining) = (false, false);
        for (identity, consequence) in transition.consequences {
            match consequence {
                Consequence::Removed => removed |= identity.remove(),
                Consequence::DrainStarted(after) => {
                    let note = identity.note_drain();
                    draining |= identity.active.load(Ordering::SeqCst) > 0;
                    if let Some(after) = after {
                        orders.push(Order::DrainDeadline { identity, note, after });
                    }
                }
                Consequence::DrainEnded => {
                    identity.note_drain();
                }
            }
        }
        if draining {
            orders.push(Order::GiveUpAttempts);
            wake = wake.max(Wake::Busy);
        }
        if transition.limits_age {
            orders.push(Order::WatchAges);
            wake = wake.max(Wake::Busy);
        }
        // After the swap: who begins to wait counts itself first and looks at the table then.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            orders.push(Order::AllTurns);
            wake = wake.max(Wake::Busy);
        }
        if removed {
            orders.push(Order::ResetRemoved);
            wake = wake.max(Wake::Busy);
        }
        if !orders.is_empty() {
            self.tell(&orders, wake);
        }
        generation
    }

    /// Takes note that a backend of the service at that destination could not be reached. One that has been too often in a row becomes a
    /// matter of the control thread.
    pub fn note_unreachable(&self, destination: &Destination, identity: &SharedIdentity) {
        let table = self.table.load();
        let Some((service, _)) = table.find(destination) else { return };
        if identity.note_failure(service.settings.ejection.failures.0) {
            self.suspects.put(Suspect { service: Arc::clone(&service.name), identity: identity.clone() });
        }
    }

    /// Makes the data threads serve a published port by these sockets, as many for each as it is to have and the first
    /// thread's first, in place of those before; not at all if there are none. The answer waits until they do.
    pub fn serve_port(&self, port: Port, sockets: Vec<Vec<PortSocket>>) -> AllDone {
        let (done, all_done) = Done::new();
        let mut sockets = sockets.into_iter();
        for thread in &self.threads {
            let sockets = sockets.next().unwrap_or_default();
            thread.mailbox.put(&[Order::ServePort { port, sockets, done: done.clone() }], true);
        }
        all_done
    }

    /// Makes the data threads receive no datagrams from clients until [`Self::release_datagrams`].
    pub fn hold_datagrams(&self) {
        self.tell(&[Order::HoldDatagrams], Wake::Everybody);
    }

    /// Gives the data threads the UDP sessions that another proxy had, and lets them receive datagrams.
    pub fn release_datagrams(&self, sessions: Vec<HandedSession>) {
        let mut shares: Vec<_> = self.threads.iter().map(|_| Vec::new()).collect();
        for session in sessions {
            // One of a thread that is not there begins anew with its client's next datagram.
            if let Some(share) = shares.get_mut(session.spec.thread as usize) {
                share.push(session);
            }
        }
        for (thread, share) in self.threads.iter().zip(shares) {
            thread.mailbox.put(&[Order::ReleaseDatagrams { sessions: Parcel::of(share) }], true);
        }
    }

    /// Has busy UDP sessions go past the proxy, by this map in place of the one before.
    pub fn pass_sessions(&self, map: SessionMap) {
        self.tell(&[Order::PassSessions { map: Arc::new(map) }], Wake::Busy);
    }

    /// Has busy connections go past the proxy, by this map.
    pub fn pass_connections(&self, map: ConnectionMap) {
        self.tell(&[Order::PassConnections { map: Arc::new(map) }], Wake::Busy);
    }

    /// Says that something of that protocol is so busy that it should go past the proxy.
    pub fn is_busy(&self, protocol: Protocol) {
        self.busy_sessions.send_if_modified(|busy| busy.add(protocol));
    }

    /// Makes the data threads accept nothing more and close the sockets that they accept from. The answer waits until they
    /// have; with `hands_over` their UDP sessions are in the parcel then.
    pub fn retire(&self, hands_over: bool) -> (AllDone, Parcel) {
        let (done, all_done) = Done::new();
        let parcel = Parcel::default();
        self.tell(&[Order::Retire { parcel: hands_over.then(|| parcel.clone()), done }], Wake::Everybody);
        (all_done, parcel)
    }

    /// Makes every data thread end its connections and then itself.
    pub fn shut_down(&self) {
        self.tell(&[Order::Shutdown], Wake::Everybody);
    }

    /// Gives every data thread the orders. A backend's identity does not tell which threads have its connections, so those
    /// that have none at all are the ones that can sleep on.
    fn tell(&self, orders: &[Order], wake: Wake) {
        for thread in &self.threads {
            let woken = match wake {
                Wake::Nobody => false,
                Wake::Busy => thread.is_busy(),
                Wake::Everybody => true,
            };
            thread.mailbox.put(orders, woken);
        }
    }
}
