//! What came of the demo, in the end.

use super::BACKENDS;
use ringlb_load::Report;
use serde::Serialize;
use std::fmt;

/// A change that was made while the load went on.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Change {
    /// What was changed.
    pub(super) what: String,
    /// From the API call to the proxy's acknowledgement, in microseconds, as the caller sees it.
    pub(super) took_us: u64,
    /// The generation that was acknowledged.
    pub(super) generation: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) report: Report,
    pub(super) changes: Vec<Change>,
    /// The generation in the end.
    pub(super) generation: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        writeln!(formatter, "  {:<44} {:>12}", "requests", "")?;
        for name in BACKENDS {
            writeln!(formatter, "    {name:<42} {:>12}", report.requests_of(name))?;
        }
        writeln!(formatter, "    {:<42} {:>12}", "in all", report.requests)?;
        let kinds = report.errors.iter().map(|(kind, error)| format!("{} {kind}", error.count)).collect::<Vec<_>>();
        let kinds = if kinds.is_empty() { String::new() } else { format!("({})", kinds.join(", ")) };
        writeln!(formatter, "  {:<44} {:>12} {kinds}", "failed", report.failures)?;
        if let Some(total) = &report.latency.total {
            writeln!(formatter, "  connect, ask, answer, close")?;
            let rows =
                [("p50", total.p50_us), ("p99", total.p99_us), ("p99.9", total.p999_us), ("longest", total.max_us)];
            for (name, time) in rows {
                writeln!(formatter, "    {name:<42} {:>12}", milliseconds(time))?;
            }
        }
        writeln!(formatter, "  from API call to acknowledgement")?;
        for change in &self.changes {
            writeln!(formatter, "    {:<42} {:>12}", change.what, milliseconds(change.took_us))?;
        }
        write!(formatter, "  {:<44} {:>12}", "generation of the table", self.generation)
    }
}

/// With two decimals.
pub(super) fn milliseconds(microseconds: u64) -> String {
    let hundredths = (microseconds + 5) / 10;
    format!("{}.{:02} ms", hundredths / 100, hundredths % 100)
}
