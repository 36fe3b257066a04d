//! In which sandboxes the Engine's own balancer, IPVS, is at work.
//!
//! That the kernel has it is not enough: another program may have loaded it, and an Engine that did not find it when it
//! needed it first does without it for good. So each sandbox is looked into. An Engine that uses IPVS sets it up about when
//! its DNS names a service's first task, so that for a while a new sandbox without it says nothing yet.

use crate::model::{ObservedNetwork, ObservedSandbox};
use ringlb_netns::{Error, Namespace, ipvs_balances_in, kernel_has_ipvs};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a sandbox with services may be without IPVS before it counts as one that IPVS does not serve.
const SETTLING: Duration = Duration::from_secs(10);

/// How often sandboxes are looked into, at most.
const INTERVAL: Duration = Duration::from_millis(200);

/// What was made out of each sandbox with services.
#[derive(Debug, Default)]
pub(super) struct Ipvs {
    sandboxes: HashMap<(u64, u64), Known>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    sandbox: ObservedSandbox,
    balancer: Balancer,
}

/// Who serves a sandbox, besides ringlb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Balancer {
    Nobody,
    Ipvs,
    /// It is not known yet, and will be by then at the latest.
    Open {
        until: Instant,
    },
}

/// What was found in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The kernel has no IPVS.
    Missing,
    /// It has, but not a virtual service there.
    Unused,
    Balancing,
}

impl Ipvs {
    /// Takes what is observed now: forgets other sandboxes, looks into new ones, and leaves out the networks that IPVS serves
    /// or may be about to, unless it is to be taken over from. `first` if nothing was observed before.
    pub(super) fn sift(&mut self, networks: &mut Vec<ObservedNetwork>, takeover: bool, first: bool, now: Instant) {
        let with_services = networks.iter().filter(|network| !network.services.is_empty());
        let sandboxes: HashMap<_, _> = with_services
            .filter_map(|network| network.sandbox.clone())
            .map(|sandbox| (sandbox.identity, sandbox))
            .collect();
        self.sandboxes.retain(|identity, _| sandboxes.contains_key(identity));
        // What the Engine did in one sandbox it does in the next; and those of before the daemon's start it has set up.
        let settled = first || self.sandboxes.values().any(|known| known.balancer == Balancer::Nobody);
        for (identity, sandbox) in sandboxes {
            self.sandboxes.entry(identity).or_insert_with(|| {
                let balancer = Balancer::first(look_into(&sandbox), settled, now);
                Known { sandbox, balancer }
            });
        }
        let at_work = self.is_at_work();
        networks.retain_mut(|network| {
            let Some(sandbox) = &mut network.sandbox else { return true };
            match self.sandboxes.get(&sandbox.identity).map(|known| known.balancer) {
                Some(Balancer::Nobody) => true,
                Some(Balancer::Ipvs) => {
                    sandbox.takeover = takeover;
                    takeover
                }
                Some(Balancer::Open { .. }) => false,
                None => takeover || !at_work,
            }
        });
    }

    /// Looks into all sandboxes, if it is time for it. Gives whether something is another than before.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now < looked + INTERVAL) {
            return false;
        }
        self.looked = Some(now);
        let mut changed = false;
        for known in self.sandboxes.values_mut() {
            let next = known.balancer.next(look_into(&known.sandbox), now);
            changed |= std::mem::replace(&mut known.balancer, next) != next;
        }
        changed
    }

    /// Whether IPVS serves any sandbox.
    pub(super) fn is_at_work(&self) -> bool {
        self.sandboxes.values().any(|known| known.balancer == Balancer::Ipvs)
    }
}

impl Balancer {
    /// Of a sandbox that is new, where the Engine may have had the time to set IPVS up (`settled`) or not.
    fn first(found: Found, settled: bool, now: Instant) -> Self {
        match found {
            Found::Missing => Self::Nobody,
            Found::Unused if settled => Self::Nobody,
            Found::Unused => Self::Open { until: now + SETTLING },
            Found::Balancing => Self::Ipvs,
        }
    }

    fn next(self, found: Found, now: Instant) -> Self {
        match (self, found) {
            (_, Found::Balancing) => Self::Ipvs,
            (_, Found::Missing) | (Self::Nobody, Found::Unused) => Self::Nobody,
            (Self::Open { until }, Found::Unused) if now >= until => Self::Nobody,
            (Self::Open { .. }, Found::Unused) => self,
            (Self::Ipvs, Found::Unused) => Self::first(found, false, now),
        }
    }
}

fn look_into(sandbox: &ObservedSandbox) -> Found {
    if !kernel_has_ipvs() {
        return Found::Missing;
    }
    let balances = || {
        let namespace = Namespace::open_path(&sandbox.path)?;
        if namespace.identity()? != sandbox.identity {
            return Err(Error::AnotherNamespace { path: sandbox.path.clone() });
        }
        ipvs_balances_in(&namespace)
    };
    match balances() {
        Ok(true) => Found::Balancing,
        Ok(false) => Found::Unused,
        Err(error) => {
            // It is gone, or another one soon.
            tracing::debug!(%error, "cannot see whether IPVS is at work");
            Found::Unused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Balancer::{Ipvs, Nobody, Open};
    use super::Found::{Balancing, Missing, Unused};
    use super::*;

    #[test]
    fn without_ipvs_in_the_kernel_nobody_serves() {
        let now = Instant::now();
        assert_eq!(Balancer::first(Missing, false, now), Nobody);
        assert_eq!(Nobody.next(Missing, now), Nobody);
    }

    #[test]
    fn a_sandbox_that_was_nobodys_stays_so_when_somebody_loads_ipvs() {
        let now = Instant::now();
        assert_eq!(Nobody.next(Unused, now), Nobody);
        assert_eq!(Nobody.next(Unused, now + 10 * SETTLING), Nobody);
        assert_eq!(Nobody.next(Balancing, now), Ipvs);
    }

    #[test]
    fn a_new_sandbox_is_left_to_ipvs_for_a_while() {
        let now = Instant::now();
        let open = Balancer::first(Unused, false, now);
        assert_eq!(open, Open { until: now + SETTLING });
        assert_eq!(open.next(Unused, now + SETTLING / 2), open);
        assert_eq!(open.next(Balancing, now + SETTLING / 2), Ipvs);
        assert_eq!(open.next(Unused, now + SETTLING), Nobody);
        assert_eq!(Balancer::first(Unused, true, now), Nobody);
    }

    #[test]
    fn a_sandbox_that_ipvs_has_left_is_nobodys_after_a_while() {
        let now = Instant::now();
        assert_eq!(Balancer::first(Balancing, true, now), Ipvs);
        assert_eq!(Ipvs.next(Balancing, now), Ipvs);
        assert_eq!(Ipvs.next(Unused, now), Open { until: now + SETTLING });
        assert_eq!(Ipvs.next(Missing, now), Nobody);
    }
}
