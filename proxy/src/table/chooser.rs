//! A service's algorithm, with what it looks up.

use crate::balance::maglev::Maglev;
use crate::balance::rendezvous::Rendezvous;
use crate::balance::turns::Turns;
use crate::control::message::Algorithm;
use std::net::IpAddr;

/// How a backend is chosen among the eligible ones of one table. Positions in it are those in
/// [`Service::eligible`](super::Service::eligible).
#[derive(Debug)]
pub enum Chooser {
    /// [`Algorithm::Rr`].
    RoundRobin,
    /// [`Algorithm::P2c`].
    LeastOfTwo,
    /// [`Algorithm::Wrr`].
    Weighted(Turns),
    /// [`Algorithm::Maglev`].
    Maglev(Maglev),
    /// [`Algorithm::SourceHash`].
    SourceHash(Rendezvous),
}

impl Chooser {
    /// For eligible backends with these addresses and weights. A Maglev table gets no fewer entries than `least`.
    ///
    /// Round robin takes turns by weight while some are `warming`: then the weights of its backends differ by their warmth
    /// alone.
    pub(super) fn new(
        algorithm: Algorithm,
        eligible: impl Iterator<Item = (IpAddr, u32)>,
        warming: bool,
        least: u32,
    ) -> Self {
        match algorithm {
            Algorithm::Rr if warming => Self::Weighted(Turns::new(eligible.map(|(_, weight)| weight))),
            Algorithm::Rr => Self::RoundRobin,
            Algorithm::P2c => Self::LeastOfTwo,
            Algorithm::Wrr => Self::Weighted(Turns::new(eligible.map(|(_, weight)| weight))),
            Algorithm::Maglev => Self::Maglev(Maglev::new(&eligible.collect::<Vec<_>>(), least)),
            Algorithm::SourceHash => Self::SourceHash(Rendezvous::new(eligible)),
        }
    }
}
