//! How often one client may come.
//!
//! A token bucket for each client of each service, as the generic cell rate algorithm (ITU-T I.371, annex A) keeps it: one
//! number, the moment at which the bucket will be full again. Admitting a connection moves it by the time that one token
//! takes; a connection is admitted if the moment lies no further ahead than the burst allows.
//!
//! **Memory** is fixed, and what is done when it is used up gives nobody more than the limit. A client's bucket can only be
//! in one small set of entries. If it is in none of them, the client takes over the entry that will be full first, *and what
//! that entry still owes*. So an entry's moment only ever moves ahead, and an entry that is given to somebody else is the
//! least indebted of its set: whoever comes back finds in every entry of the set at least what he owed when he left. A client
//! that opens connections from many addresses to wash its own bucket out gains nothing. What can happen instead is that a
//! stranger pays for others ([`RateDecision::Crowded`]): only if all the entries of his set are in debt at the same time, for
//! which thousands of addresses must be near their limit at once.

use super::{Client, Scope};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The highest rate, in connections a second. A limit above it is taken for it.
pub const MAX_RATE: u32 = 1_000_000;

/// Entries that a client's bucket can be in. They are searched one by one, in 8 cache lines.
const WAYS: usize = 16;

/// How often a client may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Connections a second, in the long run: 0 (none) to [`MAX_RATE`]. The time between two is rounded up to whole
    /// nanoseconds, so that the rate can be up to 0.1 % lower.
    pub per_second: u32,
    /// Connections at once after a pause; 0 is taken for 1.
    pub burst: u32,
}

/// The answer for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateDecision {
    /// It may come in, and has been counted.
    Admitted,
    /// The client has come too often. Nothing is counted: who keeps trying is admitted as soon as who waits.
    Refused,
    /// Too many clients are near their limit to tell this one from them.
    Crowded,
}

impl RateDecision {
    /// Whether the connection may come in.
    #[must_use]
    pub fn is_admitted(self) -> bool {
        self == Self::Admitted
    }
}

/// The buckets of all clients, shared by all threads: a limit is for all of them together. Nothing is allocated after
/// [`Self::new`].
#[derive(Debug)]
pub struct RateLimiter {
    /// Random, so that nobody can choose addresses that meet in one set.
    hasher: RandomState,
    sets: Box<[Mutex<[Entry; WAYS]>]>,
}

/// One bucket. The empty entry is a client's that owes nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    scope: Scope,
    client: Client,
    /// When the bucket is full again, in nanoseconds.
    full_at: u64,
}

impl RateLimiter {
    /// A limiter with at least that many entries, 32 bytes each. Only a client whose bucket is not full needs one. While no
    /// more than half of the entries are needed, few sets have not enough (with random hashes 1 in 270).
    #[must_use]
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).max(1);
        Self { hasher: RandomState::new(), sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// Whether one more connection of this client may come in now. `now` may be a little behind what another thread said.
    #[must_use]
    pub fn check(&self, scope: Scope, client: Client, limit: RateLimit, now: Duration) -> RateDecision {
        if limit.per_second == 0 {
            return RateDecision::Refused;
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let token = 1_000_000_000u64.div_ceil(u64::from(limit.per_second.min(MAX_RATE)));
        let allowance = token * u64::from(limit.burst.max(1) - 1);

        let index = self.hasher.hash_one((scope, client)) as usize % self.sets.len();
        // An entry is never half changed.
        let mut set = self.sets[index].lock().unwrap_or_else(PoisonError::into_inner);
        let own = set.iter_mut().position(|entry| entry.scope == scope && entry.client == client);
        let entry = match own {
            Some(index) => Some(&mut set[index]),
            None => set.iter_mut().min_by_key(|entry| entry.full_at),
        };
        match entry {
            Some(entry) if entry.full_at <= now.saturating_add(allowance) => {
                let full_at = entry.full_at.max(now).saturating_add(token);
                *entry = Entry { scope, client, full_at };
                RateDecision::Admitted
            }
            _ if own.is_some() => RateDecision::Refused,
            _ => RateDecision::Crowded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr};

    fn client(number: u32) -> Client {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    /// A token bucket by the book: it holds time, a token costs `token`, it is full at first.
    #[derive(Debug, Clone, Copy)]
    struct Bucket {
        held: u64,
        seen: u64,
    }

    impl Bucket {
        fn take(buckets: &mut HashMap<(Scope, u32), Self>, key: (Scope, u32), limit: RateLimit, now: u64) -> bool {
            let token = 1_000_000_000u64.div_ceil(u64::from(limit.per_second));
            let room = token * u64::from(limit.burst);
            let bucket = buckets.entry(key).or_insert(Self { held: room, seen: now });
            bucket.held = (bucket.held + (now - bucket.seen)).min(room);
            bucket.seen = now;
            bucket.held = if bucket.held >= token { bucket.held - token } else { return false };
            true
        }
    }

    fn limit() -> impl Strategy<Value = RateLimit> {
        (prop_oneof![1u32..10, Just(3_000), Just(MAX_RATE)], 1u32..6)
            .prop_map(|(per_second, burst)| RateLimit { per_second, burst })
    }

    /// Service, client and the pause before, in times that one token takes.
    type Arrival = (Scope, u32, f64);

    fn arrivals(clients: u32, pause: impl Strategy<Value = f64>) -> impl Strategy<Value = Vec<Arrival>> {
        prop::collection::vec((0u64..2, 0..clients, pause), 1..400)
    }

    fn run(
        limiter: &RateLimiter,
        limit: RateLimit,
        arrivals: Vec<Arrival>,
        mut each: impl FnMut(bool, RateDecision) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        let (mut buckets, mut now) = (HashMap::new(), 1_000_000_000_000u64);
        for (scope, number, pause) in arrivals {
            now += (pause * 1e9 / f64::from(limit.per_second)) as u64;
            let decision = limiter.check(scope, client(number), limit, Duration::from_nanos(now));
            // The bucket takes only what the limiter has admitted too.
            let before = buckets.clone();
            let expected = Bucket::take(&mut buckets, (scope, number), limit, now);
            if !decision.is_admitted() {
                buckets = before;
            }
            each(expected, decision)?;
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// While the entries suffice, each client has exactly a token bucket of its own.
        #[test]
        fn each_client_has_a_token_bucket(
            limit in limit(),
            arrivals in arrivals(8, prop_oneof![Just(0.0), 0.0..2.0, 0.0..0.1]),
        ) {
            run(&RateLimiter::new(1), limit, arrivals, |expected, decision| {
                let expected = if expected { RateDecision::Admitted } else { RateDecision::Refused };
                prop_assert_eq!(decision, expected);
                Ok(())
            })?;
        }

        /// When they do not, nobody gets more than its own bucket would have given, whatever the others do.
        #[test]
        fn nobody_gets_more_by_crowding_the_entries(
            limit in limit(),
            arrivals in arrivals(12, prop_oneof![4 => Just(0.0), 4 => 0.0..0.1, 1 => 0.0..1.0]),
        ) {
            run(&RateLimiter::new(1), limit, arrivals, |expected, decision| {
                prop_assert!(expected || !decision.is_admitted());
                Ok(())
            })?;
        }
    }

    #[test]
    fn who_has_spent_its_burst_cannot_wash_it_out() {
        let limiter = RateLimiter::new(1);
        let (limit, now) = (RateLimit { per_second: 1, burst: 10 }, Duration::from_secs(5));
        let admitted = (0..100).filter(|_| limiter.check(0, client(0), limit, now).is_admitted()).count();
        assert_eq!(admitted, 10);
        let mut crowded = 0;
        for number in 1..1000 {
            let decision = limiter.check(0, client(number), limit, now);
            crowded += u32::from(decision == RateDecision::Crowded);
            assert!(!limiter.check(0, client(0), limit, now).is_admitted());
        }
        assert!(crowded > 0, "the entries were never used up: the test shows nothing");
        assert!(limiter.check(0, client(5000), limit, now + Duration::from_secs(1)).is_admitted());
    }

    /// Many addresses, each within its limit, do not shut out others: their entries are free again after a moment.
    #[test]
    fn clients_within_their_limit_do_not_crowd() {
        let limiter = RateLimiter::new(1024);
        let limit = RateLimit { per_second: 100, burst: 5 };
        for number in 0..200_000u32 {
            let now = Duration::from_micros(u64::from(number) * 20);
            assert!(limiter.check(0, client(number), limit, now).is_admitted(), "client {number}");
        }
    }

    #[test]
    fn limits_at_their_edges() {
        let limiter = RateLimiter::new(0);
        let check = |per_second, burst, number, now| {
            limiter.check(7, client(number), RateLimit { per_second, burst }, now).is_admitted()
        };
        assert!(!check(0, 5, 1, Duration::ZERO));
        assert!(check(1, 0, 2, Duration::ZERO) && !check(1, 0, 2, Duration::from_nanos(999_999_999)));
        assert!(check(1, 0, 2, Duration::from_secs(1)));
        assert!(check(u32::MAX, u32::MAX, 3, Duration::ZERO) && check(1, u32::MAX, 4, Duration::MAX));
        // A clock that is a little behind on another thread.
        assert!(check(1, 1, 5, Duration::from_secs(10)) && !check(1, 1, 5, Duration::from_secs(9)));
    }

    #[test]
    fn exact_across_threads() {
        for round in 0..20u32 {
            let limiter = RateLimiter::new(64);
            let limit = RateLimit { per_second: 1, burst: 1000 };
            let admitted: usize = std::thread::scope(|scope| {
                let thread = || {
                    let now = Duration::from_secs(u64::from(round));
                    (0..1000).filter(|_| limiter.check(0, client(round), limit, now).is_admitted()).count()
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(thread)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(admitted, 1000);
        }
    }
}
