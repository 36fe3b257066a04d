//! Which backend a new connection goes to.
//!
//! Pure: the same service, client, counters and random numbers give the same choice. An algorithm's part that knows nothing
//! of services has a file of its own: [`turns`] (wrr), [`maglev`], [`rendezvous`] (source-hash).

pub mod hash;
pub mod maglev;
pub mod rendezvous;
pub mod turns;

use crate::table::{Backend, Chooser, Entry, Service};
use hash::{Purpose, hash};
use rendezvous::Rendezvous;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use turns::Turns;

/// Chooses an eligible backend that is not among `tried`; `None` if there is none. Where all eligible ones were tried, a
/// [spare](Service::spare) one is chosen.
///
/// The client's address matters only where [`Algorithm::uses_client_address`]. There every choice is a function of it, of
/// the eligible backends and of those tried; without it, because the client is gone already, it is any of them.
///
/// [`Algorithm::uses_client_address`]: crate::control::message::Algorithm::uses_client_address
pub fn pick<'a>(
    service: &'a Service,
    client: Option<IpAddr>,
    tried: &[IpAddr],
    random: &mut fastrand::Rng,
) -> Option<&'a Backend> {
    // Attempts after the first are rare: only they pay for a list of their own.
    if tried.is_empty() {
        return choose(service, service.eligible(), client, random);
    }
    let is_untried = |backend: &Backend| !tried.contains(&backend.address);
    if let Some(backend) = pick_where(service, client, is_untried, random) {
        return Some(backend);
    }
    choose_spare(service, &service.spare(is_untried), client, random)
}

fn pick_where<'a>(
    service: &'a Service,
    client: Option<IpAddr>,
    wanted: impl Fn(&Backend) -> bool,
    random: &mut fastrand::Rng,
) -> Option<&'a Backend> {
    let wanted = |&index: &u32| wanted(&service.backends()[index as usize]);
    let among: Vec<u32> = service.eligible().iter().copied().filter(wanted).collect();
    choose(service, &among, client, random)
}

/// What came of a pick that takes the limit of a backend's connections into account.
#[derive(Debug)]
pub enum Taken<'a> {
    /// The connection is counted in at this backend; it is to be counted out by `Identity::leave`.
    Backend(&'a Backend),
    /// There is no eligible backend that has not been tried.
    NoBackend,
    /// Those that could be picked have as many connections as they may have.
    Full,
    /// The backend that was picked has been removed meanwhile: pick again in the newest table.
    Removed,
}

/// Picks a backend as [`pick`] does, but none that has its maximum of connections, and counts the connection in there.
pub fn take<'a>(
    service: &'a Service,
    client: Option<IpAddr>,
    tried: &[IpAddr],
    random: &mut fastrand::Rng,
) -> Taken<'a> {
    let limit = service.settings.max_connections_per_backend.limit();
    // Most services have no full backend: the first pick does not look.
    let Some(mut backend) = pick(service, client, tried, random) else { return Taken::NoBackend };
    loop {
        match backend.identity.enter(limit) {
            Entry::Entered => return Taken::Backend(backend),
            Entry::Removed => return Taken::Removed,
            Entry::Full => {}
        }
        let open = |backend: &Backend| !backend.identity.is_full(limit) && !tried.contains(&backend.address);
        // Ends: each further turn means that another thread has got a place between two looks.
        match pick_where(service, client, open, random) {
            Some(other) => backend = other,
            None => return Taken::Full,
        }
    }
}

/// Chooses among eligible backends, all or some, in ascending order.
fn choose<'a>(
    service: &'a Service,
    among: &[u32],
    client: Option<IpAddr>,
    random: &mut fastrand::Rng,
) -> Option<&'a Backend> {
    let all = among.len() == service.eligible().len();
    let backend = |index: u32| &service.backends()[index as usize];
    let weight = |index: u32| service.effective_weight(backend(index));
    let turn = || service.state.turns.fetch_add(1, Ordering::Relaxed);
    let client = |random: &mut fastrand::Rng| match client {
        Some(address) => hash(Purpose::Client, address),
        None => random.u64(..),
    };
    let position = match (service.chooser(), among.len()) {
        (_, 0) => return None,
        (_, 1) => 0,
        (Chooser::RoundRobin, count) => (turn() % count as u64) as usize,
        (Chooser::LeastOfTwo, count) => less_loaded(service, among, two_distinct(count, random)),
        (Chooser::Weighted(turns), _) if all => turns.at(turn()),
        (Chooser::Weighted(_), _) => Turns::new(among.iter().map(|&index| weight(index))).at(turn()),
        (Chooser::SourceHash(draws), _) if all => draws.highest(client(random))?,
        (Chooser::SourceHash(_), _) => {
            let left = among.iter().map(|&index| (backend(index).address, weight(index)));
            Rendezvous::new(left).highest(client(random))?
        }
        // A table for what is left would cost too much; the next entry serves.
        (Chooser::Maglev(table), _) => {
            let eligible = service.eligible();
            let acceptable = |position: usize| all || among.binary_search(&eligible[position]).is_ok();
            let position = table.find(client(random), acceptable)?;
            return eligible.get(position).map(|&index| backend(index));
        }
    };
    among.get(position).map(|&index| backend(index))
}

/// Chooses among backends that are not eligible, each by its weight; the same one for the same client where the algorithm
/// promises that.
fn choose_spare<'a>(
    service: &'a Service,
    among: &[u32],
    client: Option<IpAddr>,
    random: &mut fastrand::Rng,
) -> Option<&'a Backend> {
    let backends = among.iter().filter_map(|&index| service.backends().get(index as usize));
    let draws = Rendezvous::new(backends.map(|backend| (backend.address, service.effective_weight(backend))));
    let client = client.map_or_else(|| random.u64(..), |address| hash(Purpose::Client, address));
    among.get(draws.highest(client)?).and_then(|&index| service.backends().get(index as usize))
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
        (backend.identity.active.load(Ordering::Relaxed) + 1, u64::from(service.effective_weight(backend)))
    };
    let ((load_first, weight_first), (load_second, weight_second)) = (load(first), load(second));
    // a/b <= c/d without division: weights are at least 1 here and below 2^23, loads far below 2^40.
    if load_first * weight_second <= load_second * weight_first { first } else { second }
}

#[cfg(test)]
mod tests;
