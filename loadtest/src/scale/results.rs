//! The results, as they are written to JSON. Bytes are bytes, times whole or broken units as the field's name says.

use super::fit::Line;
use super::objects::Objects;
use super::size::Size;
use crate::instruments::host::Host;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the JSON document: within one, fields may be added, never removed or changed in meaning.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// Whether all steps have been made.
    pub(crate) complete: bool,
    /// On what.
    pub(crate) machine: Host,
    /// What ringlb says of its version.
    pub(crate) version: String,
    /// How it was run.
    pub(crate) settings: Settings,
    /// One for each size, in the order in which they were made.
    pub(crate) steps: Vec<Step>,
    /// How figures depend on the size. Empty until there are two sizes.
    pub(crate) fits: Vec<Fit>,
    /// The figures of the last step, divided by those of the first. Empty until there are two.
    pub(crate) ratios: BTreeMap<String, f64>,
}

/// How it was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Changes made in each step.
    pub(crate) changes: u32,
    /// How long idle processes were looked at, and how long connections were made, in seconds.
    pub(crate) duration_s: f64,
    /// How many containers were on each network, for the kernel's balancer in its old form.
    pub(crate) containers: u32,
}

/// What was measured at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Networks, services of each network, and backends of each service.
    #[serde(flatten)]
    pub(crate) size: Size,
    /// Services of all networks.
    pub(crate) all_services: u64,
    /// Backends of all services.
    pub(crate) all_backends: u64,
    /// How long it took to build all of it by single requests, a service with its backends at a time.
    pub(crate) build_ms: f64,
    /// The daemon's memory (`Pss`).
    pub(crate) daemon_bytes: u64,
    /// The memory of all proxies together (`Pss`).
    pub(crate) proxy_bytes: u64,
    /// Objects of the kernel that ringlb holds: the sum of those by kind.
    pub(crate) kernel_objects: u64,
    /// The same by kind.
    pub(crate) kernel_objects_by_kind: Objects,
    /// The CPU time of all processes, daemon and proxies, while nothing happens: percent of one processor.
    pub(crate) idle_cpu_percent: f64,
    /// Connections a second through the proxy of the first network to its first service: each one is a pick.
    pub(crate) picks_per_second: f64,
    /// The proxy's CPU time for each of them.
    pub(crate) pick_cpu_us: f64,
    /// From a request that adds or removes a backend to its answer, which comes when the proxy has acknowledged: half of
    /// the changes took no longer.
    pub(crate) change_us_p50: u64,
    /// 99 % took no longer.
    pub(crate) change_us_p99: u64,
    /// The daemon's CPU time for a change.
    pub(crate) change_daemon_cpu_us: f64,
    /// The proxies' CPU time for a change.
    pub(crate) change_proxy_cpu_us: f64,
    /// Bytes that the daemon has sent to the proxy for a change.
    pub(crate) change_bytes: f64,
    /// System calls of daemon and proxy together for a change.
    pub(crate) change_syscalls: f64,
    /// The same by name.
    pub(crate) change_syscalls_by_name: BTreeMap<String, f64>,
    /// How long a batch took that changes the weight of every backend of every network, as a whole state.
    pub(crate) batch_ms: f64,
    /// From the death of the first network's proxy until another one has its whole table and acknowledges a change.
    pub(crate) resync_ms: f64,
    /// The daemon's memory after the batch.
    pub(crate) daemon_bytes_after_batch: u64,
    /// The memory of all proxies after the batch.
    pub(crate) proxy_bytes_after_batch: u64,
    /// The memory of the first network's proxy after the resync, which has got its table whole.
    pub(crate) proxy_bytes_after_resync: u64,
    /// What the kernel's balancer has at this size, counted (not measured).
    pub(crate) kernel_balancer: KernelBalancer,
}

/// What the kernel's balancer (IPVS, as Docker uses it) has at a size, in both of its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelBalancer {
    /// As it is now: in one sandbox for each network.
    pub(crate) per_sandbox: KernelCost,
    /// As it was before: in the namespace of each container.
    pub(crate) per_container: KernelCost,
}

/// What it has and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelCost {
    /// Virtual services, destinations and mark rules.
    pub(crate) objects: u64,
    /// Netlink requests for a task change.
    pub(crate) change_netlink_requests: u64,
    /// Namespaces that are entered or left for a task change.
    pub(crate) change_namespace_switches: u64,
}

/// How a figure depends on the size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fit {
    /// The figure's field.
    pub(crate) figure: String,
    /// What it depends on: `all_backends`, or `networks` if all steps have equal networks.
    pub(crate) against: String,
    /// How.
    #[serde(flatten)]
    pub(crate) line: Line,
}

impl Step {
    /// The figures that are fitted and compared, by the names of their fields.
    pub(crate) fn figures(&self) -> [(&'static str, f64); 14] {
        let whole = ringlb_load::units::to_float;
        [
            ("daemon_bytes", whole(self.daemon_bytes)),
            ("proxy_bytes", whole(self.proxy_bytes)),
            ("kernel_objects", whole(self.kernel_objects)),
            ("idle_cpu_percent", self.idle_cpu_percent),
            ("picks_per_second", self.picks_per_second),
            ("pick_cpu_us", self.pick_cpu_us),
            ("change_us_p50", whole(self.change_us_p50)),
            ("change_us_p99", whole(self.change_us_p99)),
            ("change_daemon_cpu_us", self.change_daemon_cpu_us),
            ("change_proxy_cpu_us", self.change_proxy_cpu_us),
            ("change_bytes", self.change_bytes),
            ("change_syscalls", self.change_syscalls),
            ("batch_ms", self.batch_ms),
            ("resync_ms", self.resync_ms),
        ]
    }
}

impl Results {
    /// Derives what is derived from the steps.
    pub(crate) fn derive(&mut self) {
        let [first, .., last] = self.steps.as_slice() else { return };
        let pairs = first.figures().into_iter().zip(last.figures());
        let ratios = pairs.filter(|((_, first), _)| *first > 0.0);
        self.ratios = ratios.map(|((name, first), (_, last))| (name.to_owned(), last / first)).collect();
        let by_networks = self.is_by_networks();
        let place = |step: &Step| {
            if by_networks { step.size.networks.into() } else { ringlb_load::units::to_float(step.all_backends) }
        };
        let against = if by_networks { "networks" } else { "all_backends" };
        let fit = |(index, (figure, _)): (usize, (&str, f64))| {
            let points: Vec<_> = self.steps.iter().map(|step| (place(step), step.figures()[index].1)).collect();
            Some(Fit { figure: figure.to_owned(), against: against.to_owned(), line: Line::through(&points)? })
        };
        self.fits = first.figures().into_iter().enumerate().filter_map(fit).collect();
    }

    /// Whether the steps differ in the number of networks alone.
    pub(crate) fn is_by_networks(&self) -> bool {
        let each = |step: &Step| (step.size.services, step.size.backends);
        self.steps.windows(2).all(|pair| each(&pair[0]) == each(&pair[1]))
    }

    /// How that figure depends on the size.
    pub(crate) fn fit(&self, figure: &str) -> Option<&Fit> {
        self.fits.iter().find(|fit| fit.figure == figure)
    }
}
