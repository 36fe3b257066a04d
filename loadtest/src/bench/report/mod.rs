//! What people read of the results.

mod markdown;
mod numbers;

use super::results::{Results, Run};
use numbers::{share, short};

pub(crate) use markdown::document;

/// The files of a report, by name.
pub(super) fn files(results: &Results) -> Vec<(String, String)> {
    vec![("bench.md".to_owned(), document(results))]
}

/// What is said before the first run.
pub(super) fn preamble(results: &Results) -> Vec<String> {
    let machine = &results.machine;
    let mut lines = vec![format!(
        "kernel {}, {} processors ({}); systems on processor {}, client and servers on {}",
        machine.kernel,
        machine.processor_count,
        machine.processor,
        machine.processors.system,
        machine.processors.load
    )];
    lines.extend(machine.versions.iter().map(|(system, version)| format!("{system}: {version}")));
    lines.extend(results.missing.iter().map(|missing| format!("{} is MISSING: {}", missing.system, missing.reason)));
    lines
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
    if run.errors > 0 {
        let example = run.error_example.as_deref().unwrap_or_default();
        line.push_str(&format!("  {} FAILED ({}), such as: {example}", run.errors, share(run.errors, run.units)));
    }
    line
}
