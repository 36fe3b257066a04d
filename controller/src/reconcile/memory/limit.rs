//! A limit as it is written.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// How much memory a proxy may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit(u64);

/// What is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no memory limit: a number of bytes, or one with K, M or G behind it, from {least}M on", least = MemoryLimit::LEAST >> 20)]
pub struct MemoryLimitError(String);

impl MemoryLimit {
    /// Below this, no proxy gets as far as serving, in bytes.
    pub const LEAST: u64 = 16 << 20;

    /// The limit in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemoryLimit {
    type Err = MemoryLimitError;

    fn from_str(text: &str) -> Result<Self, MemoryLimitError> {
        let (number, shift) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 10),
            Some(b'M') => (&text[..text.len() - 1], 20),
            Some(b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
        // The kernel counts in signed numbers.
        let bytes = bytes.filter(|bytes| (Self::LEAST..=i64::MAX as u64).contains(bytes));
        bytes.map(Self).ok_or_else(|| MemoryLimitError(text.to_owned()))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_with_binary_units() {
        for (text, bytes) in [("16777216", 16 << 20), ("65536K", 64 << 20), ("64M", 64 << 20), ("2G", 2 << 30)] {
            assert_eq!(text.parse::<MemoryLimit>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "M", "0", "15M", "-1", "1.5G", "64m", "64 M", "9999999999G", "18446744073709551615", "64Mé"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }
}
