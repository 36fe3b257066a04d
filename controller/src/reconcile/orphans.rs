//! Orphans: the proxies that an earlier daemon on the same run directory has left behind. They serve on, untouched, until a wish for
//! their network comes, whose task takes them over or ends them.

use super::peer::Peer;
use super::proxy::{Link, Process, Proxy, TableState};
use super::structure::restore;
use super::{Channel, ChannelError, ControlDirectory, names};
use crate::model::{Name, Port};
use ringlb_netns::{Namespace, SteeredSockets, Steering, SteeringKind, ThreadSockets};
use ringlb_proxy::control::message::{DescriptorRole, Duty, Generation, Hello, Introduction, Reply, Request};
use ringlb_proxy::control::version::Versions;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, timeout};

/// How long a proxy that was left behind may take to say what it has.
const MEETING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a proxy that was left behind cannot be taken over.
#[derive(Debug, Error)]
pub(super) enum MeetingError {
    #[error("cannot connect to its control socket: {0}")]
    Connect(#[from] io::Error),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("it says something else than what it is")]
    Unexpected,
    #[error("it does not hand over its {0}")]
    Incomplete(&'static str),
    #[error("it does not answer within {} s", MEETING_TIMEOUT.as_secs())]
    Late,
}

/// The proxies of a network that were left behind.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// The one that serves.
    pub(super) serving: Option<Orphan>,
    /// Those that it has replaced, or is to replace.
    pub(super) others: Vec<Orphan>,
}

/// A proxy that was left behind, with copies of all that it has.
#[derive(Debug)]
pub(super) struct Orphan {
    channel: Channel,
    /// The name of its control socket.
    pub(super) socket: String,
    pub(super) hello: Hello,
    /// What it says of itself; none if it speaks the oldest version only.
    pub(super) introduction: Option<Introduction>,
    process: OwnedFd,
    control: Option<OwnedFd>,
    threads: BTreeMap<u32, Sockets>,
    kept: Vec<OwnedFd>,
    ports: BTreeMap<Port, BTreeMap<u32, Vec<OwnedFd>>>,
}

/// The steered sockets of a data thread.
#[derive(Debug, Default)]
struct Sockets {
    listeners: Vec<OwnedFd>,
    datagrams: Vec<OwnedFd>,
}

/// The control sockets that an earlier daemon has left behind, by network.
pub(super) fn sockets_left(control: &ControlDirectory) -> BTreeMap<Name, Vec<String>> {
    let sockets = control.sockets().unwrap_or_else(|error| {
        tracing::error!(%error, "cannot look for control sockets of an earlier daemon");
        Vec::new()
    });
    let mut networks = BTreeMap::<_, Vec<_>>::new();
    for socket in sockets {
        if let Ok(network) = Name::new(names::network_of_socket(&socket)) {
            networks.entry(network).or_default().push(socket);
        }
    }
    networks
}

/// Meets the proxies of a network that an earlier daemon has left behind. One that cannot be understood is ended, and so is one
/// that was started and has not got as far as to accept a connection.
pub(super) async fn meet_network(
    control: &ControlDirectory,
    versions: Versions,
    network: &Name,
    sockets: Vec<String>,
) -> Orphans {
    // All at the same time: one that is stuck takes all the time that it is given.
    let met = sockets.into_iter().map(async |socket| {
        let Met { socket, met, .. } = meet_in_time(control, versions, network.clone(), socket).await?;
        match met {
            Ok(orphan) => {
                tracing::info!(%network, pid = orphan.hello.pid, "found a proxy of an earlier daemon");
                Some(orphan)
            }
            Err(error) => {
                tracing::warn!(%network, %error, "cannot take over a proxy of an earlier daemon, ending it");
                if let Err(reason) = end_unmet(control, network, &socket, &error).await {
                    tracing::error!(%network, reason, "cannot end a proxy of an earlier daemon");
                }
                None
            }
        }
    });
    let found = futures_util::future::join_all(met).await.into_iter().flatten().collect();
    let (orphans, useless) = Orphans::sort(found);
    for orphan in useless {
        tracing::info!(%network, pid = orphan.hello.pid, "ending a proxy that was not ready when its daemon ended");
        let socket = orphan.socket.clone();
        if let Err(reason) = orphan.end_process().await {
            tracing::error!(%network, reason, "cannot end a proxy of an earlier daemon");
        } else if let Err(error) = control.remove(&socket) {
            tracing::error!(%network, %error, "cannot remove a control socket");
        }
    }
    orphans
}

/// A proxy that was left behind, or why it is not understood.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) network: Name,
    /// The name of its control socket.
    pub(super) socket: String,
    pub(super) met: Result<Orphan, MeetingError>,
}

/// Meets all proxies that an earlier daemon has left behind.
pub(super) async fn meet_all(control: &ControlDirectory, versions: Versions) -> Vec<Met> {
    let sockets = sockets_left(control).into_iter();
    let sockets =
        sockets.flat_map(|(network, sockets)| sockets.into_iter().map(move |socket| (network.clone(), socket)));
    let met = sockets.map(|(network, socket)| meet_in_time(control, versions, network, socket));
    futures_util::future::join_all(met).await.into_iter().flatten().collect()
}

/// Meets the proxy behind a control socket; none if it is gone.
async fn meet_in_time(control: &ControlDirectory, versions: Versions, network: Name, socket: String) -> Option<Met> {
    let meeting = meet(control, versions, &socket, &network);
    let met = match timeout(MEETING_TIMEOUT, meeting).await {
        // Nobody listens any more: the proxy is gone, too. The network's own name is needed again, the others are not.
        Ok(Err(MeetingError::Connect(error))) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if socket != *network
                && let Err(error) = control.remove(&socket)
            {
                tracing::error!(%network, %error, "cannot remove a control socket");
            }
            return None;
        }
        Ok(met) => met,
        Err(_) => Err(MeetingError::Late),
    };
    Some(Met { network, socket, met })
}

/// Connects to a proxy and hears who it is.
async fn greet(
    control: &ControlDirectory,
    versions: Versions,
    socket: &str,
    network: &Name,
) -> Result<(Channel, Hello, Option<Introduction>), MeetingError> {
    let mut speaks_newer = true;
    loop {
        let mut channel = Channel::new(control.connect(socket)?, versions)?;
        let hello = match channel.receive().await? {
            Reply::Hello(hello) if hello.network == **network => hello,
            _ => return Err(MeetingError::Unexpected),
        };
        if !channel.greeted(speaks_newer)? {
            return Ok((channel, hello, None));
        }
        match channel.receive().await {
            Ok(Reply::Introduction(introduction)) => return Ok((channel, hello, Some(introduction))),
            Ok(_) => return Err(MeetingError::Unexpected),
            Err(ChannelError::Closed) => speaks_newer = false,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn meet(
    control: &ControlDirectory,
    versions: Versions,
    socket: &str,
    network: &Name,
) -> Result<Orphan, MeetingError> {
    let (mut channel, hello, introduction) = greet(control, versions, socket, network).await?;
    channel.send(&Request::Descriptors)?;
    let mut process = None;
    let mut control = None;
    let (mut threads, mut kept, mut ports) =
        (BTreeMap::<_, Sockets>::new(), Vec::new(), BTreeMap::<_, BTreeMap<_, Vec<_>>>::new());
    loop {
        let Reply::Descriptors { roles, more } = channel.receive().await? else { return Err(MeetingError::Unexpected) };
        let descriptors = channel.receive_descriptors(roles.len()).await?;
        for (role, descriptor) in roles.into_iter().zip(descriptors) {
            match role {
                DescriptorRole::Process => process = Some(descriptor),
                DescriptorRole::Control => control = Some(descriptor),
                DescriptorRole::Listener { thread } => threads.entry(thread).or_default().listeners.push(descriptor),
                DescriptorRole::Datagram { thread } => threads.entry(thread).or_default().datagrams.push(descriptor),
                DescriptorRole::Kept => kept.push(descriptor),
                DescriptorRole::Port { port, thread } => {
                    ports.entry(port).or_default().entry(thread).or_default().push(descriptor);
                }
            }
        }
        if !more {
            break;
        }
    }
    let process = process.ok_or(MeetingError::Incomplete("process"))?;
    let control = Some(control.ok_or(MeetingError::Incomplete("control socket"))?);
    let socket = socket.to_owned();
    Ok(Orphan { channel, socket, hello, introduction, process, control, threads, kept, ports })
}

impl Orphans {
    /// Tells the one that serves from the others, whenever the daemon has ended that was replacing one of them; and those of which
    /// nothing is needed.
    fn sort(found: Vec<Orphan>) -> (Self, Vec<Orphan>) {
        let (retiring, mut candidates): (Vec<_>, Vec<_>) = found.into_iter().partition(Orphan::is_retiring);
        // One that was to take over and has a table has accepted connections, so it takes over. Without one it has not.
        candidates.sort_by_key(|orphan| (orphan.hello.generation > 0, orphan.is_successor()));
        let serving = candidates.pop();
        let (others, useless) = candidates.into_iter().partition(|orphan| orphan.hello.generation > 0);
        (Self { serving, others: retiring.into_iter().chain::<Vec<_>>(others).collect() }, useless)
    }

    /// The generation of the newest table.
    pub(super) fn generation(&self) -> Generation {
        let all = self.serving.iter().chain(&self.others);
        all.map(|orphan| orphan.hello.generation).max().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.serving.is_none() && self.others.is_empty()
    }

    /// Ends them all, and takes back what they and their daemon have left in their sandbox.
    pub(super) async fn end(self, network: &Name) -> Result<(), String> {
        let mut ended = Ok(());
        for orphan in self.others.into_iter().chain(self.serving) {
            ended = orphan.end(network).await.and(ended);
        }
        ended
    }
}

/// Ends a proxy that could not be met: asks first, unless it does not even answer, and kills it if it does not end.
pub(super) async fn end_unmet(
    control: &ControlDirectory,
    network: &Name,
    socket: &str,
    met: &MeetingError,
) -> Result<(), String> {
    let socket = match control.connect(socket) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
        Err(error) => return Err(format!("cannot connect to its control socket: {error}")),
    };
    let peer = Peer::of(&socket, network);
    let mut channel = Channel::new(socket, Versions::default()).map_err(|error| error.to_string())?;
    let asked = channel.send(&Request::Shutdown).is_ok();
    let answers = !matches!(met, MeetingError::Late);
    match peer {
        Ok(mut peer) => end(asked && answers, &mut peer.process).await,
        Err(reason) => {
            // Greetings may still come; the end of the process ends the connection.
            let closed = async { while channel.receive().await.is_ok() {} };
            if asked && timeout(SHUTDOWN_TIMEOUT, closed).await.is_ok() { Ok(()) } else { Err(reason) }
        }
    }
}

/// Waits for the end of a proxy that was asked to, and kills it if it does not end.
async fn end(asked: bool, process: &mut Process) -> Result<(), String> {
    if asked && timeout(SHUTDOWN_TIMEOUT, process.ended()).await.is_ok() {
        return Ok(());
    }
    process.kill().await.map_err(|error| format!("cannot kill it: {error}"))
}

/// A published port and its sockets.
type PortDescriptors = (Port, Vec<OwnedFd>);

fn flattened(ports: BTreeMap<Port, BTreeMap<u32, Vec<OwnedFd>>>) -> Vec<PortDescriptors> {
    ports.into_iter().map(|(port, threads)| (port, threads.into_values().flatten().collect())).collect()
}

impl Orphan {
    /// Whether it has been replaced.
    fn is_retiring(&self) -> bool {
        self.introduction.as_ref().is_some_and(|introduction| matches!(introduction.duty, Duty::Retiring { .. }))
    }

    /// Whether it is yet to get the UDP sessions of the one that it replaces.
    pub(super) fn awaits_sessions(&self) -> bool {
        self.introduction.as_ref().is_some_and(|introduction| introduction.duty == Duty::AwaitingSessions)
    }

    /// Whether it was started to take another one's place.
    fn is_successor(&self) -> bool {
        self.socket == names::successor_socket(&self.hello.network)
    }

    /// The namespace that its steered sockets are in, and how many data threads share them, if each has those of so many
    /// address families.
    pub(super) fn ground(&self, families: usize) -> Result<(Namespace, NonZeroUsize), String> {
        let has_all = |sockets: &Sockets| [sockets.listeners.len(), sockets.datagrams.len()] == [families; 2];
        let threads = NonZeroUsize::new(self.threads.len()).filter(|_| self.threads.values().all(has_all));
        let threads = threads
            .ok_or_else(|| format!("it has no data thread, or other sockets than {families} address families need"))?;
        Ok((self.any_namespace()?, threads))
    }

    /// Its sockets and its control socket, as those of a proxy that is to be started are made. Only once.
    pub(super) fn take_sockets(&mut self) -> Result<(SteeredSockets, OwnedFd), String> {
        let control = self.control.take().ok_or("it has no control socket")?;
        let kind = if self.kept.is_empty() { SteeringKind::Tproxy } else { SteeringKind::SkLookup };
        let kept = std::mem::take(&mut self.kept);
        let steering = Steering::from_descriptors(kind, kept).map_err(|error| error.to_string())?;
        let threads = std::mem::take(&mut self.threads).into_values().map(|sockets| ThreadSockets {
            listeners: sockets.listeners.into_iter().map(Into::into).collect(),
            datagrams: sockets.datagrams.into_iter().map(Into::into).collect(),
        });
        Ok((SteeredSockets { threads: threads.collect(), steering }, control))
    }

    /// The sockets of the ports that it serves, unless they are in another namespace than this daemon. Only once.
    pub(super) fn take_ports(&mut self) -> Vec<PortDescriptors> {
        self.forget_foreign_ports();
        flattened(std::mem::take(&mut self.ports))
    }

    /// It as the proxy of a network, and the sockets of the ports that it serves.
    pub(super) fn into_proxy(self) -> io::Result<(Proxy, Vec<PortDescriptors>)> {
        let process = Process::adopted(self.process)?;
        let channel = Box::new(self.channel);
        // One that cannot say what its table is gets a whole one: connections to backends that stay go on.
        let can_say = self.introduction.is_some() && self.hello.generation > 0;
        let table = if can_say { TableState::Unlisted } else { TableState::Unknown };
        let link = Link::Open { channel, table };
        let ports = flattened(self.ports);
        let proxy = Proxy {
            process,
            pid: Some(self.hello.pid),
            started: Instant::now(),
            link,
            speaks_newer: self.introduction.is_some(),
            awaits_busy_sessions: false,
            introduction: self.introduction,
        };
        Ok((proxy, ports))
    }

    /// Ends it, and takes back what it and its daemon have left in its sandbox.
    pub(super) async fn end(self, network: &Name) -> Result<(), String> {
        let sandbox = self.any_namespace().ok();
        let ended = self.end_process().await;
        if let Some(sandbox) = sandbox {
            restore(network, &sandbox).await;
        }
        ended
    }

    /// Asks it to end, and kills it if it does not.
    pub(super) async fn end_process(mut self) -> Result<(), String> {
        let asked = self.channel.send(&Request::Shutdown).is_ok();
        let process = Process::adopted(self.process);
        let mut process = process.map_err(|error| format!("cannot watch it: {error}"))?;
        end(asked, &mut process).await
    }

    /// The namespace that its steered sockets are in; that of its process if it has given them up.
    pub(super) fn any_namespace(&self) -> Result<Namespace, String> {
        let listener = self.threads.values().flat_map(|sockets| &sockets.listeners).next();
        let namespace = match listener {
            Some(listener) => Namespace::of_socket(listener),
            None => Namespace::open_path(Path::new(&format!("/proc/{}/ns/net", self.hello.pid))),
        };
        namespace.map_err(|error| error.to_string())
    }

    /// Gives up its published ports that are not in the namespace that this daemon is in: they are made anew.
    pub(super) fn forget_foreign_ports(&mut self) {
        let Ok(here) = Namespace::current().and_then(|namespace| namespace.identity()) else { return };
        let is_here = |socket: &OwnedFd| {
            let there = Namespace::of_socket(&socket.as_fd()).and_then(|namespace| namespace.identity());
            there.is_ok_and(|there| there == here)
        };
        self.ports.retain(|_, threads| threads.values().flatten().all(is_here));
    }
}
