//! The CPU time of what systems have done in the kernel, which no process of theirs has.

use super::results::{CpuSource, Metric, Results, Run};
use super::system::System;
use super::workload::Workload;

/// Fills it in, by comparing with no balancer in the same round.
///
/// Address translation is done in interrupts and in the time of whoever sends. What both processors were busy for, less the
/// same without it, is what it adds for client, servers and itself. ringlb sends on what is busy in the same way, by programs at the
/// ports: what client and servers need more because of it is added to what its processes need.
pub(super) fn fill_in(results: &mut Results) {
    let direct: Vec<_> = results.runs.iter().filter(|run| run.system == System::Direct).cloned().collect();
    for run in &mut results.runs {
        let counterpart = direct.iter().find(|direct| (direct.workload, direct.round) == (run.workload, run.round));
        let beyond =
            |time: fn(&Run) -> Option<f64>| counterpart.and_then(|direct| Some((time(run)? - time(direct)?).max(0.0)));
        if run.system == System::Nft {
            run.cpu_us_per_unit = beyond(|run| run.machine_us_per_unit);
            run.cpu_source = run.cpu_us_per_unit.map(|_| CpuSource::MachineBeyondDirect);
        } else if run.system == System::Ringlb
            && is_busy(run.workload)
            // Results are completed, and written, after each run.
            && run.cpu_source == Some(CpuSource::Processes)
            && let (Some(own), Some(more)) = (run.cpu_us_per_unit, beyond(|run| run.load_us_per_unit))
        {
            run.cpu_us_per_unit = Some(own + more);
            run.cpu_source = Some(CpuSource::ProcessesAndLoadBeyondDirect);
        }
    }
    debug_assert!(results.runs.iter().all(|run| Metric::Cpu.of(run).is_some() == run.cpu_source.is_some()));
}

/// Whether connections or sessions last long enough to go past the proxy.
const fn is_busy(workload: Workload) -> bool {
    match workload {
        Workload::PingpongOne
        | Workload::Pingpong64
        | Workload::Pingpong512
        | Workload::PingpongSlow
        | Workload::BulkOne
        | Workload::Bulk8
        | Workload::BulkBoth
        | Workload::Udp64
        | Workload::Udp1000
        | Workload::OpenLoop
        | Workload::Churn => true,
        Workload::Connect | Workload::Idle | Workload::Propagation | Workload::SingleChanges | Workload::Batches => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::{results, run};

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
    fn what_goes_past_the_proxy_is_counted_where_it_is_done() {
        let mut results = results(1);
        let with = |system, workload, load| Run { load_us_per_unit: Some(load), ..run(workload, system, 1, 1.0) };
        results.runs = vec![
            with(System::Ringlb, Workload::Udp64, 15.0),
            with(System::Direct, Workload::Udp64, 13.0),
            with(System::Ringlb, Workload::Udp1000, 11.0),
            with(System::Direct, Workload::Udp1000, 13.0),
            with(System::Nginx, Workload::Udp64, 15.0),
            with(System::Ringlb, Workload::Connect, 15.0),
            with(System::Direct, Workload::Connect, 13.0),
            with(System::Ringlb, Workload::Pingpong64, 16.0),
            with(System::Direct, Workload::Pingpong64, 13.0),
        ];
        fill_in(&mut results);
        fill_in(&mut results);
        let cpu = |index: usize| (results.runs[index].cpu_us_per_unit, results.runs[index].cpu_source);
        assert_eq!(cpu(0), (Some(12.0), Some(CpuSource::ProcessesAndLoadBeyondDirect)));
        assert_eq!(cpu(2), (Some(10.0), Some(CpuSource::ProcessesAndLoadBeyondDirect)));
        assert_eq!(
            (cpu(4), cpu(5)),
            ((Some(10.0), Some(CpuSource::Processes)), (Some(10.0), Some(CpuSource::Processes)))
        );
        assert_eq!(cpu(7), (Some(13.0), Some(CpuSource::ProcessesAndLoadBeyondDirect)));
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
