//! What people read of the results.

mod chart;
mod columns;
mod markdown;

use super::results::{Metric, Results, Run, SystemCalls};
use super::system::System;
use super::workload::{Units, Workload};
use crate::instruments::numbers::{share, short};
use crate::instruments::statistics::Spread;
use chart::{Bar, Chart};

pub(crate) use markdown::document;

/// The files of a report, by name.
pub(super) fn files(results: &Results) -> Vec<(String, String)> {
    let charts = Workload::ALL.into_iter().flat_map(|workload| charts(results, workload));
    let mut files: Vec<_> = charts.map(|(name, chart)| (name, chart.to_svg())).collect();
    let plots: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    files.push(("bench.md".to_owned(), markdown::with_plots(results, &plots)));
    files
}

/// One for each metric of a workload that was measured, by file name.
fn charts(results: &Results, workload: Workload) -> Vec<(String, Chart)> {
    let Units { work, rate, cpu } = workload.units();
    let metrics = match workload {
        Workload::PingpongOne | Workload::OpenLoop | Workload::Churn | Workload::Propagation => {
            vec![(Metric::P50, "p50"), (Metric::P99, "p99")]
        }
        Workload::Idle => vec![(Metric::Memory, "memory")],
        Workload::PingpongSlow | Workload::Udp64 | Workload::Udp1000 => vec![(Metric::Cpu, "cpu")],
        _ => vec![(Metric::Rate, "rate"), (Metric::Cpu, "cpu")],
    };
    let chart = |(metric, name): (Metric, &str)| {
        let unit = match metric {
            Metric::Rate => rate.to_owned(),
            Metric::Cpu => format!("CPU {} per {work}", cpu.symbol()),
            Metric::P50 => "p50 µs".to_owned(),
            Metric::P99 => "p99 µs".to_owned(),
            Metric::Memory => format!("bytes per {work}"),
        };
        let scale = |value| if metric == Metric::Cpu { cpu.of(value) } else { value };
        let bar = |system: &System| {
            let values = results.values(workload, *system, metric).into_iter().map(scale).collect::<Vec<_>>();
            let spread = Spread::of(&values)?;
            Some(Bar { label: system.title(), spread, emphasised: *system == System::Ringlb })
        };
        let bars: Vec<_> = workload.systems(&System::ALL).iter().filter_map(bar).collect();
        let title = format!("{workload}: {}", workload.title());
        (bars.len() > 1).then(|| (format!("{workload}-{name}.svg"), Chart { title, unit, bars }))
    };
    metrics.into_iter().filter_map(chart).collect()
}

/// What is said before the first run.
pub(super) fn preamble(results: &Results) -> Vec<String> {
    let machine = &results.machine;
    let host = machine.host.line("systems", "client and servers");
    let mut lines = vec![format!("{host}; {}", machine.congestion_control)];
    lines.extend(machine.versions.iter().map(|(system, version)| format!("{system}: {version}")));
    lines.extend(results.missing.iter().map(|missing| format!("{} is MISSING: {}", missing.system, missing.reason)));
    lines
}

/// A line about system calls.
pub(super) fn calls_line(calls: &SystemCalls) -> String {
    let Units { work, .. } = calls.workload.units();
    format!(
        "  {:<8} {:<14} {:>8} per {work}: {}",
        calls.workload.name(),
        calls.system.name(),
        short(calls.per_unit),
        most_calls(calls, 4)
    )
}

/// The most frequent ones.
fn most_calls(calls: &SystemCalls, count: usize) -> String {
    let mut names: Vec<_> = calls.by_name.iter().collect();
    names.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    let most: Vec<_> = names.iter().take(count).map(|(name, calls)| format!("{name} {}", short(**calls))).collect();
    most.join(", ")
}

/// A line about a run.
pub(super) fn line(run: &Run) -> String {
    let mut line = format!("  {:<14} round {}", run.system.name(), run.round);
    if let Some(rate) = run.rate {
        line.push_str(&format!("  {:>9} {}", short(rate), run.unit));
    }
    if let Some(cpu) = run.cpu_us_per_unit {
        let unit = run.workload.units().cpu;
        line.push_str(&format!("  CPU {:>8} {} per {}", short(unit.of(cpu)), unit.symbol(), run.work));
    }
    if let Some(memory) = run.memory_bytes_per_unit {
        line.push_str(&format!("  {:>9} B per {}", short(memory), run.work));
    }
    if let (Some(p50), Some(p99)) = (run.p50_us, run.p99_us) {
        line.push_str(&format!("  p50 {p50} µs  p99 {p99} µs"));
    }
    if let Some(changes) = run.changes_per_second {
        line.push_str(&format!("  {} changes/s", short(changes)));
    }
    if run.errors > 0 {
        let example = run.error_example.as_deref().unwrap_or_default();
        line.push_str(&format!("  {} FAILED ({}), such as: {example}", run.errors, share(run.errors, run.units)));
    }
    line
}
