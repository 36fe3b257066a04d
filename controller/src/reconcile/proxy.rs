//! A network's proxy process.

use super::structure::Place;
use super::{Channel, ChannelError, Settings, table};
use crate::model::{Name, Network, Shared};
use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use ringlb_proxy::control::digest::Digests;
use ringlb_proxy::control::message::{Generation, Hello, Introduction, Reply, Request};
use ringlb_proxy::control::replacement::BUILD;
use rustix::process::{Signal, pidfd_send_signal};
use std::future::pending;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// The number of the first descriptor that is handed to a proxy: after the standard streams.
const FIRST_FD: i32 = 3;
/// A proxy that lives shorter than this is not just started again.
const QUICK_END: Duration = Duration::from_secs(1);
/// How long a proxy may take to end when told so, before it is killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The same, when a new proxy has to wait for it.
const HURRIED_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(100);

/// Why there is no proxy.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("cannot start {program}: {cause}")]
    Start { program: String, cause: io::Error },
    #[error("cannot hand descriptors to a proxy: {0}")]
    Descriptors(String),
    #[error("cannot enter the sandbox: {0}")]
    Sandbox(#[from] ringlb_netns::Error),
    #[error("cannot connect to the proxy's control socket: {0}")]
    Connect(io::Error),
}

impl From<FdMappingCollision> for ProxyError {
    fn from(error: FdMappingCollision) -> Self {
        Self::Descriptors(error.to_string())
    }
}

/// A proxy process and the connection to it.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) process: Process,
    pub(super) pid: Option<u32>,
    pub(super) started: Instant,
    pub(super) link: Link,
    /// Whether it may speak a newer version of the protocol than that of its greeting, as far as is known.
    pub(super) speaks_newer: bool,
    /// What it says of itself, if it does.
    pub(super) introduction: Option<Introduction>,
    /// Whether it was asked, over this connection, to say when it has UDP sessions that should go past it.
    pub(super) awaits_busy_sessions: bool,
}

/// What a proxy does.
#[derive(Debug)]
pub(super) enum Happening {
    /// It ended in that way.
    Ended(String),
    /// It said something, or nothing more will come over its connection.
    Said(Result<Reply, ChannelError>),
}

/// The process, and how its end is learned.
#[derive(Debug)]
pub(super) enum Process {
    /// This daemon has started it.
    Child(Child),
    /// An earlier daemon has: its pidfd (pidfd_open(2)).
    Adopted(AsyncFd<OwnedFd>),
}

/// The control connection and how far it has come.
#[derive(Debug)]
pub(super) enum Link {
    /// There is none; the next attempt is due then.
    Broken { retry: Instant },
    /// The greeting is awaited, or, once that is there, the introduction.
    Greeting { channel: Box<Channel>, since: Instant, hello: Option<Hello> },
    /// Requests can be sent.
    Open { channel: Box<Channel>, table: TableState },
}

/// What the proxy's table is, as far as is known.
#[derive(Debug)]
pub(super) enum TableState {
    /// Nothing that a step could start from.
    Unknown,
    /// One that an earlier daemon has sent; what it is can be asked.
    Unlisted,
    /// That was asked.
    Listing { since: Instant },
    /// This is the answer.
    Listed(Digests),
    /// That of this state of the network.
    At(Shared<Network>),
    /// A request is on its way that leads to that of this state of the network.
    Asked { to: Shared<Network>, since: Instant, whole: bool },
}

impl Proxy {
    /// Starts a proxy in the sandbox, which is to listen on `control`.
    pub(super) fn start(
        settings: &Settings,
        network: &Name,
        place: &Place,
        control: &OwnedFd,
    ) -> Result<Self, ProxyError> {
        let mut command = std::process::Command::new(&settings.proxy_program);
        command.env(BUILD, edition(settings));
        command.arg("--network").arg(network.as_ref());
        command.arg("--threads").arg(place.steered.threads.len().to_string());
        command.arg("--first-user").arg(settings.proxy_first_user.to_string());
        if let Some(most) = settings.max_connections {
            command.arg("--max-connections").arg(most.to_string());
        }
        let threads = &place.steered.threads;
        let listeners = threads.iter().flat_map(|thread| &thread.listeners);
        let listeners = listeners.map(|listener| ("--listener-fd", listener.as_fd()));
        let datagrams = threads.iter().flat_map(|thread| &thread.datagrams);
        let datagrams = datagrams.map(|socket| ("--datagram-fd", socket.as_fd()));
        let kept = place.steered.steering.descriptors().into_iter().map(|descriptor| ("--keep-fd", descriptor));
        let descriptors = std::iter::once(("--control-fd", control.as_fd()));
        let descriptors = descriptors.chain(listeners).chain(datagrams).chain(kept);
        let mut mappings = Vec::new();
        for ((option, descriptor), child_fd) in descriptors.zip(FIRST_FD..) {
            let duplicate = descriptor.try_clone_to_owned();
            let parent_fd = duplicate.map_err(|error| ProxyError::Descriptors(error.to_string()))?;
            mappings.push(FdMapping { parent_fd, child_fd });
            command.args([option, &child_fd.to_string()]);
        }
        // The namespace is entered by its descriptor, before the mapping may put something else at that number.
        place.sandbox.namespace().enter_on_exec(&mut command)?;
        let mut command = Command::from(command);
        command.fd_mappings(mappings)?;
        let access_log = match &settings.access_log {
            Some(file) => file.try_clone().map_err(|error| ProxyError::Descriptors(error.to_string()))?.into(),
            None => Stdio::inherit(),
        };
        // Not in the daemon's process group: a Ctrl-C in the terminal is for the daemon alone.
        command.process_group(0).stdin(Stdio::null()).stdout(access_log);
        let child = command
            .spawn()
            .map_err(|cause| ProxyError::Start { program: settings.proxy_program.display().to_string(), cause })?;
        let pid = child.id();
        tracing::info!(%network, pid, "started the proxy");
        Ok(Self {
            process: Process::Child(child),
            pid,
            started: Instant::now(),
            link: Link::Broken { retry: Instant::now() },
            speaks_newer: true,
            introduction: None,
            awaits_busy_sessions: false,
        })
    }

    /// The next thing that it does; its end before all that it has said. Can be given up and called again without a loss.
    pub(super) async fn next_happening(&mut self) -> Happening {
        let Self { process, link, .. } = self;
        tokio::select! {
            biased;
            how = process.ended() => Happening::Ended(how),
            said = link.receive() => Happening::Said(said),
        }
    }

    /// The same, with its end after all that it has said: where its last words count.
    pub(super) async fn next_word(&mut self) -> Happening {
        let Self { process, link, .. } = self;
        tokio::select! {
            biased;
            said = link.receive() => Happening::Said(said),
            how = process.ended() => Happening::Ended(how),
        }
    }

    /// Connects to the control socket of that name anew, if it is time.
    pub(super) fn connect(&mut self, settings: &Settings, socket: &str) -> Result<(), ProxyError> {
        let now = Instant::now();
        if !matches!(self.link, Link::Broken { retry } if retry <= now) {
            return Ok(());
        }
        let channel = settings.control.connect(socket).and_then(|socket| Channel::new(socket, settings.versions));
        match channel {
            Ok(channel) => {
                self.link = Link::Greeting { channel: Box::new(channel), since: now, hello: None };
                Ok(())
            }
            Err(error) => {
                self.break_link(Duration::from_millis(100));
                Err(ProxyError::Connect(error))
            }
        }
    }

    /// Takes a part of the greeting. When all of it has come, requests can be sent, and this gives who answers. `known` is a state
    /// of the network that the proxy may be at.
    pub(super) fn greeted(
        &mut self,
        said: Reply,
        known: Option<&Shared<Network>>,
    ) -> Result<Option<Hello>, ChannelError> {
        let Link::Greeting { channel, hello, .. } = &mut self.link else { return Ok(None) };
        match said {
            Reply::Hello(greeting) => {
                *hello = Some(greeting);
                if channel.greeted(self.speaks_newer)? {
                    return Ok(None);
                }
                self.introduction = None;
            }
            Reply::Introduction(introduction) => self.introduction = Some(introduction),
            _ => return Ok(None),
        }
        let link = std::mem::replace(&mut self.link, Link::Broken { retry: Instant::now() });
        let Link::Greeting { channel, hello: Some(hello), .. } = link else { return Ok(None) };
        let known = known.filter(|known| known.generation() == hello.generation);
        let table = known.map_or(TableState::Unknown, |known| TableState::At(known.clone()));
        self.link = Link::Open { channel, table };
        Ok(Some(hello))
    }

    /// Takes note that the control connection is gone. True if that is because the proxy speaks only the version of its
    /// greeting: then it is connected to again at once, to speak that.
    pub(super) fn lost_link(&mut self, pause: Duration) -> bool {
        let is_older = self.speaks_newer && matches!(self.link, Link::Greeting { hello: Some(_), .. });
        if is_older {
            self.speaks_newer = false;
        }
        self.break_link(if is_older { Duration::ZERO } else { pause });
        is_older
    }

    /// Sends what leads its table to that of `wish`, unless it is there or an earlier request is not answered yet; true if it was
    /// sent. What the table of an earlier daemon is must be asked first.
    pub(super) fn advance(&mut self, wish: &Shared<Network>) -> Result<bool, ChannelError> {
        let Link::Open { channel, table } = &mut self.link else { return Ok(false) };
        let (request, whole) = match table {
            TableState::Asked { .. } | TableState::Listing { .. } => return Ok(false),
            TableState::Unlisted => {
                *table = TableState::Listing { since: Instant::now() };
                channel.send(&Request::Digests)?;
                return Ok(false);
            }
            TableState::Listed(known) => {
                let step = table::step_from(known, wish);
                let (differ, services) = (step.changes.len(), known.services.len());
                tracing::info!(network = %wish.name(), differ, services, "sending what differs from the proxy's table");
                (Request::Delta(step), false)
            }
            TableState::Unknown => (table::snapshot(wish), true),
            TableState::At(network) => match table::step(network, wish) {
                Some(request) => (request, false),
                None => return Ok(false),
            },
        };
        *table = TableState::Asked { to: wish.clone(), since: Instant::now(), whole };
        channel.send(&request)?;
        Ok(true)
    }

    /// Does without knowing what the table of an earlier daemon is.
    pub(super) fn forget_table(&mut self) {
        if let Link::Open { table, .. } = &mut self.link
            && matches!(table, TableState::Unlisted | TableState::Listing { .. } | TableState::Listed(_))
        {
            *table = TableState::Unknown;
        }
    }

    /// Drops the control connection, to be made again after `pause`.
    pub(super) fn break_link(&mut self, pause: Duration) {
        self.link = Link::Broken { retry: Instant::now() + pause };
        self.awaits_busy_sessions = false;
    }

    /// Asks for statistics, if there is somebody to ask.
    pub(super) fn ask_statistics(&mut self) -> Result<bool, ChannelError> {
        match &mut self.link {
            Link::Open { channel, .. } => channel.send(&Request::Statistics).map(|()| true),
            Link::Broken { .. } | Link::Greeting { .. } => Ok(false),
        }
    }

    /// Whether it has lived so long that its end is not taken for one of a row of ends.
    pub(super) fn has_lasted(&self) -> bool {
        self.started.elapsed() >= QUICK_END
    }

    /// The generation that it has acknowledged.
    pub(super) fn acknowledged(&self) -> Option<Generation> {
        match &self.link {
            Link::Open { table: TableState::At(network), .. } => Some(network.generation()),
            _ => None,
        }
    }

    /// Ends it: asks first, and kills it if it does not end; soon, if there is `hurry`.
    pub(super) async fn stop(mut self, network: &Name, hurry: bool) {
        let asked = match &mut self.link {
            Link::Open { channel, .. } | Link::Greeting { channel, .. } => channel.send(&Request::Shutdown).is_ok(),
            Link::Broken { .. } => false,
        };
        let pause = match (asked, hurry) {
            (true, false) => SHUTDOWN_TIMEOUT,
            (true, true) => HURRIED_SHUTDOWN_TIMEOUT,
            (false, _) => Duration::ZERO,
        };
        if let Ok(how) = timeout(pause, self.process.ended()).await {
            tracing::info!(%network, pid = self.pid, how, "the proxy ended");
            return;
        }
        tracing::warn!(%network, pid = self.pid, "the proxy does not end, killing it");
        if let Err(error) = self.process.kill().await {
            tracing::error!(%network, pid = self.pid, %error, "cannot kill the proxy");
        }
    }
}

impl Link {
    /// Since when a greeting, or an answer about the table, is awaited.
    pub(super) fn asked_since(&self) -> Option<Instant> {
        match self {
            Self::Greeting { since, .. }
            | Self::Open { table: TableState::Asked { since, .. } | TableState::Listing { since }, .. } => Some(*since),
            Self::Open { .. } | Self::Broken { .. } => None,
        }
    }

    async fn receive(&mut self) -> Result<Reply, ChannelError> {
        match self {
            Self::Open { channel, .. } | Self::Greeting { channel, .. } => channel.receive().await,
            Self::Broken { .. } => pending().await,
        }
    }
}

/// What a proxy is that is started now: which build of its program, as far as the file tells without being read by its size and
/// when it was written, and what is set for its whole life, but for the number of its threads: the network's next one has the same.
pub(super) fn edition(settings: &Settings) -> String {
    let build = settings.proxy_program.metadata();
    let build = build
        .map_or_else(|_| String::new(), |file| format!("{}-{}.{:09}", file.size(), file.mtime(), file.mtime_nsec()));
    let log = settings.access_log.as_ref().and_then(|log| log.metadata().ok());
    let log = log.map(|file| format!("{}-{}", file.dev(), file.ino())).unwrap_or_default();
    let most = settings.max_connections.map_or(0, NonZeroU32::get);
    format!("{build} {log} {most} {}", settings.proxy_first_user)
}

impl Process {
    /// The process of a pidfd.
    #[allow(
        deprecated,
        reason = "what it warns of are types that close their descriptor early, which an `OwnedFd` does not"
    )]
    pub(super) fn adopted(pidfd: OwnedFd) -> io::Result<Self> {
        AsyncFd::with_interest(pidfd, Interest::READABLE).map(Self::Adopted)
    }

    /// Waits for its end; says how it came.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => child.wait().await.map_or_else(|error| error.to_string(), describe),
            Self::Adopted(process) => match process.readable().await {
                Ok(_) => "its status is not known, as another daemon had started it".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    /// Ends it at once, and waits until it has ended.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        match self {
            Self::Child(child) => child.kill().await,
            Self::Adopted(process) => {
                pidfd_send_signal(process.get_ref(), Signal::KILL)?;
                process.readable().await.map(drop)
            }
        }
    }
}

/// How a process ended, for a log.
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
