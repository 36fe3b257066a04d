//! Connections in made-up worlds: every completion comes when a seeded random generator says so, faults included, and the
//! table that the connections of a world share changes at any point, also between a pick's load and its use.
//!
//! What carries out the operations does with the pure parts, [`crate::balance`], [`crate::table`] and [`crate::admission`],
//! what the worker and the control thread do with them; sockets, the ring and the clock are made up.
//!
//! After every step it is checked that each operation was allowed, that bytes arrive in order without loss or duplicate,
//! that every count is what it counts, that nobody is left at a removed backend or waits beside a free place. Each pick is
//! held against the rules of eligibility, written down a second time. In the end every buffer, slot and place is free and
//! each connection has ended for a reason. A failure prints the seed; run it again with `RINGLB_SEED=<seed>`.

mod changes;
mod check;
mod connect;
mod connection;
mod faults;
mod publish;
mod relay;
mod slots;
mod world;

use faults::Faults;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

const WORLDS: u64 = 20_000;

#[test]
fn connections_survive_every_order_of_events() {
    let mut faults = Faults::default();
    let wanted = std::env::var("RINGLB_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let base = wanted.unwrap_or_else(|| fastrand::u64(..));
    println!("simulation of {WORLDS} worlds, first seed {base}");
    let worlds = if wanted.is_some() { 1 } else { WORLDS };
    for seed in (0..worlds).map(|offset| base.wrapping_add(offset)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, &mut faults).run()));
        assert!(outcome.is_ok(), "replay with RINGLB_SEED={seed}");
    }
    println!("{faults:#?}");
    if wanted.is_some() {
        return;
    }
    assert!(faults.steps > 2_000_000, "only {} steps", faults.steps);
    faults.check();
}
