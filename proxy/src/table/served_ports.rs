//! Which ports of a service are served by anybody at all.
//!
//! A VIP has every port, so a client can ask for one on which no backend listens, by mistake or as a scan does. That all of
//! them refuse it then says nothing about their health. Only a refusal on a port that has been served counts.

use std::sync::atomic::{AtomicU16, Ordering};

/// So many ports are remembered; few services have more.
const PORTS: usize = 8;

/// The ports on which a backend has been reached, as far as they are remembered. 0, which is no port, is an empty place.
#[derive(Debug, Default)]
pub struct ServedPorts {
    places: [AtomicU16; PORTS],
    /// Where the next port goes once all places are taken.
    next: AtomicU16,
}

impl ServedPorts {
    /// Remembers a port on which a backend was reached.
    pub fn note(&self, port: u16) {
        if self.contains(port) {
            return;
        }
        let take = |place: &AtomicU16| place.compare_exchange(0, port, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !self.places.iter().any(take) {
            let oldest = usize::from(self.next.fetch_add(1, Ordering::Relaxed)) % PORTS;
            self.places[oldest].store(port, Ordering::Relaxed);
        }
    }

    /// Whether a backend has been reached on that port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.places.iter().any(|place| place.load(Ordering::Relaxed) == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_remembered_until_there_are_too_many() {
        let ports = ServedPorts::default();
        assert!(!ports.contains(80));
        for port in 80..88 {
            ports.note(port);
            ports.note(port);
        }
        assert!((80..88).all(|port| ports.contains(port)));
        ports.note(88);
        assert!(ports.contains(88) && !ports.contains(80));
        assert!((81..88).all(|port| ports.contains(port)));
    }
}
