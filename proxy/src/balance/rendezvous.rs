//! Weighted rendezvous hashing: each client has a draw for each backend, and the highest bid wins.
//!
//! Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking 6 (1),
//! 1998; the weights as Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005 (logarithmic method).
//! The draw of a client and a backend is a hash `u` of both, uniform in (0, 1). Then −ln(u) / weight is exponentially
//! distributed with the weight as its rate, and of independent such times the earliest is backend i's with probability
//! weight(i) / sum of weights: its exact share.
//!
//! A bid depends on its own backend only. So a backend that goes leaves all others' clients where they are, and one that
//! comes takes its share of the clients, evenly from all; a changed weight moves clients only to this backend or only away from it. The
//! price: what a pick costs grows with the number of backends.

use super::hash::{Purpose, hash, mix};
use std::cmp::Ordering;
use std::net::IpAddr;

/// What the draws for one set of backends need.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    backends: Vec<(u64, u32)>,
}

impl Rendezvous {
    /// For backends with these addresses and weights, which are above 0.
    #[must_use]
    pub fn new(backends: impl IntoIterator<Item = (IpAddr, u32)>) -> Self {
        let hashed = |(address, weight)| (hash(Purpose::Draw, address), weight);
        Self { backends: backends.into_iter().map(hashed).collect() }
    }

    /// The position of the backend for a client with that hash.
    #[must_use]
    pub fn highest(&self, client: u64) -> Option<usize> {
        let bids = self.backends.iter().map(|&(backend, weight)| Bid { draw: mix(backend ^ client), weight });
        bids.enumerate().max_by(|(_, one), (_, two)| one.compare(two)).map(|(position, _)| position)
    }
}

#[derive(Debug, Clone, Copy)]
struct Bid {
    draw: u64,
    weight: u32,
}

impl Bid {
    /// Which bid is higher. Addresses of one family have different draws, so two bids are equal only with a chance of 2⁻⁶⁴.
    fn compare(&self, other: &Self) -> Ordering {
        match (self.draw.cmp(&other.draw), self.weight.cmp(&other.weight)) {
            // Most comparisons need no logarithm: who has the higher draw and no smaller weight is earlier.
            (by_draw, by_weight) if by_draw == by_weight || by_weight.is_eq() => by_draw,
            (by_draw, _) => {
                let mine = time(self.draw) * f64::from(other.weight);
                let others = time(other.draw) * f64::from(self.weight);
                others.total_cmp(&mine).then(by_draw)
            }
        }
    }
}

/// −ln(u) for u = (draw / 2¹² + 1/2) / 2⁵², the upper 52 bits of the draw as a number in (0, 1).
///
/// Not `f64::ln`, whose last bits may differ between platforms and versions: only operations that IEEE 754 defines exactly.
fn time(draw: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1u64 << 52) as f64;
    let uniform = ((draw >> 12) as f64 + 0.5) * UNIT;
    // uniform = fraction · 2^exponent with a fraction from √½ to √2.
    let bits = uniform.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let mut fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if fraction > std::f64::consts::SQRT_2 {
        fraction *= 0.5;
        exponent += 1.0;
    }
    // ln(fraction) = 2·artanh(z) = 2·(z + z³/3 + z⁵/5 + …) with |z| < 0.172: the terms left out are below 10⁻¹⁷ of it.
    let z = (fraction - 1.0) / (fraction + 1.0);
    let square = z * z;
    let sum = [23.0, 21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0]
        .into_iter()
        .fold(0.0, |sum, odd| sum * square + 1.0 / odd);
    -(exponent * std::f64::consts::LN_2 + 2.0 * z * sum)
}

#[cfg(test)]
mod tests;
