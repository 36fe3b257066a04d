//! A daemon of the run's own with all that is built in a step, and the two containers beside it.

use super::plan::{CLIENT, PORT, Plan, SERVER};
use crate::instruments::BenchError;
use crate::instruments::accounting::tree;
use crate::instruments::api::Api;
use crate::instruments::containers;
use crate::instruments::files::Directory;
use crate::instruments::process::Process;
use crate::instruments::processors::Processors;
use crate::instruments::programs::Found;
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{Load, LoadHandle, LoadOptions, Server, ServerHandle, ServerOptions};
use ringlb_netns::{Namespace, remove_leftovers};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long the daemon may take to answer a request that changes everything.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it may take to end hundreds of proxies and remove their namespaces.
const END: Duration = Duration::from_secs(120);
/// What the daemon's namespaces are called begins with it.
const RINGLB_PREFIX: &str = "ringlb";

/// What all steps have in common.
pub(super) struct House {
    pub(super) runtime: Runtime,
    pub(super) directory: Directory,
    pub(super) processors: Processors,
    pub(super) ringlb: Found,
}

/// What is there in a step. It is taken down when it is dropped.
pub(super) struct Stage<'a> {
    pub(super) house: &'a House,
    pub(super) plan: Plan,
    pub(super) daemon: Process,
    proxies: Vec<Pid>,
    client: Namespace,
    server: Option<ServerHandle>,
}

impl<'a> Stage<'a> {
    /// Starts the daemon and builds all of it, by single requests; gives how long that took, too. What a step that failed
    /// has left is removed first.
    pub(super) fn build(house: &'a House, plan: Plan) -> Result<(Self, Duration), BenchError> {
        house.runtime.block_on(remove_leftovers(RINGLB_PREFIX)).map(drop).or_else(first)?;
        let client = containers::create(&CLIENT.namespace())?;
        let server = house.runtime.block_on(server(&plan))?;
        let server = Some(server.run(serve)??);
        let daemon = house.processors.on_system(|| start(house))?;
        let mut stage = Self { house, plan, daemon, proxies: Vec::new(), client, server };
        let begun = Instant::now();
        let mut api = stage.api()?;
        for network in plan.networks() {
            api.done("PUT", &Plan::network_path(network), Some(&plan.network(network)))?;
            for container in Plan::containers(network) {
                let path = format!("{}/attachments/{}", Plan::network_path(network), container.name);
                api.done("PUT", &path, Some(&plan.attachment(network, container)))?;
            }
            for service in plan.services() {
                let path = Plan::service_path(network, service);
                api.done("PUT", &path, Some(&plan.service(network, service, 1)))?;
            }
        }
        let took = begun.elapsed();
        stage.find_proxies()?;
        Ok((stage, took))
    }

    /// A connection to the API.
    pub(super) fn api(&self) -> Result<Api, BenchError> {
        Api::connect_patiently(&admin_socket(self.house), PATIENCE)
    }

    /// The proxies, that of the first network first.
    pub(super) fn proxies(&self) -> &[Pid] {
        &self.proxies
    }

    /// Daemon and proxies.
    pub(super) fn processes(&self) -> Vec<Pid> {
        std::iter::once(self.daemon.pid()).chain(self.proxies.iter().copied()).collect()
    }

    /// Looks for the proxies anew. Each network has one.
    pub(super) fn find_proxies(&mut self) -> Result<(), BenchError> {
        let mut proxies: Vec<_> = tree(self.daemon.pid()).into_iter().skip(1).collect();
        let first = Plan::network_name(0);
        proxies.sort_by_key(|pid| network_of(*pid).as_deref() != Some(first.as_str()));
        let is_first = proxies.first().and_then(|pid| network_of(*pid)) == Some(first);
        let found = proxies.len();
        self.proxies = proxies;
        if found == self.plan.networks().len() && is_first {
            return Ok(());
        }
        let networks = self.plan.size.networks;
        Err(self.daemon.misbehaved(format!("has {found} proxies for {networks} networks")))
    }

    /// Starts a load from the client's namespace.
    pub(super) fn load(&self, options: LoadOptions) -> Result<LoadHandle, BenchError> {
        Ok(self.client.run(|| Load::start(options))??)
    }

    /// Ends everything and removes it.
    pub(super) fn close(mut self) -> Result<(), BenchError> {
        let ended = self.daemon.ends_within(END);
        let said = (!ended).then(|| self.daemon.misbehaved(format!("did not end within {} s", END.as_secs())));
        drop(self);
        said.map_or(Ok(()), Err)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if !self.daemon.ends_within(END) {
            // Its proxies outlive a daemon that is killed.
            self.daemon.signal(Signal::SIGKILL);
            for pid in self.proxies.iter().filter(|pid| network_of(**pid).is_some()) {
                let _ = kill(*pid, Signal::SIGKILL);
            }
        }
        drop(self.server.take());
        for container in [CLIENT, SERVER] {
            // They end with the run in any case.
            let _ = Namespace::remove(&container.namespace());
        }
    }
}

fn start(house: &House) -> Result<Process, BenchError> {
    let directory = house.directory.path();
    let mut command = Command::new(&house.ringlb.path);
    command.arg("--run-dir").arg(run_dir(house)).args(["daemon", "--access-log"]).arg(directory.join("access.log"));
    let mut daemon = Process::start(&mut command, None, &directory.join("ringlb.log"))?;
    let socket = admin_socket(house);
    daemon.wait_until("serve its admin socket", || UnixStream::connect(&socket).is_ok())?;
    Ok(daemon)
}

fn run_dir(house: &House) -> PathBuf {
    house.directory.path().join("ringlb")
}

fn admin_socket(house: &House) -> PathBuf {
    run_dir(house).join("admin.sock")
}

/// The network of the proxy with that process id, which is an argument of its; `None` if that is no proxy.
fn network_of(pid: Pid) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = arguments.split(|byte| *byte == 0).skip_while(|argument| *argument != b"--network");
    String::from_utf8(arguments.nth(1)?.to_vec()).ok()
}

/// A container that has all addresses of the first service's backends.
async fn server(plan: &Plan) -> Result<Namespace, BenchError> {
    let namespace = containers::create(&SERVER.namespace())?;
    let links = namespace.links().await?;
    for backend in 0..plan.size.backends {
        links.add_local_route(IpNet::from(IpAddr::from(plan.backend(0, 0, backend)))).await?;
    }
    Ok(namespace)
}

fn serve() -> Result<ServerHandle, BenchError> {
    let name = SERVER.name.parse().map_err(|reason| BenchError::Impossible(format!("{reason}")))?;
    let mut options = ServerOptions::new(name);
    options.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
    Ok(Server::start(options)?)
}

fn first(errors: Vec<ringlb_netns::Error>) -> ringlb_netns::Result<()> {
    errors.into_iter().next().map_or(Ok(()), Err)
}
