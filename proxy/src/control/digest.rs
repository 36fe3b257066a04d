//! What tells whether a daemon and a proxy have the same of a service, without either saying it.

use super::message::{Generation, ServiceSpec};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hasher};

/// What a whole table is, in brief.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Its generation.
    pub generation: Generation,
    /// One for each service.
    pub services: Vec<ServiceDigest>,
}

/// What a service is, in brief.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDigest {
    /// Its name.
    pub name: String,
    /// See [`digest`].
    pub digest: Option<u64>,
}

/// A number that is the same for services that are the same, whatever order their backends are in, and another one for others.
///
/// Another build of this program may give another number for the same service: then it is taken for another one, and sent.
/// `None` if there is no number, which is taken so, too. Sorts the backends.
pub fn digest(service: &mut ServiceSpec) -> Option<u64> {
    service.backends.sort_unstable_by_key(|backend| backend.address);
    let bytes = postcard::to_allocvec(service).ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    Some(hasher.finish())
}
