//! Durations and sizes as people write and read them.

use std::time::Duration;

/// Reads a duration: a number with an optional fraction and a unit `us`, `ms`, `s`, `m` or `h`; seconds without one.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is not a duration such as 250us, 20ms, 1.5s, 2m or 1h")),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds_per_unit).ok())
        .ok_or_else(|| format!("{text:?} is not a duration such as 250us, 20ms, 1.5s, 2m or 1h"))
}

/// Reads a size in bytes: a whole number with an optional unit `K`, `M` or `G` (powers of 1024).
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("{text:?} is not a size such as 64, 16K, 1M or 2G")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is not a size such as 64, 16K, 1M or 2G"))
}

/// Writes a size with three digits: `999 B`, `1.23 KiB`, `17.0 GiB`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = to_float(bytes) / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// Writes bytes in a time as bits per second, as networks are measured: `12.3 Mb/s`.
#[must_use]
pub fn format_bit_rate(bytes: u64, time: Duration) -> String {
    const UNITS: [&str; 5] = ["b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s"];
    let mut value = bits_per_second(bytes, time);
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// Writes microseconds with a unit that fits: `87 µs`, `1.23 ms`, `5.00 s`.
#[must_use]
pub fn format_microseconds(microseconds: u64) -> String {
    let value = to_float(microseconds);
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{} ms", three_digits(value / 1e3)),
        _ => format!("{} s", three_digits(value / 1e6)),
    }
}

pub(crate) fn bits_per_second(bytes: u64, time: Duration) -> f64 {
    per_second(bytes, time) * 8.0
}

pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { to_float(count) / time.as_secs_f64() }
}

/// Whole microseconds, rounded to the nearest.
pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from((duration.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)
}

/// The nearest number of floating point.
#[allow(clippy::cast_precision_loss, reason = "for display and rates, where 53 bits are plenty")]
#[must_use]
pub const fn to_float(value: u64) -> f64 {
    value as f64
}

fn three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, microseconds) in [
            ("10", 10_000_000),
            ("1.5s", 1_500_000),
            (".5", 500_000),
            ("250us", 250),
            ("250µs", 250),
            ("20ms", 20_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(microseconds)), "{text}");
        }
        for text in ["", "s", "-1", "1 s", "1d", "1.2.3", "NaN", "inf", "1e3", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("64", 64), ("64B", 64), ("16K", 16_384), ("1MiB", 1 << 20), ("2G", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5K", "1k", "1 K", "99999999999999999999", "18446744073709551615G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn display() {
        assert_eq!(format_size(999), "999 B");
        assert_eq!(format_size(1024), "1.00 KiB");
        assert_eq!(format_size(17 << 30), "17.0 GiB");
        assert_eq!(format_size(u64::MAX), "16777216 TiB");
        assert_eq!(format_bit_rate(125_000_000, Duration::from_secs(1)), "1.00 Gb/s");
        assert_eq!(format_bit_rate(1, Duration::ZERO), "0.00 b/s");
        assert_eq!(format_microseconds(999), "999 µs");
        assert_eq!(format_microseconds(1_234), "1.23 ms");
        assert_eq!(format_microseconds(5_000_000), "5.00 s");
        assert_eq!(microseconds(Duration::from_nanos(1_500)), 2);
    }
}
