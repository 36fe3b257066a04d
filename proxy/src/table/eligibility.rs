//! Which backends a new connection may go to.
//!
//! Only usable backends count: those with a weight that do not drain. They are in two tiers, primaries and backups.
//!
//! 1. Of the first tier that has a healthy backend, the healthy ones are eligible. So backups are used exactly when no
//!    primary is healthy, and no longer.
//! 2. **Panic**: if less than the panic threshold's share of that tier is healthy, and the tiers behind it have no healthy
//!    backend, the whole tier is eligible. So many failures are more likely ours than theirs, and the few that are left
//!    would be the next to fail. With no healthy backend at all, that is the first tier that has any backend. A threshold
//!    of 0 means no panic: then nothing is eligible if nothing is healthy.
//! 3. **Local first**: where the service prefers local backends, those of the tier's healthy ones that are on this node are
//!    eligible alone, if they are at least the local threshold's share of all the tier's local ones. Not in panic.

use super::backend::Backend;
use super::backends::Backends;
use crate::control::message::ServiceSettings;
use std::borrow::Cow;

/// Indices of the eligible backends, in order.
pub(super) fn eligible(backends: &Backends, settings: &ServiceSettings) -> Cow<'static, [u32]> {
    if !settings.prefer_local && backends.are_plain() {
        return all(backends);
    }
    Cow::Owned(chosen(backends, settings))
}

/// The same, without a list of its own if there are not very many.
fn all(backends: &Backends) -> Cow<'static, [u32]> {
    static IN_ORDER: [u32; 1024] = {
        let mut indices = [0; _];
        let mut index = 0;
        while index < indices.len() {
            indices[index] = index as u32;
            index += 1;
        }
        indices
    };
    match IN_ORDER.get(..backends.len()) {
        Some(indices) => Cow::Borrowed(indices),
        None => Cow::Owned(indices(backends, |_| true)),
    }
}

fn chosen(backends: &Backends, settings: &ServiceSettings) -> Vec<u32> {
    // No second tier, nobody ill, no preference.
    let plain = |backend: &Backend| !backend.is_usable() || (!backend.backup && backend.is_healthy());
    if !settings.prefer_local && backends.iter().all(plain) {
        return indices(backends, Backend::is_usable);
    }
    let tiers = [false, true].map(|backup| Tier::of(backends, backup));
    for (place, tier) in tiers.iter().enumerate() {
        let panic =
            tier.is_below(settings.panic_threshold.0) && tiers[place + 1..].iter().all(|tier| tier.healthy == 0);
        if panic && tier.usable > 0 {
            return indices(backends, |backend| tier.has(backend));
        }
        if tier.healthy > 0 {
            let local_first = settings.prefer_local && tier.has_enough_local(settings.local_threshold.0);
            return indices(backends, |backend| {
                tier.has(backend) && backend.is_healthy() && (backend.local || !local_first)
            });
        }
    }
    Vec::new()
}

/// Indices of the acceptable healthy backends of the first tier that has any, eligible or not.
///
/// This is for a connection that has been to all eligible ones in vain, before their failures are seen as a pattern: local
/// ones beside which there are others, or primaries beside which there are backups.
pub(super) fn spare(backends: &Backends, acceptable: impl Fn(&Backend) -> bool) -> Vec<u32> {
    let of_tier =
        |backup| indices(backends, |backend| backend.backup == backup && backend.is_healthy() && acceptable(backend));
    let primaries = of_tier(false);
    if primaries.is_empty() { of_tier(true) } else { primaries }
}

fn indices(backends: &Backends, wanted: impl Fn(&Backend) -> bool) -> Vec<u32> {
    (0u32..).zip(backends).filter(|(_, backend)| wanted(backend)).map(|(index, _)| index).collect()
}

/// How many of which kind there are in a tier.
struct Tier {
    backup: bool,
    usable: usize,
    healthy: usize,
    local: usize,
    healthy_local: usize,
}

impl Tier {
    fn of(backends: &Backends, backup: bool) -> Self {
        let mut tier = Self { backup, usable: 0, healthy: 0, local: 0, healthy_local: 0 };
        for backend in backends.iter().filter(|backend| backend.backup == backup && backend.is_usable()) {
            let healthy = usize::from(backend.is_healthy());
            tier.usable += 1;
            tier.healthy += healthy;
            tier.local += usize::from(backend.local);
            tier.healthy_local += if backend.local { healthy } else { 0 };
        }
        tier
    }

    fn has(&self, backend: &Backend) -> bool {
        backend.backup == self.backup && backend.is_usable()
    }

    fn is_below(&self, percent: u16) -> bool {
        self.healthy * 100 < self.usable * usize::from(percent)
    }

    fn has_enough_local(&self, percent: u16) -> bool {
        self.healthy_local > 0 && self.healthy_local * 100 >= self.local * usize::from(percent)
    }
}

#[cfg(test)]
mod tests;
