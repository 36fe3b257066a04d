//! ringlb-proxy: serves one network's connections from inside its sandbox. Started by `ringlb daemon`.

use clap::Parser;
use ringlb_proxy::access_log;
use ringlb_proxy::control::ports::Inherited;
use ringlb_proxy::control::replacement::BUILD;
use ringlb_proxy::control::thread::{ControlThread, Manners, listen_as_this_process};
use ringlb_proxy::control::version::Versions;
use ringlb_proxy::inherited;
use ringlb_proxy::log;
use ringlb_proxy::privileges::{self, FirstUser};
use ringlb_proxy::ring::probe;
use ringlb_proxy::shared::Shared;
use ringlb_proxy::threads::{Count, DataThreads, Sockets, share_out};
use ringlb_proxy::worker::{Limits, Settings};
use std::error::Error;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Serves the connections of one ringlb network. Started by the ringlb daemon, with open descriptors.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The network's name
    #[arg(long)]
    network: String,
    /// Descriptor of the control socket: a listening SOCK_SEQPACKET socket
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(RawFd).range(3..))]
    control_fd: RawFd,
    /// Number of data threads, or auto for as many as there are cores
    #[arg(long, value_name = "N|auto", default_value_t)]
    threads: Count,
    /// Descriptor of a listening TCP socket; may be repeated. The first ones are for the first data thread and so on, as
    /// many for each
    #[arg(long, required = true, value_name = "FD", value_parser = clap::value_parser!(RawFd).range(3..))]
    listener_fd: Vec<RawFd>,
    /// Descriptor of a UDP socket that gets the datagrams for VIPs; may be repeated, and is shared out as listeners are
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(RawFd).range(3..))]
    datagram_fd: Vec<RawFd>,
    /// Descriptor to keep open and leave alone, such as that of the program which steers to the listeners
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(RawFd).range(3..))]
    keep_fd: Vec<RawFd>,
    /// Most connections at once; never more than the descriptor limit allows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// Become the user and the group with this number plus the process id; 0 to stay what the daemon is
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    first_user: FirstUser,
    /// Microseconds to look for completions before sleeping; 0 to sleep at once
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 30)]
    spin: u64,
    /// Accept one connection with each operation, even where many would work
    #[arg(long)]
    one_shot_accept: bool,
    /// Speak the control protocol up to this version only
    #[arg(long, value_name = "VERSION", default_value_t, hide = true)]
    protocol: Versions,
}

fn main() -> ExitCode {
    log::start();
    let arguments = Arguments::parse();
    let network = arguments.network.clone();
    // Where the kernel makes huge pages unasked, as Debian's does, the first byte of each large mapping takes two megabytes:
    // of buffers that an idle proxy does not use. Without them (a kernel before 3.15) nothing else is different.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%network, %error, "huge pages stay as the kernel has them");
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%network, "the proxy cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let control = inherited::take(arguments.control_fd)?;
    let listeners = take_all(&arguments.listener_fd)?.into_iter().map(Arc::new).collect();
    let kept = take_all(&arguments.keep_fd)?;
    let threads = arguments.threads.get().get();
    let datagrams: Vec<_> = take_all(&arguments.datagram_fd)?.into_iter().map(Arc::new).collect();
    let listeners = share_out("listeners", listeners, threads)?;
    // There may be none at all.
    let datagrams = match datagrams.len() {
        0 => (0..threads).map(|_| Vec::new()).collect(),
        _ => share_out("UDP sockets", datagrams, threads)?,
    };
    let sockets = listeners.into_iter().zip(datagrams);
    let sockets: Vec<_> = sockets.map(|(listeners, datagrams)| Sockets { listeners, datagrams }).collect();

    let most = arguments.max_connections.map_or(usize::MAX, |most| most as usize);
    let limits = Limits::of_process(threads)?.with_at_most(most);
    let daemon = nix::unistd::geteuid();
    let listening = listen_as_this_process(&control);
    let given_up = privileges::give_up(arguments.first_user)?;
    // What the kernel lacks is told first.
    let mut features = probe::check()?;
    listening?;
    features.multishot_accept &= !arguments.one_shot_accept;
    features.max_connections = limits.connections as u64;
    features.threads = threads as u32;

    let spin = Duration::from_micros(arguments.spin);
    let settings = Settings { spin, multishot_accept: features.multishot_accept };
    let access_log = access_log::start(arguments.network.clone(), std::io::stdout())?;
    let shared = Arc::new(Shared::new(arguments.network, features, limits, threads, access_log)?);
    let threads = DataThreads::start(&shared, settings, sockets.clone())?;
    let inherited = Inherited { threads: sockets, kept };
    let manners = Manners { daemon, versions: arguments.protocol, build: std::env::var(BUILD).unwrap_or_default() };
    let control = ControlThread::start(control, manners, inherited, Arc::clone(&shared))?;
    privileges::seal()?;
    tracing::info!(network = %shared.network, "what is not needed is given up: {given_up}");
    control.serve();
    Ok(threads.join()?)
}

fn take_all(descriptors: &[RawFd]) -> Result<Vec<OwnedFd>, inherited::Error> {
    descriptors.iter().map(|&descriptor| inherited::take(descriptor)).collect()
}
