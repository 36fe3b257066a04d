//! Which backend a new connection goes to.
//!
//! Pure: the same service, cursor, counters and random numbers give the same choice.

use crate::control::message::Algorithm;
use crate::table::{Backend, Service};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// Chooses an eligible backend that is not among `tried`; `None` if there is none.
pub fn pick<'a>(service: &'a Service, tried: &[IpAddr], random: &mut fastrand::Rng) -> Option<&'a Backend> {
    // Attempts after the first are rare: only they pay for a list of their own.
    if tried.is_empty() {
        return choose(service, service.eligible(), random);
    }
    let untried: Vec<u32> = service
        .eligible()
        .iter()
        .copied()
        .filter(|&index| !tried.contains(&service.backends()[index as usize].address))
        .collect();
    choose(service, &untried, random)
}

fn choose<'a>(service: &'a Service, among: &[u32], random: &mut fastrand::Rng) -> Option<&'a Backend> {
    let position = match (service.algorithm, among.len()) {
        (_, 0) => return None,
        (_, 1) => 0,
        (Algorithm::Rr, count) => service.state.cursor.fetch_add(1, Ordering::Relaxed) as usize % count,
        (Algorithm::P2c, count) => less_loaded(service, among, two_distinct(count, random)),
    };
    among.get(position).and_then(|&index| service.backends().get(index as usize))
}

/// Two different positions below `count`, each pair equally likely, without rejection.
fn two_distinct(count: usize, random: &mut fastrand::Rng) -> (usize, usize) {
    let first = random.usize(..count);
    let second = random.usize(..count - 1);
    (first, if second >= first { second + 1 } else { second })
}

/// The position whose backend has fewer connections for its weight, the one to come included; the first of two equals,
/// which is as random as the pair.
fn less_loaded(service: &Service, among: &[u32], (first, second): (usize, usize)) -> usize {
    let load = |position: usize| {
        let backend = &service.backends()[among[position] as usize];
        (backend.identity.active.load(Ordering::Relaxed) + 1, u64::from(backend.weight))
    };
    let ((load_first, weight_first), (load_second, weight_second)) = (load(first), load(second));
    // a/b <= c/d without division: weights are at least 1 here and loads far below 2^48.
    if load_first * weight_second <= load_second * weight_first { first } else { second }
}

#[cfg(test)]
mod tests;
