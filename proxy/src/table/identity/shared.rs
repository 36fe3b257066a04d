//! A counted reference to an identity.

#![allow(unsafe_code, reason = "an identity lies in a pool and is there as long as somebody refers to it")]

use super::Identity;
use super::pool::{self, Slot};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::process::abort;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

/// Refers to an identity, which is there until the last one that refers to it is dropped, in whatever thread.
///
/// It is an `Arc`, but for the place: one line of the processor's cache holds the count and the identity, where `Arc` and
/// the allocator take 80 bytes in two lines, and all identities lie in a [pool] of their own.
///
/// Two are equal if they refer to the same identity.
pub struct SharedIdentity {
    slot: NonNull<Slot>,
}

/// So many references can only be lost ones: they would take more memory than there is.
const TOO_MANY: u32 = u32::MAX / 2;

impl SharedIdentity {
    fn slot(&self) -> &Slot {
        // SAFETY: a slot is given back when the last reference is gone, and this is one.
        unsafe { self.slot.as_ref() }
    }
}

impl Default for SharedIdentity {
    /// An identity of its own, of a backend that is new.
    fn default() -> Self {
        Self { slot: pool::take() }
    }
}

impl Deref for SharedIdentity {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.slot().identity
    }
}

impl Clone for SharedIdentity {
    fn clone(&self) -> Self {
        // Who has a reference can give another one to others only in a way that orders all before it, as for `Arc`.
        if self.slot().references.fetch_add(1, Ordering::Relaxed) > TOO_MANY {
            abort();
        }
        Self { slot: self.slot }
    }
}

impl Drop for SharedIdentity {
    fn drop(&mut self) {
        if self.slot().references.fetch_sub(1, Ordering::Release) > 1 {
            return;
        }
        // All that others did with the identity before they dropped their references comes before it is cleared.
        fence(Ordering::Acquire);
        // SAFETY: `take` gave this slot, and this was the last reference to it.
        unsafe { pool::give_back(self.slot) };
    }
}

impl PartialEq for SharedIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot
    }
}

impl Eq for SharedIdentity {}

impl Hash for SharedIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slot.hash(state);
    }
}

impl std::fmt::Debug for SharedIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Identity::fmt(self, formatter)
    }
}

const fn is_for_all_threads<T: Send + Sync>() {}
const _: () = is_for_all_threads::<Identity>();

// SAFETY: the identity may be used and dropped by all threads (see above), and the count is atomic.
unsafe impl Send for SharedIdentity {}
// SAFETY: as above.
unsafe impl Sync for SharedIdentity {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn each_is_an_identity_of_its_own() {
        let one = SharedIdentity::default();
        let other = SharedIdentity::default();
        one.connections.store(7, Ordering::Relaxed);
        assert_ne!(one, other);
        assert_eq!(one, one.clone());
        assert_eq!(one.clone().connections.load(Ordering::Relaxed), 7);
        assert_eq!(other.connections.load(Ordering::Relaxed), 0);
    }

    /// Whoever is last, the identity is cleared once, and the next that lies there is a new one.
    #[test]
    fn threads_drop_their_references_in_any_order() {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let used: Vec<_> = (0..50).map(|_| SharedIdentity::default()).collect();
                        assert!(used.iter().all(|identity| identity.counted_datagrams().is_none()));
                        for identity in &used {
                            identity.datagrams().sessions.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for _ in 0..2_000 {
                let identity = SharedIdentity::default();
                assert!(!identity.is_removed() && identity.counted_datagrams().is_none());
                identity.datagrams().sessions.fetch_add(1, Ordering::Relaxed);
                let copies: Vec<_> = (0..3).map(|_| identity.clone()).collect();
                thread::scope(|scope| {
                    for copy in copies {
                        scope.spawn(move || copy.connections.fetch_add(1, Ordering::Relaxed));
                    }
                    let _ = identity.remove();
                    drop(identity);
                });
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
