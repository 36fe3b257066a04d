//! Ending what a network does not need any more.

use super::Worker;
use crate::model::Name;
use crate::reconcile::orphans::Orphans;
use crate::reconcile::structure::{Structure, remove_leftovers};

impl Worker {
    pub(super) async fn stop_proxy(&mut self) {
        if let Some(place) = self.structure.as_ref().and_then(|structure| structure.sandbox.as_ref()) {
            self.takeover.end(&self.name, place.sandbox.namespace());
        }
        self.serving = None;
        // In a namespace that somebody else has taken down, nobody is left to end politely.
        let hurry = self.structure.as_ref().is_some_and(Structure::is_observed);
        self.end_others(hurry).await;
        if let Some(proxy) = self.proxy.take() {
            proxy.stop(&self.name, hurry).await;
        }
        self.forget_sessions();
        (self.outdated, self.upgrade_error) = (false, None);
        self.sent = None;
        self.greeting = None;
        self.privileges = None;
        self.published.lost_proxy();
        self.error = None;
        self.statistics.forget();
        self.restart.succeeded();
    }

    /// Gives up the published ports of a network without a proxy. The next one's sockets can be for other threads.
    pub(super) fn forget_sockets(&mut self) {
        self.published.close();
        self.publishing.succeeded();
        self.threads = self.settings.threads;
    }

    pub(super) async fn remove_structure(&mut self) {
        self.stop_proxy().await;
        if let Some(structure) = self.structure.take() {
            structure.remove(&self.settings, &self.name).await;
        }
        self.attaching.succeeded();
    }

    pub(super) async fn end_orphans(&mut self, reason: &str) {
        let orphans = std::mem::take(&mut self.orphans);
        if !orphans.is_empty() {
            end_orphans(&self.name, orphans, reason).await;
        }
    }

    /// Removes what an earlier daemon has left behind of a network of which nothing is needed.
    pub(super) async fn remove_leftovers(&mut self) {
        if std::mem::replace(&mut self.unexplored, false) {
            remove_leftovers(&self.settings, &self.name).await;
        }
    }

    /// Takes all of the network down, also what is still to be met.
    pub(super) async fn take_down(&mut self) {
        if let Some(meeting) = self.meeting.take() {
            self.orphans = meeting.await.unwrap_or_default();
        }
        self.end_orphans("nobody wishes for its network").await;
        self.remove_structure().await;
        self.remove_leftovers().await;
        self.forget_sockets();
        self.wish = None;
        self.building.succeeded();
        self.error = None;
    }
}

pub(super) async fn end_orphans(network: &Name, orphans: Orphans, reason: &str) {
    let pid = orphans.serving.as_ref().map(|orphan| orphan.hello.pid);
    tracing::info!(%network, pid, reason, "ending the proxies of an earlier daemon");
    if let Err(error) = orphans.end(network).await {
        tracing::error!(%network, pid, error, "cannot end a proxy of an earlier daemon");
    }
}
