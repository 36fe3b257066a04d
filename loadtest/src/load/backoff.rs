//! How long a worker waits after a failure.

use super::options::LoadOptions;
use std::time::Duration;

/// Slows a worker down whose requests all fail: a closed loop on a refusing server would count nothing but how fast it
/// refuses. The first failure costs no wait. In an open loop the schedule decides, and there is no wait at all.
#[derive(Debug)]
pub(super) struct Backoff {
    enabled: bool,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(options: &LoadOptions) -> Self {
        Self { enabled: options.rate.is_none(), next: Duration::ZERO }
    }

    pub(super) const fn succeeded(&mut self) {
        self.next = Duration::ZERO;
    }

    pub(super) async fn failed(&mut self) {
        if !self.enabled {
            return;
        }
        if !self.next.is_zero() {
            tokio::time::sleep(self.next).await;
        }
        self.next = (self.next * 2).clamp(Duration::from_millis(1), Duration::from_millis(100));
    }
}
