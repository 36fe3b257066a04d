//! The task of one network: the only one that touches it.

mod replace;

use super::memory::Confinement;
use super::orphans::Orphans;
use super::proxy::{Happening, Link, Proxy, TableState};
use super::published::Published;
use super::statistics::StatisticsQuestion;
use super::structure::{Structure, remove_leftovers};
use super::takeover::{Takeover, served};
use super::upgrade::{Predecessor, Successor};
use super::{
    ChannelError, Command, Concern, NetworkStatus, PrivilegeStatus, ProxyStatus, Reconcilers, SandboxStatus, Settings,
    Unsettled, totals,
};
use crate::model::{Name, Network, Port, Shared};
use futures_util::future::select_all;
use replace::name_sockets;
use ringlb_proxy::control::message::{Generation, Hello, Reply, Statistics};
use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep, sleep_until};

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
    /// Whether the proxy may be of another build of its program, as an earlier daemon has started it.
    outdated: bool,
    /// The proxies of an earlier daemon that serve the network, until they are taken over.
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

struct Waiter {
    since: Instant,
    generation: Generation,
    concern: Concern,
    /// Whether no attempt to make what it waits for was made yet.
    fresh: bool,
    reply: oneshot::Sender<Result<Generation, Unsettled>>,
}

enum Event {
    Command(Option<Command>),
    /// Of the proxy that serves.
    Proxy(Happening),
    Successor(Happening),
    /// Of the one in that place.
    Predecessor(usize, Happening),
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
        orphans: Orphans,
    ) -> Self {
        Self {
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
            orphans,
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
            alarm: Alarm(None),
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
                Link::Greeting { since, .. } | Link::Open { table: TableState::Asked { since, .. }, .. } => {
                    Some(*since + timeout)
                }
                Link::Open { .. } => self.published.asked_since().map(|since| since + timeout),
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

    /// Takes a command and all that have come behind it, so that one step serves them all.
    async fn take_all(&mut self, first: Command) -> Next {
        let mut next = Ok(first);
        while let Ok(command) = next {
            if self.take(command).await == Next::End {
                return Next::End;
            }
            next = self.commands.try_recv();
        }
        Next::GoOn
    }

    async fn take(&mut self, command: Command) -> Next {
        match command {
            Command::Wish { network, concern, reply } => {
                let (since, generation) = (Instant::now(), network.generation());
                self.waiting.push_back(Waiter { since, generation, concern, fresh: true, reply });
                let before = self.wish.as_ref().and_then(|wish| wish.observed_sandbox());
                if before != network.observed_sandbox() {
                    // What failed in the sandbox that was says nothing of the one that is.
                    self.building.succeeded();
                    self.restart.succeeded();
                }
                self.wish = Some(network);
            }
            Command::Remove { reply } => {
                let last = self.wish.as_ref().map_or(0, |wish| wish.generation());
                self.take_down().await;
                // Nobody may care any more.
                let _ = reply.send(Ok(last));
                for waiter in self.waiting.drain(..) {
                    let _ = waiter.reply.send(Err(Unsettled::Removed { network: self.name.clone() }));
                }
                tracing::info!(network = %self.name, "removed the network");
                self.acknowledged = 0;
                if self.reconcilers.forget(&self.name, &self.commands) {
                    return Next::End;
                }
            }
            Command::Status { reply } => {
                let statistics = self.statistics.ask(self.proxy.as_mut());
                let _ = reply.send((self.status(), statistics));
            }
            Command::Upgrade { drain, reply } => self.begin_upgrade(drain, Some(reply)),
            Command::Stop { keep, reply } => {
                if keep {
                    self.give_successor_up("the daemon ends").await;
                } else {
                    self.take_down().await;
                }
                let _ = reply.send(());
                return Next::End;
            }
        }
        Next::GoOn
    }

    /// Makes what is missing, removes what is too much, and sends the table, if it is time for it.
    async fn reconcile(&mut self) {
        let Some(wish) = self.wish.clone() else { return };
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
            self.published.close();
            self.publishing.succeeded();
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
            match structure.adopt(&self.settings, wish, lb_address, &mut orphan).await {
                Ok(()) => {
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
        if wish.observed_sandbox().is_some_and(|sandbox| sandbox.takeover) {
            self.published.want_nothing();
        } else {
            self.published.want(wish);
        }
        self.published.open(
            &self.name,
            self.settings.threads,
            self.publishing.due.is_some() && self.publishing.is_due(),
        );
        if self.published.failed().is_empty() {
            self.publishing.succeeded();
        } else if self.publishing.is_due() {
            self.publishing.failed();
        }
        let place = structure
            .make_sandbox(&self.settings, wish, lb_address)
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

    /// Sends the one request that leads the proxy's table to the wish, unless an earlier one is not answered yet; before it
    /// what is to be said of ports that go, behind it what is to be said of those that come.
    fn send_table(&mut self, wish: &Shared<Network>) {
        let Some(proxy) = &mut self.proxy else { return };
        let Link::Open { channel, table } = &mut proxy.link else { return };
        if matches!(table, TableState::Asked { .. }) {
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
        if let (Ok(()), Link::Open { channel, .. }) = (&sent, &mut proxy.link) {
            sent = self.published.hand_over(channel);
        }
        if let Err(error) = sent {
            self.lost_link(&error);
        }
    }

    /// Serves in the place of IPVS what the proxy serves.
    fn take_over(&mut self) {
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

    fn take_reply(&mut self, reply: Reply) {
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

    fn lost_link(&mut self, error: &ChannelError) {
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

    fn proxy_ended(&mut self, how: &str) {
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
    fn check_answer_time(&mut self) {
        let timeout = self.settings.acknowledge_timeout;
        let Some(proxy) = &mut self.proxy else { return };
        let asked = match &proxy.link {
            Link::Greeting { since, .. } | Link::Open { table: TableState::Asked { since, .. }, .. } => *since,
            Link::Open { .. } => match self.published.asked_since() {
                Some(since) => since,
                None => return,
            },
            Link::Broken { .. } => return,
        };
        if asked.elapsed() >= timeout {
            tracing::error!(network = %self.name, pid = proxy.pid, ?timeout, "the proxy does not answer");
            self.error = Some("the proxy does not answer".to_owned());
            self.statistics.forget();
            self.published.lost_link();
            proxy.break_link(Duration::ZERO);
        }
    }

    /// Tells those who wait what there is to tell.
    fn answer(&mut self) {
        let Some(wish) = &self.wish else { return };
        if let Some(structure) = &self.structure {
            let failed = structure.failed_attachments();
            if !failed.is_empty() {
                fail(&mut self.waiting, &self.name, |waiter| match &waiter.concern {
                    Concern::Table | Concern::Service(_) => None,
                    Concern::Attachment(name) => {
                        failed.get(name).map(|reason| format!("attachment `{name}`: {reason}"))
                    }
                    Concern::Everything => {
                        failed.iter().next().map(|(name, reason)| format!("attachment `{name}`: {reason}"))
                    }
                });
            }
        }
        let failed = self.published.failed();
        if !failed.is_empty() {
            let reason = |port: &Port| failed.get(port).map(|reason| format!("published port {port}: {reason}"));
            fail(&mut self.waiting, &self.name, |waiter| match &waiter.concern {
                Concern::Table | Concern::Attachment(_) => None,
                Concern::Service(name) => {
                    let mut ports = wish.services().get(name)?.published.iter();
                    ports.find_map(|port| reason(&port.published))
                }
                Concern::Everything => failed.keys().next().and_then(reason),
            });
        }
        let settled = if wish.lb_address().is_none() {
            wish.generation()
        } else if self.published.is_settled() {
            self.acknowledged
        } else {
            0
        };
        let timeout = self.settings.acknowledge_timeout;
        while let Some(waiter) = self.waiting.pop_front() {
            // A caller that has gone away is told all the same: it costs nothing.
            let _ = if waiter.generation <= settled {
                waiter.reply.send(Ok(settled))
            } else if waiter.since.elapsed() >= timeout {
                let (network, last_error) = (self.name.clone(), self.error.clone());
                waiter.reply.send(Err(Unsettled::Late { network, generation: waiter.generation, timeout, last_error }))
            } else {
                self.waiting.push_front(waiter);
                break;
            };
        }
        for waiter in self.waiting.iter_mut().rev().take_while(|waiter| waiter.fresh) {
            waiter.fresh = false;
        }
    }

    fn fail_all(&mut self, reason: &str) {
        fail(&mut self.waiting, &self.name, |_| Some(reason.to_owned()));
    }

    fn status(&self) -> NetworkStatus {
        let place = self.structure.as_ref().and_then(|structure| structure.sandbox.as_ref());
        let sandbox = place.map(|place| SandboxStatus {
            namespace: place.namespace(),
            lb_address: place.lb_address,
            steering: place.steered.steering.kind().to_string(),
            takeover: self
                .wish
                .as_ref()
                .and_then(|wish| wish.observed_sandbox())
                .filter(|sandbox| sandbox.takeover)
                .map(|_| self.takeover.status()),
        });
        let proxy = place.map(|_| ProxyStatus {
            pid: self.proxy.as_ref().and_then(|proxy| proxy.pid),
            restarts: self.restarts,
            last_end: self.last_end.clone(),
            quick_ends: if self.proxy.as_ref().is_some_and(Proxy::has_lasted) { 0 } else { self.restart.count },
            starts_in_ms: self.starts_in().map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            privileges: self.privileges.clone(),
            memory: self.settings.memory.status(&self.name, &self.confinement),
            version: self.greeting.as_ref().map(|hello| hello.version.clone()),
            features: self.greeting.as_ref().map(|hello| hello.features.clone()),
            upgrade_error: self.upgrade_error.clone(),
        });
        let failed = self.structure.as_ref().map(Structure::failed_attachments);
        NetworkStatus {
            acknowledged_generation: match (&self.wish, place) {
                (Some(wish), None) if wish.lb_address().is_none() => wish.generation(),
                _ => self.acknowledged,
            },
            sandbox,
            proxy,
            draining: self.predecessors.iter().map(Predecessor::status).collect(),
            failed_attachments: failed
                .into_iter()
                .flatten()
                .map(|(name, reason)| (name.to_string(), reason.clone()))
                .collect(),
            failed_ports: self.published.failures(),
            error: self.error.clone(),
        }
    }

    /// How long it is until the next proxy is started, while there is none.
    fn starts_in(&self) -> Option<Duration> {
        let due = self.restart.due.filter(|_| self.proxy.is_none())?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    async fn stop_proxy(&mut self) {
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
        (self.outdated, self.upgrade_error) = (false, None);
        self.sent = None;
        self.greeting = None;
        self.privileges = None;
        self.published.lost_proxy();
        self.error = None;
        self.statistics.forget();
        self.restart.succeeded();
    }

    async fn remove_structure(&mut self) {
        self.stop_proxy().await;
        if let Some(structure) = self.structure.take() {
            structure.remove(&self.settings, &self.name).await;
        }
        self.attaching.succeeded();
    }

    async fn end_orphans(&mut self, reason: &str) {
        let orphans = std::mem::take(&mut self.orphans);
        if !orphans.is_empty() {
            end_orphans(&self.name, orphans, reason).await;
        }
    }

    /// Removes what an earlier daemon has left behind of a network of which nothing is needed.
    async fn remove_leftovers(&mut self) {
        if std::mem::replace(&mut self.unexplored, false) {
            remove_leftovers(&self.settings, &self.name).await;
        }
    }

    async fn take_down(&mut self) {
        self.end_orphans("nobody wishes for its network").await;
        self.remove_structure().await;
        self.remove_leftovers().await;
        self.published.close();
        self.publishing.succeeded();
        self.wish = None;
        self.building.succeeded();
        self.error = None;
    }
}

/// Puts a proxy into its control group, beside the thread that makes changes: the kernel takes its time for that.
async fn confine(settings: &Arc<Settings>, network: &Name, pid: Option<u32>) -> Confinement {
    let (settings, network) = (Arc::clone(settings), network.clone());
    // It has nothing that panics.
    spawn_blocking(move || settings.memory.confine(&network, pid)).await.unwrap_or_default()
}

async fn end_orphans(network: &Name, orphans: Orphans, reason: &str) {
    let pid = orphans.serving.as_ref().map(|orphan| orphan.hello.pid);
    tracing::info!(%network, pid, reason, "ending the proxies of an earlier daemon");
    if let Err(error) = orphans.end(network).await {
        tracing::error!(%network, pid, error, "cannot end a proxy of an earlier daemon");
    }
}

/// Answers those waiters for which there is a reason why what they wait for has failed.
fn fail(waiting: &mut VecDeque<Waiter>, name: &Name, reason: impl Fn(&Waiter) -> Option<String>) {
    let mut kept = VecDeque::with_capacity(waiting.len());
    for waiter in waiting.drain(..) {
        match reason(&waiter).filter(|_| waiter.fresh) {
            Some(reason) => {
                let _ = waiter.reply.send(Err(Unsettled::Failed { network: name.clone(), reason }));
            }
            None => kept.push_back(waiter),
        }
    }
    *waiting = kept;
}

/// A timer that is set again only to ring earlier. It may ring too early, but never late.
///
/// Setting a timer to ring before all others costs a system call: the runtime's thread could be waiting for a later one.
/// Deadlines that move on with each change would cost one with each change.
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    async fn ring_by(&mut self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            match &mut self.0 {
                Some(set) if set.deadline() <= deadline => {}
                Some(set) => set.as_mut().reset(deadline),
                None => self.0 = Some(Box::pin(sleep_until(deadline))),
            }
        }
        match &mut self.0 {
            Some(set) => set.as_mut().await,
            None => pending().await,
        }
        self.0 = None;
    }
}

/// A pause that grows.
#[derive(Clone, Copy)]
struct Pause {
    first: Duration,
    last: Duration,
}

/// Attempts at something that fails, with growing pauses between them.
struct Attempts {
    pause: Pause,
    count: u32,
    /// When the next one is due; none while the last one has not failed.
    due: Option<Instant>,
}

impl Attempts {
    fn new(pause: Pause) -> Self {
        Self { pause, count: 0, due: None }
    }

    fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    fn failed(&mut self) {
        let pause = self.pause.first.saturating_mul(1 << self.count.min(16)).min(self.pause.last);
        self.count = self.count.saturating_add(1);
        self.due = Some(Instant::now() + pause);
    }

    fn succeeded(&mut self) {
        self.count = 0;
        self.due = None;
    }
}
