//! The CPU time of a system that is the kernel itself.

use super::results::{CpuSource, Metric, Results};
use super::system::System;

/// Fills in the CPU time of address translation: no process has it, as it is done in interrupts and in the time of
/// whoever sends. What both processors were busy for, less the same without any balancer in the same round, is what it adds
/// for client, servers and itself.
pub(super) fn fill_in(results: &mut Results) {
    let direct: Vec<_> = results.runs.iter().filter(|run| run.system == System::Direct).cloned().collect();
    for run in results.runs.iter_mut().filter(|run| run.system == System::Nft) {
        let counterpart = direct.iter().find(|direct| (direct.workload, direct.round) == (run.workload, run.round));
        let times = counterpart.and_then(|direct| Some((run.machine_us_per_unit?, direct.machine_us_per_unit?)));
        run.cpu_us_per_unit = times.map(|(with, without)| (with - without).max(0.0));
        run.cpu_source = run.cpu_us_per_unit.map(|_| CpuSource::MachineBeyondDirect);
    }
    debug_assert!(results.runs.iter().all(|run| Metric::Cpu.of(run).is_some() == run.cpu_source.is_some()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Run;
    use crate::bench::samples::{results, run};
    use crate::bench::workload::Workload;

    #[test]
    fn the_kernel_has_what_no_balancer_does_not_need() {
        let mut results = results(2);
        let with = |system, round, machine| Run {
            machine_us_per_unit: Some(machine),
            ..run(Workload::Connect, system, round, 1.0)
        };
        results.runs = vec![
            with(System::Nft, 1, 200.0),
            with(System::Direct, 2, 100.0),
            with(System::Direct, 1, 130.0),
            with(System::Haproxy, 1, 500.0),
        ];
        fill_in(&mut results);
        let cpu = |index: usize| (results.runs[index].cpu_us_per_unit, results.runs[index].cpu_source);
        assert_eq!(cpu(0), (Some(70.0), Some(CpuSource::MachineBeyondDirect)));
        assert_eq!(cpu(1), (None, None));
        assert_eq!(cpu(3), (Some(10.0), Some(CpuSource::Processes)));
    }

    #[test]
    fn without_its_counterpart_it_has_none() {
        let mut results = results(1);
        results.runs =
            vec![run(Workload::Connect, System::Nft, 1, 1.0), run(Workload::BulkOne, System::Direct, 1, 1.0)];
        fill_in(&mut results);
        assert_eq!(results.runs[0].cpu_us_per_unit, None);
    }
}
