//! A hash that is the same in every version of this program, unlike the standard library's: what follows from it is found
//! again by the next one.

/// FNV-1a, 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_its_inventors() {
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
