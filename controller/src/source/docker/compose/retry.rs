//! When to try again what failed.

use super::services::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What failed. Without pauses the events of each attempt would cause the next one.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failed: BTreeMap<Key, Failed>,
}

#[derive(Debug)]
struct Failed {
    pause: Duration,
    until: Instant,
    reason: String,
}

impl Retry {
    pub(super) fn failed(&mut self, key: &Key, now: Instant, reason: String) {
        let pause = self.failed.get(key).map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
        self.failed.insert(key.clone(), Failed { pause, until: now + pause, reason });
    }

    pub(super) fn succeeded(&mut self, key: &Key) {
        self.failed.remove(key);
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, keys: &BTreeSet<Key>) {
        self.failed.retain(|key, _| keys.contains(key));
    }

    /// Why it failed, as long as it is too early to try again.
    pub(super) fn reason(&self, key: &Key, now: Instant) -> Option<String> {
        self.failed.get(key).filter(|failed| failed.until > now).map(|failed| failed.reason.clone())
    }

    /// In which time something is to be tried again.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        self.failed.values().map(|failed| failed.until.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_after_pauses_that_grow() {
        let (mut retry, start) = (Retry::default(), Instant::now());
        let key = Key { network: "shop".to_owned(), service: "web".to_owned() };
        assert_eq!((retry.reason(&key, start), retry.next(start)), (None, None));
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            retry.failed(&key, now, "no address".to_owned());
            assert_eq!(retry.next(now), Some(Duration::from_secs(seconds)));
            assert_eq!(retry.reason(&key, now), Some("no address".to_owned()));
            now += Duration::from_secs(seconds);
            assert_eq!(retry.reason(&key, now), None, "it is time");
        }
        retry.succeeded(&key);
        retry.failed(&key, now, "again".to_owned());
        assert_eq!(retry.next(now), Some(FIRST_PAUSE));
        retry.keep(&BTreeSet::new());
        assert_eq!(retry.next(now), None);
    }
}
