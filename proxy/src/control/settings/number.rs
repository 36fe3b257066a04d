//! Whole numbers that can be set, each with its bounds.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A whole number.
macro_rules! number_setting {
    ($(#[$documentation:meta])* $name:ident, $min:literal to $max:literal, default $default:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub u16);

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0.into())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_u64(Bounded { min: $min, max: $max }).map(Self)
            }
        }
    };
}

number_setting! {
    /// The share of backends, in percent, below which health is not looked at any more: 0 (it always is) to 100.
    PanicThreshold, 0 to 100, default 50
}

number_setting! {
    /// The share of the local backends, in percent, that must be healthy for them to be preferred: 0 (one is enough) to 100.
    LocalThreshold, 0 to 100, default 50
}

number_setting! {
    /// After how many failed attempts to connect in a row a backend is ejected: 0 (never) to 1,000.
    EjectionFailures, 0 to 1000, default 5
}

number_setting! {
    /// The largest share of a service's backends, in percent, that is ejected at a time: 1 to 100.
    EjectionShare, 1 to 100, default 50
}

number_setting! {
    /// The port that checks connect to; 0 for no checks.
    CheckPort, 0 to 65535, default 0
}

number_setting! {
    /// After how many passed checks in a row an unhealthy backend is healthy again: 1 to 100.
    CheckRise, 1 to 100, default 2
}

number_setting! {
    /// After how many failed checks in a row a healthy backend is unhealthy: 1 to 100.
    CheckFall, 1 to 100, default 3
}

struct Bounded {
    min: u16,
    max: u16,
}

impl Visitor<'_> for Bounded {
    type Value = u16;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a whole number from {} to {}", self.min, self.max)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u16, E> {
        match u16::try_from(value) {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u16, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_bounds_in_documents_and_in_messages() {
        for (text, number) in [("1", 1), ("100", 100)] {
            let share: EjectionShare = serde_json::from_str(text).unwrap();
            assert_eq!(share.0, number);
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
            let message = postcard::to_stdvec(&share).unwrap();
            assert_eq!(message.len(), 1);
            assert_eq!(postcard::from_bytes::<EjectionShare>(&message).unwrap(), share);
        }
        for text in ["0", "101", "-1", "1.5", "\"5\"", "null", "true", "[1]", "18446744073709551616"] {
            let reason = serde_json::from_str::<EjectionShare>(text).unwrap_err().to_string();
            assert!(reason.contains("a whole number from 1 to 100"), "{text}: {reason}");
        }
        let message = postcard::to_stdvec(&0u64).unwrap();
        assert!(postcard::from_bytes::<EjectionShare>(&message).is_err());
    }
}
