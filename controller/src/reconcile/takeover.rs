//! Serving in the place of IPVS, for as long as the network's proxy serves and the daemon lives.
//!
//! What is taken over is said again and again, and ends by itself a little after it was said last: then new connections go
//! to IPVS, which knows the same backends.

use super::published::port_protocol;
use super::status::TakeoverStatus;
use crate::model::{Name, Network, Shared};
use ringlb_netns::{Namespace, TakenOver};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is said.
const INTERVAL: Duration = Duration::from_secs(1);
/// For how long it holds: an interval can be missed.
const LIFETIME: Duration = Duration::from_secs(3);

/// What of a network is taken over.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    table: Option<ringlb_netns::Takeover>,
    /// What was said last; none if that may not hold any more.
    said: Option<TakenOver>,
    /// When something is to be said again.
    due: Option<Instant>,
    error: Option<String>,
}

impl Takeover {
    /// When it is to be said again, if nothing changes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Says that this is served in the namespace now, if it is something else than before or it is time.
    pub(super) fn serve(&mut self, network: &Name, namespace: &Namespace, serving: TakenOver) {
        let now = Instant::now();
        let is_due = self.due.is_some_and(|due| due <= now);
        let is_new = match &self.said {
            Some(said) => *said != serving,
            None => self.table.is_some() || serving != TakenOver::default(),
        };
        // After an error it is tried again in time.
        if !is_due && (!is_new || self.error.is_some()) {
            return;
        }
        let taken_over = match &mut self.table {
            Some(table) => table.refresh(&serving, LIFETIME),
            None => ringlb_netns::Takeover::begin(namespace, &serving, LIFETIME).map(|table| self.table = Some(table)),
        };
        match taken_over {
            Ok(()) => {
                if is_new {
                    let (vips, ports) = (serving.vips.len(), serving.ports.len());
                    tracing::info!(%network, vips, ports, "serving in the place of IPVS");
                }
                self.due = (serving != TakenOver::default()).then_some(now + INTERVAL);
                self.said = Some(serving);
                self.error = None;
            }
            Err(error) => {
                // The table may be gone, and is made anew next time.
                (self.table, self.said) = (None, None);
                self.due = Some(now + INTERVAL);
                let error = error.to_string();
                if self.error.as_ref() != Some(&error) {
                    tracing::error!(%network, error, "cannot serve in the place of IPVS");
                }
                self.error = Some(error);
            }
        }
    }

    /// Says nothing until it is known again what is served: what was said last ends by itself.
    pub(super) fn pause(&mut self) {
        (self.said, self.due, self.error) = (None, None, None);
    }

    /// Leaves the namespace to IPVS.
    pub(super) fn end(&mut self, network: &Name, namespace: &Namespace) {
        if self.table.is_some() {
            match ringlb_netns::Takeover::remove(namespace) {
                Ok(()) => tracing::info!(%network, "leaving new connections to IPVS"),
                Err(error) => tracing::error!(%network, %error, "cannot leave new connections to IPVS yet"),
            }
        }
        *self = Self::default();
    }

    pub(super) fn status(&self) -> TakeoverStatus {
        let (vips, ports) = self.said.as_ref().map_or((0, 0), |said| (said.vips.len(), said.ports.len()));
        TakeoverStatus { vips, ports, error: self.error.clone() }
    }
}

/// What is served of `wish` by a proxy that has acknowledged `acknowledged`. IPVS has IPv4 alone.
pub(super) fn served(wish: &Network, acknowledged: Option<&Shared<Network>>) -> TakenOver {
    let mut taken = TakenOver::default();
    let Some(acknowledged) = acknowledged else { return taken };
    for service in wish.services().values() {
        let Some(there) = acknowledged.services().get(&service.name) else { continue };
        let vips = service.vip.iter().filter(|vip| there.vip.iter().any(|served| served == *vip));
        taken.vips.extend(vips.filter_map(|vip| match vip {
            IpAddr::V4(vip) => Some(*vip),
            IpAddr::V6(_) => None,
        }));
        let ports = service.published.iter().filter(|port| there.published.contains(port));
        taken.ports.extend(ports.map(|port| (port_protocol(port.published), port.published.number)));
    }
    taken
}
