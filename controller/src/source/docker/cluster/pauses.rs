//! How long to wait after a failure.

use super::Timing;
use std::time::Duration;

/// Pauses that double with each failure.
#[derive(Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    pub(super) fn new(timing: &Timing) -> Self {
        Self { first: timing.first_pause, longest: timing.longest_pause, next: timing.first_pause }
    }

    /// The pause after one more failure: between half and the whole of what it grew to, by chance, so that the workers
    /// of a manager that comes back do not all come at once.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(super) fn succeeded(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_start_again_after_a_success() {
        let timing = Timing {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_millis(350),
            ..Timing::default()
        };
        let mut pauses = Pauses::new(&timing);
        for whole in [100, 200, 350, 350] {
            let pause = pauses.failed().as_micros();
            assert!((whole * 500..=whole * 1000).contains(&pause), "{pause} of {whole}");
        }
        pauses.succeeded();
        assert!(pauses.failed() <= Duration::from_millis(100));
    }
}
