//! What the proxies of a network have counted together: the one that serves, and those whose place it has taken. Pure.
//!
//! So no counter goes back when a proxy is replaced. A proxy that has ended by itself takes with it what it has counted.

use ringlb_proxy::control::message::{
    BackendStatistics, DatagramStatistics, ProxyStatistics, RingStatistics, ServiceStatistics, Statistics,
    ThreadStatistics, Times,
};
use std::collections::HashMap;

/// Adds up the fields of two structures.
macro_rules! sum {
    ($total:expr, $other:expr, $($field:ident),+ $(,)?) => {
        $($total.$field += $other.$field;)+
    };
}

/// Adds what a proxy has counted to a total, whose services alone count: those of the table in use.
pub(super) fn add(total: &mut Statistics, other: &Statistics) {
    add_proxy(&mut total.proxy, &other.proxy);
    add_datagrams(&mut total.datagrams, &other.datagrams);
    add_ring(&mut total.ring, &other.ring);
    for (total, other) in total.threads.iter_mut().zip(&other.threads) {
        sum!(total, other, accepted, active, sessions, enters);
    }
    let others: HashMap<_, _> = other.services.iter().map(|service| (service.name.as_str(), service)).collect();
    for service in &mut total.services {
        if let Some(other) = others.get(service.name.as_str()) {
            add_service(service, other);
        }
    }
}

/// Adds what a proxy has counted that has ended. Nothing of it is open any more.
pub(super) fn add_ended(past: &mut Statistics, ended: &Statistics) {
    let mut ended = ended.clone();
    (ended.proxy.active, ended.proxy.waiting, ended.datagrams.active) = (0, 0, 0);
    for thread in &mut ended.threads {
        (thread.active, thread.sessions) = (0, 0);
    }
    for backend in ended.services.iter_mut().flat_map(|service| &mut service.backends) {
        (backend.active, backend.active_sessions) = (0, 0);
    }
    // What the past has not known so far is new to it.
    if past.threads.len() < ended.threads.len() {
        past.threads.resize(ended.threads.len(), ThreadStatistics::default());
    }
    for service in &ended.services {
        let known = past.services.iter_mut().find(|known| known.name == service.name);
        match known {
            None => past.services.push(empty(service)),
            Some(known) => {
                let addresses: Vec<_> = known.backends.iter().map(|backend| backend.address).collect();
                let unknown = service.backends.iter().filter(|backend| !addresses.contains(&backend.address));
                known.backends.extend(unknown.map(empty_backend));
            }
        }
    }
    add(past, &ended);
}

fn empty(service: &ServiceStatistics) -> ServiceStatistics {
    ServiceStatistics {
        name: service.name.clone(),
        connections: 0,
        sessions: 0,
        connect_times: Times::default(),
        session_times: Times::default(),
        backends: service.backends.iter().map(empty_backend).collect(),
    }
}

fn empty_backend(backend: &BackendStatistics) -> BackendStatistics {
    BackendStatistics {
        address: backend.address,
        connections: 0,
        active: 0,
        sessions: 0,
        active_sessions: 0,
        connect_failures: 0,
        datagrams_to_backend: 0,
        datagrams_to_client: 0,
        bytes_to_backend: 0,
        bytes_to_client: 0,
        ejections: 0,
        check_failures: 0,
        ..backend.clone()
    }
}

#[rustfmt::skip]
fn add_proxy(total: &mut ProxyStatistics, other: &ProxyStatistics) {
    sum!(
        total, other, accepted, active, waiting, refused_at_limit, refused_denied, refused_client_rate,
        refused_client_full, refused_service_full, refused_backends_full, refused_queue_full, refused_queue_timeout,
        refused_header_invalid, refused_header_timeout, no_service, no_backend, connect_failures, retries,
        retries_denied, client_resets, backend_resets, removed_resets, drain_resets, idle_resets, lifetime_resets,
        access_log_dropped, ports_exhausted,
    );
}

#[rustfmt::skip]
fn add_datagrams(total: &mut DatagramStatistics, other: &DatagramStatistics) {
    sum!(
        total, other, sessions, active, moved, evicted, to_backends, to_clients, bytes_to_backends, bytes_to_clients,
        no_service, no_backend, buffer_full, too_large, at_limit, unsendable, unanswerable, refused,
    );
}

fn add_ring(total: &mut RingStatistics, other: &RingStatistics) {
    sum!(total, other, enters, buffers_exhausted, completion_overflows, spliced_directions, spliced_bytes);
}

fn add_service(total: &mut ServiceStatistics, other: &ServiceStatistics) {
    sum!(total, other, connections, sessions);
    add_times(&mut total.connect_times, &other.connect_times);
    add_times(&mut total.session_times, &other.session_times);
    let others: HashMap<_, _> = other.backends.iter().map(|backend| (backend.address, backend)).collect();
    for backend in &mut total.backends {
        if let Some(other) = others.get(&backend.address) {
            add_backend(backend, other);
        }
    }
}

#[rustfmt::skip]
fn add_backend(total: &mut BackendStatistics, other: &BackendStatistics) {
    sum!(
        total, other, connections, active, sessions, active_sessions, connect_failures, datagrams_to_backend,
        datagrams_to_client, bytes_to_backend, bytes_to_client, ejections, check_failures,
    );
}

fn add_times(total: &mut Times, other: &Times) {
    if total.buckets.len() < other.buckets.len() {
        total.buckets.resize(other.buckets.len(), 0);
    }
    total.buckets.iter_mut().zip(&other.buckets).for_each(|(total, other)| *total += other);
    total.sum_us += other.sum_us;
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlb_proxy::control::message::Health;

    fn backend(last: u8, connections: u64) -> BackendStatistics {
        BackendStatistics {
            address: [10, 0, 0, last].into(),
            connections,
            active: 1,
            sessions: 0,
            active_sessions: 0,
            connect_failures: 0,
            datagrams_to_backend: 0,
            datagrams_to_client: 0,
            bytes_to_backend: connections,
            bytes_to_client: 0,
            health: Health::Healthy,
            ejected_for_ms: 0,
            warmth: 100,
            ejections: 0,
            check_failures: 0,
        }
    }

    fn statistics(name: &str, backends: Vec<BackendStatistics>) -> Statistics {
        let connections = backends.iter().map(|backend| backend.connections).sum();
        let times = Times { buckets: vec![1, 2], sum_us: 3 };
        let service = ServiceStatistics {
            name: name.to_owned(),
            connections,
            sessions: 0,
            connect_times: times.clone(),
            session_times: times,
            backends,
        };
        let proxy = ProxyStatistics { accepted: connections, active: 1, ..ProxyStatistics::default() };
        let threads = vec![ThreadStatistics { accepted: connections, ..ThreadStatistics::default() }];
        Statistics { generation: 1, proxy, threads, services: vec![service], ..Statistics::default() }
    }

    #[test]
    fn nothing_that_was_counted_is_lost_while_proxies_are_replaced() {
        let mut past = Statistics::default();
        add_ended(&mut past, &statistics("web", vec![backend(1, 10)]));
        add_ended(&mut past, &statistics("web", vec![backend(1, 5), backend(2, 7)]));
        add_ended(&mut past, &statistics("gone", vec![backend(1, 100)]));
        let mut total = statistics("web", vec![backend(2, 1), backend(3, 1)]);
        add(&mut total, &past);
        add(&mut total, &statistics("web", vec![backend(2, 2)]));
        assert_eq!((total.proxy.accepted, total.proxy.active, total.generation), (126, 2, 1));
        assert_eq!(total.threads[0].accepted, 126);
        let [web] = &total.services[..] else { panic!("{total:?}") };
        assert_eq!((web.name.as_str(), web.connections, web.connect_times.sum_us), ("web", 26, 12));
        assert_eq!(web.connect_times.buckets, [4, 8]);
        let of = |backend: &BackendStatistics| (backend.connections, backend.active, backend.bytes_to_backend);
        assert_eq!(web.backends.iter().map(of).collect::<Vec<_>>(), [(10, 2, 10), (1, 1, 1)]);
    }
}
