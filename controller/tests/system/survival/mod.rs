//! The node survives what dies on it: daemons and proxies that are killed again and again, and proxies that are stopped, busy,
//! out of memory, or that end as soon as they start.
//!
//! A test that goes by chance prints its seed; `RINGLB_SEED=<seed>` makes it do the same again. How much of it is done is for
//! a test run; `RINGLB_KILLS`, `RINGLB_STEPS` and `RINGLB_SOAK` are for more.

mod containment;
mod daemon_killed;
mod fresh;
mod on_demand;
mod proxies_killed;
mod site;
mod soak;
mod stream;

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The number in that environment variable, or this one.
fn number<T: FromStr>(variable: &str, otherwise: T) -> T {
    let given = std::env::var(variable).ok();
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")))
}

/// Chance for a test, which prints what it takes to have the same again.
pub(crate) fn chance() -> fastrand::Rng {
    let seed = number("RINGLB_SEED", fastrand::u64(..1_000_000));
    println!("RINGLB_SEED={seed} does the same again");
    fastrand::Rng::with_seed(seed)
}

/// Prints how a time is distributed.
fn print_times(what: impl Display, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{what}: p50 {:.1?}, p90 {:.1?}, p99 {:.1?}, most {:.1?}", at(50), at(90), at(99), at(100));
}
