//! Where a value is in a plot.

/// How values are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From 0, equal differences at equal distances.
    Linear,
    /// Equal factors at equal distances.
    Logarithmic,
}

/// An axis of a plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    kind: Kind,
    /// The values at its two ends.
    low: f64,
    high: f64,
    /// The distance between two values that are named; with logarithms it is a factor.
    step: f64,
    /// Where its two ends are in the picture.
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis with room for all values, between two places of the picture.
    pub(super) fn over(kind: Kind, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let values: Vec<_> = values.filter(|value| kind == Kind::Linear || *value > 0.0).collect();
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        match kind {
            Kind::Linear => {
                let most = if most > 0.0 { most } else { 1.0 };
                let step = round_step(most / 5.0);
                Self { kind, low: 0.0, high: (most / step).ceil() * step, step, from, to }
            }
            Kind::Logarithmic => {
                let (least, most) = if least <= most { (least, most) } else { (1.0, 1.0) };
                let (low, high) = (least.log10().floor(), most.log10().ceil());
                let high = if high > low { high } else { low + 1.0 };
                // Not more names than there is room for.
                let step = ((high - low) / 6.0).ceil();
                Self { kind, low: 10_f64.powf(low), high: 10_f64.powf(high), step: 10_f64.powf(step), from, to }
            }
        }
    }

    /// Where the value is. What is below the axis is at its beginning.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = match self.kind {
            Kind::Linear => value / self.high,
            Kind::Logarithmic => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + (self.to - self.from) * share
    }

    /// The values that are named.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let next = |value: &f64| {
            let next = if self.kind == Kind::Linear { value + self.step } else { value * self.step };
            // What was added up is not exact.
            (next <= self.high * (1.0 + 1e-9)).then_some(next)
        };
        std::iter::successors(Some(self.low), next).collect()
    }
}

/// 1, 2 or 5 times a power of ten, not less than that.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(kind: Kind, values: &[f64]) -> Axis {
        Axis::over(kind, values.iter().copied(), 100.0, 200.0)
    }

    #[test]
    fn a_linear_axis_begins_at_nothing_and_has_round_steps() {
        let axis = axis(Kind::Linear, &[3.0, 87.0]);
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!((axis.place(0.0), axis.place(50.0), axis.place(100.0)), (100.0, 150.0, 200.0));
    }

    #[test]
    fn a_logarithmic_axis_has_powers_of_ten() {
        let axis = axis(Kind::Logarithmic, &[0.0, 30.0, 4_000.0]);
        let ticks: Vec<_> = axis.ticks().iter().map(|tick| tick.round()).collect();
        assert_eq!(ticks, [10.0, 100.0, 1_000.0, 10_000.0]);
        assert!((axis.place(100.0) - 133.3).abs() < 0.1 && (axis.place(0.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn there_is_an_axis_without_values_and_with_one() {
        for values in [&[][..], &[0.0], &[10.0]] {
            for kind in [Kind::Linear, Kind::Logarithmic] {
                let axis = axis(kind, values);
                assert!(axis.ticks().len() > 1 && axis.place(10.0).is_finite(), "{kind:?} {values:?}");
            }
        }
    }
}
