//! What is in the kernel, seen without asking ringlb.

use super::model::Network;
use super::{CONTAINERS, NETWORKS};
use ringlb_netns::Namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use tokio::runtime::Runtime;

/// All that a node's networks have in the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The namespaces by their names behind the prefix, with the addresses in those that are sandboxes, and the number of
    /// ports of the bridge in the others.
    namespaces: BTreeMap<String, (BTreeSet<IpAddr>, usize)>,
    /// The addresses of all legs in each container.
    containers: Vec<BTreeSet<IpAddr>>,
    /// The networks that have a proxy, one entry for each.
    proxies: Vec<String>,
    /// The networks that have a control socket.
    sockets: BTreeSet<String>,
    /// The published ports that something listens on.
    ports: BTreeSet<u16>,
}

impl Kernel {
    /// What there should be.
    pub(super) fn expected(networks: &[Option<Network>]) -> Self {
        let mut kernel = Self { containers: vec![BTreeSet::new(); usize::from(CONTAINERS)], ..Self::default() };
        for (network, name) in networks.iter().zip(NETWORKS) {
            let Some(network) = network.as_ref().filter(|network| network.is_on_node()) else { continue };
            let ports = network.attachments.len() + usize::from(network.lb_endpoint.is_some());
            kernel.namespaces.insert(format!("{name}-bridge"), (BTreeSet::new(), ports));
            for (container, address) in &network.attachments {
                kernel.containers[usize::from(*container)].insert((*address).into());
            }
            if let Some(address) = network.lb_endpoint {
                kernel.namespaces.insert(format!("{name}-lb"), (BTreeSet::from([address.into()]), 0));
                kernel.proxies.push(name.to_owned());
                kernel.sockets.insert(name.to_owned());
            }
            kernel.ports.extend(network.services.values().filter_map(|service| service.published));
        }
        kernel
    }

    /// What there is.
    pub(super) fn observed(runtime: &Runtime, prefix: &str, run_dir: &Path) -> Self {
        let namespaces = ringlb_netns::leftovers(prefix).unwrap().into_iter().filter_map(|name| {
            let short = name.strip_prefix(prefix)?.to_owned();
            // It may go at this moment.
            let namespace = Namespace::open(&name).ok()?;
            let (addresses, links) = looked_at(runtime, &namespace)?;
            // Beside the ports there is the bridge.
            let seen = if short.ends_with("-lb") { (addresses, 0) } else { (BTreeSet::new(), links.saturating_sub(1)) };
            Some((short, seen))
        });
        let containers = (0..CONTAINERS).map(|container| {
            let namespace = Namespace::open_path(Path::new(&super::path_of(container))).unwrap();
            looked_at(runtime, &namespace).map(|(addresses, _)| addresses).unwrap_or_default()
        });
        let sockets = fs::read_dir(run_dir.join("control")).into_iter().flatten().flatten();
        let sockets = sockets.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sock")?.to_owned()));
        Self {
            namespaces: namespaces.collect(),
            containers: containers.collect(),
            proxies: proxies(),
            sockets: sockets.collect(),
            ports: listening_ports(),
        }
    }
}

/// The addresses in a namespace, and the number of links, without the loopback interface.
fn looked_at(runtime: &Runtime, namespace: &Namespace) -> Option<(BTreeSet<IpAddr>, usize)> {
    runtime.block_on(async {
        let links = namespace.links().await.ok()?;
        let (mut addresses, mut count) = (BTreeSet::new(), 0);
        for link in links.list().await.ok()?.iter().filter(|link| link.name != "lo") {
            count += 1;
            let own = links.addresses(&link.name).await.ok()?;
            addresses.extend(own.iter().map(ipnet::IpNet::addr).filter(IpAddr::is_ipv4));
        }
        Some((addresses, count))
    })
}

/// The networks of all proxies that run in the mounts of this test, which are nobody else's.
fn proxies() -> Vec<String> {
    let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let ours = mounts("self");
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut networks: Vec<_> = processes
        .filter(|process| process.parse::<u32>().is_ok() && mounts(process) == ours)
        .filter_map(|process| {
            let line = fs::read(format!("/proc/{process}/cmdline")).ok()?;
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            words.first()?.ends_with("ringlb-proxy").then_some(())?;
            let place = words.iter().position(|word| word == "--network")?;
            words.get(place + 1).map(ToString::to_string)
        })
        .collect();
    networks.sort();
    networks
}

/// The TCP ports of published ones that are listened on in the test's own namespace (proc_pid_net(5)).
fn listening_ports() -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next()?, fields.nth(1)?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (state == "0A" && (20_000..21_000).contains(&port)).then_some(port)
        })
        .collect()
}
