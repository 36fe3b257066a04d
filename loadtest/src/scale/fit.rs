//! Straight lines through points.

use serde::{Deserialize, Serialize};

/// The straight line that lies closest to some points (least squares).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// How much more there is for each unit more.
    pub(crate) slope: f64,
    /// What there is at 0.
    pub(crate) intercept: f64,
    /// Which part of the variance the line explains, from 0 to 1. Nothing if all values are the same.
    pub(crate) r_squared: Option<f64>,
}

/// What is left of a value when two that are the same are subtracted.
const ROUNDING: f64 = 1e-12;

impl Line {
    /// `None` with fewer than two different places.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.iter().fold(0.0, |count, _| count + 1.0);
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        if points.len() < 2 || xx <= 0.0 {
            return None;
        }
        // Values that are all the same are so up to what rounding has left.
        if yy <= count * (mean_y * ROUNDING).powi(2) {
            return Some(Self { slope: 0.0, intercept: mean_y, r_squared: None });
        }
        let slope = xy / xx;
        let r_squared = Some(xy * xy / (xx * yy));
        Some(Self { slope, intercept: mean_y - slope * mean_x, r_squared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_give_that_line() {
        let line = Line::through(&[(0.0, 1.0), (10.0, 21.0), (100.0, 201.0)]).unwrap();
        assert!((line.slope - 2.0).abs() < 1e-9 && (line.intercept - 1.0).abs() < 1e-9, "{line:?}");
        assert!((line.r_squared.unwrap() - 1.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn points_beside_a_line_lower_what_it_explains() {
        // By hand: the means are 2 and 5, the sums of squares 2 and 24, that of products 6.
        let line = Line::through(&[(1.0, 3.0), (2.0, 3.0), (3.0, 9.0)]).unwrap();
        assert!((line.slope - 3.0).abs() < 1e-9 && (line.intercept + 1.0).abs() < 1e-9, "{line:?}");
        assert!((line.r_squared.unwrap() - 36.0 / (2.0 * 24.0)).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn one_place_gives_no_line_and_a_level_one_explains_nothing() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(1.0, 2.0), (1.0, 3.0)]), None);
        let level = Line::through(&[(1.0, 2.0), (3.0, 2.0)]).unwrap();
        assert_eq!((level.slope, level.r_squared), (0.0, None));
        let level = Line::through(&[(1.0, 0.1), (3.0, 0.3 / 3.0), (7.0, 0.1)]).unwrap();
        assert_eq!((level.slope, level.r_squared), (0.0, None));
    }
}
