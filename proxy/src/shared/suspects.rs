//! Backends that data threads could not reach, on their way to the control thread.

use crate::table::SharedIdentity;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// A backend that failed as many times in a row as its service allows.
#[derive(Debug)]
pub struct Suspect {
    /// The service's name.
    pub service: Arc<str>,
    /// The backend.
    pub identity: SharedIdentity,
}

/// Suspects that the control thread has not looked at yet.
///
/// A backend is in it once at most, as [`note_failure`](crate::table::Identity::note_failure) says so once: what it holds is
/// bounded by the number of backends, however fast they fail.
#[derive(Debug, Default)]
pub struct Suspects {
    waiting: Mutex<Vec<Suspect>>,
    arrived: Notify,
}

impl Suspects {
    /// Adds one; wakes the control thread.
    pub fn put(&self, suspect: Suspect) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(suspect);
        self.arrived.notify_one();
    }

    /// Takes all out, waiting for the first. One task may wait at a time.
    pub async fn take(&self) -> Vec<Suspect> {
        self.arrived.notified().await;
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
