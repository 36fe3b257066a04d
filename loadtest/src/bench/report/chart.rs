//! Bars, as SVG: a few rectangles and texts, for which no library is needed.

use crate::instruments::numbers::short;
use crate::instruments::statistics::Spread;
use crate::instruments::svg::{escape, write_head};
use std::fmt::{self, Write};

/// Bars beside each other, of which the lengths are to be compared.
#[derive(Debug)]
pub(super) struct Chart {
    /// What it shows.
    pub(super) title: String,
    /// In what.
    pub(super) unit: String,
    /// The bars, from the top.
    pub(super) bars: Vec<Bar>,
}

/// A bar, with the range of its values.
#[derive(Debug)]
pub(super) struct Bar {
    /// Whose it is.
    pub(super) label: &'static str,
    /// How long it is.
    pub(super) spread: Spread,
    /// Whether it is to be seen first.
    pub(super) emphasised: bool,
}

const WIDTH: f64 = 720.0;
const LABELS: f64 = 170.0;
const VALUES: f64 = 170.0;
const TOP: f64 = 56.0;
const ROW: f64 = 30.0;
const BAR: f64 = 20.0;

impl Chart {
    /// The picture, readable on light and on dark ground.
    pub(super) fn to_svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut svg);
        svg
    }

    fn write(&self, svg: &mut String) -> fmt::Result {
        let height = self.bars.iter().fold(TOP, |height, _| height + ROW) + 8.0;
        write_head(svg, WIDTH, height, &self.title, &self.unit)?;
        let longest = self.bars.iter().map(|bar| bar.spread.max).fold(f64::MIN_POSITIVE, f64::max);
        let scale = |value: f64| LABELS + (WIDTH - LABELS - VALUES) * value / longest;
        let mut y = TOP;
        for bar in &self.bars {
            bar.write(svg, y, scale)?;
            y += ROW;
        }
        writeln!(svg, "</svg>")
    }
}

impl Bar {
    fn write(&self, svg: &mut String, y: f64, scale: impl Fn(f64) -> f64) -> fmt::Result {
        let Spread { median, min, max } = self.spread;
        let (middle, text) = (y + BAR / 2.0, y + BAR / 2.0 + 4.5);
        let (fill, weight) = if self.emphasised { ("#2f6fde", "bold") } else { ("#a9b4c2", "normal") };
        let label = escape(self.label);
        let (end, low, high) = (scale(median), scale(min), scale(max));
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\" font-weight=\"{weight}\">{label}</text>",
            LABELS - 8.0
        )?;
        writeln!(
            svg,
            "<rect x=\"{LABELS:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR:.1}\" fill=\"{fill}\"/>",
            end - LABELS
        )?;
        if min < max {
            writeln!(
                svg,
                "<path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\" stroke=\"#505050\" fill=\"none\"/>",
                middle - 4.0,
                middle - 4.0
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{text:.1}\" font-weight=\"{weight}\">{}</text>",
            high.max(end) + 8.0,
            short(median)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |label, median, emphasised| {
            let spread = Spread { median, min: median * 0.9, max: median };
            Bar { label, spread, emphasised }
        };
        let bars = vec![bar("one", 50.0, false), bar("two & more", 100.0, true)];
        let svg = Chart { title: "a < b".to_owned(), unit: "req/s".to_owned(), bars }.to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("two &amp; more"), "{svg}");
        let widths: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.strip_prefix("<rect ")?.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths, [190.0, 380.0]);
        assert_eq!(svg.matches("<path ").count(), 2, "both have a range");
        // Nothing is outside of the picture.
        assert!(svg.contains("height=\"124\"") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn a_chart_of_nothing_is_a_picture_too() {
        let spread = Spread { median: 0.0, min: 0.0, max: 0.0 };
        let bars = vec![Bar { label: "none", spread, emphasised: false }];
        let svg = Chart { title: String::new(), unit: String::new(), bars }.to_svg();
        assert!(!svg.contains("NaN") && !svg.contains("<path"), "{svg}");
    }
}
