//! Who goes first.

/// The items in the order of a round, from 1: as they are, then backwards, and so on. What changes slowly while a
/// benchmark runs then favours nobody.
pub(super) fn of_round<T: Copy>(items: &[T], round: u32) -> Vec<T> {
    let mut order = items.to_vec();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_goes_backwards() {
        assert_eq!(of_round(&[1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(of_round(&[1, 2, 3], 2), [3, 2, 1]);
        assert_eq!(of_round(&[1, 2, 3], 3), [1, 2, 3]);
    }
}
