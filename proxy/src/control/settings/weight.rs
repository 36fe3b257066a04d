//! A backend's weight.

use super::number::number_setting;

number_setting! {
    /// A backend's share of new connections, relative to the other backends of its service: 0 (none) to 65535.
    Weight(u16), 0 to 65535, default 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_whole_number_of_16_bits() {
        assert_eq!(serde_json::from_str::<Weight>("0").unwrap(), Weight(0));
        assert_eq!(serde_json::from_str::<Weight>("65535").unwrap(), Weight(65535));
        for text in ["-1", "65536", "1.5", "\"1\"", "null", "18446744073709551616", "true"] {
            let reason = serde_json::from_str::<Weight>(text).unwrap_err().to_string();
            assert!(reason.contains("a whole number from 0 to 65535"), "{reason}");
        }
    }
}
