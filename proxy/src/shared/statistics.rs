//! The counters of all data threads, put together.

use super::{Counter, Counters, DataThread, Shared};
use crate::control::message::{
    BackendStatistics, DatagramStatistics, ProxyStatistics, RingStatistics, ServiceStatistics, Statistics,
    ThreadStatistics,
};
use crate::table::{DatagramCounters, Service};
use std::sync::atomic::{AtomicU64, Ordering};

impl Shared {
    /// All counters as they are now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let table = self.table.load();
        let sum = |counter: fn(&Counters) -> &Counter| -> u64 {
            self.threads.iter().map(|thread| counter(&thread.counters).get()).sum()
        };
        Statistics {
            generation: table.generation(),
            proxy: ProxyStatistics {
                accepted: sum(|counters| &counters.accepted),
                active: self.threads.iter().map(|thread| thread.active()).sum(),
                waiting: self.waiting.load(Ordering::Relaxed),
                refused_at_limit: sum(|counters| &counters.refused_at_limit),
                refused_denied: sum(|counters| &counters.refused_denied),
                refused_client_rate: sum(|counters| &counters.refused_client_rate),
                refused_client_full: sum(|counters| &counters.refused_client_full),
                refused_service_full: sum(|counters| &counters.refused_service_full),
                refused_backends_full: sum(|counters| &counters.refused_backends_full),
                refused_queue_full: sum(|counters| &counters.refused_queue_full),
                refused_queue_timeout: sum(|counters| &counters.refused_queue_timeout),
                refused_header_invalid: sum(|counters| &counters.refused_header_invalid),
                refused_header_timeout: sum(|counters| &counters.refused_header_timeout),
                no_service: sum(|counters| &counters.no_service),
                no_backend: sum(|counters| &counters.no_backend),
                connect_failures: sum(|counters| &counters.connect_failures),
                retries: sum(|counters| &counters.retries),
                retries_denied: sum(|counters| &counters.retries_denied),
                client_resets: sum(|counters| &counters.client_resets),
                backend_resets: sum(|counters| &counters.backend_resets),
                removed_resets: sum(|counters| &counters.removed_resets),
                drain_resets: sum(|counters| &counters.drain_resets),
                idle_resets: sum(|counters| &counters.idle_resets),
                lifetime_resets: sum(|counters| &counters.lifetime_resets),
                access_log_dropped: sum(|counters| &counters.access_log_dropped),
                ports_exhausted: sum(|counters| &counters.ports_exhausted),
            },
            datagrams: DatagramStatistics {
                sessions: sum(|counters| &counters.sessions),
                active: self.threads.iter().map(|thread| thread.sessions()).sum(),
                moved: sum(|counters| &counters.sessions_moved),
                evicted: sum(|counters| &counters.sessions_evicted),
                to_backends: sum(|counters| &counters.datagrams_to_backends),
                to_clients: sum(|counters| &counters.datagrams_to_clients),
                bytes_to_backends: sum(|counters| &counters.datagram_bytes_to_backends),
                bytes_to_clients: sum(|counters| &counters.datagram_bytes_to_clients),
                no_service: sum(|counters| &counters.lost.no_service),
                no_backend: sum(|counters| &counters.lost.no_backend),
                buffer_full: sum(|counters| &counters.lost.buffer_full),
                too_large: sum(|counters| &counters.lost.too_large),
                at_limit: sum(|counters| &counters.lost.at_limit),
                unsendable: sum(|counters| &counters.lost.unsendable),
                unanswerable: sum(|counters| &counters.lost.unanswerable),
                refused: sum(|counters| &counters.lost.refused),
            },
            ring: RingStatistics {
                enters: sum(|counters| &counters.enters),
                buffers_exhausted: sum(|counters| &counters.buffers_exhausted),
                completion_overflows: sum(|counters| &counters.completion_overflows),
                spliced_directions: sum(|counters| &counters.spliced_directions),
                spliced_bytes: sum(|counters| &counters.spliced_bytes),
            },
            threads: self.threads.iter().map(|thread| thread_statistics(thread)).collect(),
            services: table.services().map(|service| service_statistics(service)).collect(),
        }
    }
}

fn thread_statistics(thread: &DataThread) -> ThreadStatistics {
    ThreadStatistics {
        accepted: thread.counters.accepted.get(),
        active: thread.active(),
        sessions: thread.sessions(),
        enters: thread.counters.enters.get(),
    }
}

fn service_statistics(service: &Service) -> ServiceStatistics {
    let backends = service.backends().iter().map(|backend| {
        let identity = &backend.identity;
        let datagrams = |counter: fn(&DatagramCounters) -> &AtomicU64| {
            identity.counted_datagrams().map_or(0, |counters| counter(counters).load(Ordering::Relaxed))
        };
        BackendStatistics {
            address: backend.address,
            connections: identity.connections.load(Ordering::Relaxed),
            active: identity.active.load(Ordering::Relaxed),
            sessions: datagrams(|counters| &counters.sessions),
            active_sessions: datagrams(|counters| &counters.active_sessions),
            connect_failures: identity.connect_failures.load(Ordering::Relaxed),
            datagrams_to_backend: datagrams(|counters| &counters.to_backend),
            datagrams_to_client: datagrams(|counters| &counters.to_client),
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
        sessions: service.state.sessions.load(Ordering::Relaxed),
        connect_times: service.state.connect_times.times(),
        session_times: service.state.session_times.times(),
        backends: backends.collect(),
    }
}
