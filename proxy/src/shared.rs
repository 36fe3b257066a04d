//! What the data thread and the control thread share: the table, counters, and a mailbox for what a new table means for
//! open connections.

mod suspects;

pub use suspects::{Suspect, Suspects};

use crate::control::message::{
    BackendStatistics, Delta, Features, Generation, ProxyStatistics, RingStatistics, ServiceStatistics, Snapshot,
    Statistics,
};
use crate::table::{Condition, Consequence, Identity, Service, Table, Transition, TransitionError};
use arc_swap::ArcSwap;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What both threads see.
#[derive(Debug)]
pub struct Shared {
    /// The network's name.
    pub network: String,
    /// What the kernel offers.
    pub features: Features,
    /// The table in use. A connection loads it once, at its pick.
    pub table: ArcSwap<Table>,
    /// Counters of the whole proxy.
    pub counters: Counters,
    /// Orders for the data thread.
    pub mailbox: Mailbox,
    /// Backends that could not be reached, for the control thread.
    pub suspects: Suspects,
}

impl Shared {
    /// State with an empty table.
    ///
    /// # Errors
    /// If the kernel gives no eventfd.
    pub fn new(network: String, features: Features) -> Result<Self, nix::Error> {
        Ok(Self {
            network,
            features,
            table: ArcSwap::default(),
            counters: Counters::default(),
            mailbox: Mailbox::new()?,
            suspects: Suspects::default(),
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
        let table = self.table.load().with_conditions(service, conditions);
        if let Some(table) = table {
            self.table.store(Arc::new(table));
        }
    }

    /// Makes the table visible to every later pick, then deals with the connections of what is gone.
    fn publish(&self, transition: Transition) -> Generation {
        let generation = transition.table.generation();
        let first = self.table.swap(Arc::new(transition.table)).generation() == 0;
        let mut orders = Vec::new();
        let mut wake = first;
        if first {
            orders.push(Order::Accept);
        }
        let mut removed = false;
        for (identity, consequence) in transition.consequences {
            match consequence {
                Consequence::Removed => removed |= identity.remove(),
                Consequence::DrainStarted(Some(after)) => {
                    let note = identity.note_drain();
                    wake |= identity.active.load(Ordering::SeqCst) > 0;
                    orders.push(Order::DrainDeadline { identity, note, after });
                }
                Consequence::DrainStarted(None) | Consequence::DrainEnded => {
                    identity.note_drain();
                }
            }
        }
        if removed {
            orders.push(Order::ResetRemoved);
        }
        if !orders.is_empty() {
            self.mailbox.put(orders, wake || removed);
        }
        generation
    }

    /// All counters as they are now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let table = self.table.load();
        let counters = &self.counters;
        Statistics {
            generation: table.generation(),
            proxy: ProxyStatistics {
                accepted: counters.accepted.get(),
                active: counters.active.get(),
                refused_at_limit: counters.refused_at_limit.get(),
                no_service: counters.no_service.get(),
                no_backend: counters.no_backend.get(),
                connect_failures: counters.connect_failures.get(),
                retries: counters.retries.get(),
                client_resets: counters.client_resets.get(),
                backend_resets: counters.backend_resets.get(),
                removed_resets: counters.removed_resets.get(),
                drain_resets: counters.drain_resets.get(),
                ports_exhausted: counters.ports_exhausted.get(),
            },
            ring: RingStatistics {
                enters: counters.enters.get(),
                buffers_exhausted: counters.buffers_exhausted.get(),
                completion_overflows: counters.completion_overflows.get(),
                spliced_directions: counters.spliced_directions.get(),
                spliced_bytes: counters.spliced_bytes.get(),
            },
            services: table.services().map(|service| service_statistics(service)).collect(),
        }
    }
}

fn service_statistics(service: &Service) -> ServiceStatistics {
    let backends = service.backends().iter().map(|backend| {
        let identity = &backend.identity;
        BackendStatistics {
            address: backend.address,
            connections: identity.connections.load(Ordering::Relaxed),
            active: identity.active.load(Ordering::Relaxed),
            connect_failures: identity.connect_failures.load(Ordering::Relaxed),
            bytes_to_backend: identity.bytes_to_backend.load(Ordering::Relaxed),
            bytes_to_client: identity.bytes_to_client.load(Ordering::Relaxed),
            health: backend.health,
            ejected_for_ms: 0,
            warmth: backend.warmth,
            ejections: 0,
            check_failures: 0,
        }
    });
    ServiceStatistics {
        name: service.name.to_string(),
        connections: service.state.connections.load(Ordering::Relaxed),
        backends: backends.collect(),
    }
}

/// A number that the data thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of the whole proxy; the fields of [`ProxyStatistics`] and [`RingStatistics`] say what each one counts.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "documented where they are sent: `control::message`")]
pub struct Counters {
    pub accepted: Counter,
    pub active: Counter,
    pub refused_at_limit: Counter,
    pub no_service: Counter,
    pub no_backend: Counter,
    pub connect_failures: Counter,
    pub retries: Counter,
    pub client_resets: Counter,
    pub backend_resets: Counter,
    pub removed_resets: Counter,
    pub drain_resets: Counter,
    pub ports_exhausted: Counter,
    pub enters: Counter,
    pub buffers_exhausted: Counter,
    pub completion_overflows: Counter,
    pub spliced_directions: Counter,
    pub spliced_bytes: Counter,
}

/// What the data thread is told to do.
#[derive(Debug)]
pub enum Order {
    /// Accept connections: there is a table now. A proxy that was started anew must not reset the connections that wait
    /// in the listener's queue because it does not yet know their services.
    Accept,
    /// Reset the connections of backends that are marked as removed.
    ResetRemoved,
    /// Reset this backend's connections after a time, if it still drains then.
    DrainDeadline {
        /// The backend.
        identity: Arc<Identity>,
        /// The note that draining started with.
        note: u32,
        /// The time it has.
        after: Duration,
    },
    /// End all connections, then the thread.
    Shutdown,
}

/// Orders on their way to the data thread.
///
/// A wake-up is a system call, so there is none when no connection is concerned: then the orders wait until the data
/// thread looks, which it does before each sleep.
#[derive(Debug)]
pub struct Mailbox {
    orders: Mutex<Vec<Order>>,
    full: AtomicBool,
    wake: EventFd,
}

impl Mailbox {
    fn new() -> Result<Self, nix::Error> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { orders: Mutex::default(), full: AtomicBool::new(false), wake })
    }

    /// Adds orders; wakes the data thread if asked to.
    pub fn put(&self, orders: Vec<Order>, wake: bool) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).extend(orders);
        self.full.store(true, Ordering::SeqCst);
        if wake {
            // The count cannot overflow: the data thread resets it at each wake-up.
            let _ = self.wake.write(1);
        }
    }

    /// Whether there are orders.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Takes all orders out.
    #[must_use]
    pub fn take(&self) -> Vec<Order> {
        self.full.store(false, Ordering::SeqCst);
        std::mem::take(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The descriptor to read for wake-ups.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }
}
