//! What `packaging/` offers to start ringlb with, on machines that have booted.

mod container;
mod order;
mod privileges;
mod restarts;
mod steering;
mod unit;

use crate::cluster::Cluster;
use crate::image::program;
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
