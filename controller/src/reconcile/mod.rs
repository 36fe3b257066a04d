//! From what should be to what is.
//!
//! Each network has one task, and that task alone touches the network's namespaces, proxy and table. It is told the
//! whole state that should be, never a step towards it, compares that with what it has made so far, and does the
//! rest. States that arrive while it is busy are merged: only the newest counts.

mod channel;
mod cleanup;
mod control_socket;
mod meeting;
mod memory;
mod names;
mod orphans;
mod peer;
mod privileges;
mod proxy;
mod published;
mod statistics;
mod status;
mod structure;
pub mod table;
mod takeover;
mod totals;
mod upgrade;
mod worker;

pub use channel::{Channel, ChannelError};
pub(crate) use cleanup::{end_proxies, remove_control_sockets, remove_memory_groups, remove_namespaces};
pub use control_socket::ControlDirectory;
pub use meeting::{Found, Meeting};
pub use memory::{MemoryError, MemoryGroups, MemoryLimit, MemoryLimitError, MemoryStatus};
pub use names::name_prefix;
pub use privileges::PrivilegeStatus;
pub use status::{DrainingStatus, NetworkStatus, ProxyStatus, SandboxStatus, TakeoverStatus};
pub use upgrade::{Drained, Upgraded};

use crate::model::{Name, Network, Shared};
use orphans::{Orphans, sockets_left};
use ringlb_proxy::control::message::{Generation, Statistics};
use ringlb_proxy::control::version::Versions;
use ringlb_proxy::privileges::FirstUser;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use worker::Worker;

/// What is the same for all networks of a daemon.
#[derive(Debug)]
pub struct Settings {
    /// Where the control sockets are.
    pub control: ControlDirectory,
    /// What the names of this daemon's namespaces start with.
    pub name_prefix: String,
    /// The proxy's program.
    pub proxy_program: PathBuf,
    /// Where proxies write the access log; their standard output is the daemon's without one.
    pub access_log: Option<File>,
    /// How many data threads the proxy of each network has that begins now; those that are taken over keep theirs.
    pub threads: NonZeroUsize,
    /// The most connections of each proxy, if the descriptor limit is not to decide alone.
    pub max_connections: Option<NonZeroU32>,
    /// Where the users of the proxies begin.
    pub proxy_first_user: FirstUser,
    /// The control groups that limit the proxies' memory.
    pub memory: MemoryGroups,
    /// Whether proxies of an earlier daemon are replaced that were started from another build of their program, or with other
    /// settings.
    pub upgrade_proxies: bool,
    /// Whether packets on networks that are made here go past their bridges, where the kernel lets them.
    pub shortcuts: bool,
    /// The versions of the control protocol that are spoken.
    pub versions: Versions,
    /// How long a caller waits for an acknowledgement.
    pub acknowledge_timeout: Duration,
}

/// What a caller wants to know about: its failure is the caller's, another one is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concern {
    /// The table.
    Table,
    /// One attachment, and the table.
    Attachment(Name),
    /// One service with its published ports, and the table.
    Service(Name),
    /// All of the network.
    Everything,
}

/// Why a network is not as it should be yet. What should be stays, and is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsettled {
    /// The proxy has not acknowledged in time.
    #[error("the proxy of network `{network}` has not acknowledged generation {generation} within {} s{}", .timeout.as_secs_f64(), because(.last_error.as_deref()))]
    Late {
        /// The network.
        network: Name,
        /// What was to be acknowledged.
        generation: Generation,
        /// How long it had.
        timeout: Duration,
        /// What went wrong last, if something did.
        last_error: Option<String>,
    },
    /// Something that the network needs cannot be made.
    #[error("network `{network}`: {reason}")]
    Failed {
        /// The network.
        network: Name,
        /// What was attempted, and what came of it.
        reason: String,
    },
    /// The network was removed before the change got anywhere.
    #[error("network `{network}` was removed meanwhile")]
    Removed {
        /// The network.
        network: Name,
    },
    /// The daemon is ending.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

impl Unsettled {
    /// The network that it is about.
    #[must_use]
    pub fn network(&self) -> Option<&Name> {
        match self {
            Self::Late { network, .. } | Self::Failed { network, .. } | Self::Removed { network } => Some(network),
            Self::ShuttingDown => None,
        }
    }
}

/// Comes when the network is as it should be, with the generation that its proxy uses then.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Generation, Unsettled>>);

impl Receipt {
    /// Waits for it, at most for [`Settings::acknowledge_timeout`].
    ///
    /// # Errors
    /// Any [`Unsettled`].
    pub async fn settled(self) -> Result<Generation, Unsettled> {
        self.0.await.unwrap_or(Err(Unsettled::ShuttingDown))
    }
}

/// What a network's task is told.
#[derive(Debug)]
enum Command {
    /// This is what should be.
    Wish { network: Shared<Network>, concern: Concern, reply: oneshot::Sender<Result<Generation, Unsettled>> },
    /// The network should not be.
    Remove { reply: oneshot::Sender<Result<Generation, Unsettled>> },
    /// Say how it is.
    Status { reply: oneshot::Sender<(NetworkStatus, oneshot::Receiver<Statistics>)> },
    /// Put another proxy in the place of the one that runs, which has so long for its connections.
    Upgrade { drain: Option<Duration>, reply: oneshot::Sender<Result<Upgraded, Unsettled>> },
    /// End. With `keep` all stays as it is, else it is taken down.
    Stop { keep: bool, reply: oneshot::Sender<()> },
}

/// The tasks of all networks.
///
/// The queue of a task is not bounded by itself: each entry has a caller that waits for it, and the number of callers
/// is.
#[derive(Debug, Clone)]
pub struct Reconcilers {
    settings: Arc<Settings>,
    tasks: Arc<Mutex<HashMap<Name, mpsc::UnboundedSender<Command>>>>,
    /// The proxies of an earlier daemon that are to be met and that no task waits for yet.
    orphans: Arc<Mutex<HashMap<Name, oneshot::Receiver<Orphans>>>>,
}

impl Reconcilers {
    /// No task yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), tasks: Arc::default(), orphans: Arc::default() }
    }

    /// No task yet. Those of networks of which an earlier daemon has left proxies behind begin when these have been met, and take
    /// them over.
    pub fn taking_over(settings: Settings) -> (Self, Vec<Meeting>) {
        let reconcilers = Self::new(settings);
        let mut meetings = Vec::new();
        {
            let mut orphans = reconcilers.orphans.lock().unwrap_or_else(PoisonError::into_inner);
            for (network, sockets) in sockets_left(&reconcilers.settings.control) {
                let settings = Arc::clone(&reconcilers.settings);
                let (meeting, met) = Meeting::new(network.clone(), sockets, settings);
                meetings.push(meeting);
                orphans.insert(network, met);
            }
        }
        (reconcilers, meetings)
    }

    /// Ends the proxies of an earlier daemon, and removes what it has left behind, of all networks that nobody has wished
    /// for. Waits for that only if what is given is awaited.
    pub fn end_leftovers(&self) -> impl Future<Output = ()> + use<> {
        let mut names: HashSet<Name> = {
            let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
            orphans.keys().cloned().collect()
        };
        match self.settings.control.networks() {
            Ok(networks) => names.extend(networks.iter().filter_map(|network| Name::new(network).ok())),
            Err(error) => tracing::error!(%error, "cannot look for control sockets of an earlier daemon"),
        }
        match ringlb_netns::leftovers(&self.settings.name_prefix) {
            Ok(namespaces) => names.extend(
                namespaces
                    .iter()
                    .filter_map(|namespace| Name::new(names::network_of(&self.settings.name_prefix, namespace)?).ok()),
            ),
            Err(error) => tracing::error!(%error, "cannot look for namespaces of an earlier daemon"),
        }
        names.extend(self.settings.memory.networks().iter().filter_map(|network| Name::new(network).ok()));
        {
            let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|name| !tasks.contains_key(name));
        }
        // The task of each network does it: what somebody wishes for it meanwhile comes after that.
        let receipts: Vec<_> = names.iter().map(|name| self.wish(name, None, Concern::Table)).collect();
        async {
            futures_util::future::join_all(receipts.into_iter().map(Receipt::settled)).await;
        }
    }

    /// Says what network `name` should be; `None` is that it should not be.
    ///
    /// Wishes for one network must come in the order in which they were made.
    pub fn wish(&self, name: &Name, network: Option<Shared<Network>>, concern: Concern) -> Receipt {
        let (reply, receipt) = oneshot::channel();
        self.tell(
            name,
            match network {
                Some(network) => Command::Wish { network, concern, reply },
                None => Command::Remove { reply },
            },
        );
        Receipt(receipt)
    }

    /// How network `name` is; the proxy's statistics come a little later, if at all.
    pub async fn status(&self, name: &Name) -> Option<(NetworkStatus, oneshot::Receiver<Statistics>)> {
        let (reply, status) = oneshot::channel();
        let sent = {
            let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.get(name).is_some_and(|task| task.send(Command::Status { reply }).is_ok())
        };
        if sent { status.await.ok() } else { None }
    }

    /// Puts another proxy in the place of that of network `name`, which keeps its connections for that time at most; for as long
    /// as they take without one. Waits until the other one serves.
    ///
    /// # Errors
    /// [`Unsettled::Failed`] if it cannot be: then the one that was there serves on. [`Unsettled::Removed`] if there is no such
    /// network.
    pub async fn upgrade(&self, name: &Name, drain: Option<Duration>) -> Result<Upgraded, Unsettled> {
        let (reply, upgraded) = oneshot::channel();
        let sent = {
            let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.get(name).is_some_and(|task| task.send(Command::Upgrade { drain, reply }).is_ok())
        };
        let removed = || Unsettled::Removed { network: name.clone() };
        if sent { upgraded.await.unwrap_or_else(|_| Err(removed())) } else { Err(removed()) }
    }

    /// Ends all tasks and waits for their end. With `keep` the proxies go on as they are.
    pub async fn stop(&self, keep: bool) {
        if !keep {
            self.end_leftovers().await;
        }
        let mut ends = Vec::new();
        {
            let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            for task in tasks.values() {
                let (reply, end) = oneshot::channel();
                if task.send(Command::Stop { keep, reply }).is_ok() {
                    ends.push(end);
                }
            }
        }
        // All of them take their time at the same time.
        futures_util::future::join_all(ends).await;
    }

    fn tell(&self, name: &Name, command: Command) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = tasks.get(name) {
            // Only a task that was stopped takes nothing, and then nothing is to be started either.
            let _ = task.send(command);
            return;
        }
        let (task, commands) = mpsc::unbounded_channel();
        // Cannot fail: the receiving end is right here.
        let _ = task.send(command);
        tasks.insert(name.clone(), task);
        let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        tokio::spawn(Worker::new(name.clone(), Arc::clone(&self.settings), commands, self.clone(), orphans).run());
    }

    /// Forgets the task of a removed network, unless it has been told something meanwhile.
    fn forget(&self, name: &Name, commands: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = commands.is_empty();
        if idle {
            tasks.remove(name);
        }
        idle
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}
