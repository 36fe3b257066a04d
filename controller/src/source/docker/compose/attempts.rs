//! What is under way, and when to try again what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Attempts at things, each never twice at a time. Without pauses the events of each attempt would cause the next one.
#[derive(Debug)]
pub(super) struct Attempts<K> {
    under_way: BTreeSet<K>,
    failed: BTreeMap<K, Failed>,
}

#[derive(Debug)]
struct Failed {
    pause: Duration,
    until: Instant,
    reason: String,
}

impl<K> Default for Attempts<K> {
    fn default() -> Self {
        Self { under_way: BTreeSet::new(), failed: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Attempts<K> {
    /// Whether one is to begin now: none is under way, and it is not too early. Then it has begun.
    pub(super) fn begin(&mut self, key: &K, now: Instant) -> bool {
        let too_early = self.failed.get(key).is_some_and(|failed| failed.until > now);
        !too_early && self.under_way.insert(key.clone())
    }

    /// Whether this one is under way.
    pub(super) fn is_under_way(&self, key: &K) -> bool {
        self.under_way.contains(key)
    }

    /// Whether any is under way.
    pub(super) fn any_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// What one has come to that has begun, or an attempt that is over as soon as it begins.
    pub(super) fn ended(&mut self, key: &K, now: Instant, reason: Option<String>) {
        self.under_way.remove(key);
        let before = self.failed.remove(key);
        if let Some(reason) = reason {
            let pause = before.map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
            self.failed.insert(key.clone(), Failed { pause, until: now + pause, reason });
        }
    }

    /// Forgets what failed, but for these.
    pub(super) fn keep(&mut self, wanted: impl Fn(&K) -> bool) {
        self.failed.retain(|key, _| wanted(key));
    }

    /// What failed last time, and why.
    pub(super) fn reasons(&self) -> impl Iterator<Item = (&K, &str)> {
        self.failed.iter().map(|(key, failed)| (key, failed.reason.as_str()))
    }

    /// In which time something is to be tried again.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let waiting = self.failed.iter().filter(|(key, _)| !self.under_way.contains(key));
        waiting.map(|(_, failed)| failed.until.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_after_pauses_that_grow() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let reasons = |attempts: &Attempts<&str>| -> Vec<_> {
            attempts.reasons().map(|(key, reason)| format!("{key}: {reason}")).collect()
        };
        assert_eq!((attempts.next(start), attempts.any_under_way()), (None, false));
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(attempts.begin(&"web", now));
            assert!(!attempts.begin(&"web", now), "it is under way");
            assert!(attempts.is_under_way(&"web") && !attempts.is_under_way(&"other"));
            assert_eq!((attempts.next(now), attempts.any_under_way()), (None, true));
            attempts.ended(&"web", now, Some("no address".to_owned()));
            assert_eq!(attempts.next(now), Some(Duration::from_secs(seconds)));
            assert_eq!(reasons(&attempts), ["web: no address"]);
            assert!(!attempts.begin(&"web", now), "it is too early");
            assert!(attempts.begin(&"other", now));
            attempts.ended(&"other", now, None);
            now += Duration::from_secs(seconds);
        }
        assert!(attempts.begin(&"web", now));
        attempts.ended(&"web", now, None);
        assert_eq!((attempts.next(now), reasons(&attempts)), (None, Vec::new()));
        attempts.ended(&"web", now, Some("again".to_owned()));
        assert_eq!(attempts.next(now), Some(FIRST_PAUSE));
        attempts.keep(|_| false);
        assert_eq!(attempts.next(now), None);
    }
}
