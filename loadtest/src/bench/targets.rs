//! What ringlb is to reach, and whether it did.

use super::ratios;
use super::results::{Metric, Ratio, Results};
use super::system::System;
use super::workload::Workload;
use crate::instruments::statistics::Spread;

/// Something to reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) workload: Workload,
    pub(super) metric: Metric,
    /// What ringlb's figure is.
    pub(super) against: Against,
    /// What must be reached.
    pub(super) must: Bound,
    /// What is wished for.
    pub(super) goal: Bound,
}

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// ringlb's value divided by this system's.
    Peer(System),
    /// ringlb's value itself.
    Nothing,
}

/// A limit of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Whether a target was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Goal,
    Met,
    Missed,
    NotMeasured,
}

/// All targets, in the order of the workloads.
pub(super) const TARGETS: [Target; 21] = [
    at_least(Workload::Connect, Metric::Rate, System::Haproxy, 1.25, 1.5),
    at_most(Workload::Connect, Metric::Cpu, System::Haproxy, 0.78, 0.6),
    at_least(Workload::Connect, Metric::Rate, System::Nft, 1.3, 1.5),
    at_most(Workload::PingpongOne, Metric::P50, System::Haproxy, 0.45, 0.35),
    at_least(Workload::Pingpong64, Metric::Rate, System::Haproxy, 1.3, 1.6),
    at_most(Workload::Pingpong64, Metric::Cpu, System::Haproxy, 0.78, 0.6),
    at_least(Workload::Pingpong512, Metric::Rate, System::Haproxy, 1.3, 1.6),
    at_most(Workload::PingpongSlow, Metric::Cpu, System::Haproxy, 1.0, 1.0),
    at_least(Workload::BulkOne, Metric::Rate, System::HaproxyTuned, 0.97, 1.15),
    at_most(Workload::BulkOne, Metric::Cpu, System::HaproxyTuned, 1.05, 0.85),
    at_least(Workload::Bulk8, Metric::Rate, System::HaproxyTuned, 1.05, 1.3),
    at_most(Workload::Bulk8, Metric::Cpu, System::HaproxyTuned, 0.95, 0.75),
    at_least(Workload::Bulk8, Metric::Rate, System::Haproxy, 3.0, 4.0),
    at_least(Workload::Bulk8, Metric::Rate, System::Direct, 0.65, 0.95),
    at_most(Workload::Udp64, Metric::Cpu, System::Nginx, 0.85, 0.6),
    at_most(Workload::Udp1000, Metric::Cpu, System::Nginx, 0.85, 0.6),
    absolute(Workload::Idle, Metric::Memory, Bound::AtMost(1.1 * KIBIBYTE), Bound::AtMost(0.6 * KIBIBYTE)),
    at_most(Workload::OpenLoop, Metric::P99, System::Haproxy, 0.7, 0.5),
    at_most(Workload::Churn, Metric::P99, System::RinglbQuiet, 1.1, 1.03),
    absolute(Workload::Propagation, Metric::P99, Bound::AtMost(2_000.0), Bound::AtMost(500.0)),
    absolute(Workload::SingleChanges, Metric::Rate, Bound::AtLeast(5_000.0), Bound::AtLeast(50_000.0)),
];

const KIBIBYTE: f64 = 1024.0;

const fn absolute(workload: Workload, metric: Metric, must: Bound, goal: Bound) -> Target {
    Target { workload, metric, against: Against::Nothing, must, goal }
}

const fn at_least(workload: Workload, metric: Metric, peer: System, must: f64, goal: f64) -> Target {
    Target { workload, metric, against: Against::Peer(peer), must: Bound::AtLeast(must), goal: Bound::AtLeast(goal) }
}

const fn at_most(workload: Workload, metric: Metric, peer: System, must: f64, goal: f64) -> Target {
    Target { workload, metric, against: Against::Peer(peer), must: Bound::AtMost(must), goal: Bound::AtMost(goal) }
}

impl Bound {
    /// Whether a figure is within it.
    pub(super) fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

impl Target {
    /// What was reached.
    pub(super) fn figure(&self, results: &Results) -> Option<Spread> {
        let Against::Peer(peer) = self.against else {
            return Spread::of(&results.values(self.workload, System::Ringlb, self.metric));
        };
        let is = |ratio: &&Ratio| ratio.workload == self.workload && ratio.metric == self.metric && ratio.peer == peer;
        results.ratios.iter().find(is).map(|ratio| Spread { median: ratio.median, min: ratio.min, max: ratio.max })
    }

    /// The same figure for no balancer at all: where the load is the limit, no balancer can have much more.
    pub(super) fn without_balancer(&self, results: &Results) -> Option<Spread> {
        match self.against {
            Against::Peer(peer) if peer != System::Direct => {
                ratios::between(results, self.workload, self.metric, System::Direct, peer)
            }
            Against::Peer(_) | Against::Nothing => None,
        }
    }

    /// Whether it was reached.
    pub(super) fn verdict(&self, figure: Option<Spread>) -> Verdict {
        match figure {
            None => Verdict::NotMeasured,
            Some(figure) if self.goal.holds(figure.median) => Verdict::Goal,
            Some(figure) if self.must.holds(figure.median) => Verdict::Met,
            Some(_) => Verdict::Missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Run;
    use crate::bench::samples::{results, run};

    #[test]
    fn goals_are_no_easier_than_what_must_be() {
        for target in TARGETS {
            let (Bound::AtLeast(goal) | Bound::AtMost(goal)) = target.goal;
            assert!(target.must.holds(goal), "{target:?}");
        }
    }

    #[test]
    fn a_figure_meets_the_goal_the_target_or_neither() {
        let mut results = results(1);
        let target = TARGETS[0];
        assert_eq!(target.verdict(target.figure(&results)), Verdict::NotMeasured);
        for (median, verdict) in
            [(1.24, Verdict::Missed), (1.25, Verdict::Met), (1.49, Verdict::Met), (1.5, Verdict::Goal)]
        {
            let Target { workload, metric, against: Against::Peer(peer), .. } = target else { panic!("{target:?}") };
            results.ratios = vec![Ratio { workload, metric, peer, median, min: 0.0, max: 9.0 }];
            assert_eq!(target.verdict(target.figure(&results)), verdict, "{median}");
        }
    }

    #[test]
    fn a_figure_of_its_own_needs_no_peer() {
        let target = TARGETS.into_iter().find(|target| target.workload == Workload::Idle).unwrap();
        let mut results = results(1);
        let idle = |bytes| Run { memory_bytes_per_unit: Some(bytes), ..run(Workload::Idle, System::Ringlb, 1, 1.0) };
        results.runs = vec![idle(1000.0)];
        assert_eq!(target.verdict(target.figure(&results)), Verdict::Met);
        results.runs = vec![idle(486.0)];
        assert_eq!(target.verdict(target.figure(&results)), Verdict::Goal);
    }
}
