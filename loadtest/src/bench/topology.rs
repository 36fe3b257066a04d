//! Where everything happens: a client, two backends and a sandbox, each in a namespace, on one bridge.
//!
//! It is made anew for each run, so that no run finds connections, ports or conntrack entries of another. ringlb makes
//! the bridge and the legs by itself, as its users have it; for the others they are made here, by the same library.

use super::BenchError;
use crate::instruments::containers::create;
use ipnet::{IpNet, Ipv4Net};
use ringlb_netns::{Fabric, Namespace, NetworkPlan, Sandbox, remove_leftovers};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::runtime::Runtime;

/// The network's subnet.
pub(super) const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 78, 0, 0), 16);
/// The address that clients connect to.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 200);
/// The sandbox's own address.
const LB_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// The port of backends and VIP.
pub(super) const PORT: u16 = 7000;

/// A namespace that stands for a container.
pub(super) struct Container {
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
}

/// The client.
pub(super) const CLIENT: Container = Container { name: "client", address: Ipv4Addr::new(10, 78, 0, 100) };
/// The backends.
pub(super) const BACKENDS: [Container; 2] = [
    Container { name: "backend-1", address: Ipv4Addr::new(10, 78, 0, 11) },
    Container { name: "backend-2", address: Ipv4Addr::new(10, 78, 0, 12) },
];

/// All names that are made here start with it.
const PREFIX: &str = "bench-";
/// The same of a ringlb daemon, if it did not end as it should.
const RINGLB_PREFIX: &str = "ringlb";

impl Container {
    /// The name of its namespace.
    pub(super) fn namespace(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// Where it listens.
    pub(super) fn target(&self) -> SocketAddr {
        SocketAddr::from((self.address, PORT))
    }
}

/// The namespaces of one run. Nothing is left of them when it is dropped, but for what processes that still run in them
/// keep alive.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) client: Namespace,
    pub(super) backends: Vec<Namespace>,
    network: Option<(Fabric, Option<Sandbox>)>,
}

impl Topology {
    /// The client and the backends, connected to nothing. What a run that failed has left is removed first.
    pub(super) fn containers(runtime: &Runtime) -> Result<Self, BenchError> {
        for prefix in [PREFIX, RINGLB_PREFIX] {
            runtime.block_on(remove_leftovers(prefix)).map(drop).or_else(first)?;
        }
        let backends = BACKENDS.iter().map(|container| create(&container.namespace())).collect::<Result<_, _>>()?;
        Ok(Self { client: create(&CLIENT.namespace())?, backends, network: None })
    }

    /// The client and the backends on a bridge.
    pub(super) fn connected(runtime: &Runtime) -> Result<Self, BenchError> {
        let mut topology = Self::containers(runtime)?;
        topology.network = Some((runtime.block_on(topology.connect())?, None));
        Ok(topology)
    }

    /// The same, and a sandbox with the VIP, as ringlb's proxies have it.
    pub(super) fn with_sandbox(runtime: &Runtime) -> Result<(Self, Namespace), BenchError> {
        let mut topology = Self::containers(runtime)?;
        let sandbox = runtime.block_on(async {
            let fabric = topology.connect().await?;
            let sandbox = Sandbox::ensure(fabric.plan(), &fabric, IpAddr::from(LB_ENDPOINT)).await?;
            sandbox.add_vip_route(IpNet::from(IpAddr::from(VIP))).await?;
            let namespace = sandbox.namespace().clone();
            topology.network = Some((fabric, Some(sandbox)));
            Ok::<_, ringlb_netns::Error>(namespace)
        })?;
        Ok((topology, sandbox))
    }

    async fn connect(&self) -> ringlb_netns::Result<Fabric> {
        let fabric = Fabric::ensure(&NetworkPlan::new(PREFIX, "net", IpNet::V4(SUBNET))).await?;
        let namespaces = std::iter::once(&self.client).chain(&self.backends);
        for (container, namespace) in std::iter::once(&CLIENT).chain(&BACKENDS).zip(namespaces) {
            fabric.connect(container.name, namespace, "eth0", IpAddr::from(container.address)).await?;
        }
        Ok(fabric)
    }

    /// Removes everything, the legs first. The processes in it are to be gone.
    pub(super) fn remove(mut self, runtime: &Runtime) -> Result<(), BenchError> {
        if let Some((fabric, sandbox)) = self.network.take() {
            runtime.block_on(async {
                if let Some(sandbox) = sandbox {
                    sandbox.remove(&fabric).await.or_else(first)?;
                }
                fabric.remove().await.or_else(first)
            })?;
        }
        for container in std::iter::once(&CLIENT).chain(&BACKENDS) {
            Namespace::remove(&container.namespace())?;
        }
        Ok(())
    }
}

fn first(errors: Vec<ringlb_netns::Error>) -> ringlb_netns::Result<()> {
    errors.into_iter().next().map_or(Ok(()), Err)
}
