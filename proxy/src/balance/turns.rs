//! Weighted round robin: turns in proportion to weight, spread evenly.
//!
//! Each backend owns an arc of a circle of length 1, as long as its share. Turn `t` goes to the owner of the point
//! `frac(t·φ)`, where φ is the golden ratio: a Weyl sequence. Nothing is kept but the number of turns.
//!
//! How even that is: let F be a Fibonacci number and F' the one before. φ differs from its convergent by less than 1/F², so
//! that each of F successive points lies less than 1/F beside a multiple of 1/F, a different one for each, all on the same
//! side: there is one point in each of F cells of length 1/F. An arc of length `s` covers more than s·F − 2 cells and
//! touches fewer than s·F + 2, so in F successive turns a backend is less than 2 turns away from its exact share. Any number
//! `n` is a sum of at most 1 + log_φ(n)/2 Fibonacci numbers (Zeckendorf). Hence
//!
//! - in **every** window of `n` successive turns a backend with share `s` gets `s·n` turns, within 2 + log_φ(n);
//! - it waits at most 4/s turns for the next one: among F ≥ 2/s turns, F < 4/s, one is its own;
//! - it never gets two successive turns if `s` is below 0.38, as successive points are 1 − 1/φ = 0.382 apart;
//! - the waits between its turns are of at most three lengths (three-distance theorem, Slater 1967).

/// 2⁶⁴/φ, rounded to an odd number, so that 2⁶⁴ turns go by before the points repeat.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The arcs of one set of backends.
#[derive(Debug, Clone)]
pub struct Turns {
    /// Where each arc ends, in units of weight: sums of the weights so far.
    ends: Vec<u64>,
}

impl Turns {
    /// Arcs in the order of the weights.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let ends = weights.into_iter().scan(0, |end, weight| {
            *end += u64::from(weight);
            Some(*end)
        });
        Self { ends: ends.collect() }
    }

    /// The position among the weights whose turn it is. One of weight 0 has none; if all weights are 0, the result is the
    /// number of weights.
    #[must_use]
    pub fn at(&self, turn: u64) -> usize {
        let whole = self.ends.last().copied().unwrap_or_default();
        // The product is below whole·2⁶⁴, so that the point is below `whole`.
        let point = ((u128::from(turn.wrapping_mul(STEP)) * u128::from(whole)) >> 64) as u64;
        self.ends.partition_point(|&end| end <= point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn log_phi(n: usize) -> f64 {
        (n as f64).ln() / 1.618_033_988_749_895_f64.ln()
    }

    #[test]
    fn without_weight_there_is_no_turn() {
        assert_eq!(Turns::new([]).at(7), 0);
        assert_eq!(Turns::new([0, 0]).at(7), 2);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let turns = Turns::new(std::iter::repeat_n(u32::from(u16::MAX) * 100, 100_000));
        for turn in [0, 1, u64::MAX, u64::MAX / 2] {
            assert!(turns.at(turn) < 100_000);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The statements of the module's documentation, for every window of a long run at once: the turns of a window are
        /// the difference of those up to its end and up to its start, so the deviation in any window is at most the
        /// difference between the highest and the lowest deviation of all starts.
        #[test]
        fn every_window_is_shared_by_weight(
            weights in prop::collection::vec(prop_oneof![Just(0u32), 1u32..10, 0u32..=65_535 * 100], 1..20),
            first in any::<u64>(),
        ) {
            const TURNS: usize = 5_000;
            let whole: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            prop_assume!(whole > 0.0);
            let turns = Turns::new(weights.iter().copied());
            let sequence: Vec<_> = (0..TURNS as u64).map(|turn| turns.at(first.wrapping_add(turn))).collect();
            for (position, &weight) in weights.iter().enumerate() {
                let share = f64::from(weight) / whole;
                let (mut count, mut highest, mut lowest, mut last) = (0.0, 0.0f64, 0.0f64, None);
                let mut waits = HashSet::new();
                for (turn, _) in sequence.iter().enumerate().filter(|&(_, &chosen)| chosen == position) {
                    lowest = lowest.min(count - share * turn as f64);
                    count += 1.0;
                    highest = highest.max(count - share * (turn + 1) as f64);
                    if let Some(last) = last.replace(turn) {
                        let wait = turn - last;
                        prop_assert!(wait as f64 <= 4.0 / share, "{weight}: waited {wait}");
                        prop_assert!(share > 0.38 || wait != 1, "{weight}: twice in a row");
                        waits.insert(wait);
                    }
                }
                lowest = lowest.min(count - share * TURNS as f64);
                prop_assert!(highest - lowest < 2.0 + log_phi(TURNS), "{weight}: {lowest} to {highest}");
                prop_assert!(waits.len() <= 3, "{weight}: {waits:?}");
                prop_assert!(weight > 0 || count == 0.0);
            }
        }
    }
}
