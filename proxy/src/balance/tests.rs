use super::*;
use crate::control::message::{BackendSpec, ServiceSpec};
use proptest::prelude::*;
use std::collections::HashMap;

fn service(algorithm: Algorithm, backends: &[(u16, bool)]) -> Service {
    let spec = ServiceSpec {
        name: "s".into(),
        vip: IpAddr::from([10, 0, 1, 1]),
        algorithm,
        drain_timeout_ms: None,
        connect_timeout_ms: 1000,
        backends: (1u8..)
            .zip(backends)
            .map(|(last, &(weight, draining))| BackendSpec {
                address: IpAddr::from([10, 0, 0, last]),
                weight,
                draining,
            })
            .collect(),
    };
    Service::new(&spec, None)
}

fn counts(service: &Service, picks: usize, random: &mut fastrand::Rng) -> HashMap<IpAddr, usize> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        *counts.entry(pick(service, &[], random).unwrap().address).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_counts_differ_by_at_most_one() {
    let service = service(Algorithm::Rr, &[(1, false), (1, false), (1, false)]);
    let counts = counts(&service, 1000, &mut fastrand::Rng::with_seed(1));
    assert_eq!(counts.len(), 3);
    assert!(counts.values().max().unwrap() - counts.values().min().unwrap() <= 1, "{counts:?}");
}

/// With equal loads each of three backends is in two of three pairs and wins half of them: a third of the picks. Of
/// 30,000 picks the standard deviation is 82; five of them are 4.1 %.
#[test]
fn p2c_is_even_under_equal_load() {
    let service = service(Algorithm::P2c, &[(1, false), (1, false), (1, false)]);
    let counts = counts(&service, 30_000, &mut fastrand::Rng::with_seed(2));
    assert!(counts.values().all(|&count| (9_590..=10_410).contains(&count)), "{counts:?}");
}

/// Connections stay open here, so each pick adds to the load that the next one sees. In the end loads stand in the
/// ratio of the weights.
#[test]
fn p2c_fills_backends_by_weight() {
    let service = service(Algorithm::P2c, &[(1, false), (2, false), (5, false)]);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..8_000 {
        assert!(pick(&service, &[], &mut random).unwrap().identity.enter());
    }
    let loads: Vec<_> = service.backends().iter().map(|b| b.identity.active.load(Ordering::Relaxed)).collect();
    for (load, share) in loads.iter().zip([1000u64, 2000, 5000]) {
        assert!(load.abs_diff(share) <= share / 20, "{loads:?}");
    }
}

/// A backend that answers ten times more slowly: with 64 connections in flight, each replaced as soon as it ends, it
/// gets under a fifth of what the others get.
#[test]
fn p2c_avoids_a_slow_backend() {
    let service = service(Algorithm::P2c, &[(1, false), (1, false), (1, false)]);
    let mut random = fastrand::Rng::with_seed(4);
    let mut totals = [0u64; 3];
    let mut running = std::collections::BinaryHeap::new();
    let mut start = |now: u64, running: &mut std::collections::BinaryHeap<_>| {
        let chosen = pick(&service, &[], &mut random).unwrap();
        assert!(chosen.identity.enter());
        let index = service.backends().iter().position(|b| b.address == chosen.address).unwrap();
        totals[index] += 1;
        // 1 ms or 10 ms, with some spread so that nothing runs in step.
        let takes = if index == 0 { 10_000 } else { 1_000 } * random.u64(50..150) / 100;
        running.push(std::cmp::Reverse((now + takes, index)));
    };
    for _ in 0..64 {
        start(0, &mut running);
    }
    for _ in 0..50_000 {
        let std::cmp::Reverse((now, index)) = running.pop().unwrap();
        service.backends()[index].identity.leave();
        start(now, &mut running);
    }
    assert!(totals[0] * 5 < totals[1] && totals[0] * 5 < totals[2], "{totals:?}");
}

#[test]
fn a_retry_goes_elsewhere_and_ends() {
    for algorithm in [Algorithm::Rr, Algorithm::P2c] {
        let service = service(algorithm, &[(1, false), (1, true), (1, false), (0, false)]);
        let mut random = fastrand::Rng::with_seed(5);
        let first = pick(&service, &[], &mut random).unwrap().address;
        let second = pick(&service, &[first], &mut random).unwrap().address;
        assert_ne!(first, second);
        assert!(pick(&service, &[first, second], &mut random).is_none());
    }
}

proptest! {
    /// Only eligible and untried backends are chosen, and one is chosen exactly when there is one.
    #[test]
    fn picks_are_eligible(
        backends in prop::collection::vec((0u16..3, any::<bool>()), 0..12),
        tried in prop::collection::vec(1u8..13, 0..3),
        p2c in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let service = service(if p2c { Algorithm::P2c } else { Algorithm::Rr }, &backends);
        let tried: Vec<_> = tried.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let candidates = service.backends().iter().filter(|b| b.is_eligible() && !tried.contains(&b.address)).count();
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            match pick(&service, &tried, &mut random) {
                Some(backend) => prop_assert!(backend.is_eligible() && !tried.contains(&backend.address)),
                None => prop_assert_eq!(candidates, 0),
            }
        }
    }
}
