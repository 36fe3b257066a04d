//! ringlb as its users run it: a daemon that makes the network, the sandbox and the proxy, with metrics.

use super::Found;
use crate::bench::BenchError;
use crate::bench::process::{Process, output};
use crate::bench::topology::{BACKENDS, CLIENT, Container, SUBNET, VIP};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// Where the metrics are to be had; the namespace is the benchmark's own.
const METRICS: &str = "127.0.0.1:9480";

pub(super) fn start(program: &Found, directory: &Path) -> Result<Process, BenchError> {
    let run_dir = directory.join("ringlb");
    let command = || {
        let mut command = Command::new(&program.path);
        command.arg("--run-dir").arg(&run_dir);
        command
    };
    let mut daemon = command();
    daemon.args(["daemon", "--metrics-listen", METRICS, "--access-log"]).arg(directory.join("access.log"));
    let mut daemon = Process::start(&mut daemon, None, &directory.join("ringlb.log"))?;
    let socket = run_dir.join("admin.sock");
    daemon.wait_until("serve its admin socket", || UnixStream::connect(&socket).is_ok())?;
    let file = directory.join("desired.json");
    fs::write(&file, desired().to_string()).map_err(BenchError::file("write", &file))?;
    output(command().arg("apply").arg(&file))?;
    Ok(daemon)
}

fn desired() -> Value {
    let attachment = |container: &Container| {
        let netns = format!("/run/netns/{}", container.namespace());
        json!({"name": container.name, "netns": netns, "ip": container.address})
    };
    let attachments: Vec<_> = std::iter::once(&CLIENT).chain(&BACKENDS).map(attachment).collect();
    let backends: Vec<_> = BACKENDS.iter().map(|backend| json!({"ip": backend.address})).collect();
    json!({
        "version": 1,
        "networks": [{
            "name": "bench",
            "subnet": SUBNET.to_string(),
            "attachments": attachments,
            "services": [{"name": "echo", "vip": VIP, "backends": backends}],
        }],
    })
}
