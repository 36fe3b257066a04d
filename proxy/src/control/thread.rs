//! The control thread: answers requests and changes the table.
//!
//! It runs tokio-uring on a thread of its own, so that nothing it does delays a packet.

use super::descriptors::{self, DescriptorError};
use super::frame::{FrameError, MAX_PACKET, Reassembler, encode};
use super::health::Health;
use super::memory;
use super::message::{Hello, Reply, Request};
use super::ports::{Inherited, Ports};
use crate::privileges;
use crate::ring;
use crate::shared::Shared;
use nix::sys::socket::{Backlog, listen};
use nix::unistd::Uid;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio_uring::net::UnixStream;

/// The most control connections at once; a further one waits. There is one daemon, and one more at a hand-over.
const MOST_CONNECTIONS: usize = 8;
/// The pause after accepting a control connection failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a control connection ended early.
#[derive(Debug, Error)]
enum ConnectionError {
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
struct Channel {
    stream: UnixStream,
    socket: OwnedFd,
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
    /// Starts the control thread for `listener`, a listening `SOCK_SEQPACKET` socket, and waits until it is ready. It listens
    /// to processes of the user `daemon` only, and keeps what was `inherited` for the next daemon.
    ///
    /// # Errors
    /// If the thread cannot be started or does not get what it needs, such as a ring. A proxy that nobody can tell anything
    /// must not go on: the daemon starts another one.
    pub fn start(listener: OwnedFd, daemon: Uid, inherited: Inherited, shared: Arc<Shared>) -> io::Result<Self> {
        let (ready, is_ready) = channel();
        let (go, told) = channel();
        std::thread::Builder::new().name("control".into()).spawn(move || {
            if let Err(error) = run(listener, daemon, inherited, shared, &ready, &told) {
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
    daemon: Uid,
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
        serve(listener, daemon, ports, shared).await
    })
}

/// A runtime whose ring is to be enabled before anything uses it.
fn disabled_runtime() -> io::Result<tokio_uring::Runtime> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_r_disabled();
    tokio_uring::Runtime::new(tokio_uring::builder().uring_builder(&ring))
}

async fn serve(listener: UnixListener, daemon: Uid, ports: Ports, shared: Arc<Shared>) -> io::Result<()> {
    let health = Health::start(Arc::clone(&shared));
    let ports = Rc::new(ports);
    let places = Arc::new(tokio::sync::Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        match accept(&listener, daemon).await {
            Ok(channel) => {
                let (shared, health, ports) = (Arc::clone(&shared), Rc::clone(&health), Rc::clone(&ports));
                tokio_uring::spawn(async move {
                    if let Err(error) = converse(&channel, &shared, &health, &ports).await {
                        tracing::warn!(network = %shared.network, %error, "a control connection is closed");
                    }
                    drop(place);
                });
            }
            Err(AcceptError::Stranger { user }) => {
                tracing::warn!(network = %shared.network, user, "a control connection of another user is refused");
            }
            Err(AcceptError::Io(error)) => {
                tracing::warn!(network = %shared.network, %error, "cannot accept a control connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(listener: &UnixListener, daemon: Uid) -> Result<Channel, AcceptError> {
    let stream = listener.accept().await?.0;
    // Who has connected, whatever became of the descriptor since (SO_PEERCRED, unix(7)).
    let user = stream.peer_cred()?.uid();
    if user != daemon.as_raw() {
        return Err(AcceptError::Stranger { user });
    }
    let stream = stream.into_std()?;
    // A read of a non-blocking descriptor would not wait in the ring either.
    stream.set_nonblocking(false)?;
    Ok(Channel { socket: stream.try_clone()?.into(), stream: UnixStream::from_std(stream) })
}

/// Answers the requests of one connection, in order, until it ends.
async fn converse(channel: &Channel, shared: &Shared, health: &Health, ports: &Ports) -> Result<(), ConnectionError> {
    let Channel { stream, socket } = channel;
    let hello = Hello {
        network: shared.network.clone(),
        pid: std::process::id(),
        generation: shared.generation(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: shared.features.clone(),
    };
    send(stream, &Reply::Hello(hello)).await?;
    let mut reassembler = Reassembler::default();
    let mut buffer = Vec::with_capacity(MAX_PACKET);
    // Bytes since the last answer.
    let mut received = 0;
    loop {
        let (result, used) = stream.read(buffer).await;
        buffer = used;
        let length = result?;
        if length == 0 {
            return Ok(());
        }
        received += length;
        let reply = match reassembler.push(&buffer[..length])? {
            None => None,
            Some(Request::AddPort { port, sockets }) => Some(ports.add(socket.as_fd(), port, sockets).await?),
            Some(Request::RemovePort(port)) => Some(ports.remove(port).await),
            Some(Request::Descriptors) => {
                for (reply, descriptors) in ports.parts().await? {
                    send(stream, &reply).await?;
                    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    descriptors::send(socket.as_fd(), &descriptors).await?;
                }
                None
            }
            Some(request) => answer(&request, shared, health),
        };
        if let Some(reply) = reply {
            send(stream, &reply).await?;
            if std::mem::take(&mut received) > memory::LARGE {
                memory::give_back();
            }
        }
        buffer.clear();
    }
}

async fn send(stream: &UnixStream, reply: &Reply) -> Result<(), ConnectionError> {
    for packet in encode(reply)? {
        stream.write_all(packet).await.0?;
    }
    Ok(())
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
        Request::Shutdown => {
            shared.shut_down();
            return None;
        }
        // Not about the table: answered by `converse`.
        Request::AddPort { .. } | Request::RemovePort(_) | Request::Descriptors => return None,
    };
    if result.is_ok() {
        health.follow(request);
    }
    Some(match result {
        Ok(generation) => Reply::Acknowledged { generation },
        Err(error) => Reply::Refused { generation: shared.generation(), reason: error.to_string() },
    })
}
