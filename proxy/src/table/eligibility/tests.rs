use super::*;
use crate::table::{Health, SharedIdentity, WARM};
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::IpAddr;

fn any_backend() -> impl Strategy<Value = Backend> {
    let health = prop_oneof![3 => Just(Health::Healthy), 2 => Just(Health::Ejected), 2 => Just(Health::Unhealthy)];
    let weight = prop_oneof![1 => Just(0u16), 5 => Just(1u16)];
    (weight, prop::bool::weighted(0.15), any::<bool>(), any::<bool>(), health).prop_map(
        |(weight, draining, backup, local, health)| Backend {
            address: IpAddr::from([10, 0, 0, 1]),
            weight,
            draining,
            backup,
            local,
            health,
            warmth: WARM,
            identity: SharedIdentity::default(),
        },
    )
}

fn any_settings() -> impl Strategy<Value = ServiceSettings> {
    let percent = || prop_oneof![Just(0u16), Just(50), Just(100), 0u16..=100];
    (any::<bool>(), percent(), percent()).prop_map(|(prefer_local, local, panic)| {
        let mut settings = ServiceSettings { prefer_local, ..ServiceSettings::default() };
        (settings.local_threshold.0, settings.panic_threshold.0) = (local, panic);
        settings
    })
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

proptest! {
    /// The rules of the module's documentation, each said for itself and without the order in which they are looked at.
    #[test]
    fn the_rules_hold(backends in prop::collection::vec(any_backend(), 0..9), settings in any_settings()) {
        let chosen = eligible(&backends.iter().cloned().collect(), &settings);
        let chosen: Vec<&Backend> = chosen.iter().map(|&index| &backends[index as usize]).collect();
        let tier = |backup: bool| backends.iter().filter(move |b| b.is_usable() && b.backup == backup).collect::<Vec<_>>();
        let healthy = |tier: &[&Backend]| tier.iter().filter(|b| b.health == Health::Healthy).count();
        let (primaries, backups) = (tier(false), tier(true));
        let any_healthy = healthy(&primaries) + healthy(&backups) > 0;

        prop_assert!(chosen.iter().all(|b| b.weight > 0 && !b.draining), "what is not usable is never eligible");
        prop_assert!(chosen.iter().all(|b| b.backup) || chosen.iter().all(|b| !b.backup), "the tiers are not mixed");
        if any_healthy {
            prop_assert!(!chosen.is_empty(), "a healthy backend is never wasted");
            prop_assert_eq!(chosen[0].backup, healthy(&primaries) == 0, "backups exactly when no primary is healthy");
        } else {
            let expected = if settings.panic_threshold.0 == 0 { 0 }
                else if primaries.is_empty() { backups.len() } else { primaries.len() };
            prop_assert_eq!(chosen.len(), expected, "with nobody healthy all of a tier, or nobody without panic");
        }
        if let Some(first) = chosen.first() {
            let tier = if first.backup { &backups } else { &primaries };
            let panic = percent(healthy(tier), tier.len()) < f64::from(settings.panic_threshold.0)
                && (first.backup || healthy(&backups) == 0);
            let unhealthy = chosen.iter().any(|b| b.health != Health::Healthy);
            if panic {
                prop_assert_eq!(chosen.len(), tier.len(), "in panic all");
            } else {
                prop_assert!(!unhealthy, "else only healthy ones");
                let local: Vec<_> = tier.iter().copied().filter(|b| b.local).collect();
                let prefers = settings.prefer_local && healthy(&local) > 0
                    && percent(healthy(&local), local.len()) >= f64::from(settings.local_threshold.0);
                prop_assert_eq!(chosen.len(), if prefers { healthy(&local) } else { healthy(tier) });
                prop_assert!(!prefers || chosen.iter().all(|b| b.local), "local ones first");
            }
        }
    }

    /// A spare one is healthy and acceptable; there is one exactly if there is any such backend; primaries come first.
    #[test]
    fn spares_are_healthy(backends in prop::collection::vec(any_backend(), 0..9), refused in prop::collection::hash_set(0usize..9, 0..5)) {
        let refused: HashSet<_> = refused.iter().filter_map(|&index| backends.get(index)).map(|backend| &backend.identity).collect();
        let acceptable = |backend: &Backend| !refused.contains(&backend.identity);
        let possible: Vec<_> = backends.iter().filter(|b| b.is_healthy() && acceptable(b)).collect();
        let spares = spare(&backends.iter().cloned().collect(), acceptable);
        let backup = possible.iter().all(|b| b.backup);
        prop_assert_eq!(spares.len(), possible.iter().filter(|b| b.backup == backup).count());
        for index in spares {
            let backend = &backends[index as usize];
            prop_assert!(backend.is_healthy() && acceptable(backend) && backend.backup == backup);
        }
    }
}

#[test]
fn all_are_eligible_where_all_are_plain() {
    let backend = |number: u32| Backend {
        address: IpAddr::from(number.to_be_bytes()),
        weight: 1,
        draining: false,
        backup: false,
        local: false,
        health: Health::Healthy,
        warmth: WARM,
        identity: SharedIdentity::default(),
    };
    for count in [0, 1, 1024, 1025] {
        let backends: Backends = (0..count).map(backend).collect();
        let indices: Vec<u32> = (0..count).collect();
        assert_eq!(*eligible(&backends, &ServiceSettings::default()), *indices, "{count}");
    }
}
