//! The report as Markdown: the targets, each workload's table, and what the figures were measured with.

use super::columns::{Column, NONE, columns};
use super::most_calls;
use crate::bench::results::{Metric, Results, Run, SystemCalls};
use crate::bench::system::System;
use crate::bench::targets::{Against, Bound, TARGETS, Target, Verdict};
use crate::bench::workload::Workload;
use crate::instruments::document::document as document_of;
use crate::instruments::numbers::{short, spread};
use std::fmt::{self, Write};

/// The whole report, without pictures.
pub(crate) fn document(results: &Results) -> String {
    with_plots(results, &[])
}

/// The same with the pictures in these files, which begin with the names of workloads.
pub(super) fn with_plots(results: &Results, plots: &[String]) -> String {
    document_of("ringlb side by side", results.complete, |text| write(text, results, plots))
}

fn write(text: &mut String, results: &Results, plots: &[String]) -> fmt::Result {
    write_machine(text, results)?;
    write_targets(text, results)?;
    for workload in Workload::ALL {
        if results.runs.iter().any(|run| run.workload == workload) {
            write_workload(text, results, workload)?;
            let prefix = format!("{workload}-");
            let shows = |plot: &&String| plot.strip_prefix(&prefix).is_some_and(|metric| !metric.contains('-'));
            for plot in plots.iter().filter(shows) {
                writeln!(text, "![]({plot})\n")?;
            }
        }
    }
    write_system_calls(text, results)?;
    write_gaps(text, results)
}

fn write_machine(text: &mut String, results: &Results) -> fmt::Result {
    let (machine, settings) = (&results.machine, &results.settings);
    writeln!(
        text,
        "Linux {}, {}, {} processors ({}); each system on processor {}, client and servers on processor {}. {} rounds in \
         alternating order, {} s each after {} s of warming up; medians, and the range of the rounds in parentheses.\n",
        machine.host.kernel,
        machine.congestion_control,
        machine.host.processor_count,
        machine.host.processor,
        machine.host.processors.system,
        machine.host.processors.load,
        settings.rounds,
        settings.duration_s,
        settings.warm_up_s
    )?;
    for (system, version) in &machine.versions {
        writeln!(text, "- {}: {version}", system.title())?;
    }
    for missing in &results.missing {
        writeln!(text, "- **{} is missing**: {}", missing.system.title(), missing.reason)?;
    }
    writeln!(text)
}

fn write_targets(text: &mut String, results: &Results) -> fmt::Result {
    writeln!(text, "## Targets\n")?;
    writeln!(text, "| workload | figure | measured | must | goal | | no balancer |\n|---|---|---|---|---|---|---|")?;
    for target in TARGETS.into_iter().filter(|target| results.settings.workloads.contains(&target.workload)) {
        let figure = target.figure(results);
        let verdict = match target.verdict(figure) {
            Verdict::Goal => "goal met",
            Verdict::Met => "met",
            Verdict::Missed => "**not met**",
            Verdict::NotMeasured => "not measured",
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {verdict} | {} |",
            target.workload,
            describe(&target),
            figure.map_or_else(|| NONE.to_owned(), spread),
            bound(target.must),
            bound(target.goal),
            target.without_balancer(results).map_or_else(|| NONE.to_owned(), spread)
        )?;
    }
    writeln!(text)
}

fn describe(target: &Target) -> String {
    let units = target.workload.units();
    let metric = match target.metric {
        Metric::Rate => units.rate.to_owned(),
        Metric::Cpu => format!("CPU per {}", units.work),
        Metric::P50 => "p50".to_owned(),
        Metric::P99 => "p99".to_owned(),
        Metric::Memory => format!("bytes per {}", units.work),
    };
    match target.against {
        Against::Peer(peer) => format!("{metric} ÷ {}", peer.title()),
        Against::Nothing if matches!(target.metric, Metric::P50 | Metric::P99) => format!("{metric} µs"),
        Against::Nothing => metric,
    }
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(value) => format!("≥ {}", limit(value)),
        Bound::AtMost(value) => format!("≤ {}", limit(value)),
    }
}

/// As it was set, without digits that nobody wrote.
fn limit(value: f64) -> String {
    if value < 100.0 { value.to_string() } else { short(value) }
}

fn write_workload(text: &mut String, results: &Results, workload: Workload) -> fmt::Result {
    let measured = |system: &System| !runs(results, workload, *system).is_empty();
    let systems: Vec<_> = workload.systems(&System::ALL).into_iter().filter(measured).collect();
    // A column that nobody has a value for is left out.
    let has_values =
        |column: &Column| systems.iter().any(|system| column.cell(&runs(results, workload, *system)) != NONE);
    let columns: Vec<_> = columns(workload).into_iter().filter(has_values).collect();
    writeln!(text, "## {workload}: {}\n", workload.title())?;
    if let Some(rate) = results.settings.open_loop_rate.filter(|_| workload == Workload::OpenLoop) {
        writeln!(text, "{rate} requests a second.\n")?;
    }
    let head: String = columns.iter().map(|column| format!(" {} |", column.head)).collect();
    writeln!(text, "| system |{head} errors |\n|---|{}---|", "---|".repeat(columns.len()))?;
    for system in systems {
        let runs = runs(results, workload, system);
        let cells: String = columns.iter().map(|column| format!(" {} |", column.cell(&runs))).collect();
        writeln!(text, "| {} |{cells} {} |", system.title(), runs.iter().map(|run| run.errors).sum::<u64>())?;
    }
    writeln!(text)
}

fn runs(results: &Results, workload: Workload, system: System) -> Vec<&Run> {
    results.runs.iter().filter(|run| run.workload == workload && run.system == system).collect()
}

fn write_system_calls(text: &mut String, results: &Results) -> fmt::Result {
    if results.system_calls.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "## System calls\n\n| workload | system | for each | calls | most of them |\n|---|---|---|---|---|"
    )?;
    for calls in &results.system_calls {
        let SystemCalls { workload, system, per_unit, .. } = calls;
        let (work, most) = (workload.units().work, most_calls(calls, 6));
        writeln!(text, "| {workload} | {} | {work} | {} | {most} |", system.title(), short(*per_unit))?;
    }
    writeln!(text)
}

fn write_gaps(text: &mut String, results: &Results) -> fmt::Result {
    if results.left_out.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Left out\n")?;
    for left_out in &results.left_out {
        let round = left_out.round.map(|round| format!(", round {round}")).unwrap_or_default();
        let reason = left_out.reason.lines().collect::<Vec<_>>().join(" / ");
        writeln!(text, "- {}, {}{round}: {reason}", left_out.workload, left_out.system.title())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ratios;
    use crate::bench::results::LeftOut;
    use crate::bench::samples::{results, run};
    use crate::bench::system::Missing;

    fn sample() -> Results {
        let mut results = results(2);
        for (round, ringlb, haproxy) in [(1, 15_000.0, 10_000.0), (2, 14_000.0, 10_000.0)] {
            results.runs.push(run(Workload::Connect, System::Ringlb, round, ringlb));
            results.runs.push(run(Workload::Connect, System::Haproxy, round, haproxy));
        }
        results.runs.push(run(Workload::Connect, System::Direct, 2, 16_000.0));
        results.missing.push(Missing { system: System::Envoy, reason: "there is no program envoy".to_owned() });
        results.left_out.push(LeftOut {
            workload: Workload::Connect,
            system: System::Nft,
            round: Some(2),
            reason: "it broke\nin two".to_owned(),
        });
        results.ratios = ratios::of(&results);
        results
    }

    #[test]
    fn the_report_shows_figures_verdicts_and_gaps() {
        let text = document(&sample());
        for line in [
            "| w1 | connections/s ÷ HAProxy | 1.45 (1.40–1.50) | ≥ 1.25 | ≥ 1.5 | met | 1.60 |",
            "| w1 | CPU per connection ÷ HAProxy | 1.00 | ≤ 0.78 | ≤ 0.6 | **not met** | – |",
            "| w1 | connections/s ÷ nft DNAT | – | ≥ 1.3 | ≥ 1.5 | not measured | – |",
            "| ringlb | 14,500 (14,000–15,000) | 10.0 | 20.0 | 100 | 200 | 300 | 0 |",
            "- **Envoy is missing**: there is no program envoy",
            "- HAProxy: HAProxy version 2.6",
            "- w1, nft DNAT, round 2: it broke / in two",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        assert!(!text.contains("## w2-64"), "a workload that was not run has no table:\n{text}");
        assert!(!text.contains("not been run to its end"));
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_table() {
        let text = document(&sample());
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
    }

    #[test]
    fn an_interrupted_benchmark_says_so() {
        let mut results = sample();
        results.complete = false;
        assert!(document(&results).contains("has not been made to its end"));
    }
}
