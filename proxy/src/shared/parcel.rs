//! UDP sessions between the control thread and the data threads, when a proxy takes another one's place.

use crate::control::replacement::SessionSpec;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A UDP session that one proxy hands over to another.
#[derive(Debug)]
pub struct HandedSession {
    /// What it is.
    pub spec: SessionSpec,
    /// Its socket, which is connected to the backend.
    pub socket: OwnedFd,
}

/// Sessions on their way. Copies are the same parcel.
#[derive(Debug, Clone, Default)]
pub struct Parcel(Arc<Mutex<Vec<HandedSession>>>);

impl Parcel {
    /// A parcel of these.
    #[must_use]
    pub fn of(sessions: Vec<HandedSession>) -> Self {
        Self(Arc::new(Mutex::new(sessions)))
    }

    /// Adds one.
    pub fn put(&self, session: HandedSession) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    /// Takes all out.
    #[must_use]
    pub fn take(&self) -> Vec<HandedSession> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
