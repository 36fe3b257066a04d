//! Putting another proxy in the place of the one that runs.
//!
//! The other one is started beside it, while the network's task does what else there is to do. When it greets, the rest takes a few
//! milliseconds, in which the task does nothing else: it gets the table and the sockets, and accepts connections like the
//! first one; then the first one retires, and hands its UDP sessions over. Whatever fails before that leaves the first one as
//! it was.

use super::{RESTART_PAUSE, Worker};
use crate::reconcile::proxy::{Happening, Link, Proxy};
use crate::reconcile::structure::Place;
use crate::reconcile::upgrade::{MOST_DRAINING, START_TIMEOUT, Successor, UpgradeReply, Upgraded};
use crate::reconcile::{Unsettled, names, totals};
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    /// Begins to replace the proxy. Whoever asks while that is under way gets what comes of it.
    pub(super) fn begin_upgrade(&mut self, drain: Option<Duration>, reply: Option<UpgradeReply>) {
        if let Some(successor) = &mut self.successor {
            successor.waiting.extend(reply);
            return;
        }
        match self.start_successor(drain) {
            Ok(None) => {
                let nothing = Upgraded { pid: None, version: None, replaced: None };
                // Whoever has asked may be gone; the same below.
                let _ = reply.map(|reply| reply.send(Ok(nothing)));
            }
            Ok(Some(mut successor)) => {
                successor.waiting.extend(reply);
                self.successor = Some(successor);
            }
            Err(reason) => self.upgrade_failed(reply, &reason),
        }
    }

    /// Starts another proxy, if there is one that it can take the place of.
    fn start_successor(&self, drain: Option<Duration>) -> Result<Option<Successor>, String> {
        let Some(place) = self.place() else { return Ok(None) };
        let Some(proxy) = &self.proxy else {
            return Err("the proxy that is to be replaced does not run".to_owned());
        };
        if !matches!(proxy.link, Link::Open { .. }) {
            return Err("the proxy that is to be replaced does not answer".to_owned());
        }
        if proxy.introduction.is_none() {
            let pid = proxy.pid.unwrap_or_default();
            return Err(format!(
                "the proxy that is to be replaced speaks an older version of the control protocol and cannot retire: end process {pid}, which ends its connections"
            ));
        }
        if self.predecessors.len() >= MOST_DRAINING {
            return Err(format!(
                "{MOST_DRAINING} proxies that were replaced before still have connections: wait until one has none, or give them less time"
            ));
        }
        let socket = names::successor_socket(&self.name);
        let control = self.settings.control.listen(&socket);
        let control = control.map_err(|error| format!("cannot make a control socket: {error}"))?;
        let proxy = Proxy::start(&self.settings, &self.name, place, &control).map_err(|error| error.to_string())?;
        Ok(Some(Successor { proxy, control, drain, since: Instant::now(), waiting: Vec::new() }))
    }

    fn place(&self) -> Option<&Place> {
        self.structure.as_ref()?.sandbox.as_ref()
    }

    /// When something is due for the proxy that is to take over.
    pub(super) fn successor_due(&self) -> Option<Instant> {
        let successor = self.successor.as_ref()?;
        let end = successor.since + START_TIMEOUT;
        match &successor.proxy.link {
            Link::Broken { retry } => Some(end.min(*retry)),
            Link::Greeting { .. } | Link::Open { .. } => Some(end),
        }
    }

    /// Connects to the proxy that is to take over, if it is time, and gives it up if it does not greet.
    pub(super) async fn see_to_successor(&mut self) {
        let Some(successor) = &mut self.successor else { return };
        if successor.since.elapsed() >= START_TIMEOUT {
            return self.give_successor_up("it does not greet in time").await;
        }
        let socket = names::successor_socket(&self.name);
        if let Err(error) = successor.proxy.connect(&self.settings, &socket) {
            let reason = error.to_string();
            self.give_successor_up(&reason).await;
        }
    }

    /// Takes what the proxy that is to take over does. When it has greeted, it takes over.
    pub(super) async fn successor_did(&mut self, happening: Happening) {
        let Some(successor) = &mut self.successor else { return };
        let greeting = match happening {
            Happening::Ended(how) => return self.give_successor_up(&format!("it ended: {how}")).await,
            Happening::Said(Err(_)) => {
                successor.proxy.lost_link(RESTART_PAUSE.first);
                return;
            }
            Happening::Said(Ok(said)) => successor.proxy.greeted(said, None),
        };
        match greeting {
            Ok(None) => {}
            Ok(Some(hello)) if hello.network == *self.name => self.exchange(hello).await,
            Ok(Some(hello)) => {
                self.give_successor_up(&format!("it says that it is of network `{}`", hello.network)).await;
            }
            Err(error) => self.give_successor_up(&error.to_string()).await,
        }
    }

    /// Ends the proxy that was to take over. The one that runs goes on.
    pub(super) async fn give_successor_up(&mut self, reason: &str) {
        let Some(successor) = self.successor.take() else { return };
        let Successor { mut proxy, waiting, .. } = successor;
        if let Err(error) = proxy.process.kill().await {
            tracing::error!(network = %self.name, pid = proxy.pid, %error, "cannot kill the new proxy");
        }
        if let Err(error) = self.settings.control.remove(&names::successor_socket(&self.name)) {
            tracing::error!(network = %self.name, %error, "cannot remove the control socket of the new proxy");
        }
        self.upgrade_failed(waiting, &format!("the new proxy cannot take over: {reason}"));
    }

    fn upgrade_failed(&mut self, waiting: impl IntoIterator<Item = UpgradeReply>, reason: &str) {
        let pid = self.proxy.as_ref().and_then(|proxy| proxy.pid);
        tracing::error!(network = %self.name, pid, reason, "the proxy is not replaced and serves on");
        self.upgrade_error = Some(reason.to_owned());
        for reply in waiting {
            let _ = reply.send(Err(Unsettled::Failed { network: self.name.clone(), reason: reason.to_owned() }));
        }
    }

    /// Sees to the proxies that were replaced.
    pub(super) async fn see_to_predecessors(&mut self) {
        let Some(wish) = self.wish.clone() else { return };
        for predecessor in &mut self.predecessors {
            predecessor.see_to(&self.settings, &self.name, &wish).await;
        }
    }

    /// Takes what a proxy does that was replaced.
    pub(super) fn predecessor_did(&mut self, place: usize, happening: Happening) {
        let Some(predecessor) = self.predecessors.get_mut(place) else { return };
        if !predecessor.take(&self.name, happening) {
            return;
        }
        let ended = self.predecessors.remove(place);
        if !ended.retired {
            self.forget_sessions();
        }
        totals::add_ended(&mut self.past, &ended.counted);
        if let Err(error) = self.settings.control.remove(&ended.socket) {
            tracing::error!(network = %self.name, %error, "cannot remove the control socket of a proxy that has ended");
        }
    }

    /// Ends the proxies that were replaced, and the one that was to take over.
    pub(super) async fn end_others(&mut self, hurry: bool) {
        self.give_successor_up("the proxy is not needed any more").await;
        let others = std::mem::take(&mut self.predecessors);
        let ends = others.into_iter().map(async |other| {
            other.proxy.stop(&self.name, hurry).await;
            other.socket
        });
        for socket in futures_util::future::join_all(ends).await {
            if let Err(error) = self.settings.control.remove(&socket) {
                tracing::error!(network = %self.name, %error, "cannot remove a control socket");
            }
        }
    }
}
