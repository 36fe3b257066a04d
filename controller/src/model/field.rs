//! Values of single fields, as they are written and as they are held.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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

/// How long a draining backend keeps its connections: 0 to 24 hours, or for ever (`never`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimeout(pub Option<Duration>);

impl DrainTimeout {
    const MAX: Duration = Duration::from_secs(24 * 3600);
}

/// 30 seconds: three times the time that Docker gives a stopping task by default.
impl Default for DrainTimeout {
    fn default() -> Self {
        Self(Some(Duration::from_secs(30)))
    }
}

impl FromStr for DrainTimeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        parse_duration(text, Duration::ZERO, Self::MAX).map(|duration| Self(Some(duration))).ok_or_else(|| {
            format!("{text:?} is not a drain timeout: write such as `500ms`, `30s`, `5m`, at most `24h`, or `never`")
        })
    }
}

impl fmt::Display for DrainTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.pad("never"),
            Some(duration) => formatter.pad(&format_duration(duration)),
        }
    }
}

/// How long one attempt to connect to a backend may take: 1 ms to 60 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTimeout(pub Duration);

impl ConnectTimeout {
    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_secs(60);
}

/// 2 seconds: a lost SYN is sent again after 1 second (RFC 6298, section 2), so that one loss is forgiven.
impl Default for ConnectTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(2))
    }
}

impl FromStr for ConnectTimeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text, Self::MIN, Self::MAX).map(Self).ok_or_else(|| {
            format!("{text:?} is not a connect timeout: write such as `500ms` or `2s`, from `1ms` to `60s`")
        })
    }
}

impl fmt::Display for ConnectTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format_duration(self.0))
    }
}

/// Both timeouts are strings in documents.
macro_rules! written_as_string {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer, "a duration such as `30s`")
            }
        }
    };
}

written_as_string!(DrainTimeout);
written_as_string!(ConnectTimeout);

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

fn parse_duration(text: &str, min: Duration, max: Duration) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let duration = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
    (min..=max).contains(&duration).then_some(duration)
}

/// The shortest exact form.
fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds) in
            [("0s", 0), ("1ms", 1), ("1500ms", 1500), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000)]
        {
            let timeout: DrainTimeout = text.parse().unwrap();
            assert_eq!(timeout.0, Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(timeout.to_string(), text);
        }
        assert_eq!("never".parse(), Ok(DrainTimeout(None)));
        assert_eq!("90s".parse::<DrainTimeout>().unwrap().to_string(), "90s");
        assert_eq!("120s".parse::<DrainTimeout>().unwrap().to_string(), "2m");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "30S",
            "1d",
            "25h",
            "99999999999999999999s",
            "18446744073709551615h",
            "never ",
        ] {
            let reason = text.parse::<DrainTimeout>().unwrap_err();
            assert!(reason.contains("is not a drain timeout"), "{reason}");
        }
        for text in ["0s", "61s", "never", "1h"] {
            let reason = text.parse::<ConnectTimeout>().unwrap_err();
            assert!(reason.contains("is not a connect timeout"), "{reason}");
        }
    }

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
