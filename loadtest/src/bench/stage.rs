//! One system at work: its network, its processes, the servers behind it, and the way to them.

use super::BenchError;
use super::congestion;
use super::requests::EchoServer;
use super::system::{Programs, System, ringlb};
use super::topology::{BACKENDS, PORT, Topology, VIP};
use crate::instruments::accounting::tree;
use crate::instruments::files::Directory;
use crate::instruments::process::Process;
use crate::instruments::processors::Processors;
use nix::unistd::Pid;
use ringlb_load::{Load, LoadHandle, LoadOptions, Server, ServerHandle, ServerOptions, Workload};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long a system may take until the first request gets through it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all stages of a benchmark have in common.
pub(super) struct House {
    pub(super) runtime: Runtime,
    pub(super) directory: Directory,
    pub(super) processors: Processors,
    pub(super) programs: Programs,
    /// Of all connections.
    pub(super) congestion_control: String,
}

/// A system at work.
pub(super) struct Stage<'a> {
    house: &'a House,
    pub(super) system: System,
    // Dropped in this order: the system first, the namespaces last.
    process: Option<Process>,
    servers: Vec<ServerHandle>,
    echo: Option<EchoServer>,
    topology: Topology,
}

impl<'a> Stage<'a> {
    /// Starts the system with its servers, and waits until requests get through.
    pub(super) fn open(house: &'a House, system: System) -> Result<Self, BenchError> {
        let start = || system.start(&house.programs, &house.runtime, house.directory.path());
        let (topology, process) = house.processors.on_system(start)?;
        congestion::set_everywhere(&house.congestion_control)?;
        let servers = serve(&topology)?;
        let mut stage = Self { house, system, process, servers, echo: None, topology };
        stage.wait_until_served()?;
        Ok(stage)
    }

    /// What clients connect to.
    pub(super) fn targets(&self) -> Vec<SocketAddr> {
        match self.system {
            System::Direct => BACKENDS.iter().map(super::topology::Container::target).collect(),
            _ => vec![SocketAddr::from((VIP, PORT))],
        }
    }

    /// The system's processes, if it has any.
    pub(super) fn processes(&self) -> Vec<Pid> {
        self.process.as_ref().map(|process| tree(process.pid())).unwrap_or_default()
    }

    /// Starts a load in the client's namespace, on the load's processor.
    pub(super) fn load(&self, options: LoadOptions) -> Result<LoadHandle, BenchError> {
        Ok(self.topology.client.run(|| Load::start(options))??)
    }

    /// Does the work in the client's namespace, on the load's processor.
    pub(super) fn in_client<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, BenchError> + Send,
    ) -> Result<T, BenchError> {
        self.topology.client.run(work)?
    }

    /// Puts servers into the backends' places that do nothing but send back what they get.
    pub(super) fn only_echo(&mut self) -> Result<(), BenchError> {
        self.servers.clear();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], PORT));
        self.echo = Some(EchoServer::start(self.topology.backends.iter().map(|backend| (backend, everywhere)))?);
        Ok(())
    }

    /// Where ringlb's API is served.
    pub(super) fn admin_socket(&self) -> PathBuf {
        ringlb::admin_socket(self.house.directory.path())
    }

    /// Ends everything and removes it.
    pub(super) fn close(self) -> Result<(), BenchError> {
        let Self { house, process, servers, echo, topology, .. } = self;
        drop(process);
        drop((servers, echo));
        topology.remove(&house.runtime)
    }

    fn wait_until_served(&mut self) -> Result<(), BenchError> {
        let begun = Instant::now();
        loop {
            let mut options = LoadOptions::new(self.targets(), Workload::Connect);
            // Enough for every backend to have its turn.
            options.requests = Some(2 * BACKENDS.len() as u64);
            options.timeout = Duration::from_secs(1);
            if self.load(options)?.join()?.failures == 0 {
                return Ok(());
            }
            let ended = self.process.as_mut().is_some_and(Process::has_ended);
            if ended || begun.elapsed() >= PATIENCE {
                let said = self.process.as_ref().map(Process::said).unwrap_or_default();
                return Err(BenchError::Silent { system: self.system.to_string(), patience: begun.elapsed(), said });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn serve(topology: &Topology) -> Result<Vec<ServerHandle>, BenchError> {
    let serve = |(container, namespace): (&super::topology::Container, &ringlb_netns::Namespace)| {
        let name = container.name.parse().map_err(|reason| BenchError::Impossible(format!("{reason}")))?;
        let mut options = ServerOptions::new(name);
        options.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
        Ok(namespace.run(|| Server::start(options))??)
    };
    BACKENDS.iter().zip(&topology.backends).map(serve).collect()
}
