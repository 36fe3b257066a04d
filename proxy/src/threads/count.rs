//! How many data threads there are to be.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use thiserror::Error;

/// The most data threads of one proxy. Each takes 4 MiB for its buffers and up to 64 MiB more under pressure.
pub const MOST_THREADS: usize = 256;

/// A number of data threads, as it is asked for: a number, or `auto` for as many as this process can run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As many as this process can run at once: sched_getaffinity(2) and the quotas of its control groups.
    Auto,
    /// So many, 1 to [`MOST_THREADS`].
    Fixed(NonZeroUsize),
}

/// The text names no number of data threads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is neither `auto` nor a number of threads from 1 to {MOST_THREADS}")]
pub struct CountError(String);

impl Count {
    /// The number; 1 if it is `auto` and the system does not tell.
    #[must_use]
    pub fn get(self) -> NonZeroUsize {
        match self {
            Self::Fixed(count) => count,
            Self::Auto => {
                let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                NonZeroUsize::new(cores.min(MOST_THREADS)).unwrap_or(NonZeroUsize::MIN)
            }
        }
    }
}

impl Default for Count {
    fn default() -> Self {
        Self::Fixed(NonZeroUsize::MIN)
    }
}

impl FromStr for Count {
    type Err = CountError;

    fn from_str(text: &str) -> Result<Self, CountError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= MOST_THREADS);
        number.map(Self::Fixed).ok_or_else(|| CountError(text.to_owned()))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Fixed(count) => count.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_auto_are_understood() {
        for text in ["auto", "1", "7", "256"] {
            assert_eq!(text.parse::<Count>().unwrap().to_string(), text);
        }
        assert_eq!("3".parse::<Count>().unwrap().get().get(), 3);
        assert!((1..=MOST_THREADS).contains(&Count::Auto.get().get()));
        assert_eq!(Count::default().get().get(), 1);
        for text in ["", "0", "257", "-1", "1.5", "Auto", "18446744073709551617"] {
            assert!(text.parse::<Count>().unwrap_err().to_string().contains("from 1 to 256"), "{text}");
        }
    }
}
