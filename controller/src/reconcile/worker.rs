//! The task of one network: the only one that touches it.

mod adopt;
mod build;
mod commands;
mod end;
mod exchange;
mod link;
mod pauses;
mod replace;
mod status;
mod waiters;

use super::memory::Confinement;
use super::orphans::Orphans;
use super::proxy::{Happening, Link, Proxy};
use super::published::Published;
use super::statistics::StatisticsQuestion;
use super::structure::Structure;
use super::takeover::Takeover;
use super::upgrade::{Predecessor, Successor};
use super::{Command, PrivilegeStatus, Reconcilers, Settings};
use crate::model::{Name, Network, Shared};
use futures_util::future::select_all;
use pauses::{Alarm, Attempts, Pause};
use ringlb_proxy::control::message::{Generation, Hello, Statistics};
use std::collections::VecDeque;
use std::future::pending;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use waiters::Waiter;

/// How often in a row a proxy that has not lasted is started again without a pause.
const QUICK_RESTARTS: u32 = 3;
/// The pauses before another attempt, doubled from the first to the last.
const RESTART_PAUSE: Pause = Pause { first: Duration::from_millis(100), last: Duration::from_secs(5) };
const RETRY_PAUSE: Pause = Pause { first: Duration::from_millis(200), last: Duration::from_secs(5) };
const ATTACH_PAUSE: Pause = Pause { first: Duration::from_secs(1), last: Duration::from_secs(30) };

pub(super) struct Worker {
    name: Name,
    settings: Arc<Settings>,
    commands: mpsc::UnboundedReceiver<Command>,
    reconcilers: Reconcilers,
    /// What should be.
    wish: Option<Shared<Network>>,
    /// Those who wait for it, in the order in which they came.
    waiting: VecDeque<Waiter>,
    structure: Option<Structure>,
    proxy: Option<Proxy>,
    published: Published,
    /// A proxy that is to take the place of the one that runs.
    successor: Option<Successor>,
    /// The proxies that were replaced and have connections yet, the oldest first.
    predecessors: Vec<Predecessor>,
    /// What proxies have counted that were replaced and have ended.
    past: Statistics,
    /// Why the last attempt to replace the proxy came to nothing.
    upgrade_error: Option<String>,
    /// Whether the proxy may be of another build of its program, or have other settings, as an earlier daemon has started it.
    outdated: bool,
    /// The proxies of an earlier daemon that may serve the network, until they have been met. Nothing is done before.
    meeting: Option<oneshot::Receiver<Orphans>>,
    /// The same, from then on until they are taken over.
    orphans: Orphans,
    /// Whether something of an earlier daemon may be in the place of what is not needed.
    unexplored: bool,
    /// The newest state of the network that a proxy was asked to take.
    sent: Option<Shared<Network>>,
    /// The newest generation that a proxy has acknowledged.
    acknowledged: Generation,
    /// The newest state of the network that the running proxy has acknowledged.
    serving: Option<Shared<Network>>,
    takeover: Takeover,
    restarts: u64,
    /// How the last one ended that did so by itself.
    last_end: Option<String>,
    confinement: Confinement,
    /// What the running one may do, once it has said something.
    privileges: Option<PrivilegeStatus>,
    /// What a running proxy has said about itself.
    greeting: Option<Hello>,
    /// How many data threads its proxies have: as many as its sockets were made for.
    threads: NonZeroUsize,
    /// How often in a row a proxy ended soon after its start, and when the next may start.
    restart: Attempts,
    /// The same for the making of the structure, for attachments, and for published ports.
    building: Attempts,
    attaching: Attempts,
    publishing: Attempts,
    /// What went wrong last and is not mended.
    error: Option<String>,
    statistics: StatisticsQuestion,
    alarm: Alarm,
}

enum Event {
    Command(Option<Command>),
    /// Of the proxy that serves.
    Proxy(Happening),
    Successor(Happening),
    /// Of the one in that place.
    Predecessor(usize, Happening),
    /// The proxies of an earlier daemon have been met.
    Met(Box<Orphans>),
    Deadline,
}

#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Worker {
    pub(super) fn new(
        name: Name,
        settings: Arc<Settings>,
        commands: mpsc::UnboundedReceiver<Command>,
        reconcilers: Reconcilers,
        meeting: Option<oneshot::Receiver<Orphans>>,
    ) -> Self {
        Self {
            threads: settings.threads,
            name,
            settings,
            commands,
            reconcilers,
            wish: None,
            waiting: VecDeque::new(),
            structure: None,
            proxy: None,
            published: Published::default(),
            successor: None,
            predecessors: Vec::new(),
            past: Statistics::default(),
            upgrade_error: None,
            outdated: false,
            meeting,
            orphans: Orphans::default(),
            unexplored: true,
            sent: None,
            acknowledged: 0,
            serving: None,
            takeover: Takeover::default(),
            restarts: 0,
            last_end: None,
            confinement: Confinement::default(),
            privileges: None,
            greeting: None,
            restart: Attempts::new(RESTART_PAUSE),
            building: Attempts::new(RETRY_PAUSE),
            attaching: Attempts::new(ATTACH_PAUSE),
            publishing: Attempts::new(ATTACH_PAUSE),
            error: None,
            statistics: StatisticsQuestion::default(),
            alarm: Alarm::default(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.next_event().await {
                Event::Command(Some(command)) => {
                    if self.take_all(command).await == Next::End {
                        return;
                    }
                }
                // The list of tasks holds the other end until this task ends.
                Event::Command(None) => return,
                Event::Proxy(Happening::Said(Ok(reply))) => self.take_reply(reply),
                Event::Proxy(Happening::Said(Err(error))) => self.lost_link(&error),
                Event::Proxy(Happening::Ended(how)) => self.proxy_ended(&how),
                Event::Successor(happening) => self.successor_did(happening).await,
                Event::Predecessor(place, happening) => self.predecessor_did(place, happening),
                Event::Met(orphans) => {
                    (self.meeting, self.orphans) = (None, *orphans);
                    // What goes on after their table has been wished for by now.
                    if self.take_waiting().await == Next::End {
                        return;
                    }
                }
                Event::Deadline => {}
            }
            self.check_answer_time();
            // First: what is not to be served any more is left to IPVS before the proxy hears of it.
            self.take_over();
            self.reconcile().await;
            // Also while the network cannot be made as it should be.
            self.see_to_successor().await;
            self.see_to_predecessors().await;
            self.answer();
        }
    }

    async fn next_event(&mut self) -> Event {
        let deadline = self.deadline();
        let proxy = async {
            match &mut self.proxy {
                Some(proxy) => proxy.next_happening().await,
                None => pending().await,
            }
        };
        let successor = async {
            match &mut self.successor {
                Some(successor) => successor.proxy.next_happening().await,
                None => pending().await,
            }
        };
        let met = async {
            match &mut self.meeting {
                // There are none to be had from whoever has given the meeting up.
                Some(meeting) => meeting.await.unwrap_or_default(),
                None => pending().await,
            }
        };
        let predecessors = &mut self.predecessors;
        let predecessor = async {
            if predecessors.is_empty() {
                return pending().await;
            }
            let all = predecessors.iter_mut().map(|predecessor| Box::pin(predecessor.proxy.next_word()));
            let (happening, place, _) = select_all(all).await;
            (place, happening)
        };
        tokio::select! {
            biased;
            happening = proxy => Event::Proxy(happening),
            happening = successor => Event::Successor(happening),
            (place, happening) = predecessor => Event::Predecessor(place, happening),
            orphans = met => Event::Met(Box::new(orphans)),
            command = self.commands.recv() => Event::Command(command),
            () = self.alarm.ring_by(deadline) => Event::Deadline,
        }
    }

    /// When something is due although nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let timeout = self.settings.acknowledge_timeout;
        let waiter = self.waiting.front().map(|waiter| waiter.since + timeout);
        let proxy = match &self.proxy {
            Some(proxy) => match &proxy.link {
                Link::Broken { retry } => Some(*retry),
                link => link.asked_since().or_else(|| self.published.asked_since()).map(|since| since + timeout),
            },
            None => self.structure.as_ref().and_then(|structure| structure.sandbox.as_ref()).and(self.restart.due),
        };
        // While the making of the structure waits for its next attempt, nothing that comes after it can happen.
        let after_building = |due: Instant| self.building.due.map_or(due, |building| due.max(building));
        let rest = [proxy, self.attaching.due, self.publishing.due]
            .into_iter()
            .flatten()
            .map(after_building)
            .chain(self.building.due);
        let others = self.predecessors.iter().map(Predecessor::due).chain(self.successor_due());
        rest.chain(waiter).chain(self.takeover.due()).chain(others).min()
    }
}
