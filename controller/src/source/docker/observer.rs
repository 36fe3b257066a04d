//! The one task that observes: it decides when to look where, and says what has come of it.

use super::changes::log_changes;
use super::connection::{self, Contact};
use super::engine::{ContainerAction, Engine, EngineError, Happening};
use super::facts::Facts;
use super::ipvs::Ipvs;
use super::look::{BURST, Look};
use super::names::{Answers, Asker};
use super::state::{Outcome, State};
use super::view::{Cluster, InspectedNetwork, ListedNetwork, Node};
use super::watch::DirectoryWatch;
use super::{EngineStatus, NAME, Options, sandbox_files};
use crate::model::ObservedNetwork;
use crate::source::Desired;
use crate::source::status::{RefusedNetwork, SharedStatus};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

/// How often all is looked at where no event tells of other nodes' changes: each look costs a line in the Engine's log.
const SLOW_POLL: Duration = Duration::from_secs(2);

/// The same where a manager tells what changes.
const SLOWEST_POLL: Duration = Duration::from_secs(10);

/// How often a manager is asked while a service may be changing: nothing tells of a task on another node.
const BUSY_POLL: Duration = Duration::from_millis(250);

/// For how long that is after the last sign of a change.
const BUSY: Duration = Duration::from_secs(30);

/// How often the sandboxes' files are looked at; what is mounted over them shows no event.
const SANDBOX_POLL: Duration = Duration::from_millis(500);

/// The same just after one has come or gone.
const SANDBOX_HURRY: Duration = Duration::from_millis(5);

/// For how long that is.
const SANDBOX_HURRIED: Duration = Duration::from_secs(1);

/// How long the first round may take before what is known is said.
const FIRST_ROUND: Duration = Duration::from_secs(3);

/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The label by which the Engine names the service that a container is a task of.
const SERVICE_OF_TASK: &str = "com.docker.swarm.service.name";

/// How the Engine labels a task's container with the task's id.
const TASK: &str = "com.docker.swarm.task.id";

/// What a call to the Engine has brought.
enum Report {
    Node(Result<Node, EngineError>),
    Networks(Result<Vec<ListedNetwork>, EngineError>),
    Inspected(String, Instant, Result<Option<InspectedNetwork>, EngineError>),
    Cluster(Instant, Result<Cluster, EngineError>),
}

/// The task's own.
pub(super) struct Observer {
    options: Options,
    desired: Arc<Desired>,
    feed: watch::Receiver<Option<Arc<Facts>>>,
    status: SharedStatus,
    node_sender: watch::Sender<Option<Arc<Node>>>,
    facts_sender: watch::Sender<Arc<Facts>>,
    reports: mpsc::UnboundedSender<Report>,
    answers: mpsc::UnboundedSender<Answers>,
    state: State,
    engine: Option<Engine>,
    node: Option<Arc<Node>>,
    met: Option<Instant>,
    node_look: Look,
    networks_look: Look,
    cluster_look: Look,
    inspections: BTreeMap<String, Look>,
    directory: Option<PathBuf>,
    directory_watch: Option<DirectoryWatch>,
    sandboxes_due: Instant,
    sandboxes_hurried: Instant,
    busy: Option<Instant>,
    askers: HashMap<String, Asker>,
    listed: bool,
    /// Whether a manager has answered since the Engine was met, or cannot.
    cluster_known: bool,
    first_round: bool,
    derive_due: Option<Instant>,
    said: Option<Vec<ObservedNetwork>>,
    refused: Vec<(String, String)>,
    ipvs: Ipvs,
}

impl Observer {
    pub(super) fn new(
        options: Options,
        desired: Arc<Desired>,
        feed: watch::Receiver<Option<Arc<Facts>>>,
        status: SharedStatus,
        node_sender: watch::Sender<Option<Arc<Node>>>,
        facts_sender: watch::Sender<Arc<Facts>>,
    ) -> Self {
        let now = Instant::now();
        let (reports, _) = mpsc::unbounded_channel();
        let (answers, _) = mpsc::unbounded_channel();
        Self {
            options,
            desired,
            feed,
            status,
            node_sender,
            facts_sender,
            reports,
            answers,
            state: State::new(),
            engine: None,
            node: None,
            met: None,
            node_look: Look::new(now),
            networks_look: Look::new(now),
            cluster_look: Look::new(now),
            inspections: BTreeMap::new(),
            directory: None,
            directory_watch: None,
            sandboxes_due: now,
            sandboxes_hurried: now,
            busy: None,
            askers: HashMap::new(),
            listed: false,
            cluster_known: false,
            first_round: false,
            derive_due: None,
            said: None,
            refused: Vec::new(),
            ipvs: Ipvs::default(),
        }
    }

    /// Observes until the daemon ends.
    pub(super) async fn run(mut self) {
        let (contacts, mut contact) = mpsc::unbounded_channel();
        let (reports, mut report) = mpsc::unbounded_channel();
        let (answers, mut answer) = mpsc::unbounded_channel();
        (self.reports, self.answers) = (reports, answers);
        tokio::spawn(connection::keep(self.options.engine.socket.clone(), contacts));
        let mut fed = true;
        self.take_feed();
        loop {
            let now = Instant::now();
            self.act(now);
            let wake = self.next_time(now).into();
            tokio::select! {
                Some(contact) = contact.recv() => self.contact(contact),
                Some(report) = report.recv() => self.report(report),
                Some(answers) = answer.recv() => self.answered(answers),
                changed = self.feed.changed(), if fed => {
                    fed = changed.is_ok();
                    self.take_feed();
                }
                changed = directory_changed(self.directory_watch.as_ref()) => self.directory_changed(changed.is_ok()),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn contact(&mut self, contact: Contact) {
        let now = Instant::now();
        match contact {
            Contact::Made(made) => {
                let (engine, node) = *made;
                tracing::info!(
                    socket = %self.options.engine.socket.display(), version = node.version, swarm = node.swarm,
                    manager = node.manager, "connected to the Engine"
                );
                self.engine = Some(engine);
                self.met = Some(now);
                self.state.engine_started(now);
                self.status.update(|status| (status.reachable, status.last_error) = (true, None));
                self.listed = false;
                self.cluster_known = false;
                self.find_directory();
                // Calls to the Engine before are of no interest, and may be under way.
                (self.node_look, self.networks_look, self.cluster_look) =
                    (Look::new(now), Look::new(now), Look::new(now));
                self.inspections.clear();
                self.take_node(node);
            }
            Contact::Lost(reason) => {
                if self.engine.take().is_some() {
                    tracing::info!(socket = %self.options.engine.socket.display(), reason, "the Engine is away");
                }
                self.status.update(|status| (status.reachable, status.last_error) = (false, Some(reason)));
            }
            Contact::Happened(happening) => self.happened(happening, now),
        }
    }

    fn happened(&mut self, happening: Happening, now: Instant) {
        if matches!(happening, Happening::Container { action: ContainerAction::Made, .. }) {
            // It concerns nobody before it runs.
            return;
        }
        tracing::trace!(?happening, "the Engine tells");
        self.hurry_sandboxes(now);
        self.busy = Some(now);
        if self.is_manager() {
            self.cluster_look.hurry(now);
        }
        match happening {
            Happening::Container { labels, action, .. } => {
                // A task is never started again.
                if let Some(task) = labels.get(TASK).filter(|_| action == ContainerAction::Ended) {
                    self.state.task_ended(now, task.clone());
                    self.changed();
                }
                let service = labels.get(SERVICE_OF_TASK).map(String::as_str);
                let concerned: Vec<_> =
                    self.inspections.keys().filter(|id| self.concerns(id, service)).cloned().collect();
                for id in concerned {
                    self.look_at(&id, now);
                }
            }
            Happening::Network { id, listing, .. } => {
                if listing || !self.inspections.contains_key(&id) {
                    self.networks_look.hurry(now);
                }
                self.look_at(&id, now);
            }
            Happening::Service => {
                self.networks_look.hurry(now);
                self.look_at_all(now);
            }
            Happening::Node => self.node_look.hurry(now),
        }
    }

    /// Whether an event of a container of that service may change the network.
    fn concerns(&self, network: &str, service: Option<&str>) -> bool {
        let Some(service) = service else { return true };
        let mut listed = self.state.listed_services(network).peekable();
        listed.peek().is_none() || listed.any(|(name, _)| name == service)
    }

    fn look_at(&mut self, network: &str, now: Instant) {
        if let Some(look) = self.inspections.get_mut(network) {
            look.hurry(now);
        }
        if let Some(asker) = self.askers.get(network) {
            asker.hurry();
        }
    }

    fn look_at_all(&mut self, now: Instant) {
        for look in self.inspections.values_mut() {
            look.hurry(now);
        }
        for asker in self.askers.values() {
            asker.hurry();
        }
    }

    fn take_node(&mut self, node: Node) {
        let manager = node.manager && node.in_swarm();
        if !node.in_swarm() {
            self.state.left_swarm();
            self.inspections.clear();
            self.changed();
        }
        if !manager {
            self.cluster_known = true;
        }
        if self.node.as_deref() != Some(&node) {
            let role = if !node.in_swarm() {
                "none"
            } else if manager {
                "manager"
            } else {
                "worker"
            };
            let engine = EngineStatus { version: node.version.clone(), role, swarm: node.swarm.clone() };
            self.status.update(|status| status.engine = Some(engine));
            let node = Arc::new(node);
            self.node = Some(Arc::clone(&node));
            self.node_sender.send_replace(Some(node));
            self.networks_look.hurry(Instant::now());
            self.take_feed();
        }
    }

    fn report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Node(answer) => {
                self.node_look.ended(now, if self.in_swarm() { SLOWEST_POLL } else { SLOW_POLL });
                if let Some(node) = self.checked(answer) {
                    self.take_node(node);
                }
            }
            Report::Networks(answer) => {
                self.networks_look.ended(now, if answer.is_ok() { self.slow_poll() } else { RETRY });
                if let Some(networks) = self.checked(answer)
                    && self.in_swarm()
                {
                    self.listed = true;
                    self.state.listed(&networks);
                    self.inspections.retain(|id, _| networks.iter().any(|network| network.id == *id));
                    self.sandboxes_due = now;
                    self.changed();
                }
            }
            Report::Inspected(id, asked, answer) => {
                let next = if answer.is_ok() { self.slow_poll() } else { RETRY };
                if let Some(look) = self.inspections.get_mut(&id) {
                    look.ended(now, next);
                }
                if let Some(inspected) = self.checked(answer) {
                    self.state.inspected(&id, asked, inspected);
                    if let Some(asker) = self.askers.get(&id) {
                        asker.ask_for(self.state.listed_services(&id));
                    }
                    self.changed();
                }
            }
            Report::Cluster(asked, answer) => {
                let busy = self.busy.is_some_and(|busy| now < busy + BUSY);
                self.cluster_look.ended(
                    now,
                    if answer.is_err() {
                        RETRY
                    } else if busy {
                        BUSY_POLL
                    } else {
                        SLOW_POLL
                    },
                );
                // A manager without a quorum does not say; the networks do not wait for it.
                self.cluster_known = true;
                if let Some(cluster) = self.checked(answer)
                    && self.is_manager()
                {
                    self.state.cluster(asked, cluster);
                    self.tell_facts("manager");
                }
                self.changed();
            }
        }
    }

    fn checked<T>(&self, answer: Result<T, EngineError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.status.update(|status| {
                    if status.reachable {
                        status.last_error = None;
                    }
                });
                Some(answer)
            }
            Err(error) => {
                tracing::debug!(%error, "the Engine does not say");
                self.status.update(|status| status.last_error = Some(error.to_string()));
                None
            }
        }
    }

    fn answered(&mut self, answers: Answers) {
        let now = Instant::now();
        if self.askers.get(&answers.network).is_none_or(|asker| asker.identity != answers.identity) {
            return;
        }
        let mut changed = false;
        for (service, asked, addresses) in answers.services {
            changed |= self.state.answered(&answers.network, &service, asked, addresses);
        }
        if changed {
            // Whether what is not named any more is still listed says whether it stops or is cut off. What an ingress network
            // lists has no names.
            for (id, look) in &mut self.inspections {
                if *id == answers.network || self.state.is_ingress(id) {
                    look.hurry(now);
                }
            }
            self.changed();
        }
    }

    fn take_feed(&mut self) {
        if self.is_manager() {
            return;
        }
        let feed = self.feed.borrow_and_update().clone();
        self.state.facts(Instant::now(), feed.as_ref());
        if feed.is_some() {
            self.tell_facts("cluster");
        } else {
            self.status.update(|status| status.labels_from = "none");
        }
        self.changed();
    }

    fn tell_facts(&self, from: &'static str) {
        self.status.update(|status| status.labels_from = from);
        let facts = self.state.known_facts();
        self.facts_sender.send_if_modified(|known| {
            let changed = **known != facts;
            if changed {
                *known = Arc::new(facts);
            }
            changed
        });
    }

    fn directory_changed(&mut self, watched: bool) {
        if !watched {
            self.directory_watch = None;
        }
        self.hurry_sandboxes(Instant::now());
    }

    fn hurry_sandboxes(&mut self, now: Instant) {
        self.sandboxes_due = now;
        self.sandboxes_hurried = now + SANDBOX_HURRIED;
    }

    fn changed(&mut self) {
        let due = Instant::now() + BURST;
        self.derive_due = Some(self.derive_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Begins everything whose time has come.
    fn act(&mut self, now: Instant) {
        if now >= self.sandboxes_due {
            self.look_at_sandboxes(now);
        }
        if let Some(engine) = self.engine.clone() {
            self.ask_engine(&engine, now);
        }
        if self.derive_due.is_some_and(|due| now >= due) {
            self.derive_due = None;
            self.derive(now);
        }
    }

    fn ask_engine(&mut self, engine: &Engine, now: Instant) {
        if self.node_look.begin(now) {
            self.spawn(engine, async |engine| Report::Node(engine.node().await));
        }
        if !self.in_swarm() {
            return;
        }
        if self.networks_look.begin(now) {
            self.spawn(engine, async |engine| Report::Networks(engine.networks().await));
        }
        if self.is_manager() && self.cluster_look.begin(now) {
            self.spawn(engine, async move |engine| Report::Cluster(now, engine.cluster().await));
        }
        let due = self.inspections.iter_mut().filter(|(id, _)| self.state.sandbox_of(id).is_some());
        let due: Vec<_> = due.filter_map(|(id, look)| look.begin(now).then(|| id.clone())).collect();
        for id in due {
            let address = self.node.as_ref().map(|node| node.address.clone()).unwrap_or_default();
            self.spawn(engine, async move |engine| {
                let answer = engine.inspect(&id, &address).await;
                Report::Inspected(id, now, answer)
            });
        }
    }

    fn spawn<F: Future<Output = Report> + Send + 'static>(&self, engine: &Engine, call: impl FnOnce(Engine) -> F) {
        let reports = self.reports.clone();
        let call = call(engine.clone());
        tokio::spawn(async move {
            // Nobody listens at the end of the daemon.
            let _ = reports.send(call.await);
        });
    }

    fn find_directory(&mut self) {
        match self.options.engine.sandboxes() {
            Ok(directory) => {
                tracing::debug!(directory = %directory.display(), "the Engine's sandboxes are there");
                self.directory = Some(directory);
                self.directory_watch = None;
                self.hurry_sandboxes(Instant::now());
            }
            Err(error) => tracing::warn!(%error, "cannot find out where the Engine's sandboxes are"),
        }
    }

    fn look_at_sandboxes(&mut self, now: Instant) {
        self.sandboxes_due = now + if now < self.sandboxes_hurried { SANDBOX_HURRY } else { SANDBOX_POLL };
        if self.ipvs.look(now) {
            self.changed();
        }
        let Some(directory) = self.directory.clone() else { return };
        if !directory.is_dir() {
            // An Engine in a mount namespace of its own takes the way there with it when it ends. Its sandboxes go on, and
            // the next Engine shows what has become of them.
            return;
        }
        if self.directory_watch.is_none() {
            // It may not be there before the first sandbox is.
            self.directory_watch = DirectoryWatch::new(&directory).ok();
        }
        let networks: Vec<_> = self.state.networks().map(|(id, ingress)| (id.to_owned(), ingress)).collect();
        let known: BTreeSet<_> = networks.iter().map(|(id, _)| id.as_str()).collect();
        self.askers.retain(|id, _| known.contains(id.as_str()));
        for (id, ingress) in networks {
            let path = directory.join(sandbox_files::name(&id, ingress));
            let found = sandbox_files::look(&path);
            let is_new = found.as_ref() != self.state.sandbox_of(&id);
            if is_new {
                tracing::debug!(network = id, path = %path.display(), there = found.is_some(), "the sandbox is another");
                self.askers.remove(&id);
                self.state.sandbox(&id, now, found.clone());
                self.changed();
            }
            let Some(found) = found else { continue };
            let look = self.inspections.entry(id.clone()).or_insert_with(|| Look::new(now));
            if is_new {
                look.hurry(now);
            }
            if !ingress && !self.askers.contains_key(&id) {
                match Asker::start(&id, &found, self.answers.clone()) {
                    Ok(asker) => {
                        asker.ask_for(self.state.listed_services(&id));
                        self.askers.insert(id, asker);
                    }
                    Err(error) => tracing::debug!(network = id, %error, "cannot ask in the sandbox"),
                }
            }
        }
    }

    fn derive(&mut self, now: Instant) {
        let outcome = self.state.derive(now);
        if let Some(deadline) = outcome.deadline {
            self.derive_due = Some(self.derive_due.map_or(deadline, |earlier| earlier.min(deadline)).max(now + BURST));
        }
        if !self.first_round {
            let complete = !self.in_swarm() && self.node.is_some()
                || self.listed && self.cluster_known && self.state.is_complete();
            let late = self.met.is_some_and(|met| now >= met + FIRST_ROUND) && self.listed;
            if !complete && !late {
                if let Some(met) = self.met {
                    let due = (met + FIRST_ROUND).max(now + BURST);
                    self.derive_due = Some(self.derive_due.map_or(due, |earlier| earlier.min(due)));
                }
                return;
            }
            self.first_round = true;
        }
        self.say(outcome);
    }

    fn say(&mut self, outcome: Outcome) {
        let mut networks = outcome.networks;
        self.ipvs.sift(&mut networks, self.options.takeover, self.said.is_none(), Instant::now());
        let at_work = self.ipvs.is_at_work();
        let (balancer, takeover) = (if at_work { "ipvs" } else { "none" }, at_work && self.options.takeover);
        // What was refused may be taken now: a network of that name may be gone.
        if self.said.as_ref() != Some(&networks) || !self.refused.is_empty() {
            log_changes(self.said.as_deref().unwrap_or_default(), &networks);
            let began = Instant::now();
            let observed = self.desired.observe(NAME, networks.clone());
            self.refused =
                observed.refused.iter().map(|(name, rejection)| (name.to_string(), rejection.to_string())).collect();
            for (name, receipt) in observed.receipts {
                tokio::spawn(async move {
                    match receipt.settled().await {
                        Ok(generation) => {
                            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                            tracing::debug!(network = %name, generation, took_us, "what was observed is served");
                        }
                        Err(error) => tracing::debug!(network = %name, %error, "what was observed is not served yet"),
                    }
                });
            }
            self.said = Some(networks);
        }
        let refused = outcome.refused.into_iter().chain(self.refused.iter().cloned());
        let refused_networks = refused.map(|(name, reason)| RefusedNetwork { name, reason }).collect();
        self.status.update(|status| {
            (status.balancer, status.takeover) = (balancer, takeover);
            status.invalid_labels = outcome.invalid_labels;
            status.refused_networks = refused_networks;
        });
    }

    fn next_time(&self, now: Instant) -> Instant {
        let mut times = vec![self.sandboxes_due];
        times.extend(self.derive_due);
        if self.engine.is_some() {
            times.extend(self.node_look.next());
            if self.in_swarm() {
                times.extend(self.networks_look.next());
                let looks = self.inspections.iter().filter(|(id, _)| self.state.sandbox_of(id).is_some());
                times.extend(looks.filter_map(|(_, look)| look.next()));
                if self.is_manager() {
                    times.extend(self.cluster_look.next());
                }
            }
        }
        times.into_iter().min().unwrap_or(now + SANDBOX_POLL)
    }

    fn in_swarm(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.in_swarm())
    }

    fn is_manager(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.in_swarm() && node.manager)
    }

    /// On a manager changes of other nodes' tasks show in the cluster's own lists.
    fn slow_poll(&self) -> Duration {
        if self.is_manager() || self.feed.borrow().is_some() { SLOWEST_POLL } else { SLOW_POLL }
    }
}

async fn directory_changed(watch: Option<&DirectoryWatch>) -> std::io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
