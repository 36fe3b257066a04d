//! ringlb as its users run it: a daemon that makes the network, the sandbox and the proxy, with metrics.

use super::Found;
use crate::bench::BenchError;
use crate::bench::topology::{BACKENDS, CLIENT, Container, SUBNET, VIP};
use crate::instruments::process::{Process, output};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the metrics are to be had; the namespace is the benchmark's own.
const METRICS: &str = "127.0.0.1:9480";

/// The network.
const NETWORK: &str = "bench";
/// The service that is loaded.
pub(in crate::bench) const SERVICE: &str = "echo";
/// A VIP for a second service.
pub(in crate::bench) const SECOND_VIP: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 201);
/// The first of some addresses on the network that nobody has.
pub(in crate::bench) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 78, 1, 1);
/// The services of a large table.
pub(in crate::bench) const LARGE_SERVICES: usize = 1_000;
/// The backends of each of them.
pub(in crate::bench) const LARGE_BACKENDS: usize = 10;

pub(super) fn start(program: &Found, directory: &Path, shortcuts: bool) -> Result<Process, BenchError> {
    let run_dir = run_dir(directory);
    let command = || {
        let mut command = Command::new(&program.path);
        command.arg("--run-dir").arg(&run_dir);
        command
    };
    let mut daemon = command();
    daemon.args(["daemon", "--metrics-listen", METRICS, "--access-log"]).arg(directory.join("access.log"));
    if !shortcuts {
        daemon.arg("--no-shortcuts");
    }
    let mut daemon = Process::start(&mut daemon, None, &directory.join("ringlb.log"))?;
    let socket = admin_socket(directory);
    daemon.wait_until("serve its admin socket", || UnixStream::connect(&socket).is_ok())?;
    let file = directory.join("desired.json");
    fs::write(&file, desired(Vec::new()).to_string()).map_err(BenchError::file("write", &file))?;
    output(command().arg("apply").arg(&file))?;
    Ok(daemon)
}

fn run_dir(directory: &Path) -> PathBuf {
    directory.join("ringlb")
}

/// Where the API is served.
pub(in crate::bench) fn admin_socket(directory: &Path) -> PathBuf {
    run_dir(directory).join("admin.sock")
}

/// A service in the API.
pub(in crate::bench) fn service_path(service: &str) -> String {
    format!("/v1/networks/{NETWORK}/services/{service}")
}

/// A backend in the API.
pub(in crate::bench) fn backend_path(service: &str, address: Ipv4Addr) -> String {
    format!("{}/backends/{address}", service_path(service))
}

/// The state with a large table, whose backends have that weight.
pub(in crate::bench) fn large(weight: u16) -> Value {
    let services = (0..LARGE_SERVICES).map(|service| {
        let backend = |number| json!({"ip": large_backend(service, number), "weight": weight});
        json!({"name": large_service(service), "backends": (0..LARGE_BACKENDS).map(backend).collect::<Vec<_>>()})
    });
    desired(services.collect())
}

/// A service of a large table.
pub(in crate::bench) fn large_service(service: usize) -> String {
    format!("large-{service}")
}

/// A backend of a large table.
pub(in crate::bench) fn large_backend(service: usize, number: usize) -> Ipv4Addr {
    let offset = u32::try_from(service * LARGE_BACKENDS + number).unwrap_or_default();
    Ipv4Addr::from(Ipv4Addr::new(10, 78, 16, 0).to_bits() + offset)
}

/// What is there at the beginning, and further services.
fn desired(mut services: Vec<Value>) -> Value {
    let attachment = |container: &Container| {
        let netns = format!("/run/netns/{}", container.namespace());
        json!({"name": container.name, "netns": netns, "ip": container.address})
    };
    let attachments: Vec<_> = std::iter::once(&CLIENT).chain(&BACKENDS).map(attachment).collect();
    let backends: Vec<_> = BACKENDS.iter().map(|backend| json!({"ip": backend.address})).collect();
    services.push(json!({"name": SERVICE, "vip": VIP, "backends": backends}));
    json!({
        "version": 1,
        "networks": [{
            "name": NETWORK,
            "subnet": SUBNET.to_string(),
            "attachments": attachments,
            "services": services,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::topology::SUBNET;
    use std::collections::HashSet;

    #[test]
    fn a_large_table_has_ten_thousand_backends_of_its_own_in_the_subnet() {
        let addresses: HashSet<_> = (0..LARGE_SERVICES)
            .flat_map(|service| (0..LARGE_BACKENDS).map(move |number| large_backend(service, number)))
            .collect();
        assert_eq!(addresses.len(), 10_000);
        let others = [VIP, SECOND_VIP, ELSEWHERE, CLIENT.address, BACKENDS[0].address, BACKENDS[1].address];
        assert!(others.iter().all(|address| SUBNET.contains(address) && !addresses.contains(address)));
        // VIPs that ringlb chooses are in the upper quarter.
        assert!(addresses.iter().all(|address| SUBNET.contains(address) && address.octets()[2] < 192));
        assert_eq!(large(3)["networks"][0]["services"].as_array().unwrap().len(), 1_001);
    }
}
