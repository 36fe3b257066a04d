//! What goes to the proxy, what comes from it, and what becomes of the connection.

use super::{QUICK_RESTARTS, RESTART_PAUSE, Worker};
use crate::model::{Network, Shared};
use crate::reconcile::proxy::{Link, Proxy, TableState};
use crate::reconcile::structure::Structure;
use crate::reconcile::takeover::served;
use crate::reconcile::{ChannelError, PrivilegeStatus, totals};
use ringlb_proxy::control::message::{Generation, Protocol, Reply, Request};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    /// Sends the one request that leads the proxy's table to the wish, unless an earlier one is not answered yet; before it
    /// what is to be said of ports that go, behind it what is to be said of those that come.
    pub(super) fn send_table(&mut self, wish: &Shared<Network>) {
        self.await_busy_sessions();
        let Some(proxy) = &mut self.proxy else { return };
        let Link::Open { channel, table } = &mut proxy.link else { return };
        if matches!(table, TableState::Asked { .. } | TableState::Listing { .. }) {
            return;
        }
        let mut sent = self.published.withdraw(channel);
        if sent.is_ok() {
            sent = proxy.advance(wish).map(|asked| {
                if asked {
                    self.sent = Some(wish.clone());
                }
            });
        }
        if let (Ok(()), Link::Open { channel, table }) = (&sent, &mut proxy.link)
            && !matches!(table, TableState::Listing { .. })
        {
            sent = self.published.hand_over(channel);
        }
        if let Err(error) = sent {
            self.lost_link(&error);
        }
    }

    /// Asks the proxy to say when it has UDP sessions that should go past it, where the network's ports have programs for that.
    fn await_busy_sessions(&mut self) {
        if !self.structure.as_ref().is_some_and(Structure::has_shortcuts) {
            return;
        }
        let Some(proxy) = self.proxy.as_mut().filter(|proxy| !proxy.awaits_busy_sessions) else { return };
        let Link::Open { channel, .. } = &mut proxy.link else { return };
        // Whoever cannot introduce himself does not know of it.
        if proxy.introduction.is_none() {
            return;
        }
        match channel.send(&Request::AwaitBusySessions) {
            Ok(()) => proxy.awaits_busy_sessions = true,
            Err(error) => self.lost_link(&error),
        }
    }

    /// Gives the proxy the map by which its busy UDP sessions, or its busy connections, go past it.
    fn hand_map_over(&mut self, protocol: Protocol) {
        let map = self.structure.as_ref().and_then(|structure| structure.passing_map(&self.name, protocol));
        let (Some(map), Some(Proxy { link: Link::Open { channel, .. }, .. })) = (map, &mut self.proxy) else { return };
        if let Err(error) = channel.send_with(&Request::PassSessions(protocol), &[map.as_fd()]) {
            self.lost_link(&error);
        }
    }

    /// Has no UDP sessions go past a proxy that has ended.
    pub(super) fn forget_sessions(&self) {
        if let Some(structure) = &self.structure {
            structure.forget_sessions(&self.name);
        }
    }

    /// Serves in the place of IPVS what the proxy serves.
    pub(super) fn take_over(&mut self) {
        let Some(place) = self.structure.as_ref().and_then(|structure| structure.sandbox.as_ref()) else { return };
        let namespace = place.sandbox.namespace();
        let wish = self.wish.as_ref().filter(|wish| wish.observed_sandbox().is_some_and(|sandbox| sandbox.takeover));
        let Some(wish) = wish else { return self.takeover.end(&self.name, namespace) };
        match &self.proxy {
            Some(Proxy { link: Link::Open { .. }, .. }) | None => {
                self.takeover.serve(&self.name, namespace, served(wish, self.serving.as_ref()));
            }
            // It is alive, and may serve or not.
            Some(_) => self.takeover.pause(),
        }
    }

    pub(super) fn take_reply(&mut self, reply: Reply) {
        match reply {
            said @ (Reply::Hello(_) | Reply::Introduction(_)) => self.take_greeting(said),
            Reply::Acknowledged { generation } => self.table_is_at(generation),
            Reply::Refused { generation, reason } => self.table_refused(generation, &reason),
            Reply::Statistics(statistics) => {
                let mut total = *statistics;
                totals::add(&mut total, &self.past);
                self.predecessors.iter().for_each(|other| totals::add(&mut total, &other.counted));
                self.statistics.answer(&total);
            }
            Reply::Ports(ports) => self.published.served(&ports),
            Reply::PortRefused { port, reason } => {
                self.published.refused(&self.name, port, &reason);
                self.publishing.failed();
            }
            Reply::Digests(known) => {
                if let Some(Proxy { link: Link::Open { table: table @ TableState::Listing { .. }, .. }, .. }) =
                    &mut self.proxy
                {
                    *table = TableState::Listed(known);
                }
            }
            Reply::SessionsAreBusy(protocol) => self.hand_map_over(protocol),
            Reply::Descriptors { .. } | Reply::Retired(_) => {}
        }
    }

    fn take_greeting(&mut self, said: Reply) {
        let Some(proxy) = &mut self.proxy else { return };
        let hello = match proxy.greeted(said, self.sent.as_ref()) {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(error) => return self.lost_link(&error),
        };
        if hello.network != *self.name {
            let reason = format!("the control socket is answered by a proxy of network `{}`", hello.network);
            return self.distrust(reason);
        }
        if let Some(proxy) = &mut self.proxy {
            if let Link::Open { table: TableState::At(network), .. } = &proxy.link {
                self.serving = Some(network.clone());
            }
            if let Some(generation) = proxy.acknowledged() {
                self.acknowledged = self.acknowledged.max(generation);
                self.error = None;
            }
        }
        self.privileges = self.proxy.as_ref().and_then(|proxy| PrivilegeStatus::of(proxy.pid?));
        self.greeting = Some(hello);
    }

    fn table_is_at(&mut self, generation: Generation) {
        let Some(Proxy { link: Link::Open { table, .. }, .. }) = &mut self.proxy else { return };
        match table {
            TableState::Asked { to, .. } if to.generation() == generation => {
                self.acknowledged = self.acknowledged.max(generation);
                self.serving = Some(to.clone());
                *table = TableState::At(to.clone());
                self.error = None;
            }
            _ => self.distrust(format!("the proxy acknowledged generation {generation}, which was not asked for")),
        }
    }

    fn table_refused(&mut self, generation: Generation, reason: &str) {
        let Some(Proxy { link: Link::Open { table, .. }, .. }) = &mut self.proxy else { return };
        match table {
            // An earlier request that was taken for lost has arrived after all.
            TableState::Asked { to, .. } if to.generation() == generation => self.table_is_at(generation),
            TableState::Asked { whole: false, .. } => {
                tracing::warn!(network = %self.name, generation, reason, "the proxy refused a change, sending the whole table");
                *table = TableState::Unknown;
            }
            _ => self.distrust(format!("the proxy refused its table: {reason}")),
        }
    }

    /// Gives the control connection up and begins anew after a pause.
    fn distrust(&mut self, reason: String) {
        tracing::error!(network = %self.name, "{reason}");
        if let Some(proxy) = &mut self.proxy {
            proxy.break_link(RESTART_PAUSE.last);
        }
        self.published.lost_link();
        self.statistics.forget();
        self.fail_all(&reason);
        self.error = Some(reason);
    }

    pub(super) fn lost_link(&mut self, error: &ChannelError) {
        // A proxy that ends closes the connection first: its end is the news then.
        if !matches!(error, ChannelError::Closed) {
            tracing::warn!(network = %self.name, %error, "the control connection is lost");
        }
        if let Some(proxy) = &mut self.proxy
            && proxy.lost_link(RESTART_PAUSE.first)
        {
            tracing::info!(network = %self.name, pid = proxy.pid, "the proxy speaks the version before of the control protocol");
        }
        self.published.lost_link();
        self.statistics.forget();
        if matches!(error, ChannelError::Frame(_)) {
            self.error = Some(error.to_string());
        }
    }

    pub(super) fn proxy_ended(&mut self, how: &str) {
        let Some(proxy) = self.proxy.take() else { return };
        if !proxy.has_lasted() {
            self.restart.failed();
            // The first ones may be chance, and every connection to the network waits meanwhile.
            if self.restart.count <= QUICK_RESTARTS {
                self.restart.due = Some(Instant::now());
            }
        } else {
            self.restart.succeeded();
        }
        self.forget_sessions();
        let how = match self.settings.memory.reason_of_end(&self.name, &self.confinement) {
            Some(reason) => format!("{how}: {reason}"),
            None => how.to_owned(),
        };
        self.restarts += 1;
        self.serving = None;
        self.greeting = None;
        self.privileges = None;
        self.published.lost_proxy();
        self.statistics.forget();
        tracing::error!(network = %self.name, pid = proxy.pid, how, "the proxy ended by itself, starting it again");
        self.error = Some(format!("the proxy ended: {how}"));
        self.last_end = Some(how);
    }

    /// Begins a new control connection if the proxy has not answered in time: whatever has become of the last request,
    /// the greeting tells.
    pub(super) fn check_answer_time(&mut self) {
        let timeout = self.settings.acknowledge_timeout;
        let Some(proxy) = &mut self.proxy else { return };
        if matches!(proxy.link, Link::Broken { .. }) {
            return;
        }
        let Some(asked) = proxy.link.asked_since().or_else(|| self.published.asked_since()) else { return };
        if asked.elapsed() >= timeout {
            tracing::error!(network = %self.name, pid = proxy.pid, ?timeout, "the proxy does not answer");
            self.error = Some("the proxy does not answer".to_owned());
            self.statistics.forget();
            self.published.lost_link();
            proxy.break_link(Duration::ZERO);
            // Nor does it move sessions whose backend was removed.
            self.forget_sessions();
        }
    }
}
