//! The serving of the API on sockets.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const MAX_UNIX_CONNECTIONS: usize = 1024;
const MAX_TCP_CONNECTIONS: usize = 128;
const MAX_METRICS_CONNECTIONS: usize = 16;
/// Prometheus gives a scrape 10 s.
const METRICS_LIFETIME: Duration = Duration::from_secs(10);
/// How long a client on TCP may take to send the head of a request, counted from its connection's last one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head of a request on TCP, in bytes; whoever sends one needs no token yet.
const MAX_HEAD: usize = 64 * 1024;
/// How long open requests may take once the daemon is to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after an accept failed, as it does while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes a listening socket at `path` that only its owner can connect to.
///
/// # Errors
/// The kernel's answer. What is at `path` already is in the way.
pub fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The socket's file gets the descriptor's mode when it is bound (Linux, net/unix/af_unix.c, unix_bind_bsd), so there is
    // no moment in which others could connect.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::MAXCONN)?;
    UnixListener::from_std(socket.into())
}

/// Serves the API on a unix socket until `end` changes.
pub async fn serve_unix(listener: UnixListener, router: Router, end: watch::Receiver<bool>) {
    let limits = Limits { connections: MAX_UNIX_CONNECTIONS, lifetime: None };
    serve(listener, router, end, limits, http1::Builder::new()).await;
}

/// Serves the API on TCP until `end` changes.
pub async fn serve_tcp(listener: TcpListener, router: Router, end: watch::Receiver<bool>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD);
    let limits = Limits { connections: MAX_TCP_CONNECTIONS, lifetime: None };
    serve(listener, router, end, limits, builder).await;
}

/// Serves metrics on TCP until `end` changes. As anybody may come, a connection is for one request, and ends after a
/// while whatever its client does: so neither places nor texts that wait to be read can be held for long.
pub(super) async fn serve_metrics(listener: TcpListener, router: Router, end: watch::Receiver<bool>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).keep_alive(false).max_buf_size(MAX_HEAD);
    let limits = Limits { connections: MAX_METRICS_CONNECTIONS, lifetime: Some(METRICS_LIFETIME) };
    serve(listener, router, end, limits, builder).await;
}

/// What the clients of a listener may take.
#[derive(Clone, Copy)]
struct Limits {
    /// Connections at once; further ones wait to be accepted.
    connections: usize,
    /// How long one connection may last.
    lifetime: Option<Duration>,
}

trait Listener {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // An answer is one small packet, not to be held back.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn serve(
    listener: impl Listener,
    router: Router,
    mut end: watch::Receiver<bool>,
    limits: Limits,
    builder: http1::Builder,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = end.changed() => break,
        };
        // Those that have ended are forgotten, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((place, stream)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let mut end = end.clone();
                connections.spawn(async move {
                    let mut connection = std::pin::pin!(connection);
                    let lifetime = async {
                        match limits.lifetime {
                            Some(lifetime) => sleep(lifetime).await,
                            None => pending().await,
                        }
                    };
                    // How a connection ends is its client's business.
                    tokio::select! {
                        _ = connection.as_mut() => {}
                        () = lifetime => {}
                        _ = end.changed() => {
                            connection.as_mut().graceful_shutdown();
                            let _ = connection.await;
                        }
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let all_end = async { while connections.join_next().await.is_some() {} };
    if timeout(CLOSE_TIMEOUT, all_end).await.is_err() {
        tracing::warn!("connections are cut off in the middle of a request");
    }
}
