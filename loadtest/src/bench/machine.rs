//! What the figures were measured on.

use super::processors::Processors;
use super::results::Machine;
use super::system::Programs;
use std::fs;
use std::time::SystemTime;

/// Describes this machine.
pub(super) fn describe(processors: Processors, programs: &Programs, congestion_control: &str) -> Machine {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Machine {
        kernel: kernel.trim().to_owned(),
        congestion_control: congestion_control.to_owned(),
        processor: model(&information).unwrap_or("unknown").to_owned(),
        processor_count: information.lines().filter(|line| line.starts_with("processor")).count(),
        processors,
        versions: programs.versions(),
        started_at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
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
