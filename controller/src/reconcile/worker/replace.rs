//! Putting another proxy in the place of the one that runs.
//!
//! The other one is started beside it, while the network's task does what else there is to do. When it greets, the rest takes a few
//! milliseconds, in which the task does nothing else: it gets the table and the sockets, and accepts connections like the
//! first one; then the first one retires, and hands its UDP sessions over. Whatever fails before that leaves the first one as
//! it was.

use super::super::orphans::Orphan;
use super::super::proxy::{Happening, Link, Proxy, TableState, build};
use super::super::structure::Place;
use super::super::upgrade::{
    Drained, MOST_DRAINING, Predecessor, START_TIMEOUT, Successor, UpgradeReply, Upgraded, await_reply, milliseconds,
};
use super::super::{ChannelError, PrivilegeStatus, Settings, Unsettled, names, totals};
use super::{RESTART_PAUSE, Worker, confine};
use crate::model::{Name, Network, Port, Shared};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use ringlb_proxy::control::message::{Duty, Hello, Reply, Request, Retired, Statistics};
use std::os::fd::{AsFd, OwnedFd};
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

    /// Puts the proxy that has greeted in the place of the one that runs.
    async fn exchange(&mut self, hello: Hello) {
        let Some(mut successor) = self.successor.take() else { return };
        let Some(wish) = self.wish.clone() else { return };
        // Both are in the network's one group as long as both live.
        let confinement = confine(&self.settings, &self.name, successor.proxy.pid).await;
        let prepared = self.prepare(&mut successor.proxy, &wish).await;
        let (ports, heir) = match prepared {
            Ok(prepared) => prepared,
            Err(reason) => {
                self.successor = Some(successor);
                return self.give_successor_up(&reason).await;
            }
        };
        let Successor { proxy: new, control, drain, waiting, .. } = successor;
        // From here on the new one serves, whatever becomes of the old one.
        let old = self.proxy.replace(new);
        let left_behind = names::predecessor_socket(&self.name, old.as_ref().and_then(|old| old.pid));
        self.rename_sockets(&left_behind);
        if let Some(place) = self.structure.as_mut().and_then(|structure| structure.sandbox.as_mut()) {
            place.control = control;
        }
        let replaced = match old {
            Some(old) => Some(self.dismiss(old, left_behind, drain, heir).await),
            // It has ended meanwhile.
            None => {
                self.tell_to_receive();
                None
            }
        };
        self.published.replaced_proxy(ports);
        self.statistics.ask_again(self.proxy.as_mut());
        self.acknowledged = self.acknowledged.max(wish.generation());
        (self.sent, self.serving) = (Some(wish.clone()), Some(wish));
        (self.error, self.upgrade_error) = (None, None);
        let upgraded = Upgraded { pid: Some(hello.pid), version: Some(hello.version.clone()), replaced };
        (self.privileges, self.confinement) = (PrivilegeStatus::of(hello.pid), confinement);
        self.greeting = Some(hello);
        tracing::info!(network = %self.name, ?upgraded, "replaced the proxy");
        for reply in waiting {
            let _ = reply.send(Ok(upgraded.clone()));
        }
    }

    /// Has the proxy retire whose place another one has taken; gives what it has left.
    async fn dismiss(
        &mut self,
        mut old: Proxy,
        socket: String,
        drain: Option<Duration>,
        heir: Option<OwnedFd>,
    ) -> Drained {
        let left = retire(&mut old, drain, heir, self.settings.acknowledge_timeout).await;
        if let Err(reason) = &left {
            tracing::error!(network = %self.name, pid = old.pid, reason, "the proxy that is replaced does not retire yet");
            old.break_link(Duration::ZERO);
            self.tell_to_receive();
        }
        let pid = old.pid;
        let mut predecessor = Predecessor::new(old, socket, drain, left.is_err());
        let retired = left.as_ref().map(|(retired, _)| *retired).unwrap_or_default();
        if let Ok((retired, counted)) = left {
            predecessor.counted = counted;
            predecessor.note(retired);
        }
        self.predecessors.push(predecessor);
        Drained {
            pid,
            connections: retired.connections,
            sessions: retired.sessions,
            sessions_handed_over: retired.handed_over,
        }
    }

    /// Gives the new proxy all that it takes to serve. Gives the ports that it serves, and the end by which it gets UDP sessions.
    async fn prepare(
        &mut self,
        new: &mut Proxy,
        wish: &Shared<Network>,
    ) -> Result<(Vec<Port>, Option<OwnedFd>), String> {
        let patience = self.settings.acknowledge_timeout;
        let broken = |error: ChannelError| error.to_string();
        let heir = match new.introduction {
            Some(_) => Some(await_sessions(new, patience).await?.0),
            None => None,
        };
        new.advance(wish).map_err(broken)?;
        let generation = wish.generation();
        let acknowledged = |reply| match reply {
            Reply::Acknowledged { generation: at } if at == generation => Ok(Ok(())),
            Reply::Refused { reason, .. } => Ok(Err(format!("it refuses the table: {reason}"))),
            other => Err(other),
        };
        await_reply(new, patience, acknowledged).await?.0?;
        let ports = self.published.served_sockets();
        let Link::Open { channel, table } = &mut new.link else { return Err("its connection is gone".to_owned()) };
        *table = TableState::At(wish.clone());
        for (port, sockets) in &ports {
            let count = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
            channel.send_with(&Request::AddPort { port: *port, sockets: count }, sockets).map_err(broken)?;
        }
        let ports: Vec<_> = ports.into_iter().map(|(port, _)| port).collect();
        for _ in &ports {
            let answered = |reply| match reply {
                Reply::Ports(_) => Ok(Ok(())),
                Reply::PortRefused { port, reason } => Ok(Err(format!("it refuses published port {port}: {reason}"))),
                other => Err(other),
            };
            await_reply(new, patience, answered).await?.0?;
        }
        Ok((ports, heir))
    }

    /// Whatever sessions have come, the proxy that serves is to receive datagrams.
    fn tell_to_receive(&mut self) {
        let Some(proxy) = &mut self.proxy else { return };
        let may_wait = proxy.introduction.is_some();
        if let Link::Open { channel, .. } = &mut proxy.link
            && may_wait
            && let Err(error) = channel.send(&Request::ReceiveDatagrams)
        {
            self.lost_link(&error);
        }
    }

    /// The names of control sockets say who serves.
    fn rename_sockets(&self, left_behind: &str) {
        let control = &self.settings.control;
        let next = names::successor_socket(&self.name);
        let renamed = control.rename(&self.name, left_behind).and_then(|()| control.rename(&next, &self.name));
        if let Err(error) = renamed {
            tracing::error!(network = %self.name, %error, "cannot rename the control sockets");
        }
    }

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
            let mut predecessor = Predecessor::new(old, socket, drain, left.is_err());
            match left {
                Ok((left, counted)) => {
                    predecessor.counted = counted;
                    predecessor.note(left);
                }
                Err(reason) => {
                    tracing::error!(network = %self.name, pid, reason, "a proxy that was replaced does not retire yet");
                }
            }
            self.predecessors.push(predecessor);
        }
        if awaits_sessions {
            self.tell_to_receive();
        }
    }

    /// Gives the proxy that waits for UDP sessions the ports that it does not have yet, so that it can answer their clients; gives
    /// the end by which it gets the sessions.
    async fn hand_ports_over(&mut self) -> Option<OwnedFd> {
        let new = self.proxy.as_mut()?;
        if let Link::Open { channel, .. } = &mut new.link {
            self.published.hand_over(channel).ok()?;
        }
        // It answers in the order in which it is asked.
        let (heir, others) = await_sessions(new, self.settings.acknowledge_timeout).await.ok()?;
        others.into_iter().for_each(|reply| self.take_reply(reply));
        Some(heir)
    }

    /// Replaces a proxy of an earlier daemon, once it has its table, if it was started from another build of the program.
    pub(super) fn replace_outdated(&mut self) {
        let Some(proxy) = self.proxy.as_ref().filter(|_| self.outdated) else { return };
        if !matches!(proxy.link, Link::Open { table: TableState::At(_), .. }) || !self.published.is_settled() {
            return;
        }
        self.outdated = false;
        let (is, was) = (build(&self.settings.proxy_program), proxy.introduction.as_ref().map(|told| &told.build));
        if self.settings.upgrade_proxies && was.is_none_or(|was| *was != is) {
            tracing::info!(network = %self.name, pid = proxy.pid, "the proxy is of another build of its program");
            self.begin_upgrade(None, None);
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

/// Has the new proxy wait for UDP sessions; gives the end for the old one.
/// And what it said meanwhile.
async fn await_sessions(new: &mut Proxy, patience: Duration) -> Result<(OwnedFd, Vec<Reply>), String> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    let (near, far) = pair.map_err(|error| format!("cannot make sockets for UDP sessions: {error}"))?;
    let Link::Open { channel, .. } = &mut new.link else { return Err("its connection is gone".to_owned()) };
    channel.send_with(&Request::AwaitSessions, &[near.as_fd()]).map_err(|error| error.to_string())?;
    drop(near);
    let introduced = |reply| match reply {
        Reply::Introduction(_) => Ok(()),
        other => Err(other),
    };
    await_reply(new, patience, introduced).await.map(|((), others)| (far, others))
}

/// Has the old proxy retire; gives what it has left, and what it has counted.
async fn retire(
    old: &mut Proxy,
    drain: Option<Duration>,
    heir: Option<OwnedFd>,
    patience: Duration,
) -> Result<(Retired, Statistics), String> {
    let Link::Open { channel, .. } = &mut old.link else { return Err("its connection is gone".to_owned()) };
    let request = Request::Retire { drain_ms: drain.map(milliseconds), hands_over: heir.is_some() };
    let sent = match &heir {
        Some(heir) => channel.send_with(&request, &[heir.as_fd()]),
        None => channel.send(&request),
    };
    sent.map_err(|error| error.to_string())?;
    drop(heir);
    let retired = |reply| match reply {
        Reply::Retired(retired) => Ok(retired),
        other => Err(other),
    };
    let (retired, mut others) = await_reply(old, patience, retired).await?;
    // One without connections ends at once: its last words are what it has counted, whether it hears the question or not.
    if let Link::Open { channel, .. } = &mut old.link {
        let _ = channel.send(&Request::Statistics);
    }
    let counted = |reply| match reply {
        Reply::Statistics(statistics) => Ok(*statistics),
        other => Err(other),
    };
    let counted = match await_reply(old, patience, counted).await {
        Ok((counted, more)) => {
            others.extend(more);
            counted
        }
        Err(reason) => {
            tracing::warn!(pid = old.pid, reason, "it is not known what a proxy has counted that was replaced");
            Statistics::default()
        }
    };
    // Its table is what was acknowledged meanwhile, or is sent anew.
    if let Link::Open { table: table @ TableState::Asked { .. }, .. } = &mut old.link
        && others.iter().any(|reply| matches!(reply, Reply::Acknowledged { .. } | Reply::Refused { .. }))
    {
        *table = TableState::Unknown;
    }
    Ok((retired, counted))
}
