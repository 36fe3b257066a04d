//! By which signal a container is told to stop.

use nix::sys::signal::Signal;
use std::str::FromStr;

/// What containers get unless they ask for another signal.
pub(super) const DEFAULT: i32 = nix::libc::SIGTERM;

/// The first signal that programs may give a meaning, as Docker counts (moby, `sys/signal`).
const FIRST_REAL_TIME: i32 = 34;
const LAST_REAL_TIME: i32 = 64;

/// The number of a signal that is written as Docker takes it: `SIGQUIT`, `quit`, `3` or `SIGRTMIN+3`.
pub(super) fn number(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse() {
        return Some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return Some(FIRST_REAL_TIME + offset_of(offset)?);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return Some(LAST_REAL_TIME + offset_of(offset)?);
    }
    Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
}

fn offset_of(text: &str) -> Option<i32> {
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|offset: &i32| offset.abs() < 32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_understood_as_docker_writes_them() {
        for (text, signal) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGQUIT", 3),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(number(text), Some(signal), "{text}");
        }
        for text in ["", "SIGNOTHING", "SIGRTMIN+x", "SIGRTMIN+2147483647"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
