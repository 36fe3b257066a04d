//! A recorder that two threads use.

use super::Recorder;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The recorder, written by the load's thread and read by whoever asks for progress.
#[derive(Debug, Clone)]
pub(crate) struct SharedRecorder(Arc<Mutex<Recorder>>);

impl SharedRecorder {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self(Arc::new(Mutex::new(recorder)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Recorder> {
        // Counters are whole whatever happened to the thread that held them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
