//! The counters of all data threads, put together.

use super::{Counter, Counters, DataThread, Shared};
use crate::control::message::{
    BackendStatistics, ProxyStatistics, RingStatistics, ServiceStatistics, Statistics, ThreadStatistics,
};
use crate::table::Service;
use std::sync::atomic::Ordering;

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
        enters: thread.counters.enters.get(),
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
        }
    });
    ServiceStatistics {
        name: service.name.to_string(),
        connections: service.state.connections.load(Ordering::Relaxed),
        backends: backends.collect(),
    }
}
