//! The daemon: everything put together, from the start to the end.

use crate::admin::auth::{Token, TokenError};
use crate::admin::metrics::{self, Metrics};
use crate::admin::{self, Context, server};
use crate::reconcile::{ControlDirectory, MemoryError, MemoryGroups, MemoryLimit, Reconcilers, Settings, name_prefix};
use crate::run_dir::{RunDir, RunDirError};
use crate::source::status::SharedStatus;
use crate::source::{Desired, Journal, JournalError, docker};
use ringlb_proxy::control::version::Versions;
use ringlb_proxy::privileges::FirstUser;
use ringlb_proxy::threads::Count;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;

/// How a daemon is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its sockets are. Made if it is not there.
    pub run_dir: PathBuf,
    /// Where what should be is kept for the next daemon. Without one it is forgotten at the end.
    pub state_dir: Option<PathBuf>,
    /// Where the API is served on TCP too, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// The file with the token for TCP. Without one a token is made and written to `admin.token` in the run directory.
    pub admin_token_file: Option<PathBuf>,
    /// Names of this machine by which the API is asked for over TCP, besides its own.
    pub admin_hosts: Vec<String>,
    /// Where the metrics are served without a token, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The Docker Engine that is observed, if any.
    pub docker: Option<docker::Options>,
    /// The proxy's program. Without one `ringlb-proxy` beside this program.
    pub proxy_program: Option<PathBuf>,
    /// The file that the access log of all proxies is appended to. Without one it goes to standard output.
    pub access_log: Option<PathBuf>,
    /// How many data threads the proxy of each network has that begins now; those that are taken over keep theirs.
    pub threads: Count,
    /// The most connections of each proxy; as many as the descriptor limit allows if there is no number.
    pub max_connections: Option<NonZeroU32>,
    /// Where the users of the proxies begin.
    pub proxy_first_user: FirstUser,
    /// The most memory of each proxy, if it is limited.
    pub proxy_memory_limit: Option<MemoryLimit>,
    /// Whether proxies of an earlier daemon are replaced that were started from another build of their program, or with other
    /// settings.
    pub upgrade_proxies: bool,
    /// Whether packets on networks that ringlb makes go past their bridges, where the kernel lets them.
    pub shortcuts: bool,
    /// The versions of the control protocol that are spoken with proxies.
    pub protocol: Versions,
    /// Whether proxies go on when the daemon ends.
    pub keep: bool,
    /// How long a change waits for its acknowledgement.
    pub acknowledge_timeout: Duration,
}

impl Options {
    /// What the daemon does unless told otherwise.
    pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

    /// The defaults, on a run directory.
    #[must_use]
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Self {
            run_dir: run_dir.into(),
            state_dir: None,
            admin_listen: None,
            admin_token_file: None,
            admin_hosts: Vec::new(),
            metrics_listen: None,
            docker: None,
            proxy_program: None,
            access_log: None,
            threads: Count::default(),
            max_connections: None,
            proxy_first_user: FirstUser::default(),
            proxy_memory_limit: None,
            upgrade_proxies: true,
            shortcuts: true,
            protocol: Versions::default(),
            keep: false,
            acknowledge_timeout: Self::ACKNOWLEDGE_TIMEOUT,
        }
    }

    /// Where the admin socket of a daemon on `run_dir` is.
    #[must_use]
    pub fn admin_socket(run_dir: &Path) -> PathBuf {
        RunDir::admin_socket_in(run_dir)
    }
}

/// What a daemon says once it takes requests.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// The address of the API on TCP, with the port that was chosen if none was given.
    pub admin_address: Option<SocketAddr>,
    /// The address of the metrics, likewise.
    pub metrics_address: Option<SocketAddr>,
}

/// Why a daemon cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The run directory cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The file for the access log cannot be opened.
    #[error("cannot open {} for the access log: {cause}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The admin socket cannot be made, or the address cannot be listened on.
    #[error("cannot listen on {on}: {cause}")]
    Listen {
        /// The path or address.
        on: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The proxy's program is not there.
    #[error("cannot find the proxy's program at {}: install it there, or name it with --proxy-program or RINGLB_PROXY", path.display())]
    NoProxyProgram {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The memory of proxies cannot be limited.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There is no token for TCP.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What should be cannot be read or kept.
    #[error(transparent)]
    State(#[from] JournalError),
}

/// Runs a daemon until `shutdown` comes, and then ends it in order. Says on `ready` when it takes requests.
///
/// It belongs on a tokio runtime of its own with one thread: so a change costs a few system calls, the same ones each
/// time, and no thread is woken for it.
///
/// # Errors
/// If it cannot start. What goes wrong later is logged and tried again.
pub async fn run(
    options: Options,
    ready: oneshot::Sender<Ready>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let started = SystemTime::now();
    let run_dir = RunDir::open(&options.run_dir)?;
    let proxy_program = find_proxy(options.proxy_program.as_deref())?;
    let token = match (&options.admin_listen, &options.admin_token_file) {
        (None, _) => None,
        (Some(_), Some(path)) => Some(Token::read(path)?),
        (Some(_), None) => Some(Token::generate(&run_dir.token())?),
    };
    let kept = options.state_dir.as_deref().map(Journal::open).transpose()?;
    let control = ControlDirectory::open(run_dir.path())
        .map_err(|cause| RunDirError::Unusable { path: run_dir.path().to_owned(), cause })?;
    let name_prefix = name_prefix(run_dir.path());
    let memory = MemoryGroups::new(&name_prefix, options.proxy_memory_limit)?;

    let admin_socket = run_dir.admin_socket();
    // The lock is ours, so whoever made this socket is gone.
    let unix = remove_file(&admin_socket)
        .and_then(|()| server::listen_unix(&admin_socket))
        .map_err(|cause| DaemonError::Listen { on: admin_socket.display().to_string(), cause })?;
    let tcp = match options.admin_listen {
        Some(address) => Some(listen_tcp(address).await?),
        None => None,
    };
    let admin_address = tcp.as_ref().map(|(_, address)| *address);
    let scrapers = match options.metrics_listen {
        Some(address) => Some(listen_tcp(address).await?),
        None => None,
    };
    let metrics_address = scrapers.as_ref().map(|(_, address)| *address);

    if let Some(docker) = &options.docker
        && let Err(error) = run_dir.remember_engine(&docker.engine)
    {
        tracing::warn!(%error, "cannot write down which Engine is observed: `ringlb cleanup` will have to be told");
    }
    let acknowledge_timeout = options.acknowledge_timeout;
    let threads = options.threads.get();
    let access_log = options.access_log.as_deref().map(open_access_log).transpose()?;
    let settings = Settings {
        control,
        name_prefix,
        proxy_program,
        access_log,
        threads,
        max_connections: options.max_connections,
        proxy_first_user: options.proxy_first_user,
        memory,
        upgrade_proxies: options.upgrade_proxies,
        shortcuts: options.shortcuts,
        versions: options.protocol,
        acknowledge_timeout,
    };
    let (reconcilers, meetings) = Reconcilers::taking_over(settings);
    let desired = Arc::new(match kept {
        Some((journal, model)) => Desired::kept(reconcilers.clone(), journal, model),
        None => Desired::new(reconcilers.clone()),
    });
    desired.meet(meetings);
    let names = options.docker.iter().flat_map(|_| [docker::NAME, docker::compose::NAME]);
    desired.await_sources(names).await;
    let metrics = Metrics::start(Arc::clone(&desired), started);
    let sources: Vec<_> = options.docker.clone().map(|options| start_docker(options, &desired)).unwrap_or_default();
    let sources = sources.into();
    let context = Context { desired, sources, ready: Arc::new(AtomicBool::new(true)), metrics: metrics.clone() };

    let (end, ended) = watch::channel(false);
    let serve_metrics = match scrapers {
        Some((listener, address)) => {
            let thread = metrics::serve(listener, metrics, ended.clone());
            Some(thread.map_err(|cause| cannot_listen(address, cause))?)
        }
        None => None,
    };
    let serve_unix = tokio::spawn(server::serve_unix(unix, admin::router(context.clone()), ended.clone()));
    let serve_tcp = match (tcp, token) {
        (Some((listener, _)), Some(token)) => {
            let router = admin::guarded_router(context.clone(), token, admin::host::Names::new(&options.admin_hosts));
            Some(tokio::spawn(server::serve_tcp(listener, router, ended)))
        }
        _ => None,
    };
    tracing::info!(
        admin_socket = %admin_socket.display(), admin_address = admin_address.map(tracing::field::display),
        metrics_address = metrics_address.map(tracing::field::display),
        "the daemon is ready"
    );
    // Whoever started it may not care.
    let _ = ready.send(Ready { admin_socket: admin_socket.clone(), admin_address, metrics_address });

    shutdown.await;
    tracing::info!(keep = options.keep, "the daemon is ending");
    context.ready.store(false, Ordering::Relaxed);
    reconcilers.stop(options.keep).await;
    // Cannot fail while the servers are there to hear it, and need not otherwise.
    let _ = end.send(true);
    for server in [Some(serve_unix), serve_tcp].into_iter().flatten() {
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin server did not end in order");
        }
    }
    if let Some(thread) = serve_metrics
        && !matches!(spawn_blocking(|| thread.join()).await, Ok(Ok(())))
    {
        tracing::error!("the metrics server did not end in order");
    }
    if let Err(error) = remove_file(&admin_socket) {
        tracing::error!(path = %admin_socket.display(), %error, "cannot remove the admin socket");
    }
    tracing::info!("the daemon has ended");
    Ok(())
}

/// Begins to observe an Engine; gives the status of each source that it is.
fn start_docker(options: docker::Options, desired: &Arc<Desired>) -> Vec<SharedStatus> {
    let (socket, port) = (options.engine.socket.clone(), options.cluster_port);
    let (feed, fed) = watch::channel(None);
    let engine = options.engine.clone();
    let docker::Docker { status, node, facts } = docker::start(options, Arc::clone(desired), fed);
    if port != 0 {
        let status = status.clone();
        tokio::spawn(docker::cluster::Link { node, facts, feed, status, socket, port }.run());
    }
    vec![status, docker::compose::start(engine, Arc::clone(desired))]
}

/// Whoever rotates the file must copy and truncate it: proxies keep it open.
fn open_access_log(path: &Path) -> Result<File, DaemonError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    opened.map_err(|cause| DaemonError::AccessLog { path: path.to_owned(), cause })
}

fn find_proxy(given: Option<&Path>) -> Result<PathBuf, DaemonError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().unwrap_or_default().with_file_name("ringlb-proxy"),
    };
    if path.is_file() { Ok(path) } else { Err(DaemonError::NoProxyProgram { path }) }
}

async fn listen_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DaemonError> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen.await.map_err(|cause| cannot_listen(address, cause))
}

fn cannot_listen(address: SocketAddr, cause: io::Error) -> DaemonError {
    DaemonError::Listen { on: address.to_string(), cause }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
