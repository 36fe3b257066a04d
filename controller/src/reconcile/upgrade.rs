//! What comes of replacing a proxy, and the proxies that have been replaced.

use super::proxy::{Happening, Link, Proxy, TableState};
use super::{ChannelError, DrainingStatus, Settings, Unsettled};
use crate::model::{Name, Network, Shared};
use ringlb_proxy::control::message::{Reply, Request, Retired, Statistics};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long a proxy that was just started may take until it greets.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The most proxies of a network that have been replaced and still have connections.
pub(super) const MOST_DRAINING: usize = 32;
/// How much longer than its time one may take to end, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often one is asked for what it counts.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before another attempt to speak with it.
const RETRY: Duration = Duration::from_secs(1);

/// What came of replacing the proxy of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upgraded {
    /// The process that serves now; none if the network has no proxy on this node.
    pub pid: Option<u32>,
    /// The version of its program.
    pub version: Option<String>,
    /// The one that served before.
    pub replaced: Option<Drained>,
}

/// A proxy that was replaced, at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// Its process.
    pub pid: Option<u32>,
    /// The connections that it keeps.
    pub connections: u64,
    /// The UDP sessions that it keeps.
    pub sessions: u64,
    /// The UDP sessions that it has handed over.
    pub sessions_handed_over: u64,
}

/// Who waits for a replacement.
pub(super) type UpgradeReply = oneshot::Sender<Result<Upgraded, Unsettled>>;

/// A proxy that is to take the place of the one that runs.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) proxy: Proxy,
    /// The socket that it listens on.
    pub(super) control: OwnedFd,
    /// How long the other one has for its connections.
    pub(super) drain: Option<Duration>,
    pub(super) since: Instant,
    pub(super) waiting: Vec<UpgradeReply>,
}

/// A proxy that has been replaced.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) proxy: Proxy,
    /// The name of its control socket.
    pub(super) socket: String,
    deadline: Option<Instant>,
    /// What it is to be told, as long as it has not answered it.
    retire: bool,
    /// Whether it has done so.
    pub(super) retired: bool,
    /// What it said last that it had counted.
    pub(super) counted: Statistics,
    asked: Option<Instant>,
    look: Instant,
}

impl Predecessor {
    /// One that has so long from now on. With `retire` it does not know yet.
    pub(super) fn new(mut proxy: Proxy, socket: String, drain: Option<Duration>, retire: bool) -> Self {
        let now = Instant::now();
        proxy.forget_table();
        let deadline = drain.and_then(|drain| now.checked_add(drain));
        Self {
            proxy,
            socket,
            deadline,
            retire,
            retired: !retire,
            counted: Statistics::default(),
            asked: None,
            look: now,
        }
    }

    /// The same of one that was asked to retire, with what came of that: what it has left, and what it has counted. One that did
    /// not answer is spoken with anew, as an answer that comes late would be taken for another one's.
    pub(super) fn asked_to_retire(
        mut proxy: Proxy,
        socket: String,
        drain: Option<Duration>,
        left: Result<(Retired, Statistics), String>,
    ) -> Self {
        if left.is_err() {
            proxy.break_link(Duration::ZERO);
        }
        let mut predecessor = Self::new(proxy, socket, drain, left.is_err());
        if let Ok((retired, counted)) = left {
            predecessor.counted = counted;
            predecessor.note(retired);
        }
        predecessor
    }

    /// When something is due although nothing happens.
    pub(super) fn due(&self) -> Instant {
        let link = match &self.proxy.link {
            Link::Broken { retry } => *retry,
            Link::Greeting { .. } | Link::Open { .. } => self.look,
        };
        self.deadline.map_or(link, |deadline| link.min(deadline + GRACE))
    }

    /// Does what is due: speaks with it again, leads its table to that of `wish`, asks what it counts, and kills it if it does not
    /// end in its time.
    pub(super) async fn see_to(&mut self, settings: &Settings, network: &Name, wish: &Shared<Network>) {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline + GRACE <= now) {
            tracing::error!(%network, pid = self.proxy.pid, "a proxy that was replaced does not end in time, killing it");
            if let Err(error) = self.proxy.process.kill().await {
                tracing::error!(%network, pid = self.proxy.pid, %error, "cannot kill it");
            }
            self.deadline = Some(now + GRACE);
            return;
        }
        if self.proxy.connect(settings, &self.socket).is_err() {
            return;
        }
        if self.speak(now, wish).is_err() {
            self.proxy.lost_link(RETRY);
        }
    }

    fn speak(&mut self, now: Instant, wish: &Shared<Network>) -> Result<(), ChannelError> {
        self.proxy.advance(wish)?;
        let is_due = self.look <= now;
        if is_due {
            self.look = now + LOOK;
        }
        let Link::Open { channel, .. } = &mut self.proxy.link else { return Ok(()) };
        if std::mem::take(&mut self.retire) {
            let drain = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
            channel.send(&Request::Retire { drain_ms: drain.map(milliseconds), hands_over: false })?;
        }
        if is_due && self.asked.is_none() {
            self.asked = Some(now);
            channel.send(&Request::Statistics)?;
        }
        Ok(())
    }

    /// Takes what it does; true if it has ended.
    pub(super) fn take(&mut self, network: &Name, happening: Happening) -> bool {
        let said = match happening {
            Happening::Ended(how) => {
                tracing::info!(%network, pid = self.proxy.pid, how, "a proxy that was replaced has ended");
                return true;
            }
            Happening::Said(Err(error)) => {
                if !self.proxy.lost_link(RETRY) && !matches!(error, ChannelError::Closed) {
                    tracing::warn!(%network, pid = self.proxy.pid, %error, "a proxy that was replaced cannot be heard");
                }
                self.asked = None;
                return false;
            }
            Happening::Said(Ok(said)) => said,
        };
        if matches!(said, Reply::Hello(_) | Reply::Introduction(_)) {
            if self.proxy.greeted(said, None).is_err() {
                self.proxy.break_link(RETRY);
            }
            return false;
        }
        match (said, &mut self.proxy.link) {
            (Reply::Statistics(statistics), _) => {
                self.counted = *statistics;
                self.asked = None;
            }
            (Reply::Retired(left), _) => self.note(left),
            (Reply::Acknowledged { generation }, Link::Open { table, .. }) => {
                if let TableState::Asked { to, .. } = table
                    && to.generation() == generation
                {
                    *table = TableState::At(to.clone());
                }
            }
            (Reply::Refused { reason, .. }, Link::Open { table, .. }) => {
                if let TableState::Asked { to, whole, .. } = table {
                    tracing::warn!(%network, pid = self.proxy.pid, reason, "a proxy that was replaced refuses a table");
                    *table = if *whole { TableState::At(to.clone()) } else { TableState::Unknown };
                }
            }
            _ => {}
        }
        false
    }

    /// Takes note of what it still has.
    pub(super) fn note(&mut self, left: Retired) {
        self.retired = true;
        self.counted.proxy.active = left.connections;
        self.counted.datagrams.active = left.sessions;
    }

    pub(super) fn status(&self) -> DrainingStatus {
        let left = |deadline: Instant| milliseconds(deadline.saturating_duration_since(Instant::now()));
        DrainingStatus {
            pid: self.proxy.pid,
            connections: self.counted.proxy.active,
            sessions: self.counted.datagrams.active,
            deadline_in_ms: self.deadline.map(left),
        }
    }
}

/// Waits for the reply that is asked for; whatever else comes is given to `other`.
pub(super) async fn await_reply<T>(
    proxy: &mut Proxy,
    patience: Duration,
    mut wanted: impl FnMut(Reply) -> Result<T, Reply>,
) -> Result<(T, Vec<Reply>), String> {
    let mut others = Vec::new();
    let waiting = async {
        loop {
            match proxy.next_word().await {
                Happening::Ended(how) => return Err(format!("it ended: {how}")),
                Happening::Said(Err(error)) => return Err(error.to_string()),
                Happening::Said(Ok(said)) => match wanted(said) {
                    Ok(wanted) => return Ok(wanted),
                    Err(other) => others.push(other),
                },
            }
        }
    };
    let result = timeout(patience, waiting).await;
    let late = || Err(format!("it does not answer within {} s", patience.as_secs_f64()));
    result.unwrap_or_else(|_| late()).map(|reply| (reply, others))
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
