//! The columns of a workload's table.

use crate::bench::results::{Metric, Run};
use crate::bench::workload::{Units, Workload};
use crate::instruments::numbers::spread;
use crate::instruments::statistics::Spread;
use ringlb_load::units::to_float;

/// What is written where there is no value.
pub(super) const NONE: &str = "–";

/// A column.
pub(super) struct Column {
    pub(super) head: String,
    value: Value,
}

/// What of a run it shows.
type Value = Box<dyn Fn(&Run) -> Option<f64>>;

impl Column {
    fn new(head: impl Into<String>, value: impl Fn(&Run) -> Option<f64> + 'static) -> Self {
        Self { head: head.into(), value: Box::new(value) }
    }

    /// The median of the runs, and their range.
    pub(super) fn cell(&self, runs: &[&Run]) -> String {
        let values: Vec<_> = runs.iter().filter_map(|run| (self.value)(run)).collect();
        Spread::of(&values).map_or_else(|| NONE.to_owned(), spread)
    }
}

/// All columns that a workload's table may have.
pub(super) fn columns(workload: Workload) -> Vec<Column> {
    let Units { work, rate, cpu } = workload.units();
    let symbol = cpu.symbol();
    vec![
        Column::new(rate, |run| run.rate),
        Column::new(format!("CPU {symbol} per {work}"), move |run| run.cpu_us_per_unit.map(|time| cpu.of(time))),
        Column::new(format!("load {symbol}"), move |run| run.load_us_per_unit.map(|time| cpu.of(time))),
        Column::new(format!("machine {symbol}"), move |run| run.machine_us_per_unit.map(|time| cpu.of(time))),
        Column::new("changes/s", |run| run.changes_per_second),
        Column::new("p50 µs", |run| Metric::P50.of(run)),
        Column::new("p99 µs", |run| Metric::P99.of(run)),
        Column::new("p99.9 µs", |run| run.p999_us.map(to_float)),
        Column::new(format!("bytes per {work}"), |run| run.memory_bytes_per_unit),
    ]
}
