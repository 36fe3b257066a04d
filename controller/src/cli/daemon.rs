//! `ringlb daemon`.

use super::CommandError;
use super::arguments::DaemonArguments;
use crate::daemon::{self, Options};
use crate::source::docker;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Signals that come within this time are one. Nobody repeats a wish so fast, but the kernel does: a parent that dies sends
/// its death signal once for each of its threads (PR_SET_PDEATHSIG, prctl(2)).
const TOGETHER: Duration = Duration::from_millis(500);

pub(super) async fn run(run_dir: PathBuf, arguments: DaemonArguments) -> Result<(), CommandError> {
    ringlb_proxy::log::start();
    raise_descriptor_limit();
    let (cluster_port, takeover) = (arguments.cluster_port, arguments.takeover);
    let docker = arguments.engine.location()?.map(|engine| docker::Options { engine, cluster_port, takeover });
    let options = Options {
        docker,
        state_dir: arguments.state_dir,
        admin_listen: arguments.admin_listen,
        admin_token_file: arguments.admin_token_file,
        admin_hosts: arguments.admin_host,
        metrics_listen: arguments.metrics_listen,
        proxy_program: arguments.proxy_program,
        access_log: arguments.access_log,
        threads: arguments.threads,
        max_connections: arguments.max_connections,
        proxy_first_user: arguments.proxy_first_user,
        proxy_memory_limit: arguments.proxy_memory_limit,
        upgrade_proxies: !arguments.no_upgrade,
        shortcuts: !arguments.no_shortcuts,
        protocol: arguments.protocol,
        keep: arguments.keep,
        ..Options::new(run_dir)
    };
    let mut signals = Signals::watch()?;
    // Whoever waits for a daemon of this kind asks `/readyz`.
    let (ready, _) = oneshot::channel();
    let shutdown = async move {
        signals.next().await;
        tokio::spawn(async move {
            let settled = Instant::now() + TOGETHER;
            while timeout_at(settled, signals.next()).await.is_ok() {}
            signals.next().await;
            tracing::error!("a second signal: ending at once, without removing anything");
            std::process::exit(1);
        });
    };
    Ok(daemon::run(options, ready, shutdown).await?)
}

/// A network takes about ten descriptors, an admin connection one; the usual limit of 1,024 is meant for programs that
/// use `select(2)`.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> Result<Self, CommandError> {
        let watch = |kind| signal(kind).map_err(CommandError::Signals);
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
