//! The bytes that streams carry: what stands at a position depends on the position, so that loss, repetition,
//! reordering and mixing of streams show.
//!
//! The pattern repeats after [`PERIOD`] bytes. That is a prime number: data that moved by any number of buffers,
//! pages or segments (short of a prime's worth of them) does not fit. It lies ready in memory, so that sending copies
//! nothing and checking is a comparison of memory.

use std::sync::LazyLock;

/// After this many bytes the pattern repeats: the largest prime below 1 MiB.
pub const PERIOD: u64 = 1_048_573;

/// The most bytes that [`chunk`] returns.
pub const MAX_CHUNK: usize = 256 * 1024;

/// The pattern's bytes from `position` on: `limit` of them, but at most [`MAX_CHUNK`].
#[must_use]
pub fn chunk(position: u64, limit: u64) -> &'static [u8] {
    let start = usize::try_from(position % PERIOD).unwrap_or_default();
    let length = usize::try_from(limit).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
    &TABLE[start..start + length]
}

/// Where `bytes`, received at `position`, first differ from the pattern, as an index into `bytes`.
#[must_use]
pub fn first_difference(position: u64, bytes: &[u8]) -> Option<usize> {
    let mut checked = 0;
    while checked < bytes.len() {
        let rest = &bytes[checked..];
        let expected = chunk(position.wrapping_add(checked as u64), rest.len() as u64);
        let received = &rest[..expected.len()];
        if received != expected {
            return received.iter().zip(expected).position(|(left, right)| left != right).map(|index| checked + index);
        }
        checked += expected.len();
    }
    None
}

/// One period and its beginning once more, so that a chunk never has to be put together.
static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let period = usize::try_from(PERIOD).unwrap_or_default();
    let mut table: Vec<u8> =
        (0..PERIOD.div_ceil(8)).flat_map(|word| split_mix(word).to_le_bytes()).take(period).collect();
    table.extend_from_within(..MAX_CHUNK);
    table
});

/// A well-mixed function of its argument (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub(crate) const fn split_mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_continue_each_other_across_the_period() {
        let whole: Vec<u8> = (0..3).flat_map(|index| chunk(PERIOD - 1000 + index * 700, 700)).copied().collect();
        assert_eq!(whole.len(), 2100);
        assert_eq!(first_difference(PERIOD - 1000, &whole), None);
        assert_eq!(&whole[1000..], chunk(0, 1100));
    }

    #[test]
    fn a_chunk_is_bounded() {
        assert_eq!(chunk(5, u64::MAX).len(), MAX_CHUNK);
        assert_eq!(chunk(u64::MAX, 3).len(), 3);
        assert!(chunk(5, 0).is_empty());
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut bytes = chunk(7, 200_000).to_vec();
        bytes.extend_from_slice(chunk(200_007, 200_000));
        bytes[300_001] ^= 1;
        assert_eq!(first_difference(7, &bytes), Some(300_001));
    }

    #[test]
    fn a_shift_by_common_sizes_is_found() {
        for shift in [1, 4, 8, 64, 1448, 1460, 4096, 8948, 16_384, 65_536, 262_144, 1 << 20] {
            assert!(first_difference(0, chunk(shift, 64)).is_some_and(|index| index < 8), "shift by {shift}");
        }
    }
}
