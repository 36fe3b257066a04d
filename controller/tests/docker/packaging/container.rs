//! ringlb as the container that `packaging/container/` makes it.

use super::unit::running_proxies;
use super::{copy_programs, repository};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::image::IMAGE;
use crate::load::SteadyLoad;
use crate::requests::{ask, wait_for_servers};
use crate::state::state_of;
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What the Dockerfile starts from. There is no registry, so another image goes by that name that has what the programs load.
const BASE: &str = "debian:12-slim";

// include/uapi/linux/capability.h
const CAP_SYS_RESOURCE: u32 = 24;

#[test]
fn the_container_serves_is_restarted_and_leaves_nothing() {
    let cluster = Cluster::boot(1);
    cluster.create_network("net");
    cluster.create_service("web", &["--network", "net", "--replicas", "2", "--publish", "80:80"]);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let client = engine.client("client", "net");
    let (vip, published) = (cluster.target("web", "net", 80), port_of(1, 80));
    let outside = &cluster.wire.namespace;
    let servers = cluster.servers_of("web");
    build(engine);
    stay_within_limits(engine);
    let namespaces = [&engine.machine.namespace, &engine.overlay_sandbox("net"), &engine.sandbox("ingress_sbox")];
    let before = namespaces.map(state_of);

    compose(engine, &["up", "-d"]);
    let container = compose(engine, &["ps", "-q"]);
    let admin = Admin::of(&engine.machine.path(Path::new("/run/ringlb")));
    let is_served = || {
        wait_until("the daemon answers", || admin.answers());
        wait_for_servers(&client, vip, &servers);
        wait_for_servers(outside, published, &servers);
        assert_eq!(admin.proxies().len(), 2);
        running_proxies(&engine.machine)
    };
    let proxies = is_served();
    assert_ne!(namespaces.map(state_of), before);

    let is_replaced = |before: &[i64], what: &str| {
        wait_until(what, || running_proxies(&engine.machine).iter().all(|proxy| !before.contains(proxy)));
        let proxies = is_served();
        // None is left of those before.
        assert_eq!(proxies.len(), 2, "{proxies:?}");
        proxies
    };
    let load = SteadyLoad::start(&client, vip, 20);
    engine.docker(&["restart", &container]);
    let proxies = is_replaced(&proxies, "the container is started anew");
    println!("`docker restart`: {}", load.stop());

    let load = SteadyLoad::start(&client, vip, 20);
    let daemon = engine.get(&format!("/containers/{container}/json"))["State"]["Pid"].clone();
    finish(engine.machine.command("kill").args(["-KILL", &daemon.to_string()]));
    is_replaced(&proxies, "the killed daemon is started anew");
    println!("`kill -9` of the daemon: {}", load.stop());

    engine.docker(&["stop", &container]);
    assert_eq!(running_proxies(&engine.machine), [0; 0]);
    assert_eq!(namespaces.map(state_of), before);
    ask(&client, vip).unwrap_err();
    ask(outside, published).unwrap_err();
    compose(engine, &["down"]);
}

/// Builds the image as the Dockerfile's comment says, of the programs under test.
fn build(engine: &Engine) {
    engine.docker(&["tag", IMAGE, BASE]);
    let context = engine.machine.directory.join("context");
    copy_programs(&context.join("target/release"));
    let mut build = engine.cli();
    build.args(["build", "--tag", "ringlb", "--file"]).arg(repository("packaging/container/Dockerfile")).arg(&context);
    finish(&mut build);
    std::fs::remove_dir_all(context).unwrap();
}

/// Runs `docker-compose` on the file; gives what it printed.
fn compose(engine: &Engine, arguments: &[&str]) -> String {
    let mut command = Command::new("docker-compose");
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    command.arg("--file").arg(repository("packaging/container/compose.yaml"));
    finish(command.args(arguments))
}

/// Lets the Engine start privileged containers where root may not give them all that belongs to that.
fn stay_within_limits(engine: &Engine) {
    if may_raise_limits() {
        return;
    }
    let runtime = Path::new("/usr/local/sbin/runc-within-limits");
    let script = engine.machine.path(runtime);
    std::fs::write(&script, include_str!("runc.py")).unwrap();
    std::fs::set_permissions(script, Permissions::from_mode(0o755)).unwrap();
    let configuration = json!({ "runtimes": { "limited": { "path": runtime } }, "default-runtime": "limited" });
    std::fs::write(engine.machine.path(Path::new("/etc/docker/daemon.json")), configuration.to_string()).unwrap();
    engine.machine.systemctl(&["reload", "docker"]);
    wait_until("the Engine has another runtime", || engine.get("/info")["DefaultRuntime"] == "limited");
}

/// Whether root may do here what it may on a machine of its own.
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    effective & 1 << CAP_SYS_RESOURCE != 0
}
