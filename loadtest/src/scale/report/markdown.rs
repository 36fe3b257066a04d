//! The results as Markdown.

use super::super::results::{Results, Step};
use crate::instruments::document::document as document_of;
use crate::instruments::numbers::short;
use ringlb_load::units::{format_size, to_float};
use std::fmt::{self, Write};

/// Where there is no figure.
const NONE: &str = "–";

/// What a row of the table of steps shows.
struct Row {
    title: &'static str,
    cell: fn(&Step) -> String,
}

const ROWS: [Row; 17] = [
    Row { title: "backends in all", cell: |step| short(to_float(step.all_backends)) },
    Row { title: "memory of the daemon", cell: |step| format_size(step.daemon_bytes) },
    Row { title: "memory of all proxies", cell: |step| format_size(step.proxy_bytes) },
    Row { title: "the same of both, after a batch that changed every backend", cell: after_batch },
    Row {
        title: "memory of a proxy that got its table whole",
        cell: |step| format_size(step.proxy_bytes_after_resync),
    },
    Row { title: "kernel objects", cell: |step| step.kernel_objects.to_string() },
    Row { title: "CPU of all processes, idle, % of a processor", cell: |step| format!("{:.2}", step.idle_cpu_percent) },
    Row { title: "a change: p50 µs", cell: |step| step.change_us_p50.to_string() },
    Row { title: "a change: p99 µs", cell: |step| step.change_us_p99.to_string() },
    Row { title: "a change: CPU of the daemon, µs", cell: |step| short(step.change_daemon_cpu_us) },
    Row { title: "a change: CPU of the proxy, µs", cell: |step| short(step.change_proxy_cpu_us) },
    Row { title: "a change: system calls", cell: |step| short(step.change_syscalls) },
    Row { title: "a change: bytes to the proxy", cell: |step| short(step.change_bytes) },
    Row { title: "a batch that changes every backend, ms", cell: |step| short(step.batch_ms) },
    Row { title: "full resync of a new proxy, ms", cell: |step| short(step.resync_ms) },
    Row { title: "connections/s through a proxy", cell: |step| short(step.picks_per_second) },
    Row { title: "CPU of the proxy for a connection, µs", cell: |step| short(step.pick_cpu_us) },
];

/// All of it, without plots.
pub(crate) fn document(results: &Results) -> String {
    with_plots(results, &[])
}

/// All of it, with pictures that lie beside it.
pub(super) fn with_plots(results: &Results, plots: &[String]) -> String {
    document_of("What ringlb costs by size", results.complete, |text| write_document(text, results, plots))
}

fn write_document(text: &mut String, results: &Results, plots: &[String]) -> fmt::Result {
    let (host, settings) = (&results.machine, &results.settings);
    writeln!(
        text,
        "{}, Linux {}, {} × {}; daemon and proxies on processor {}, client and server on processor {}. {} changes at each size; \
         idle processes looked at, and connections made, for {} s. Sizes are networks × services of each × backends of each.\n",
        results.version,
        host.kernel,
        host.processor_count,
        host.processor,
        host.processors.system,
        host.processors.load,
        settings.changes,
        settings.duration_s
    )?;
    write_steps(text, results)?;
    write_fits(text, results)?;
    write_kernel_balancer(text, results)?;
    for plot in plots {
        writeln!(text, "![]({plot})")?;
    }
    Ok(())
}

fn write_steps(text: &mut String, results: &Results) -> fmt::Result {
    let cells = |cell: &dyn Fn(&Step) -> String| {
        results.steps.iter().map(|step| format!(" {} |", cell(step))).collect::<String>()
    };
    writeln!(text, "|  |{}", cells(&|step| step.size.to_string()))?;
    writeln!(text, "|---|{}", "---|".repeat(results.steps.len()))?;
    for row in ROWS {
        writeln!(text, "| {} |{}", row.title, cells(&row.cell))?;
    }
    writeln!(text)
}

fn after_batch(step: &Step) -> String {
    format!("{}, {}", format_size(step.daemon_bytes_after_batch), format_size(step.proxy_bytes_after_batch))
}

/// What is claimed, with the figures beside it.
fn write_fits(text: &mut String, results: &Results) -> fmt::Result {
    if results.fits.is_empty() {
        return Ok(());
    }
    let each = if results.is_by_networks() { "network" } else { "backend" };
    writeln!(
        text,
        "## How it grows\n\n| figure | claim | for each {each} | R² | last size ÷ first |\n|---|---|---|---|---|"
    )?;
    let claims = [
        ("daemon_bytes", "memory of the daemon, bytes", "a straight line"),
        ("proxy_bytes", "memory of all proxies, bytes", "a straight line"),
        ("kernel_objects", "kernel objects", "by networks alone"),
        ("idle_cpu_percent", "CPU of all processes, idle, %", "under 1 with 500 networks"),
        ("change_us_p50", "a change: p50 µs", "flat"),
        ("change_daemon_cpu_us", "a change: CPU of the daemon, µs", "flat"),
        ("change_proxy_cpu_us", "a change: CPU of the proxy, µs", "flat"),
        ("change_syscalls", "a change: system calls", "flat"),
        ("change_bytes", "a change: bytes to the proxy", "flat"),
        ("pick_cpu_us", "CPU of the proxy for a connection, µs", "flat"),
        ("batch_ms", "a batch that changes everything, ms", "a straight line"),
        ("resync_ms", "full resync, ms", "a straight line"),
    ];
    for (figure, title, claim) in claims {
        let fit = results.fit(figure).map(|fit| fit.line);
        let slope = fit.map_or_else(|| NONE.to_owned(), |line| small(line.slope));
        let explained =
            fit.and_then(|line| line.r_squared).map_or_else(|| NONE.to_owned(), |value| format!("{value:.4}"));
        let ratio = results.ratios.get(figure).map_or_else(|| NONE.to_owned(), |ratio| short(*ratio));
        writeln!(text, "| {title} | {claim} | {slope} | {explained} | {ratio} |")?;
    }
    writeln!(text)
}

/// A slope may be a tiny part of a unit for each backend.
fn small(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.01 { format!("{value:.1e}") } else { short(value) }
}

fn write_kernel_balancer(text: &mut String, results: &Results) -> fmt::Result {
    let containers = results.settings.containers;
    writeln!(
        text,
        "## The kernel's balancer at these sizes, counted\n\nWhat IPVS has and does as Docker uses it: one sandbox for each network, \
         and before that, in each container ({containers} of this node on each network).\n\n\
         | size | ringlb: objects | per sandbox: objects | per container: objects | a change: netlink requests of ringlb, per \
         sandbox, per container |\n|---|---|---|---|---|"
    )?;
    for step in &results.steps {
        let balancer = &step.kernel_balancer;
        writeln!(
            text,
            "| {} | {} | {} | {} | 0, {}, {} |",
            step.size,
            step.kernel_objects,
            short(to_float(balancer.per_sandbox.objects)),
            short(to_float(balancer.per_container.objects)),
            balancer.per_sandbox.change_netlink_requests,
            balancer.per_container.change_netlink_requests
        )?;
    }
    writeln!(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::samples::results;

    #[test]
    fn the_report_has_a_column_for_each_size_and_what_is_claimed() {
        let text = document(&results(&["1x10x10", "1x100x10", "1x1000x10"]));
        for line in [
            "|  | 1 × 10 × 10 | 1 × 100 × 10 | 1 × 1000 × 10 |",
            "| backends in all | 100 | 1,000 | 10,000 |",
            "| memory of the daemon, bytes | a straight line | 300 | 1.0000 | 1.98 |",
            "| a change: system calls | flat | 0.00 | – | 1.00 |",
            "| 1 × 100 × 10 | 12 | 1,200 | 60,000 | 0, 2, 100 |",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        assert!(!text.contains("has not been made to its end"));
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_table() {
        let text = document(&results(&["1x10x10", "500x10x10"]));
        let mut columns = 0;
        for line in text.lines() {
            let cells = line.matches('|').count();
            if line.starts_with('|') {
                columns = if columns == 0 { cells } else { columns };
                assert_eq!(cells, columns, "{line}");
            } else {
                columns = 0;
            }
        }
        assert!(text.contains("for each network"), "{text}");
    }

    #[test]
    fn a_run_that_was_interrupted_says_so_and_one_size_has_no_slope() {
        let mut results = results(&["1x10x10"]);
        results.complete = false;
        let text = document(&results);
        assert!(text.contains("has not been made to its end") && !text.contains("How it grows"), "{text}");
    }
}
