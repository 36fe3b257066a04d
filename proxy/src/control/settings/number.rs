//! Numbers that can be set, each with its bounds.

/// A whole number of the given type within bounds.
macro_rules! number_setting {
    ($(#[$documentation:meta])* $name:ident($number:ty), $min:literal to $max:literal, default $default:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::{Error, Unexpected, Visitor};

                struct Within;

                impl Visitor<'_> for Within {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str(concat!("a whole number from ", $min, " to ", $max))
                    }

                    fn visit_u64<E: Error>(self, value: u64) -> Result<$name, E> {
                        match <$number>::try_from(value) {
                            Ok(number @ $min..=$max) => Ok($name(number)),
                            _ => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
                        }
                    }

                    fn visit_i64<E: Error>(self, value: i64) -> Result<$name, E> {
                        match u64::try_from(value) {
                            Ok(value) => self.visit_u64(value),
                            Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
                        }
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_u64(Within)
                } else {
                    <$number>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

pub(super) use number_setting;

#[cfg(test)]
mod tests {
    use crate::control::settings::KeepaliveProbes as Few;

    #[test]
    fn a_number_is_within_its_bounds() {
        for (text, number) in [("1", 1), ("127", 127)] {
            assert_eq!(serde_json::from_str::<Few>(text).unwrap(), Few(number));
            assert_eq!(serde_json::to_string(&Few(number)).unwrap(), text);
        }
        for text in ["0", "128", "-1", "256", "1.5", "\"1\"", "null", "true", "[1]", "18446744073709551616"] {
            let reason = serde_json::from_str::<Few>(text).unwrap_err().to_string();
            assert!(reason.contains("a whole number from 1 to 127"), "{text}: {reason}");
        }
        let message = postcard::to_stdvec(&Few(7)).unwrap();
        assert_eq!(postcard::from_bytes::<Few>(&message).unwrap(), Few(7));
        assert_eq!(Few::default(), Few(4));
    }
}
