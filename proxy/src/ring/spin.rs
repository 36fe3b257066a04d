//! When to look for completions for a moment before sleeping.
//!
//! Who sleeps is woken tens of microseconds after a completion came. Where one comes soon, looking for it is faster, and costs
//! no more than falling asleep and being woken. Where none comes, it only burns time; and where a thread hardly ever waits, it
//! gains nothing: while a thread falls asleep more completions come, and many together cost less than each by itself.

use std::time::{Duration, Instant};

/// A sleep of no more than so many times what may be spun counts as a short wait: being woken takes most of it.
const SHORT_SLEEP: u32 = 3;
/// Who has worked more than so many times as long as waited is busy.
const BUSY_ABOVE: u32 = 5;
/// With each wait, one part of so many of what was before is forgotten.
const MEMORY: u32 = 16;
/// After so many sleeps a spin is tried, as only that tells for certain.
const SLEEPS_BETWEEN_TRIALS: u32 = 64;

/// What waiting has been like lately.
#[derive(Debug)]
pub(super) struct Spin {
    longest: Duration,
    /// How many of the last waits were short, more or less: what was not worth it counts more.
    score: i32,
    /// Sleeps since the last trial.
    sleeps: u32,
    /// The times that waits and what was between them took lately.
    waited: Duration,
    worked: Duration,
    /// When the last wait ended.
    resumed: Instant,
}

/// What came of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// A completion was seen.
    Paid,
    /// None was seen, so that the thread slept all the same.
    Missed,
    /// The thread slept at once.
    Slept,
}

impl Spin {
    /// The best score. One spin in vain leaves so little of it that eight short waits must follow before the next.
    const MOST: i32 = 16;
    /// The score from which on to spin.
    const ENOUGH: i32 = 12;

    /// For a thread that may look for as long, zero for never, and begins to work now.
    pub(super) fn new(longest: Duration, now: Instant) -> Self {
        Self { longest, score: 0, sleeps: 0, waited: Duration::ZERO, worked: Duration::ZERO, resumed: now }
    }

    /// How long to look at most.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// A wait begins: whether to look for completions before sleeping.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.worked = fade(self.worked) + now.saturating_duration_since(self.resumed);
        if self.longest.is_zero() || self.worked > BUSY_ABOVE * self.waited {
            return false;
        }
        self.score >= Self::ENOUGH || self.sleeps >= SLEEPS_BETWEEN_TRIALS
    }

    /// The wait that began then is over.
    pub(super) fn end(&mut self, began: Instant, now: Instant, wait: Wait) {
        let took = now.saturating_duration_since(began);
        self.resumed = now;
        self.waited = fade(self.waited) + took;
        let change = match wait {
            Wait::Paid => 1,
            Wait::Missed => -12,
            Wait::Slept if took <= SHORT_SLEEP * self.longest => 1,
            Wait::Slept => -2,
        };
        self.score = (self.score + change).clamp(0, Self::MOST);
        self.sleeps = if wait == Wait::Slept { self.sleeps.saturating_add(1) } else { 0 };
    }
}

fn fade(time: Duration) -> Duration {
    time - time / MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(30);
    const WAKING: Duration = Duration::from_micros(25);

    /// Lets a thread work and wait as the pattern says, in microseconds, and gives the waits of the last quarter that it spun
    /// in, those in which that paid, and all.
    fn run(pattern: &[(u64, u64)], waits: usize) -> (usize, usize, usize) {
        let mut now = Instant::now();
        let mut spin = Spin::new(LONGEST, now);
        let (mut spun, mut paid, mut all) = (0, 0, 0);
        for (index, &(work, wait)) in pattern.iter().cycle().take(waits).enumerate() {
            let (work, wait) = (Duration::from_micros(work), Duration::from_micros(wait));
            now += work;
            let began = now;
            let spins = spin.begin(now);
            let how = match spins {
                true if wait <= LONGEST => Wait::Paid,
                true => Wait::Missed,
                false => Wait::Slept,
            };
            now += wait + if how == Wait::Paid { Duration::ZERO } else { WAKING };
            spin.end(began, now, how);
            if index >= waits - waits / 4 {
                spun += usize::from(spins);
                paid += usize::from(how == Wait::Paid);
                all += 1;
            }
        }
        (spun, paid, all)
    }

    #[test]
    fn it_spins_while_completions_come_back_to_back() {
        let (spun, paid, all) = run(&[(6, 15)], 1000);
        assert_eq!((spun, paid), (all, all));
    }

    #[test]
    fn it_sleeps_where_nothing_comes_soon() {
        let (spun, paid, all) = run(&[(6, 900)], 4000);
        assert!(spun <= all / 50, "spun in {spun} of {all} waits");
        assert_eq!(paid, 0);
    }

    #[test]
    fn it_sleeps_where_only_every_other_wait_is_short() {
        // A request and its answer, and a pause until the next.
        let (spun, _, all) = run(&[(6, 20), (6, 900)], 4000);
        assert!(spun <= all / 50, "spun in {spun} of {all} waits");
    }

    #[test]
    fn it_sleeps_where_spins_are_just_too_short() {
        let (spun, _, all) = run(&[(6, 50)], 4000);
        assert!(spun <= all / 4, "spun in {spun} of {all} waits");
    }

    #[test]
    fn it_sleeps_while_the_thread_is_busy() {
        let (spun, _, all) = run(&[(200, 4)], 4000);
        assert_eq!((spun, all), (0, 1000));
    }

    #[test]
    fn it_spins_again_when_they_come_back_to_back_again() {
        let quiet = [(6, 900)].repeat(300);
        let lively = [(6, 15)].repeat(300);
        let (spun, paid, all) = run(&[quiet, lively].concat(), 600);
        assert!(spun >= all * 9 / 10 && paid == spun, "spun in {spun} of {all} waits, {paid} paid");
    }

    #[test]
    fn it_never_spins_if_it_may_not() {
        let now = Instant::now();
        let mut spin = Spin::new(Duration::ZERO, now);
        for _ in 0..200 {
            assert!(!spin.begin(now));
            spin.end(now, now, Wait::Slept);
        }
    }
}
