//! On what figures were measured.

use super::processors::Processors;
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::SystemTime;

/// On what figures were measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The processors' model.
    pub(crate) processor: String,
    /// How many processors there are.
    pub(crate) processor_count: usize,
    /// Which of them were used.
    pub(crate) processors: Processors,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_at_unix_ms: u64,
}

impl Host {
    /// This machine, now.
    pub(crate) fn describe(processors: Processors) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            processor: model(&information).unwrap_or("unknown").to_owned(),
            processor_count: information.lines().filter(|line| line.starts_with("processor")).count(),
            processors,
            started_at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// All of it in a line, with what was on which processor.
    pub(crate) fn line(&self, system: &str, load: &str) -> String {
        let Self { kernel, processor, processor_count, processors, .. } = self;
        format!(
            "kernel {kernel}, {processor_count} processors ({processor}); {system} on processor {}, {load} on {}",
            processors.system, processors.load
        )
    }

    /// Made up for tests.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self {
            kernel: "6.1.0".to_owned(),
            processor: "a processor".to_owned(),
            processor_count: 4,
            processors: Processors { system: 0, load: 1 },
            started_at_unix_ms: 1_700_000_000_000,
        }
    }
}

fn model(information: &str) -> Option<&str> {
    let line = information.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_where_there_is_one() {
        assert_eq!(model("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t: fpu\n"), Some("Some CPU @ 3 GHz"));
        assert_eq!(model("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
    }
}
