//! Values of single fields, as they are written and as they are held.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// A backend's share of new connections, relative to the other backends of its service: 0 (none) to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Weight(pub u16);

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightVisitor;

        impl Visitor<'_> for WeightVisitor {
            type Value = Weight;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number from 0 to 65535")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Weight, E> {
                u16::try_from(value).map(Weight).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Weight, E> {
                u16::try_from(value).map(Weight).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }
        }

        deserializer.deserialize_u64(WeightVisitor)
    }
}

/// Reads a string and takes it as a `T`; the error is `T`'s own.
pub(super) fn parsed<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    struct Parsed<T> {
        expected: &'static str,
        marker: std::marker::PhantomData<T>,
    }

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parsed<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.expected)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Parsed { expected, marker: std::marker::PhantomData })
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
