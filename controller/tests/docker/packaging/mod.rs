//! What `packaging/` offers to start ringlb with, on machines that have booted.

mod capabilities;
mod container;
mod crashes;
mod order;
mod privileges;
mod restarts;
mod rights;
mod steering;
mod unit;

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::image::{IMAGE, program};
use ringlb_netns::Namespace;
use std::path::{Path, PathBuf};

/// A machine that has booted, with the service `web` on the network `net` and on port 80, and a client there.
fn booted_with_service() -> (Cluster, Namespace) {
    let cluster = Cluster::boot(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "80:80"]);
    cluster.wait_for_replicas("web", 2);
    let client = cluster.manager().client("client", "net");
    (cluster, client)
}

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Copies the daemon and what it starts into a directory.
fn copy_programs(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    for name in ["ringlb", "ringlb-proxy"] {
        std::fs::copy(program(name), directory.join(name)).unwrap();
    }
}

/// Makes a network of Docker's that a VIP's holder is needed for, with a server on it that is to be reached at port 81 of the
/// node; gives the server.
fn serve_on_a_plain_network(engine: &Engine) -> String {
    engine.docker(&["network", "create", "plain"]);
    let labels = ["--label", "ringlb.service=fixed", "--label", "ringlb.publish=81:80"];
    let container = run_server(engine, &[&["--network", "plain", "--restart", "always"][..], &labels].concat());
    container[..12].to_owned()
}

/// Runs a container of the test server on port 80 with these options; gives its id.
fn run_server(engine: &Engine, options: &[&str]) -> String {
    let server = ["--cap-add", "IPC_LOCK", IMAGE, "serve", "--listen", "0.0.0.0:80"];
    engine.docker(&[&["run", "-d"], options, &server].concat())
}
