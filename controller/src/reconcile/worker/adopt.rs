//! Taking over what an earlier daemon has left in the middle of a replacement.

use super::Worker;
use super::exchange::{await_sessions, retire};
use crate::model::Name;
use crate::reconcile::orphans::Orphan;
use crate::reconcile::proxy::{Link, TableState, edition};
use crate::reconcile::upgrade::Predecessor;
use crate::reconcile::{Settings, names};
use ringlb_proxy::control::message::Duty;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::time::Duration;

impl Worker {
    /// Takes over what was left of proxies that the one that serves has replaced, or was to replace when its daemon ended: then
    /// that is done now.
    pub(super) async fn adopt_others(&mut self, others: Vec<Orphan>, mut awaits_sessions: bool) {
        let patience = self.settings.acknowledge_timeout;
        for orphan in others {
            let (pid, socket) = (orphan.hello.pid, orphan.socket.clone());
            let duty = orphan.introduction.as_ref().map(|introduction| introduction.duty);
            let (drain, is_retiring) = match duty {
                Some(Duty::Retiring { left_ms }) => (left_ms.map(Duration::from_millis), true),
                _ => (None, false),
            };
            let mut old = match orphan.into_proxy() {
                Ok((old, _)) => old,
                Err(error) => {
                    tracing::error!(network = %self.name, pid, %error, "cannot watch a proxy of an earlier daemon");
                    continue;
                }
            };
            tracing::info!(network = %self.name, pid, "took a proxy over that was replaced");
            if is_retiring {
                // It hands its sessions over without a daemon.
                self.predecessors.push(Predecessor::new(old, socket, drain, false));
                continue;
            }
            let heir = if awaits_sessions { self.hand_ports_over().await } else { None };
            let hands_over = heir.is_some();
            let left = retire(&mut old, drain, heir, patience).await;
            awaits_sessions &= !(hands_over && left.is_ok());
            if let Err(reason) = &left {
                tracing::error!(network = %self.name, pid, reason, "a proxy that was replaced does not retire yet");
            }
            self.predecessors.push(Predecessor::asked_to_retire(old, socket, drain, left));
        }
        if awaits_sessions {
            self.tell_to_receive();
        }
    }

    /// Gives the proxy that waits for UDP sessions the other one's ports that it does not have yet, so that it can answer their
    /// clients; gives the end by which it gets the sessions.
    async fn hand_ports_over(&mut self) -> Option<OwnedFd> {
        let new = self.proxy.as_mut()?;
        if let Link::Open { channel, .. } = &mut new.link {
            self.published.hand_over_adopted(channel).ok()?;
        }
        // It answers in the order in which it is asked.
        let (heir, others) = await_sessions(new, self.settings.acknowledge_timeout).await.ok()?;
        others.into_iter().for_each(|reply| self.take_reply(reply));
        Some(heir)
    }

    /// Replaces a proxy of an earlier daemon, once it has its table, if it was started from another build of the program or with
    /// other settings.
    pub(super) fn replace_outdated(&mut self) {
        let Some(proxy) = self.proxy.as_ref().filter(|_| self.outdated) else { return };
        if !matches!(proxy.link, Link::Open { table: TableState::At(_), .. }) || !self.published.is_settled() {
            return;
        }
        self.outdated = false;
        let (is, was) = (edition(&self.settings), proxy.introduction.as_ref().map(|told| &told.build));
        if self.settings.upgrade_proxies && was.is_none_or(|was| *was != is) {
            let pid = proxy.pid;
            tracing::info!(network = %self.name, pid, is, was, "the proxy is of another build, or has other settings");
            self.begin_upgrade(None, None);
        }
    }
}

/// Gives the control sockets of proxies that were left behind the names that they have while none is replaced.
pub(super) fn name_sockets(settings: &Settings, network: &Name, serving: &Orphan, others: &mut [Orphan]) {
    if serving.socket == **network {
        return;
    }
    let rename = |from: &str, to: &str| {
        if let Err(error) = settings.control.rename(from, to) {
            tracing::error!(%network, from, to, %error, "cannot rename a control socket");
        }
    };
    for other in others.iter_mut().filter(|other| other.socket == **network) {
        let socket = names::predecessor_socket(network, Some(other.hello.pid));
        rename(&other.socket, &socket);
        other.socket = socket;
    }
    rename(&serving.socket, network);
}

/// Says so if the network goes on with another number of data threads than wished, as the sockets of its proxy are for that
/// many: with others, what waits in the queues of some would be refused.
pub(super) fn note_threads(settings: &Settings, network: &Name, threads: NonZeroUsize) {
    let wished = settings.threads;
    if threads != wished {
        let until = "nothing on this node needs it any more";
        tracing::warn!(%network, threads, wished, until, "the network keeps the number of data threads that it has");
    }
}
