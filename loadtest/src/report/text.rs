//! The readable report.

use super::{DatagramReport, EndReason, LatencySummary, Report, TimelineBucket};
use crate::units::{format_bit_rate, format_microseconds, format_size, per_second, to_float};
use crate::{Direction, Exchange, Workload};
use std::fmt::{Formatter, Result};
use std::time::Duration;

/// The most lines of the timeline of errors; a longer one says how many are left out.
const MAX_TIMELINE_LINES: usize = 30;

pub(super) fn write(report: &Report, out: &mut Formatter<'_>) -> Result {
    headline(report, out)?;
    counts(report, out)?;
    if let Some(counts) = &report.datagrams {
        datagrams(counts, out)?;
    }
    latencies(report, out)?;
    if report.targets.len() > 1 {
        targets(report, out)?;
    }
    backends(report, out)?;
    errors(report, out)
}

fn headline(report: &Report, out: &mut Formatter<'_>) -> Result {
    let what = match report.workload {
        Workload::Connect => "connect".to_owned(),
        Workload::ConnectEcho { size_bytes } => format!("connect, {}", format_size(size_bytes)),
        Workload::Pingpong { size_bytes } => format!("pingpong of {}", format_size(size_bytes)),
        Workload::Bulk { direction, size_bytes } => {
            let direction = match direction {
                Direction::Up => "up",
                Direction::Down => "down",
                Direction::Both => "both ways",
            };
            let size = size_bytes.map(|bytes| format!(", {} each", format_size(bytes))).unwrap_or_default();
            format!("bulk {direction}{size}")
        }
        Workload::Udp { exchange, size_bytes, .. } => {
            let exchange = match exchange {
                Exchange::Connect => "connect",
                Exchange::Pingpong => "pingpong",
                Exchange::Bulk => "bulk",
            };
            format!("UDP {exchange} of {}", format_size(size_bytes))
        }
    };
    let targets: Vec<String> = report.targets.iter().map(|target| target.target.to_string()).collect();
    let pacing = report
        .intended_rate_per_second
        .map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
    let end = match report.ended_by {
        EndReason::Duration => "",
        EndReason::Requests => ", all requests done",
        EndReason::Stopped => ", stopped",
    };
    let clients = if report.datagrams.is_some() { "client" } else { "connection" };
    writeln!(
        out,
        "{what} to {}; {} {clients}{}, {pacing}; {:.2} s{end}",
        targets.join(", "),
        report.connections,
        if report.connections == 1 { "" } else { "s" },
        report.elapsed().as_secs_f64()
    )
}

fn counts(report: &Report, out: &mut Formatter<'_>) -> Result {
    let elapsed = report.elapsed();
    let opened = if report.datagrams.is_some() { "sockets opened" } else { "connections made" };
    let lines = [
        ("requests done", report.requests, true),
        ("failed", report.failures, true),
        ("interrupted", report.interrupted, report.interrupted > 0),
        ("never begun", report.not_begun, report.not_begun > 0),
        (opened, report.connections_opened, true),
    ];
    writeln!(out)?;
    for (name, count, shown) in lines {
        if shown {
            writeln!(out, "{name:<18}{count:>12}  {:>12.1}/s", per_second(count, elapsed))?;
        }
    }
    for (name, bytes) in [("sent", report.bytes_sent), ("received", report.bytes_received)] {
        writeln!(out, "{name:<18}{:>12}  {:>14}", format_size(bytes), format_bit_rate(bytes, elapsed))?;
    }
    if let Some(intended) = report.intended_rate_per_second {
        let achieved = report.achieved_rate_per_second;
        let percent = 100.0 * achieved / intended;
        writeln!(out, "intended {intended:.1}/s, achieved {achieved:.1}/s ({percent:.1} %)")?;
    }
    Ok(())
}

fn datagrams(counts: &DatagramReport, out: &mut Formatter<'_>) -> Result {
    let columns = [
        ("sent", counts.sent),
        ("received", counts.received),
        ("lost", counts.lost),
        ("late", counts.late),
        ("duplicates", counts.duplicates),
        ("reordered", counts.reordered),
        ("corrupt", counts.corrupt),
        ("foreign", counts.foreign),
    ];
    write!(out, "\n{:<10}", "datagrams")?;
    for (name, _) in columns {
        write!(out, "{name:>12}")?;
    }
    write!(out, "\n{:<10}", "")?;
    for (_, count) in columns {
        write!(out, "{count:>12}")?;
    }
    let lost = 100.0 * to_float(counts.lost) / to_float(counts.sent.max(1));
    writeln!(out, "\nlost {lost:.3} %")
}

fn latencies(report: &Report, out: &mut Formatter<'_>) -> Result {
    let latency = &report.latency;
    let lines = [
        ("wait", &latency.wait),
        ("connect", &latency.connect),
        ("first byte", &latency.first_byte),
        ("total", &latency.total),
    ];
    let width = 12;
    table_head(out, width, "latency", &["count"])?;
    for (name, summary) in lines {
        if let Some(summary) = summary {
            write!(out, "{name:<width$}{:>10}", summary.count)?;
            quantiles(out, summary)?;
        }
    }
    Ok(())
}

fn targets(report: &Report, out: &mut Formatter<'_>) -> Result {
    let names: Vec<String> = report.targets.iter().map(|target| target.target.to_string()).collect();
    let width = column("target", names.iter().map(String::as_str));
    writeln!(out, "\n{:<width$}{:>10}{:>10}", "target", "requests", "failed")?;
    for (name, target) in names.iter().zip(&report.targets) {
        writeln!(out, "{name:<width$}{:>10}{:>10}", target.requests, target.failures)?;
    }
    Ok(())
}

fn backends(report: &Report, out: &mut Formatter<'_>) -> Result {
    if report.backends.is_empty() {
        return Ok(());
    }
    let width = column("backend", report.backends.iter().map(|backend| backend.name.as_str()));
    table_head(out, width, "backend", &["requests", "share", "failed"])?;
    for backend in &report.backends {
        let share = 100.0 * to_float(backend.requests) / to_float(report.requests.max(1));
        write!(out, "{:<width$}{:>10}{share:>8.1} %{:>10}", backend.name, backend.requests, backend.failures)?;
        match &backend.total {
            Some(summary) => quantiles(out, summary)?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn errors(report: &Report, out: &mut Formatter<'_>) -> Result {
    if report.errors.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:<16}{:>10}  first at  example", "failure", "count")?;
    for (kind, error) in &report.errors {
        let first = Duration::from_micros(error.first_at_us).as_secs_f64();
        writeln!(out, "{kind:<16}{:>10}{first:>8.2} s  {}", error.count, error.example)?;
    }
    let with_errors: Vec<(usize, &TimelineBucket)> =
        report.timeline.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.errors.is_empty()).collect();
    writeln!(out, "\nfailures in time")?;
    for (index, bucket) in with_errors.iter().take(MAX_TIMELINE_LINES) {
        let start = Duration::from_micros(report.timeline.bucket_us).as_secs_f64() * to_float(*index as u64);
        let kinds: Vec<String> = bucket.errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(out, "{start:>8.0} s  {}", kinds.join(", "))?;
    }
    if let Some(more) = with_errors.len().checked_sub(MAX_TIMELINE_LINES).filter(|more| *more > 0) {
        writeln!(out, "          and at {more} later times")?;
    }
    Ok(())
}

fn table_head(out: &mut Formatter<'_>, width: usize, name: &str, columns: &[&str]) -> Result {
    write!(out, "\n{name:<width$}")?;
    for column in columns.iter().copied().chain(["p50", "p90", "p99", "p99.9", "max"]) {
        write!(out, "{column:>10}")?;
    }
    writeln!(out)
}

fn quantiles(out: &mut Formatter<'_>, summary: &LatencySummary) -> Result {
    for value in [summary.p50_us, summary.p90_us, summary.p99_us, summary.p999_us, summary.max_us] {
        write!(out, "{:>10}", format_microseconds(value))?;
    }
    writeln!(out)
}

/// The width of a column of names, the space after it included.
fn column<'a>(head: &'a str, names: impl Iterator<Item = &'a str>) -> usize {
    names.chain([head]).map(str::len).max().unwrap_or_default() + 2
}

#[cfg(test)]
mod tests {
    use crate::{
        BackendReport, DatagramReport, Direction, EndReason, ErrorKind, ErrorReport, Exchange, Latencies,
        LatencySummary, Report, SCHEMA_VERSION, TargetReport, Timeline, TimelineBucket, Workload,
    };
    use std::collections::BTreeMap;

    fn summary(count: u64, max_us: u64) -> Option<LatencySummary> {
        Some(LatencySummary {
            count,
            min_us: 1,
            mean_us: 2.0,
            p50_us: max_us / 16,
            p90_us: max_us / 8,
            p99_us: max_us / 4,
            p999_us: max_us / 2,
            max_us,
        })
    }

    fn report() -> Report {
        let backend = |name: &str, requests, failures, max_us| BackendReport {
            name: name.to_owned(),
            requests,
            failures,
            connections: 0,
            first_seen_us: 0,
            last_seen_us: 2_000_000,
            total: summary(requests, max_us),
        };
        let errors = |kind, count| BTreeMap::from([(kind, count)]);
        Report {
            schema_version: SCHEMA_VERSION,
            workload: Workload::Connect,
            connections: 64,
            started_at_unix_ms: 0,
            elapsed_us: 2_000_000,
            ended_by: EndReason::Stopped,
            requests: 4000,
            failures: 3,
            interrupted: 0,
            not_begun: 1,
            intended_rate_per_second: Some(2002.0),
            achieved_rate_per_second: 2000.0,
            connections_opened: 4001,
            bytes_sent: 12_003,
            bytes_received: 48_000,
            latency: Latencies {
                wait: summary(4000, 16),
                connect: summary(4001, 1_600),
                first_byte: None,
                total: summary(4000, 1_600_000),
            },
            targets: vec![TargetReport { target: "10.1.0.10:80".parse().unwrap(), requests: 4000, failures: 3 }],
            backends: vec![backend("b1", 3000, 0, 800), backend("a-longer-name", 1000, 1, 1_600_000)],
            errors: BTreeMap::from([
                (
                    ErrorKind::Refused,
                    ErrorReport { count: 2, first_at_us: 10_000, example: "connecting: Connection refused".to_owned() },
                ),
                (ErrorKind::Timeout, ErrorReport { count: 1, first_at_us: 1_500_000, example: "late".to_owned() }),
            ]),
            timeline: Timeline {
                bucket_us: 1_000_000,
                buckets: vec![
                    TimelineBucket { errors: errors(ErrorKind::Refused, 2), ..TimelineBucket::default() },
                    TimelineBucket::default(),
                    TimelineBucket { errors: errors(ErrorKind::Timeout, 1), ..TimelineBucket::default() },
                ],
            },
            datagrams: None,
        }
    }

    #[test]
    fn a_whole_report() {
        assert_eq!(
            report().to_string(),
            "\
connect to 10.1.0.10:80; 64 connections, open loop at 2002/s; 2.00 s, stopped

requests done             4000        2000.0/s
failed                       3           1.5/s
never begun                  1           0.5/s
connections made          4001        2000.5/s
sent                  11.7 KiB       48.0 kb/s
received              46.9 KiB        192 kb/s
intended 2002.0/s, achieved 2000.0/s (99.9 %)

latency          count       p50       p90       p99     p99.9       max
wait              4000      1 µs      2 µs      4 µs      8 µs     16 µs
connect           4001    100 µs    200 µs    400 µs    800 µs   1.60 ms
total             4000    100 ms    200 ms    400 ms    800 ms    1.60 s

backend          requests     share    failed       p50       p90       p99     p99.9       max
b1                   3000    75.0 %         0     50 µs    100 µs    200 µs    400 µs    800 µs
a-longer-name        1000    25.0 %         1    100 ms    200 ms    400 ms    800 ms    1.60 s

failure              count  first at  example
refused                  2    0.01 s  connecting: Connection refused
timeout                  1    1.50 s  late

failures in time
       0 s  refused 2
       2 s  timeout 1
"
        );
    }

    #[test]
    fn several_targets_have_a_table() {
        let mut report = report();
        report.targets.push(TargetReport { target: "[::1]:80".parse().unwrap(), requests: 0, failures: 0 });
        let text = report.to_string();
        assert!(text.contains("\ntarget          requests    failed\n10.1.0.10:80        4000         3\n"), "{text}");
    }

    #[test]
    fn a_run_without_anything_is_still_a_report() {
        let mut report = report();
        report.workload = Workload::Bulk { direction: Direction::Both, size_bytes: Some(1 << 20) };
        report.elapsed_us = 0;
        report.requests = 0;
        report.latency = Latencies { wait: None, connect: None, first_byte: None, total: None };
        report.backends.iter_mut().for_each(|backend| backend.total = None);
        let text = report.to_string();
        assert!(text.starts_with("bulk both ways, 1.00 MiB each to 10.1.0.10:80; "), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf/s"), "{text}");
    }

    #[test]
    fn datagrams_have_a_table() {
        let mut report = report();
        report.workload = Workload::Udp { exchange: Exchange::Pingpong, size_bytes: 64, names: false };
        report.datagrams = Some(DatagramReport {
            sent: 4003,
            received: 4010,
            lost: 1,
            late: 2,
            duplicates: 3,
            reordered: 4,
            corrupt: 5,
            foreign: 6,
            goodput_bits_per_second: 1e6,
        });
        let text = report.to_string();
        assert!(text.starts_with("UDP pingpong of 64 B to 10.1.0.10:80; 64 clients, open loop"), "{text}");
        let table = "
datagrams         sent    received        lost        late  duplicates   reordered     corrupt     foreign
                  4003        4010           1           2           3           4           5           6
lost 0.025 %
";
        assert!(text.contains(table), "{text}");
        assert!(text.contains("\nsockets opened            4001"), "{text}");
    }

    #[test]
    fn a_long_timeline_is_cut() {
        let mut report = report();
        let bucket = report.timeline.buckets[0].clone();
        report.timeline.buckets = vec![bucket; 35];
        let text = report.to_string();
        assert!(text.contains("      29 s  refused 2\n          and at 5 later times\n"), "{text}");
        assert!(!text.contains("      30 s"), "{text}");
    }
}
