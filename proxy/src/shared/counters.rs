//! What a data thread counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one data thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one data thread; the fields of [`ProxyStatistics`],
/// [`DatagramStatistics`] and [`RingStatistics`] say what each one counts.
///
/// They begin and end at 128 bytes: a cache line and the one that x86 fetches with it. So no other thread's writes take
/// the line away from this one's core.
///
/// [`DatagramStatistics`]: crate::control::message::DatagramStatistics
/// [`ProxyStatistics`]: crate::control::message::ProxyStatistics
/// [`RingStatistics`]: crate::control::message::RingStatistics
#[derive(Debug, Default)]
#[repr(align(128))]
#[allow(missing_docs, reason = "documented where they are sent: `control::message`")]
pub struct Counters {
    pub accepted: Counter,
    pub refused_at_limit: Counter,
    pub refused_denied: Counter,
    pub refused_client_rate: Counter,
    pub refused_client_full: Counter,
    pub refused_service_full: Counter,
    pub refused_backends_full: Counter,
    pub refused_queue_full: Counter,
    pub refused_queue_timeout: Counter,
    pub refused_header_invalid: Counter,
    pub refused_header_timeout: Counter,
    pub no_service: Counter,
    pub no_backend: Counter,
    pub connect_failures: Counter,
    pub retries: Counter,
    pub retries_denied: Counter,
    pub client_resets: Counter,
    pub backend_resets: Counter,
    pub removed_resets: Counter,
    pub drain_resets: Counter,
    pub idle_resets: Counter,
    pub lifetime_resets: Counter,
    pub access_log_dropped: Counter,
    pub ports_exhausted: Counter,
    pub sessions: Counter,
    pub sessions_moved: Counter,
    pub sessions_evicted: Counter,
    pub datagrams_to_backends: Counter,
    pub datagrams_to_clients: Counter,
    pub datagram_bytes_to_backends: Counter,
    pub datagram_bytes_to_clients: Counter,
    pub lost: LostDatagrams,
    pub enters: Counter,
    pub buffers_exhausted: Counter,
    pub completion_overflows: Counter,
    pub spliced_directions: Counter,
    pub spliced_bytes: Counter,
}

/// Counters of datagrams that were dropped, by reason.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "documented where they are sent: `control::message`")]
pub struct LostDatagrams {
    pub no_service: Counter,
    pub no_backend: Counter,
    pub buffer_full: Counter,
    pub too_large: Counter,
    pub at_limit: Counter,
    pub unsendable: Counter,
    pub unanswerable: Counter,
    pub refused: Counter,
}
