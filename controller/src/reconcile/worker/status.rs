//! How a network is.

use super::Worker;
use crate::reconcile::proxy::Proxy;
use crate::reconcile::structure::Structure;
use crate::reconcile::upgrade::Predecessor;
use crate::reconcile::{NetworkStatus, ProxyStatus, SandboxStatus};
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    pub(super) fn status(&self) -> NetworkStatus {
        let place = self.structure.as_ref().and_then(|structure| structure.sandbox.as_ref());
        let sandbox = place.map(|place| SandboxStatus {
            namespace: place.namespace(),
            lb_address: place.lb_address,
            steering: place.steered.steering.kind().to_string(),
            takeover: self
                .wish
                .as_ref()
                .and_then(|wish| wish.observed_sandbox())
                .filter(|sandbox| sandbox.takeover)
                .map(|_| self.takeover.status()),
        });
        let proxy = place.map(|_| ProxyStatus {
            pid: self.proxy.as_ref().and_then(|proxy| proxy.pid),
            restarts: self.restarts,
            last_end: self.last_end.clone(),
            quick_ends: if self.proxy.as_ref().is_some_and(Proxy::has_lasted) { 0 } else { self.restart.count },
            starts_in_ms: self.starts_in().map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            privileges: self.privileges.clone(),
            memory: self.settings.memory.status(&self.name, &self.confinement),
            version: self.greeting.as_ref().map(|hello| hello.version.clone()),
            features: self.greeting.as_ref().map(|hello| hello.features.clone()),
            upgrade_error: self.upgrade_error.clone(),
        });
        let failed = self.structure.as_ref().map(Structure::failed_attachments);
        NetworkStatus {
            acknowledged_generation: match (&self.wish, place) {
                (Some(wish), None) if wish.lb_address().is_none() => wish.generation(),
                _ => self.acknowledged,
            },
            sandbox,
            proxy,
            draining: self.predecessors.iter().map(Predecessor::status).collect(),
            failed_attachments: failed
                .into_iter()
                .flatten()
                .map(|(name, reason)| (name.to_string(), reason.clone()))
                .collect(),
            failed_ports: self.published.failures(),
            error: self.error.clone(),
        }
    }

    /// How long it is until the next proxy is started, while there is none.
    fn starts_in(&self) -> Option<Duration> {
        let due = self.restart.due.filter(|_| self.proxy.is_none())?;
        Some(due.saturating_duration_since(Instant::now()))
    }
}
