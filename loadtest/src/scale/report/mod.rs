//! What people read of the results.

mod axis;
mod markdown;
mod plot;

use super::results::{KernelCost, Results, Step};
use crate::instruments::numbers::short;
use axis::Kind;
use plot::{Plot, Series};
use ringlb_load::units::{format_microseconds, format_size, to_float};

pub(crate) use markdown::document;

/// A mebibyte.
const MEBIBYTE: f64 = 1_048_576.0;

/// The files of a report, by name.
pub(super) fn files(results: &Results) -> Vec<(String, String)> {
    let mut files: Vec<_> =
        plots(results).into_iter().map(|(name, plot)| (format!("{name}.svg"), plot.to_svg())).collect();
    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    files.push(("scale.md".to_owned(), markdown::with_plots(results, &names)));
    files
}

/// What is said before the first step.
pub(super) fn preamble(results: &Results) -> String {
    format!("{}; {}", results.version, results.machine.line("daemon and proxies", "client and server"))
}

/// A line about a step.
pub(super) fn line(step: &Step) -> String {
    format!(
        "{}: daemon {}, proxies {}, {} kernel objects; a change {} (p99 {}), {} system calls, {} B; batch {} ms, resync {} ms; \
         {} picks/s; idle {:.2} % CPU",
        step.size,
        format_size(step.daemon_bytes),
        format_size(step.proxy_bytes),
        step.kernel_objects,
        format_microseconds(step.change_us_p50),
        format_microseconds(step.change_us_p99),
        short(step.change_syscalls),
        short(step.change_bytes),
        short(step.batch_ms),
        short(step.resync_ms),
        short(step.picks_per_second),
        step.idle_cpu_percent
    )
}

fn plots(results: &Results) -> Vec<(&'static str, Plot)> {
    let across = if results.is_by_networks() { "networks" } else { "backends" };
    let size = |step: &Step| {
        if results.is_by_networks() { f64::from(step.size.networks) } else { to_float(step.all_backends) }
    };
    let series = |label, of: fn(&Step) -> f64| Series {
        label,
        points: results.steps.iter().map(|step| (size(step), of(step))).collect(),
    };
    let plot = |title, unit, x, y, series| Plot { title, unit, across, x, y, series };
    let (linear, logarithmic) = (Kind::Linear, Kind::Logarithmic);
    let objects = |cost: KernelCost| to_float(cost.objects);
    vec![
        (
            "memory",
            plot(
                "Memory",
                "MiB",
                linear,
                linear,
                vec![
                    series("daemon", |step| to_float(step.daemon_bytes) / MEBIBYTE),
                    series("all proxies", |step| to_float(step.proxy_bytes) / MEBIBYTE),
                ],
            ),
        ),
        (
            "kernel-objects",
            plot(
                "Objects of the kernel",
                "objects",
                logarithmic,
                logarithmic,
                vec![
                    series("ringlb", |step| to_float(step.kernel_objects)),
                    Series {
                        points: results
                            .steps
                            .iter()
                            .map(|step| (size(step), objects(step.kernel_balancer.per_sandbox)))
                            .collect(),
                        label: "IPVS per sandbox",
                    },
                    Series {
                        points: results
                            .steps
                            .iter()
                            .map(|step| (size(step), objects(step.kernel_balancer.per_container)))
                            .collect(),
                        label: "IPVS per container",
                    },
                ],
            ),
        ),
        (
            "change-time",
            plot(
                "A task change, from request to answer",
                "µs",
                logarithmic,
                linear,
                vec![
                    series("p50", |step| to_float(step.change_us_p50)),
                    series("p99", |step| to_float(step.change_us_p99)),
                ],
            ),
        ),
        (
            "change-cpu",
            plot(
                "CPU time of a task change",
                "µs",
                logarithmic,
                linear,
                vec![
                    series("daemon", |step| step.change_daemon_cpu_us),
                    series("proxy", |step| step.change_proxy_cpu_us),
                ],
            ),
        ),
        (
            "everything",
            plot(
                "Everything at once",
                "ms",
                linear,
                linear,
                vec![series("batch", |step| step.batch_ms), series("resync", |step| step.resync_ms)],
            ),
        ),
        (
            "picks",
            plot(
                "CPU time of the proxy for a connection",
                "µs",
                logarithmic,
                linear,
                vec![series("proxy", |step| step.pick_cpu_us)],
            ),
        ),
    ]
}
