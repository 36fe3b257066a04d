//! How the sources are, for the status of the node.

use super::docker::EngineStatus;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// How a source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    /// Its name, by which its networks are known.
    pub name: &'static str,
    /// Whether it can be asked now. What it said last counts until it can be again.
    pub reachable: bool,
    /// What went wrong last, until it goes right again.
    pub last_error: Option<String>,
    /// Who is asked; none before the first answer.
    pub engine: Option<EngineStatus>,
    /// Who balances in its sandboxes besides ringlb: `none`, or `ipvs`.
    pub balancer: &'static str,
    /// Whether ringlb serves in that balancer's place. Without, it leaves the sandboxes to it.
    pub takeover: bool,
    /// Where the labels of services come from: `manager`, `cluster`, `containers`, or `none`.
    pub labels_from: &'static str,
    /// Why services' labels cannot be learned from a manager, or told to workers, if they cannot.
    pub labels_error: Option<String>,
    /// The labels that are not valid; the defaults are used in their place.
    pub invalid_labels: Vec<InvalidLabel>,
    /// What is not served, and why.
    pub refused_networks: Vec<RefusedNetwork>,
}

/// A label that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InvalidLabel {
    /// The service.
    pub service: String,
    /// The label.
    pub label: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A network that is not served, or one of its services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedNetwork {
    /// Its name; `NETWORK/SERVICE` for a service alone.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A status that its source writes and everybody reads. Copies are the same one.
#[derive(Debug, Clone)]
pub struct SharedStatus(Arc<Mutex<SourceStatus>>);

impl SharedStatus {
    /// Begins with a source that has not been heard of.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self(Arc::new(Mutex::new(SourceStatus {
            name,
            reachable: false,
            last_error: None,
            engine: None,
            balancer: "none",
            takeover: false,
            labels_from: "none",
            labels_error: None,
            invalid_labels: Vec::new(),
            refused_networks: Vec::new(),
        })))
    }

    /// How it is now.
    #[must_use]
    pub fn get(&self) -> SourceStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
