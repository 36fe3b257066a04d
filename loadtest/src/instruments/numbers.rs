//! Numbers as people read them.

use super::statistics::Spread;
use ringlb_load::units::to_float;

/// Three digits that count, thousands apart: `0.25`, `17.4`, `14,200`.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => value.to_string(),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        size if size < 999.5 => format!("{value:.0}"),
        size => {
            let digits = size.log10().floor() - 2.0;
            let unit = 10_f64.powf(digits.max(0.0));
            thousands(&format!("{:.0}", (value / unit).round() * unit))
        }
    }
}

/// A median, with the range if there are several values.
pub(crate) fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if min < max { format!("{} ({}–{})", short(median), short(min), short(max)) } else { short(median) }
}

/// Failures as a share of all.
pub(crate) fn share(failures: u64, units: f64) -> String {
    let failures = to_float(failures);
    format!("{:.2} %", 100.0 * failures / (failures + units))
}

fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.254, "0.25"),
            (9.994, "9.99"),
            (9.999, "10.0"),
            (17.44, "17.4"),
            (99.96, "100"),
            (999.4, "999"),
            (14_237.0, "14,200"),
            (1_234_567.0, "1,230,000"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
    }

    #[test]
    fn a_range_is_shown_where_there_is_one() {
        assert_eq!(spread(Spread { median: 2.0, min: 1.0, max: 3.0 }), "2.00 (1.00–3.00)");
        assert_eq!(spread(Spread { median: 2.0, min: 2.0, max: 2.0 }), "2.00");
    }

    #[test]
    fn failures_are_a_share_of_all() {
        assert_eq!(share(1, 99.0), "1.00 %");
    }
}
