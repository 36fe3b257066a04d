//! Points and lines over the size, as SVG.

use super::axis::{Axis, Kind};
use crate::instruments::numbers::short;
use crate::instruments::svg::{escape, write_head};
use std::fmt::{self, Write};

/// Figures over the size.
#[derive(Debug)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: &'static str,
    /// In what.
    pub(super) unit: &'static str,
    /// What the size is counted in.
    pub(super) across: &'static str,
    /// How the size is shown.
    pub(super) x: Kind,
    /// How the figures are.
    pub(super) y: Kind,
    /// The figures.
    pub(super) series: Vec<Series>,
}

/// A figure at several sizes.
#[derive(Debug)]
pub(super) struct Series {
    /// What it is.
    pub(super) label: &'static str,
    /// Size and value.
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 44.0;
/// Two labels at the ends of lines are at least so far from each other.
const LABEL: f64 = 16.0;
const COLOURS: [&str; 3] = ["#2f6fde", "#d9822b", "#5c9e5c"];

impl Plot {
    /// The picture, readable on light and on dark ground.
    pub(super) fn to_svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut svg);
        svg
    }

    fn write(&self, svg: &mut String) -> fmt::Result {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::over(self.x, points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(self.y, points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        write_head(svg, WIDTH, HEIGHT, self.title, self.unit)?;
        for value in y.ticks() {
            let at = y.place(value);
            writeln!(
                svg,
                "<path d=\"M{LEFT:.1} {at:.1}H{:.1}\" stroke=\"#808080\" stroke-opacity=\"0.25\"/>",
                WIDTH - RIGHT
            )?;
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.5,
                tick(value)
            )?;
        }
        for value in x.ticks() {
            let (at, floor) = (x.place(value), HEIGHT - BOTTOM);
            writeln!(svg, "<path d=\"M{at:.1} {floor:.1}v5\" stroke=\"#808080\"/>")?;
            writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                floor + 19.0,
                tick(value)
            )?;
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 6.0,
            escape(self.across)
        )?;
        let mut labels = self.labels(&y);
        labels.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        spread(&mut labels);
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let places: Vec<_> = series.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
            let line: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(
                svg,
                "<polyline points=\"{}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>",
                line.join(" ")
            )?;
            for (x, y) in places {
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>")?;
            }
            if let Some((_, at)) = labels.iter().find(|(label, _)| *label == series.label) {
                let (at, label) = (at + 4.5, escape(series.label));
                writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"{colour}\">{label}</text>",
                    WIDTH - RIGHT + 10.0
                )?;
            }
        }
        writeln!(svg, "</svg>")
    }

    /// Where the names of the series are to be: beside the last point of each.
    fn labels(&self, y: &Axis) -> Vec<(&'static str, f64)> {
        let last = |series: &Series| series.points.last().map(|point| (series.label, y.place(point.1)));
        self.series.iter().filter_map(last).collect()
    }
}

/// Moves labels, sorted from above, so that none is written over another, and none below the picture.
fn spread(labels: &mut [(&'static str, f64)]) {
    let mut lowest = f64::NEG_INFINITY;
    for (_, at) in labels.iter_mut() {
        *at = at.max(lowest + LABEL);
        lowest = *at;
    }
    let mut highest = HEIGHT - BOTTOM + LABEL;
    for (_, at) in labels.iter_mut().rev() {
        *at = at.min(highest - LABEL);
        highest = *at;
    }
}

/// A value at an axis, which is always a round one.
fn tick(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value < 10.0 => format!("{}", (value * 1e6).round() / 1e6),
        value => short(value).trim_end_matches(".0").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(y: Kind, series: Vec<Series>) -> String {
        Plot { title: "a < b", unit: "MiB", across: "backends", x: Kind::Logarithmic, y, series }.to_svg()
    }

    #[test]
    fn every_series_has_its_points_its_line_and_its_name() {
        let series = vec![
            Series { label: "daemon & co", points: vec![(100.0, 3.0), (1e4, 4.0), (1e6, 400.0)] },
            Series { label: "proxies", points: vec![(100.0, 2.0), (1e4, 2.5), (1e6, 390.0)] },
        ];
        let svg = plot(Kind::Linear, series);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!((svg.matches("<circle ").count(), svg.matches("<polyline ").count()), (6, 2), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(">daemon &amp; co<") && svg.contains(">1M<"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn names_are_not_written_over_each_other() {
        let mut labels = [("one", 100.0), ("two", 101.0), ("three", HEIGHT)];
        spread(&mut labels);
        assert!(labels.windows(2).all(|pair| pair[1].1 - pair[0].1 >= LABEL), "{labels:?}");
        assert!(labels[2].1 <= HEIGHT - BOTTOM, "{labels:?}");
    }

    #[test]
    fn one_point_and_none_are_pictures_too() {
        for points in [vec![(10.0, 0.0)], Vec::new()] {
            for y in [Kind::Linear, Kind::Logarithmic] {
                let svg = plot(y, vec![Series { label: "one", points: points.clone() }]);
                assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
