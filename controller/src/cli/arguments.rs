//! What can be asked for on the command line.
//!
//! Values such as subnets are not checked here but by the daemon, which says what is wrong with them in the same words to
//! everybody.

use super::CommandError;
use super::publish::Publish;
use super::settings::SettingsArguments;
use crate::reconcile::MemoryLimit;
use crate::source::docker;
use clap::{Args, Parser, Subcommand};
use ringlb_proxy::control::version::Versions;
use ringlb_proxy::privileges::FirstUser;
use ringlb_proxy::threads::Count;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Service VIPs for container networks, without sidecars and without kernel IPVS.
#[derive(Debug, Parser)]
#[command(name = "ringlb", version, propagate_version = true)]
pub struct Arguments {
    /// The daemon's directory, with its sockets
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/ringlb")]
    pub run_dir: PathBuf,
    /// Print the daemon's answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the node's daemon
    Daemon(DaemonArguments),
    /// Make, list and remove networks
    Network {
        #[command(subcommand)]
        command: NetworkCommand,
    },
    /// Attach a container to a network
    Attach {
        /// The network
        network: String,
        /// The attachment's name, unique in the network
        name: String,
        /// The container's network namespace, such as /run/netns/NAME or /proc/PID/ns/net
        #[arg(long, value_name = "PATH")]
        netns: PathBuf,
        /// The container's address, on a dual-stack network one of each family [default: the lowest that is free]
        #[arg(long)]
        ip: Vec<String>,
    },
    /// Detach a container from a network
    Detach {
        /// The network
        network: String,
        /// The attachment's name
        name: String,
    },
    /// Make, list, show and remove services
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Add, drain and remove the backends of a service
    Backend {
        #[command(subcommand)]
        command: BackendCommand,
    },
    /// Make a whole desired state so, as one batch: what is not in it is removed
    Apply {
        /// A YAML or JSON document, or - for standard input
        file: PathBuf,
    },
    /// Print what is desired, with all addresses that were chosen, as a document for `ringlb apply`
    Export,
    /// Show networks, sandboxes, proxies, services, backends and their connections
    Status,
    /// Put a new process in the place of each proxy, from the program that is there now. No connection is cut and none is
    /// refused
    Upgrade {
        /// The network [default: all]
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
        /// How long the processes that are replaced keep their connections, such as 90s or 1h; then these are reset [default:
        /// as long as they take]
        #[arg(long, value_name = "DURATION")]
        drain_timeout: Option<String>,
    },
    /// After the daemon's end, remove all that it has left on this node: proxies, namespaces, routes, sockets, containers.
    /// What --state-dir keeps stays
    Cleanup(EngineArguments),
    /// Show in half a minute what ringlb does: a network, backends that come and go, load. Needs nothing beforehand
    Demo,
}

#[derive(Debug, Args)]
pub(super) struct DaemonArguments {
    /// Keep what should be in this directory, for the next daemon [default: forget it at the end]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Serve the API on TCP too; all but /healthz and /readyz needs the bearer token there
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) admin_listen: Option<SocketAddr>,
    /// A file with the bearer token [default: admin.token in the run directory, made anew at each start]
    #[arg(long, value_name = "FILE", requires = "admin_listen")]
    pub(super) admin_token_file: Option<PathBuf>,
    /// A name by which the API is asked for over TCP, besides this machine's own and localhost; may be repeated. Addresses
    /// need none
    #[arg(long, value_name = "NAME", requires = "admin_listen")]
    pub(super) admin_host: Vec<String>,
    /// Serve /metrics for Prometheus, and /healthz, on TCP; nothing else is there, and no token is needed
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) engine: EngineArguments,
    /// The TCP port on which managers of the swarm tell workers the labels of services, the same on all nodes; 0 for none
    #[arg(long, value_name = "PORT", requires = "source", default_value_t = docker::cluster::DEFAULT_PORT)]
    pub(super) cluster_port: u16,
    /// Where the Engine has the kernel's balancer (IPVS): serve in its place. IPVS keeps its connections, and has new ones
    /// again a few seconds after this daemon's end
    #[arg(long, requires = "source")]
    pub(super) takeover: bool,
    /// The proxy's program [default: ringlb-proxy beside this program]
    #[arg(long, value_name = "PATH", env = "RINGLB_PROXY")]
    pub(super) proxy_program: Option<PathBuf>,
    /// Append the access log of all proxies to this file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(super) access_log: Option<PathBuf>,
    /// Number of data threads of each proxy, or auto for as many as there are cores; networks that are served already keep theirs
    #[arg(long, value_name = "N", env = "RINGLB_THREADS", default_value = "1")]
    pub(super) threads: Count,
    /// Most connections of each proxy at once; never more than the descriptor limit allows
    #[arg(long, value_name = "N", env = "RINGLB_MAX_CONNECTIONS")]
    pub(super) max_connections: Option<NonZeroU32>,
    /// Each proxy becomes the user and the group with this number plus its process id; 0: this daemon's. Where the kernel gives
    /// no other user, it stays this daemon's
    #[arg(long, value_name = "NUMBER", default_value_t)]
    pub(super) proxy_first_user: FirstUser,
    /// The most memory of each proxy, what the kernel holds for it included, such as 256M; a proxy that needs more is ended by
    /// the kernel and started again. Takes control groups [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub(super) proxy_memory_limit: Option<MemoryLimit>,
    /// Leave the proxies running when the daemon ends
    #[arg(long)]
    pub(super) keep: bool,
    /// Leave proxies as they are that an earlier daemon has started from another build of the proxy's program, or with other
    /// settings [default: replace them, as `ringlb upgrade` does]
    #[arg(long)]
    pub(super) no_upgrade: bool,
    /// Let packets between containers of a network that ringlb makes, and its sandbox, take the bridge [default: they go
    /// straight from one to the other, where the kernel has tcx (Linux 6.6)]
    #[arg(long)]
    pub(super) no_shortcuts: bool,
    /// Speak the control protocol up to this version only
    #[arg(long, value_name = "VERSION", default_value_t, hide = true)]
    pub(super) protocol: Versions,
}

/// Which Engine is meant.
#[derive(Debug, Args)]
pub(super) struct EngineArguments {
    /// The source of services besides the API: docker, for the Engine at /var/run/docker.sock, or docker=unix:///PATH. To
    /// clean up, it is the one that the daemon had if it is not given
    #[arg(long, value_name = "SOURCE")]
    source: Vec<Source>,
    /// Where the Engine mounts the namespaces of its sandboxes [default: what its process says]
    #[arg(long, value_name = "DIR", requires = "source")]
    docker_netns_dir: Option<PathBuf>,
}

impl EngineArguments {
    /// The Engine, if there is one.
    pub(super) fn location(self) -> Result<Option<docker::Location>, CommandError> {
        let Self { source, docker_netns_dir: netns_dir } = self;
        let mut sockets = source.into_iter().map(|Source::Docker(socket)| socket);
        let socket = sockets.next();
        if sockets.next().is_some() {
            return Err(CommandError::SeveralEngines);
        }
        Ok(socket.map(|socket| docker::Location { socket, netns_dir }))
    }
}

/// A source of wishes besides the API.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A Docker Engine, by its socket.
    Docker(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, place) = text.split_once('=').map_or((text, None), |(kind, place)| (kind, Some(place)));
        if kind != docker::NAME {
            return Err(format!("there is no source `{kind}`: write `docker` or `docker=unix:///PATH`"));
        }
        let Some(place) = place else { return Ok(Self::Docker(docker::DEFAULT_SOCKET.into())) };
        let path = place.strip_prefix("unix://").unwrap_or(place);
        if !Path::new(path).is_absolute() {
            return Err(format!("`{place}` is not an Engine's socket: write `unix:///PATH`"));
        }
        Ok(Self::Docker(path.into()))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Make a network
    Create {
        /// Its name
        name: String,
        /// Its addresses, such as 10.1.0.0/16 or fd00:1::/64; given twice, one of each family, the network is dual-stack
        #[arg(long, required = true, value_name = "CIDR")]
        subnet: Vec<String>,
        /// The part of a subnet out of which VIPs are chosen; may be given for each [default: the upper quarter]
        #[arg(long, value_name = "CIDR")]
        vip_prefix: Vec<String>,
    },
    /// List the networks
    Ls,
    /// Remove a network
    Rm {
        /// Its name
        name: String,
        /// Remove its services, attachments and LB endpoint too
        #[arg(long)]
        remove_lb: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Make a service, or change its settings
    Create {
        /// The network
        network: String,
        /// The service's name, unique in the network
        service: String,
        /// Its virtual address, on a dual-stack network one of each family [default: the lowest of the VIP prefix that is free]
        #[arg(long, value_name = "IP")]
        vip: Vec<String>,
        /// Publish it on this node's port HOST, which leads to the backends' port TARGET; PROTO is tcp or udp. May be repeated
        #[arg(long, value_name = "HOST:TARGET/PROTO")]
        publish: Vec<Publish>,
        #[command(flatten)]
        settings: Box<SettingsArguments>,
    },
    /// List the services of a network
    Ls {
        /// The network
        network: String,
    },
    /// Show a service and its backends
    Show {
        /// The network
        network: String,
        /// The service
        service: String,
    },
    /// Remove a service
    Rm {
        /// The network
        network: String,
        /// The service
        service: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Add a backend, or change its settings; it takes new connections from then on
    Add {
        /// The network
        network: String,
        /// The service
        service: String,
        /// The backend's address
        ip: String,
        /// Its share of new connections, 0 to 65535 [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        weight: Option<i64>,
        /// Use it only when no other backend can be used
        #[arg(long)]
        backup: bool,
    },
    /// Give a backend no new connections; those it has go on until the service's drain timeout
    Drain {
        /// The network
        network: String,
        /// The service
        service: String,
        /// The backend's address
        ip: String,
    },
    /// Remove a backend; its connections are reset
    Rm {
        /// The network
        network: String,
        /// The service
        service: String,
        /// The backend's address
        ip: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
