//! The control thread: answers requests and changes the table.
//!
//! It runs tokio-uring on a thread of its own, so that nothing it does delays a packet.

use super::descriptors::{self, DescriptorError};
use super::frame::{FrameError, MAX_PACKET, Reassembler, encode_in};
use super::health::Health;
use super::memory;
use super::message::{Hello, Reply, Request, ServiceSpec};
use super::ports::{Inherited, Ports};
use super::retirement::Duties;
use super::version::Versions;
use crate::privileges;
use crate::ring;
use crate::shared::{Busy, Shared};
use nix::sys::socket::{Backlog, listen};
use nix::unistd::Uid;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Mutex;
use tokio_uring::net::UnixStream;

/// The most control connections at once; a further one waits. There is one daemon, and one more at a hand-over.
const MOST_CONNECTIONS: usize = 8;
/// The pause after accepting a control connection failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a control connection ended early.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Why there is no control connection.
#[derive(Debug, Error)]
enum AcceptError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is user {user}'s")]
    Stranger { user: u32 },
}

/// A control connection, twice: for the ring, and for packets with descriptors.
pub(super) struct Channel {
    stream: UnixStream,
    socket: OwnedFd,
    /// The version that its daemon speaks.
    version: Cell<u16>,
    /// Held while a message is sent, so that the packets of two do not mix.
    sending: Mutex<()>,
}

/// How this end of the control channel behaves.
#[derive(Debug)]
pub struct Manners {
    /// Processes of this user are listened to, and no others.
    pub daemon: Uid,
    /// The versions of the protocol that are spoken.
    pub versions: Versions,
    /// From which build of its program, and with which settings, the daemon has started this process, in its words.
    pub build: String,
}

/// Listens on the control socket as this process and its present user. Who listened last is who a connection is said to be
/// with (`SO_PEERCRED`, unix(7)): so the process can be found by its socket even if it does not answer. To be called while
/// the user is the daemon's still, as a daemon speaks with no other's sockets.
///
/// # Errors
/// If it is no socket that can listen.
pub fn listen_as_this_process(listener: &OwnedFd) -> io::Result<()> {
    Ok(listen(listener, Backlog::new(MOST_CONNECTIONS as i32)?)?)
}

/// A control thread that has all that it needs and waits to be told to serve.
#[derive(Debug)]
#[must_use = "nobody is served before `serve`"]
pub struct ControlThread(Sender<()>);

impl ControlThread {
    /// Starts the control thread for `listener`, a listening `SOCK_SEQPACKET` socket, and waits until it is ready. It keeps what
    /// was `inherited` for the next daemon.
    ///
    /// # Errors
    /// If the thread cannot be started or does not get what it needs, such as a ring. A proxy that nobody can tell anything
    /// must not go on: the daemon starts another one.
    pub fn start(listener: OwnedFd, manners: Manners, inherited: Inherited, shared: Arc<Shared>) -> io::Result<Self> {
        let (ready, is_ready) = channel();
        let (go, told) = channel();
        std::thread::Builder::new().name("control".into()).spawn(move || {
            if let Err(error) = run(listener, manners, inherited, shared, &ready, &told) {
                // Nobody listens any more only if the process is ending.
                let _ = ready.send(Err(error));
            }
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the control thread panicked")))?;
        Ok(Self(go))
    }

    /// Lets it serve. To be called when no thread of the process needs anything more.
    pub fn serve(self) {
        // It waits for this, and has no other end.
        let _ = self.0.send(());
    }
}

fn run(
    listener: OwnedFd,
    manners: Manners,
    inherited: Inherited,
    shared: Arc<Shared>,
    ready: &Sender<io::Result<()>>,
    told: &Receiver<()>,
) -> io::Result<()> {
    let runtime = disabled_runtime()?;
    ring::enable_for_control().map_err(io::Error::other)?;
    let ports = Ports::new(Arc::clone(&shared), listener.try_clone()?, inherited);
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        // A listener like any other for tokio: accepting does not depend on the type of the socket.
        let listener = UnixListener::from_std(listener)?;
        privileges::seal().map_err(io::Error::other)?;
        let _ = ready.send(Ok(()));
        if told.recv().is_err() {
            // The process is ending.
            return Ok(());
        }
        serve(listener, manners, ports, shared).await
    })
}

/// A runtime whose ring is to be enabled before anything uses it.
fn disabled_runtime() -> io::Result<tokio_uring::Runtime> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_r_disabled();
    tokio_uring::Runtime::new(tokio_uring::builder().uring_builder(&ring))
}

/// What the tasks of all connections have in common.
struct Parts {
    shared: Arc<Shared>,
    health: Rc<Health>,
    ports: Rc<Ports>,
    duties: Rc<Duties>,
    versions: Versions,
}

async fn serve(listener: UnixListener, manners: Manners, ports: Ports, shared: Arc<Shared>) -> io::Result<()> {
    let Manners { daemon, versions, build } = manners;
    let health = Health::start(Arc::clone(&shared));
    let ports = Rc::new(ports);
    let duties = Duties::new(Arc::clone(&shared), Rc::clone(&health), Rc::clone(&ports), build, versions.most());
    let parts = Rc::new(Parts { shared, health, ports, duties: Rc::new(duties), versions });
    let places = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        match accept(&listener, daemon, versions).await {
            Ok(channel) => {
                let parts = Rc::clone(&parts);
                tokio_uring::spawn(async move {
                    if let Err(error) = converse(&Rc::new(channel), &parts).await {
                        tracing::warn!(network = %parts.shared.network, %error, "a control connection is closed");
                    }
                    drop(place);
                });
            }
            Err(AcceptError::Stranger { user }) => {
                let network = &parts.shared.network;
                tracing::warn!(%network, user, "a control connection of another user is refused");
            }
            Err(AcceptError::Io(error)) => {
                tracing::warn!(network = %parts.shared.network, %error, "cannot accept a control connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(listener: &UnixListener, daemon: Uid, versions: Versions) -> Result<Channel, AcceptError> {
    let stream = listener.accept().await?.0;
    // Who has connected, whatever became of the descriptor since (SO_PEERCRED, unix(7)).
    let user = stream.peer_cred()?.uid();
    if user != daemon.as_raw() {
        return Err(AcceptError::Stranger { user });
    }
    let stream = stream.into_std()?;
    // A read of a non-blocking descriptor would not wait in the ring either.
    stream.set_nonblocking(false)?;
    let socket = stream.try_clone()?.into();
    // Whoever speaks no newer version understands the oldest.
    let version = Cell::new(versions.least());
    Ok(Channel { stream: UnixStream::from_std(stream), socket, version, sending: Mutex::default() })
}

/// Answers the requests of one connection, in order, until it ends.
async fn converse(channel: &Rc<Channel>, parts: &Parts) -> Result<(), ConnectionError> {
    let Parts { shared, health, ports, duties, versions } = parts;
    let hello = Hello {
        network: shared.network.clone(),
        pid: std::process::id(),
        generation: shared.generation(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: shared.features.clone(),
    };
    channel.send(&Reply::Hello(hello)).await?;
    let mut reassembler = Reassembler::new(*versions);
    let mut buffer = Vec::with_capacity(MAX_PACKET);
    // Bytes since the last answer.
    let mut received = 0;
    let mut awaiting = None;
    loop {
        let (result, used) = channel.stream.read(buffer).await;
        buffer = used;
        let length = result?;
        if length == 0 {
            return Ok(());
        }
        received += length;
        let request = reassembler.push(&buffer[..length])?;
        channel.version.set(reassembler.version());
        let reply = match request {
            None => None,
            Some(Request::AddPort { port, sockets }) => Some(ports.add(channel.socket.as_fd(), port, sockets).await?),
            Some(Request::RemovePort(port)) => Some(ports.remove(port).await),
            Some(Request::Descriptors) => {
                for (reply, descriptors) in ports.parts().await? {
                    channel.send(&reply).await?;
                    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    descriptors::send(channel.socket.as_fd(), &descriptors).await?;
                }
                None
            }
            Some(Request::Introduce) => Some(duties.introduction()),
            Some(Request::AwaitSessions) => {
                duties.await_sessions(channel.receive_descriptor().await?);
                Some(duties.introduction())
            }
            Some(Request::ReceiveDatagrams) => {
                duties.receive_datagrams();
                Some(duties.introduction())
            }
            Some(Request::Retire { drain_ms, hands_over }) => {
                let heir = if hands_over { Some(channel.receive_descriptor().await?) } else { None };
                Some(duties.retire(drain_ms.map(Duration::from_millis), heir, Rc::clone(channel)).await)
            }
            Some(Request::AwaitBusySessions) => {
                drop(awaiting.replace(BusySessions::watch(channel, shared)));
                None
            }
            Some(Request::PassSessions(protocol)) => {
                duties.pass_sessions(protocol, &channel.receive_descriptor().await?);
                Some(duties.introduction())
            }
            Some(request) => answer(&request, shared, health),
        };
        if let Some(Reply::Digests(known)) = &reply {
            // Made of what came earlier, and as large.
            received += known.services.len() * size_of::<ServiceSpec>();
        }
        if let Some(reply) = reply {
            channel.send(&reply).await?;
            if std::mem::take(&mut received) > memory::LARGE {
                memory::give_back();
            }
        }
        buffer.clear();
    }
}

impl Channel {
    pub(super) async fn send(&self, reply: &Reply) -> Result<(), ConnectionError> {
        let packets = encode_in(self.version.get(), reply)?;
        let _sending = self.sending.lock().await;
        for packet in packets {
            self.stream.write_all(packet).await.0?;
        }
        Ok(())
    }

    async fn receive_descriptor(&self) -> Result<OwnedFd, DescriptorError> {
        descriptors::receive(self.socket.as_fd(), 1).await?.pop().ok_or(DescriptorError::Ended)
    }
}

/// Tells whoever has asked when UDP sessions are busy, as long as the connection lasts.
struct BusySessions(tokio::task::JoinHandle<()>);

impl BusySessions {
    fn watch(channel: &Rc<Channel>, shared: &Shared) -> Self {
        let (channel, mut busy) = (Rc::clone(channel), shared.busy_sessions.subscribe());
        Self(tokio_uring::spawn(async move {
            let mut told = Busy::default();
            while let Ok(busy) = busy.wait_for(|busy| *busy != told).await.map(|busy| *busy) {
                for protocol in busy.besides(told) {
                    // Whoever has asked may be gone.
                    let _ = channel.send(&Reply::SessionsAreBusy(protocol)).await;
                }
                told = busy;
            }
        }))
    }
}

impl Drop for BusySessions {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does what is asked of the table or of the whole proxy. There is no answer to a shutdown: the end of the process is.
fn answer(request: &Request, shared: &Shared, health: &Health) -> Option<Reply> {
    let result = match request {
        Request::Snapshot(snapshot) => shared.replace(snapshot),
        Request::Delta(delta) => shared.change(delta),
        Request::Statistics => {
            let mut statistics = shared.statistics();
            health.complete(&mut statistics);
            return Some(Reply::Statistics(Box::new(statistics)));
        }
        Request::Digests => return Some(Reply::Digests(shared.table.load().digests())),
        Request::Shutdown => {
            shared.shut_down();
            return None;
        }
        // Not about the table: answered by `converse`.
        Request::AddPort { .. }
        | Request::RemovePort(_)
        | Request::Descriptors
        | Request::Introduce
        | Request::AwaitSessions
        | Request::ReceiveDatagrams
        | Request::AwaitBusySessions
        | Request::PassSessions(_)
        | Request::Retire { .. } => return None,
    };
    if result.is_ok() {
        health.follow(request);
    }
    Some(match result {
        Ok(generation) => Reply::Acknowledged { generation },
        Err(error) => Reply::Refused { generation: shared.generation(), reason: error.to_string() },
    })
}
