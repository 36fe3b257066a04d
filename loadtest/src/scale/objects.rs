//! Objects of the kernel that ringlb holds.

use crate::instruments::BenchError;
use nix::unistd::Pid;
use ringlb_netns::Namespace;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use tokio::runtime::Runtime;

/// Objects of the kernel that ringlb holds, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Objects {
    /// Network namespaces: bridges' and sandboxes'.
    pub(crate) namespaces: u64,
    /// Interfaces in them, without loopback: bridges, their ports, and the sandboxes' ends of them. The other ends of the
    /// containers' ports are the containers'.
    pub(crate) links: u64,
    /// Routes that lead VIPs to proxies.
    pub(crate) routes: u64,
    /// Sockets of daemon and proxies, each once.
    pub(crate) sockets: u64,
    /// BPF programs, maps and links.
    pub(crate) bpf: u64,
}

impl Objects {
    /// Counts those of the processes, and what is in all named namespaces but those of containers.
    pub(super) fn count(processes: &[Pid], containers: &[String], runtime: &Runtime) -> Result<Self, BenchError> {
        let mut objects = Self::default();
        for name in Namespace::list()?.into_iter().filter(|name| !containers.contains(name)) {
            let namespace = Namespace::open(&name)?;
            let (links, routes) = runtime.block_on(async {
                let links = namespace.links().await?;
                Ok::<_, ringlb_netns::Error>((links.list().await?.len(), links.local_routes().await?.len()))
            })?;
            objects.namespaces += 1;
            // All but loopback.
            objects.links += (links as u64).saturating_sub(1);
            objects.routes += routes as u64;
        }
        let (mut sockets, mut bpf) = (HashSet::new(), HashSet::new());
        for pid in processes {
            sockets.extend(sockets_of(*pid)?);
            bpf.extend(bpf_of(*pid)?);
        }
        objects.sockets = sockets.len() as u64;
        objects.bpf = bpf.len() as u64;
        Ok(objects)
    }

    /// All of them.
    pub(super) const fn sum(&self) -> u64 {
        let Self { namespaces, links, routes, sockets, bpf } = *self;
        namespaces + links + routes + sockets + bpf
    }
}

/// The sockets that a process has open, by what `/proc` calls them (proc_pid_fd(5)). A socket that two processes have is
/// one socket.
fn sockets_of(pid: Pid) -> Result<Vec<String>, BenchError> {
    let path = format!("/proc/{pid}/fd");
    let descriptors = fs::read_dir(&path).map_err(BenchError::file("list", &path))?;
    let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    Ok(targets
        .filter_map(|target| target.to_str().filter(|target| target.starts_with("socket:")).map(str::to_owned))
        .collect())
}

/// The BPF objects that a process has open, by kind and number (`prog_id`, `map_id` and `link_id` in proc_pid_fdinfo(5);
/// kernel/bpf/syscall.c).
fn bpf_of(pid: Pid) -> Result<HashSet<String>, BenchError> {
    let path = format!("/proc/{pid}/fdinfo");
    let descriptors = fs::read_dir(&path).map_err(BenchError::file("list", &path))?;
    let texts = descriptors.flatten().filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok());
    Ok(texts.flat_map(|text| bpf_objects(&text)).collect())
}

fn bpf_objects(information: &str) -> Vec<String> {
    let object = |line: &str| {
        let (kind, number) = line.split_once(':')?;
        matches!(kind, "prog_id" | "map_id" | "link_id").then(|| format!("{kind} {}", number.trim()))
    };
    information.lines().filter_map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn sockets_are_told_from_files() {
        let file = tempfile::tempfile().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let called = |descriptor: i32| fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap();
        let sockets = sockets_of(Pid::this()).unwrap();
        assert!(sockets.iter().any(|socket| *called(listener.as_raw_fd()) == **socket));
        assert!(sockets.iter().all(|socket| *called(file.as_raw_fd()) != **socket));
        assert!(sockets_of(Pid::from_raw(i32::MAX)).is_err());
    }

    #[test]
    fn bpf_objects_are_told_by_their_numbers() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\tnetns\nlink_id:\t7\nprog_tag:\tabc\nprog_id:\t12\n";
        assert_eq!(bpf_objects(link), ["link_id 7", "prog_id 12"]);
        assert_eq!(bpf_objects("pos:\t0\nmap_type:\t15\nmap_id:\t3\n"), ["map_id 3"]);
        assert!(bpf_objects("pos:\t0\nino:\t4\n").is_empty());
    }
}
