//! Results made up for tests.

use super::kernel_balancer;
use super::objects::Objects;
use super::results::{Results, SCHEMA_VERSION, Settings, Step};
use super::size::Size;
use crate::instruments::host::Host;
use std::collections::BTreeMap;

/// Results at these sizes: memory grows by 300 and 100 bytes for each backend, and nothing else does.
pub(super) fn results(sizes: &[&str]) -> Results {
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        complete: true,
        machine: Host::sample(),
        version: "ringlb 1.2.3".to_owned(),
        settings: Settings { changes: 100, duration_s: 5.0, containers: 50 },
        steps: sizes.iter().map(|size| step(size.parse().unwrap())).collect(),
        fits: Vec::new(),
        ratios: BTreeMap::new(),
    };
    results.derive();
    results
}

fn step(size: Size) -> Step {
    let objects = Objects { namespaces: 2, links: 3, routes: 1, sockets: 4, bpf: 2 };
    let (daemon_bytes, proxy_bytes) = (3_000_000 + 300 * size.all_backends(), 2_000_000 + 100 * size.all_backends());
    Step {
        size,
        all_services: size.all_services(),
        all_backends: size.all_backends(),
        build_ms: 100.0,
        daemon_bytes,
        proxy_bytes,
        kernel_objects: objects.sum(),
        kernel_objects_by_kind: objects,
        idle_cpu_percent: 0.1,
        picks_per_second: 10_000.0,
        pick_cpu_us: 40.0,
        change_us_p50: 100,
        change_us_p99: 200,
        change_daemon_cpu_us: 50.0,
        change_proxy_cpu_us: 20.0,
        change_bytes: 40.0,
        change_syscalls: 14.0,
        change_syscalls_by_name: BTreeMap::from([("write".to_owned(), 14.0)]),
        batch_ms: 10.0,
        resync_ms: 20.0,
        daemon_bytes_after_batch: daemon_bytes,
        proxy_bytes_after_batch: proxy_bytes,
        proxy_bytes_after_resync: proxy_bytes,
        kernel_balancer: kernel_balancer::cost(size, 50),
    }
}
