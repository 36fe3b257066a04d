//! ringlb as the container that `packaging/container/` makes it.

use super::order::serves_other_tasks;
use super::rights::may_raise_limits;
use super::unit::running_proxies;
use super::{booted_with_service, copy_programs, repository, serve_on_a_plain_network};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::image::{import, pack};
use crate::load::SteadyLoad;
use crate::requests::{ask, wait_for_servers};
use crate::state::state_of;
use crate::wait::{finish, wait_until};
use crate::wire::port_of;
use serde_json::json;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the Dockerfile starts from. There is no registry, so a part of it goes by that name.
const BASE: &str = "debian:12-slim";

#[test]
fn the_container_serves_is_restarted_and_leaves_nothing() {
    let (cluster, client) = booted_with_service();
    let engine = cluster.manager();
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

#[test]
fn the_container_serves_all_networks_and_follows_the_engine() {
    let cluster = Cluster::boot(1);
    let options = ["--replicas", "2", "--publish", "8080:80", "--restart-delay", "0s"];
    cluster.create_service("web", &options);
    cluster.wait_for_replicas("web", 2);
    let engine = cluster.manager();
    let outside = &cluster.wire.namespace;
    let servers = cluster.servers_of("web");
    build(engine);
    stay_within_limits(engine);
    compose(engine, &["up", "-d"]);
    let fixed = [serve_on_a_plain_network(engine)];
    wait_for_servers(outside, port_of(1, 81), &fixed);
    wait_for_servers(outside, port_of(1, 8080), &servers);

    // All containers end with it, and its socket is made anew.
    engine.machine.systemctl(&["restart", "docker.socket", "docker.service"]);
    serves_other_tasks(&cluster, &servers);
    wait_for_servers(outside, port_of(1, 81), &fixed);
}

/// Builds the image as the Dockerfile's comment says, of the programs under test.
fn build(engine: &Engine) {
    import(engine, &pack(base()), BASE, &[]);
    let context = engine.machine.directory.join("context");
    let programs = context.join("target/release");
    copy_programs(&programs);
    std::fs::copy(repository(".dockerignore"), context.join(".dockerignore")).unwrap();
    let mut build = engine.cli();
    build.args(["build", "--tag", "ringlb", "--file"]).arg(repository("packaging/container/Dockerfile")).arg(&context);
    finish(&mut build);

    // What else the compiler makes is left where it is.
    std::fs::write(programs.join("other"), "").unwrap();
    let dockerfile = context.join("Dockerfile");
    std::fs::write(&dockerfile, format!("FROM {BASE}\nCOPY target/release/other /\n")).unwrap();
    let mut build = engine.cli();
    let refused = build.args(["build", "--file"]).arg(&dockerfile).arg(&context).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains(".dockerignore"), "{refused:?}");
    std::fs::remove_dir_all(context).unwrap();
}

/// What the programs may use of Debian: the libraries that even its smallest image has.
fn base() -> Vec<(PathBuf, PathBuf)> {
    let listed = finish(Command::new("dpkg").args(["--listfiles", "libc6", "libgcc-s1"]));
    let is_library = |path: &&Path| path.starts_with("/lib") || path.starts_with("/lib64");
    let paths = listed.lines().map(Path::new).filter(is_library).filter(|path| path.is_file());
    paths.map(|path| (path.to_owned(), path.to_owned())).collect()
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
