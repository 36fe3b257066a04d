//! How much there is in a step.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The smallest services and backends that sizes begin with when they are not given one by one.
const SMALLEST: u32 = 10;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    /// Networks of the node.
    pub(crate) networks: u32,
    /// Services of each network.
    pub(crate) services: u32,
    /// Backends of each service.
    pub(crate) backends: u32,
}

impl Size {
    /// Services of all networks.
    pub(crate) fn all_services(self) -> u64 {
        u64::from(self.networks) * u64::from(self.services)
    }

    /// Backends of all services.
    pub(crate) fn all_backends(self) -> u64 {
        self.all_services() * u64::from(self.backends)
    }

    fn map(self, other: Self, with: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            networks: with(self.networks, other.networks),
            services: with(self.services, other.services),
            backends: with(self.backends, other.backends),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} × {} × {}", self.networks, self.services, self.backends)
    }
}

impl FromStr for Size {
    type Err = String;

    /// `NETWORKSxSERVICESxBACKENDS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size such as 1x100x10: networks, services of each, backends of each");
        let numbers: Vec<u32> = text.split('x').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        match numbers[..] {
            [networks, services, backends] if networks > 0 && services > 0 && backends > 0 => {
                Ok(Self { networks, services, backends })
            }
            _ => Err(wrong()),
        }
    }
}

/// Which sizes are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Steps {
    /// So many, up to the largest one.
    Count(u32),
    /// These.
    List(Vec<Size>),
}

impl Steps {
    /// The sizes, in the order in which they are measured. Of so many up to `largest` the first has one network, 10 services and
    /// 10 backends, or what `largest` has if that is less; from each to the next each number grows by the same factor.
    pub(crate) fn up_to(&self, largest: Size) -> Vec<Size> {
        let count = match self {
            Self::List(sizes) => return sizes.clone(),
            Self::Count(count) => *count,
        };
        let start = Size { networks: 1, services: SMALLEST, backends: SMALLEST };
        let first = largest.map(start, u32::min);
        let mut sizes: Vec<Size> = (0..count)
            .map(|step| {
                let share = if count < 2 { 1.0 } else { f64::from(step) / f64::from(count - 1) };
                first.map(largest, |first, last| between(first, last, share))
            })
            .collect();
        sizes.dedup();
        sizes
    }
}

impl FromStr for Steps {
    type Err = String;

    /// A number, or sizes with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse() {
            return if count > 0 { Ok(Self::Count(count)) } else { Err("must be at least 1".to_owned()) };
        }
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self::List)
    }
}

/// The number that lies so far on the way, in logarithms.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between the two")]
fn between(first: u32, last: u32, share: f64) -> u32 {
    (f64::from(first) * (f64::from(last) / f64::from(first)).powf(share)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(steps: &str, largest: &str) -> Vec<String> {
        let steps: Steps = steps.parse().unwrap();
        steps.up_to(largest.parse().unwrap()).iter().map(Size::to_string).collect()
    }

    #[test]
    fn a_number_of_steps_leads_to_the_largest_by_equal_factors() {
        assert_eq!(sizes("3", "1x1000x10"), ["1 × 10 × 10", "1 × 100 × 10", "1 × 1000 × 10"]);
        assert_eq!(sizes("2", "500x10x10"), ["1 × 10 × 10", "500 × 10 × 10"]);
        assert_eq!(sizes("1", "2x20x20"), ["2 × 20 × 20"]);
        // Less than what is begun with else, and no size twice.
        assert_eq!(sizes("5", "1x2x3"), ["1 × 2 × 3"]);
    }

    #[test]
    fn a_list_is_taken_as_it_is() {
        assert_eq!(sizes("1x2x3,4x5x6", "9x9x9"), ["1 × 2 × 3", "4 × 5 × 6"]);
        for text in ["", "0", "-1", "1x2", "1x2x3x4", "1x0x3", "1x2x3,", "1×2×3", "all"] {
            assert!(text.parse::<Steps>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_there_is_in_all_is_a_product() {
        let size = Size { networks: 500, services: 20_000, backends: 1_000 };
        assert_eq!((size.all_services(), size.all_backends()), (10_000_000, 10_000_000_000));
    }
}
