//! Making what a network needs, and removing what it does not need any more.

use super::Worker;
use super::adopt::{name_sockets, note_threads};
use super::end::end_orphans;
use crate::model::{Name, Network, Shared};
use crate::reconcile::memory::Confinement;
use crate::reconcile::orphans::Orphans;
use crate::reconcile::proxy::Proxy;
use crate::reconcile::structure::Structure;
use crate::reconcile::{PrivilegeStatus, Settings};
use std::sync::Arc;
use tokio::task::spawn_blocking;

impl Worker {
    /// Makes what is missing, removes what is too much, and sends the table, if it is time for it.
    pub(super) async fn reconcile(&mut self) {
        let Some(wish) = self.wish.clone().filter(|_| self.meeting.is_none()) else { return };
        if self.building.is_due() {
            match self.build(&wish).await {
                Ok(()) if self.building.due.is_some() => {
                    self.building.succeeded();
                    self.error = None;
                }
                Ok(()) => {}
                Err(reason) => {
                    tracing::error!(network = %self.name, "{reason}");
                    self.building.failed();
                    self.error = Some(reason);
                }
            }
        }
        if let (Some(_), Some(reason)) = (self.building.due, self.error.clone()) {
            // Those who have waited for an attempt learn what came of it; the next attempt is not for them.
            self.fail_all(&reason);
            return;
        }
        self.send_table(&wish);
        self.replace_outdated();
    }

    async fn build(&mut self, wish: &Shared<Network>) -> Result<(), String> {
        if self.structure.as_ref().is_some_and(|structure| !structure.serves(wish)) {
            self.remove_structure().await;
        }
        if self.structure.as_ref().is_some_and(|structure| !structure.sandbox_serves(wish)) {
            self.stop_proxy().await;
            if let Some(structure) = &mut self.structure {
                structure.remove_sandbox(&self.settings, &self.name).await;
                tracing::info!(network = %self.name, "removed the sandbox, it is not needed any more");
            }
        }
        if wish.lb_address().is_none() {
            self.forget_sockets();
            self.end_orphans("the network needs no proxy").await;
        }
        if !wish.is_on_node() {
            self.remove_leftovers().await;
            return Ok(());
        }
        let structure = match self.structure.take() {
            Some(structure) => structure,
            None => Structure::make(&self.settings, wish).await.map_err(|error| error.to_string())?,
        };
        let structure = self.structure.insert(structure);
        if std::mem::replace(&mut self.unexplored, false) {
            structure.remove_leftovers(&self.settings, wish).await;
        }
        structure.attach(wish).await;
        if self.attaching.due.is_some() && self.attaching.is_due() {
            structure.attach_failed().await;
        }
        if structure.failed_attachments().is_empty() {
            self.attaching.succeeded();
        } else if self.attaching.is_due() {
            self.attaching.failed();
        }
        let Some(lb_address) = wish.lb_address() else { return Ok(()) };
        let Orphans { serving, mut others } = std::mem::take(&mut self.orphans);
        let mut awaits_sessions = false;
        if let Some(mut orphan) = serving {
            match structure.adopt(wish, lb_address, &mut orphan).await {
                Ok(threads) => {
                    note_threads(&self.settings, &self.name, threads);
                    self.threads = threads;
                    awaits_sessions = orphan.awaits_sessions();
                    name_sockets(&self.settings, &self.name, &orphan, &mut others);
                    self.greeting = Some(orphan.hello.clone());
                    self.privileges = PrivilegeStatus::of(orphan.hello.pid);
                    let (proxy, ports) = orphan.into_proxy().map_err(|error| error.to_string())?;
                    tracing::info!(network = %self.name, pid = proxy.pid, "took the proxy over");
                    self.published.adopt(ports);
                    self.confinement = confine(&self.settings, &self.name, proxy.pid).await;
                    // One that was to take over may not have got them all.
                    others.iter_mut().for_each(|other| self.published.adopt_sockets(other.take_ports()));
                    self.proxy = Some(proxy);
                    self.outdated = true;
                }
                Err(reason) => {
                    let others = std::mem::take(&mut others);
                    end_orphans(&self.name, Orphans { serving: Some(orphan), others }, &reason).await;
                }
            }
        }
        if self.proxy.is_none() || awaits_sessions || !others.is_empty() {
            // A proxy that ended while there was no daemon has left some behind: the only one, or one of two.
            structure.forget_sessions(&self.name);
        }
        if wish.observed_sandbox().is_some_and(|sandbox| sandbox.takeover) {
            self.published.want_nothing();
        } else {
            self.published.want(wish);
        }
        let again = self.publishing.due.is_some() && self.publishing.is_due();
        self.published.open(&self.name, self.threads, again);
        if self.published.failed().is_empty() {
            self.publishing.succeeded();
        } else if self.publishing.is_due() {
            self.publishing.failed();
        }
        let place = structure
            .make_sandbox(&self.settings, wish, lb_address, self.threads)
            .await
            .map_err(|error| format!("cannot make the sandbox: {error}"))?;
        if self.proxy.is_none() && self.restart.is_due() {
            let proxy =
                Proxy::start(&self.settings, &self.name, place, &place.control).map_err(|error| error.to_string())?;
            self.confinement = confine(&self.settings, &self.name, proxy.pid).await;
            self.proxy = Some(proxy);
        }
        self.adopt_others(others, awaits_sessions).await;
        match &mut self.proxy {
            Some(proxy) => proxy.connect(&self.settings, &self.name).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}

/// Puts a proxy into its control group, beside the thread that makes changes: the kernel takes its time for that.
pub(super) async fn confine(settings: &Arc<Settings>, network: &Name, pid: Option<u32>) -> Confinement {
    let (settings, network) = (Arc::clone(settings), network.clone());
    // It has nothing that panics.
    spawn_blocking(move || settings.memory.confine(&network, pid)).await.unwrap_or_default()
}
