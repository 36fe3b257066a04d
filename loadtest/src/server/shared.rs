//! What everything on a server's thread has in common.

use super::buffers::Buffers;
use super::counters::Counters;
use super::options::ServerOptions;
use crate::uring;
use std::sync::Arc;
use std::time::Duration;

/// What the connections and datagram sockets of a server have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name_line: Vec<u8>,
    pub(super) delay: Duration,
    pub(super) greeting: bool,
    pub(super) counters: Arc<Counters>,
    pub(super) buffers: Buffers,
}

impl Shared {
    pub(super) fn new(options: &ServerOptions, counters: Arc<Counters>) -> Self {
        Self {
            name_line: options.name.line(),
            delay: options.delay,
            greeting: options.greeting,
            counters,
            buffers: Buffers::default(),
        }
    }

    /// Waits as long as answers are to be delayed.
    pub(super) async fn answer_later(&self) {
        if !self.delay.is_zero() {
            uring::sleep(self.delay).await;
        }
    }
}
