//! Which ports of a service are served by anybody at all, and who speaks first there.
//!
//! A VIP has every port, so a client can ask for one on which no backend listens, by mistake or as a scan does. That all of
//! them refuse it then says nothing about their health. Only a refusal on a port that has been served counts.

use crate::flow::Side;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// So many ports are remembered; few services have more.
const PORTS: usize = 8;
/// So many connections in a row on which the client spoke first say that it will again.
const ENOUGH: u32 = 64;
/// So many more must do so after one that did not at once.
const SILENCE: u32 = 4;

/// The ports on which a backend has been reached, as far as they are remembered.
#[derive(Debug, Default)]
pub struct ServedPorts {
    /// A port in the lower half, and in the upper one on how many connections in a row the client has spoken first, up to
    /// [`ENOUGH`]. 0, which is no port, is an empty place.
    places: [AtomicU32; PORTS],
    /// Where the next port goes once all places are taken.
    next: AtomicU16,
}

impl ServedPorts {
    /// Remembers a port on which a backend was reached.
    pub fn note(&self, port: u16) {
        if self.contains(port) {
            return;
        }
        let new = u32::from(port);
        let take = |place: &AtomicU32| place.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !self.places.iter().any(take) {
            let oldest = usize::from(self.next.fetch_add(1, Ordering::Relaxed)) % PORTS;
            self.places[oldest].store(new, Ordering::Relaxed);
        }
    }

    /// Whether a backend has been reached on that port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.place(port).is_some()
    }

    /// Remembers who was the first to speak on a connection to that port.
    pub fn note_first_speaker(&self, port: u16, side: Side) {
        self.change(port, |spoke| match side {
            Side::Client => ENOUGH.min(spoke + 1),
            Side::Backend => 0,
        });
    }

    /// Remembers that a client which was expected to speak first on that port has said nothing for a while.
    pub fn note_silence(&self, port: u16) {
        self.change(port, |spoke| spoke.saturating_sub(SILENCE));
    }

    fn change(&self, port: u16, change: impl Fn(u32) -> u32) {
        let Some((place, spoke)) = self.place(port) else { return };
        let spoke_now = change(spoke);
        // Most of the time nothing changes, and threads need not take the place from each other.
        if spoke != spoke_now {
            let (old, new) = (packed(port, spoke), packed(port, spoke_now));
            // Whoever was faster has as good a word about this port, or has given its place away.
            let _ = place.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the client can be expected to speak first on that port.
    #[must_use]
    pub fn is_asked_first(&self, port: u16) -> bool {
        self.place(port).is_some_and(|(_, spoke)| spoke == ENOUGH)
    }

    fn place(&self, port: u16) -> Option<(&AtomicU32, u32)> {
        self.places.iter().find_map(|place| {
            let value = place.load(Ordering::Relaxed);
            (value as u16 == port && value != 0).then_some((place, value >> 16))
        })
    }
}

fn packed(port: u16, spoke: u32) -> u32 {
    u32::from(port) | spoke << 16
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

    #[test]
    fn only_who_has_always_spoken_first_is_expected_to() {
        let ports = ServedPorts::default();
        ports.note_first_speaker(80, Side::Client);
        assert!(!ports.contains(80), "a port is remembered because it was reached");
        ports.note(80);
        ports.note(81);
        for _ in 0..3 {
            for _ in 0..ENOUGH {
                assert!(!ports.is_asked_first(80));
                ports.note_first_speaker(80, Side::Client);
            }
            ports.note_first_speaker(80, Side::Client);
            assert!(ports.is_asked_first(80) && !ports.is_asked_first(81) && !ports.is_asked_first(82));
            ports.note_first_speaker(80, Side::Backend);
        }
        (0..ENOUGH).for_each(|_| ports.note_first_speaker(80, Side::Client));
        // Another port in its place begins anew.
        (90..90 + PORTS as u16).for_each(|port| ports.note(port));
        assert!(!ports.is_asked_first(80));
        ports.note(80);
        assert!(ports.contains(80) && !ports.is_asked_first(80));
    }

    #[test]
    fn who_was_silent_is_soon_expected_to_speak_again() {
        let ports = ServedPorts::default();
        ports.note(80);
        ports.note_silence(80);
        (0..ENOUGH).for_each(|_| ports.note_first_speaker(80, Side::Client));
        for _ in 0..20 {
            assert!(ports.is_asked_first(80));
            ports.note_silence(80);
            for _ in 0..SILENCE {
                assert!(!ports.is_asked_first(80));
                ports.note_first_speaker(80, Side::Client);
            }
        }
    }
}
