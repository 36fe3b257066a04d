//! ringlb against each peer.

use super::results::{Metric, Ratio, Results, Run};
use super::system::System;
use super::workload::Workload;
use crate::instruments::statistics::Spread;
use std::collections::BTreeSet;

/// All ratios that the runs give. Values of one round are divided by each other: what drifts from one to the next does
/// not count.
pub(crate) fn of(results: &Results) -> Vec<Ratio> {
    let pairs: BTreeSet<_> = results.runs.iter().map(|run| (run.workload, run.system)).collect();
    let mut ratios = Vec::new();
    for (workload, peer) in pairs.into_iter().filter(|(_, system)| *system != System::Ringlb) {
        for metric in Metric::ALL {
            if let Some(Spread { median, min, max }) = between(results, workload, metric, System::Ringlb, peer) {
                ratios.push(Ratio { workload, metric, peer, median, min, max });
            }
        }
    }
    ratios
}

/// What one system has, divided by what another one has in the same round.
pub(super) fn between(
    results: &Results,
    workload: Workload,
    metric: Metric,
    system: System,
    peer: System,
) -> Option<Spread> {
    let value = |system, round| {
        let is = |run: &&Run| run.workload == workload && run.system == system && run.round == round;
        results.runs.iter().find(is).and_then(|run| metric.of(run))
    };
    let of_round = |round| Some(value(system, round)? / value(peer, round)?);
    let values: Vec<f64> =
        (1..=results.settings.rounds).filter_map(of_round).filter(|ratio| ratio.is_finite()).collect();
    Spread::of(&values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::{results, run};

    #[test]
    fn a_ratio_divides_values_of_the_same_round() {
        let mut results = results(2);
        for (round, ringlb, haproxy) in [(1, 200.0, 100.0), (2, 900.0, 300.0)] {
            results.runs.push(run(Workload::Connect, System::Ringlb, round, ringlb));
            results.runs.push(run(Workload::Connect, System::Haproxy, round, haproxy));
        }
        let ratios = of(&results);
        let rate = ratios.iter().find(|ratio| ratio.metric == Metric::Rate).unwrap();
        assert_eq!((rate.workload, rate.peer), (Workload::Connect, System::Haproxy));
        assert_eq!((rate.median, rate.min, rate.max), (2.5, 2.0, 3.0));
        // The samples' other values are the same for all.
        let p99 = ratios.iter().find(|ratio| ratio.metric == Metric::P99).unwrap();
        assert_eq!((p99.median, p99.min, p99.max), (1.0, 1.0, 1.0));
        assert!(ratios.iter().all(|ratio| ratio.metric != Metric::Memory), "nothing was measured of it");
    }

    #[test]
    fn a_round_without_both_counts_for_nothing() {
        let mut results = results(2);
        results.runs.push(run(Workload::Connect, System::Ringlb, 1, 200.0));
        results.runs.push(run(Workload::Connect, System::Haproxy, 2, 100.0));
        assert_eq!(of(&results), []);
        results.runs.push(run(Workload::Connect, System::Ringlb, 2, 150.0));
        assert_eq!(of(&results)[0].median, 1.5);
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let mut results = results(1);
        results.runs.push(run(Workload::Connect, System::Ringlb, 1, 200.0));
        results.runs.push(run(Workload::Connect, System::Haproxy, 1, 0.0));
        assert!(of(&results).iter().all(|ratio| ratio.metric != Metric::Rate));
    }
}
