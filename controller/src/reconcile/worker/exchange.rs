//! The exchange of two proxies: the one that has greeted takes the place of the one that serves.

use super::Worker;
use super::build::confine;
use crate::model::{Network, Port, Shared};
use crate::reconcile::proxy::{Link, Proxy, TableState};
use crate::reconcile::upgrade::{Drained, Predecessor, Successor, Upgraded, await_reply, milliseconds};
use crate::reconcile::{ChannelError, PrivilegeStatus, names};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use ringlb_proxy::control::message::{Hello, Reply, Request, Retired, Statistics};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

impl Worker {
    /// Puts the proxy that has greeted in the place of the one that runs.
    pub(super) async fn exchange(&mut self, hello: Hello) {
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
            self.tell_to_receive();
        }
        let pid = old.pid;
        let retired = left.as_ref().map(|(retired, _)| *retired).unwrap_or_default();
        self.predecessors.push(Predecessor::asked_to_retire(old, socket, drain, left));
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
    pub(super) fn tell_to_receive(&mut self) {
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
}

/// Has the new proxy wait for UDP sessions; gives the end for the old one, and what the new one said meanwhile.
pub(super) async fn await_sessions(new: &mut Proxy, patience: Duration) -> Result<(OwnedFd, Vec<Reply>), String> {
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
pub(super) async fn retire(
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
