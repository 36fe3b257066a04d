use super::*;
use crate::control::message::{Algorithm, BackendSpec, ServiceSettings, ServiceSpec};
use proptest::prelude::*;
use std::collections::HashMap;

fn service(algorithm: Algorithm, backends: &[(u16, bool)]) -> Service {
    Service::new(&spec(algorithm, backends), None)
}

fn spec(algorithm: Algorithm, backends: &[(u16, bool)]) -> ServiceSpec {
    ServiceSpec {
        name: "s".into(),
        vips: vec![IpAddr::from([10, 0, 1, 1])],
        settings: ServiceSettings { algorithm, ..ServiceSettings::default() },
        published: Vec::new(),
        backends: (1u8..)
            .zip(backends)
            .map(|(last, &(weight, draining))| BackendSpec {
                address: IpAddr::from([10, 0, 0, last]),
                weight,
                draining,
                backup: false,
                local: false,
            })
            .collect(),
    }
}

fn counts(service: &Service, picks: usize, random: &mut fastrand::Rng) -> HashMap<IpAddr, usize> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        *counts.entry(pick(service, None, &[], random).unwrap().address).or_default() += 1;
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
        assert_eq!(pick(&service, None, &[], &mut random).unwrap().identity.enter(u64::MAX), Entry::Entered);
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
        let chosen = pick(&service, None, &[], &mut random).unwrap();
        assert_eq!(chosen.identity.enter(u64::MAX), Entry::Entered);
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

const ALL: [Algorithm; 5] = [Algorithm::Rr, Algorithm::P2c, Algorithm::Wrr, Algorithm::Maglev, Algorithm::SourceHash];

fn client(number: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 9, 0, number]))
}

/// Counts differ from the exact ones by less than 2 + log_φ(8000) = 20.7 (see `turns`).
#[test]
fn weighted_round_robin_follows_the_weights() {
    let service = service(Algorithm::Wrr, &[(1, false), (2, false), (5, false), (9, true), (0, false)]);
    let counts = counts(&service, 8_000, &mut fastrand::Rng::with_seed(6));
    for (last, share) in [(1, 1000usize), (2, 2000), (3, 5000)] {
        assert!(counts[&IpAddr::from([10, 0, 0, last])].abs_diff(share) <= 20, "{counts:?}");
    }
    assert_eq!(counts.len(), 3);
}

/// Where the turns have got to is the service's own, so a new table does not begin again.
#[test]
fn turns_go_on_in_the_next_table() {
    for algorithm in [Algorithm::Rr, Algorithm::Wrr] {
        let [undisturbed, mut changed] = [(); 2].map(|()| service(algorithm, &[(1, false), (2, false), (2, false)]));
        let mut random = fastrand::Rng::with_seed(7);
        for turn in 0..1_000 {
            let [one, other] =
                [&undisturbed, &changed].map(|service| pick(service, None, &[], &mut random).unwrap().address);
            assert_eq!(one, other, "{algorithm:?}, turn {turn}");
            changed = Service::new(&spec(algorithm, &[(1, false), (2, false), (2, false)]), Some(&changed));
        }
    }
}

#[test]
fn a_client_keeps_its_backend() {
    for algorithm in [Algorithm::Maglev, Algorithm::SourceHash] {
        let backends = [(1, false), (2, false), (3, false), (4, true), (0, false)];
        let one = service(algorithm, &backends);
        let another = service(algorithm, &backends);
        let mut seen = std::collections::HashSet::new();
        for number in 0..=255 {
            let address = |service, seed| {
                pick(service, client(number), &[], &mut fastrand::Rng::with_seed(seed)).unwrap().address
            };
            let choice = address(&one, 1);
            assert_eq!([address(&one, 2), address(&another, 3)], [choice; 2], "{algorithm:?}");
            seen.insert(choice);
        }
        assert_eq!(seen.len(), 3, "{algorithm:?}");
    }
}

/// The client of a connection that ended before its pick has no address any more.
#[test]
fn without_a_client_any_backend_will_do() {
    for algorithm in [Algorithm::Maglev, Algorithm::SourceHash] {
        let service = service(algorithm, &[(1, false), (1, false), (1, false)]);
        assert_eq!(counts(&service, 100, &mut fastrand::Rng::with_seed(8)).len(), 3);
    }
}

/// The retries of a client are the same each time, and those of one backend's clients spread over the others.
#[test]
fn hashing_has_a_next_choice() {
    for algorithm in [Algorithm::Maglev, Algorithm::SourceHash] {
        let service = service(algorithm, &[(3, false), (3, false), (3, false)]);
        let mut seconds = HashMap::<_, u32>::new();
        for number in 0..=255 {
            let choice = |tried: &[IpAddr], seed| {
                pick(&service, client(number), tried, &mut fastrand::Rng::with_seed(seed))
                    .map(|backend| backend.address)
            };
            let first = choice(&[], 1).unwrap();
            let second = choice(&[first], 2).unwrap();
            assert_eq!(choice(&[first], 3), Some(second));
            let third = choice(&[first, second], 4).unwrap();
            assert_eq!(choice(&[second, first], 5), Some(third));
            *seconds.entry((first, second)).or_default() += 1;
        }
        // Six pairs of about 43 clients each, with a standard deviation of 6.
        assert!(seconds.len() == 6 && seconds.values().all(|count| (13..=73).contains(count)), "{seconds:?}");
    }
}

#[test]
fn a_retry_goes_elsewhere_and_ends() {
    for algorithm in ALL {
        let service = service(algorithm, &[(1, false), (1, true), (1, false), (0, false)]);
        let mut random = fastrand::Rng::with_seed(5);
        let first = pick(&service, client(1), &[], &mut random).unwrap().address;
        let second = pick(&service, client(1), &[first], &mut random).unwrap().address;
        assert_ne!(first, second);
        assert!(pick(&service, client(1), &[first, second], &mut random).is_none());
    }
}

proptest! {
    /// Only eligible and untried backends are chosen, and one is chosen exactly when there is one.
    #[test]
    fn picks_are_eligible(
        backends in prop::collection::vec((prop_oneof![0u16..3, Just(u16::MAX)], any::<bool>()), 0..12),
        tried in prop::collection::vec(1u8..13, 0..3),
        algorithm in prop::sample::select(&ALL[..]),
        seed in any::<u64>(),
    ) {
        let service = service(algorithm, &backends);
        let tried: Vec<_> = tried.into_iter().map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let candidates = service.backends().iter().filter(|b| b.is_usable() && !tried.contains(&b.address)).count();
        let mut random = fastrand::Rng::with_seed(seed);
        for number in 0..20 {
            match pick(&service, client(number), &tried, &mut random) {
                Some(backend) => prop_assert!(backend.is_usable() && !tried.contains(&backend.address)),
                None => prop_assert_eq!(candidates, 0),
            }
        }
    }
}

/// A service in which the last of four equal backends is new.
fn with_a_cold_one(algorithm: Algorithm) -> Service {
    let mut spec = spec(algorithm, &[(3, false); 4]);
    spec.settings.slow_start.0 = std::time::Duration::from_secs(60);
    let new = spec.backends.pop().unwrap();
    let before = Service::new(&spec, None);
    spec.backends.push(new);
    Service::new(&spec, Some(&before))
}

/// A new backend has 5 % of its weight: 5/305 of all new connections, whatever the algorithm, here 164 of 10,000. Turns are
/// exact within 2 + log_φ(10,000) = 21; of random draws the standard deviation is 13, of which five are 65; Maglev's
/// entries are exact within one for each backend, and clients fall on them at random. Connections stay open, so that p2c's
/// loads stand in the ratio of the weights in the end.
#[test]
fn a_cold_backend_gets_its_share_with_every_algorithm() {
    for algorithm in ALL {
        let service = with_a_cold_one(algorithm);
        let mut random = fastrand::Rng::with_seed(9);
        let cold = service.backends()[3].address;
        let mut count = 0u32;
        for number in 0..10_000u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from(0x0a09_0000 + number));
            let chosen = pick(&service, Some(client), &[], &mut random).unwrap();
            assert_eq!(chosen.identity.enter(u64::MAX), Entry::Entered);
            count += u32::from(chosen.address == cold);
        }
        assert!(count.abs_diff(164) <= 65, "{algorithm:?}: {count}");
    }
}

/// When the share is whole, everything is as if it had always been.
#[test]
fn a_warm_backend_is_like_any_other() {
    use crate::table::{Condition, Health, WARM};
    for algorithm in ALL {
        let cold = with_a_cold_one(algorithm);
        let identity = cold.backends()[3].identity.clone();
        let warm = cold.with_conditions(&[Condition { identity, health: Health::Healthy, warmth: WARM }]);
        let always = service(algorithm, &[(3, false); 4]);
        warm.state.turns.store(0, Ordering::Relaxed);
        let choices = |service: &Service| {
            let mut random = fastrand::Rng::with_seed(10);
            let choose = |number| pick(service, client(number), &[], &mut random).unwrap().address;
            (0..=255).map(choose).collect::<Vec<_>>()
        };
        assert_eq!(choices(&warm), choices(&always), "{algorithm:?}");
    }
}

/// The one that comes first may refuse: then a connection goes where none would go at first, the same way each time where
/// the client's address decides.
#[test]
fn a_connection_that_no_eligible_backend_takes_goes_to_a_spare_one() {
    for algorithm in ALL {
        let mut spec = spec(algorithm, &[(1, false); 5]);
        spec.settings.prefer_local = true;
        spec.backends[0].local = true;
        spec.backends[3].backup = true;
        spec.backends[4].draining = true;
        let service = Service::new(&spec, None);
        assert_eq!(service.eligible(), [0]);
        let [local, remote, other, backup] = [0, 1, 2, 3].map(|index| service.backends()[index].address);
        let next = |tried: &[IpAddr]| {
            let mut random = fastrand::Rng::with_seed(11);
            pick(&service, client(1), tried, &mut random).map(|backend| backend.address)
        };
        assert_eq!(next(&[]), Some(local));
        let second = next(&[local]).unwrap();
        assert!(second == remote || second == other, "{second}");
        assert_eq!(next(&[local, remote]), Some(other));
        assert_eq!(next(&[local, remote, other]), Some(backup));
        assert_eq!(next(&[local, remote, other, backup]), None);
    }
}
