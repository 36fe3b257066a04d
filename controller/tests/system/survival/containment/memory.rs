//! Proxies with a memory limit, in control groups of their own.

use super::{Scene, text_of_status};
use crate::node::{Node, Process, program, wait_until, wait_within};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The limit of these tests: more than a proxy needs that has little to do.
const LIMIT: &str = "16M";
/// More services than fit into it.
const MANY: usize = 15_000;

/// A daemon with a limit for proxies. Whoever may not make control groups is told so, and nothing else.
fn with_limit(arguments: &[&str]) -> Option<Scene> {
    if !geteuid().is_root() || fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) == Some("1")
    {
        let run_dir = tempfile::tempdir().unwrap();
        let arguments = ["daemon", "--proxy-memory-limit", LIMIT];
        let mut command = Command::new(program("ringlb"));
        let output = command.arg("--run-dir").arg(run_dir.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("control group"), "{said}");
        return None;
    }
    Some(Scene::new(&[&["--proxy-memory-limit", LIMIT], arguments].concat()))
}

/// What the names of a node's control groups begin with.
fn prefix(node: &Node) -> String {
    ringlb::reconcile::name_prefix(&node.run_dir.path().canonicalize().unwrap())
}

/// The control groups that begin with that.
fn groups(prefix: &str) -> Vec<PathBuf> {
    let places = ["/sys/fs/cgroup/ringlb", "/sys/fs/cgroup/memory/ringlb"].map(Path::new);
    let entries = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let groups = entries.map(|entry| entry.path());
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut groups: Vec<_> = groups.filter(is_ours).collect();
    groups.sort();
    groups
}

/// A proxy that needs more memory than it may have is ended by the kernel, again and again, and the status says why. Nobody
/// else notices. When it needs less it comes back by itself.
#[test]
fn a_proxy_out_of_memory_delays_nobody() {
    let Some(scene) = with_limit(&[]) else { return };
    let (pid, prefix) = (scene.proxy(), prefix(&scene.node));
    assert_eq!(groups(&prefix).len(), 2);
    let memory = scene.bad.of(&scene.status())["proxy"]["memory"].clone();
    assert_eq!((memory["limit"].as_u64(), &memory["error"]), (Some(16 << 20), &Value::Null));
    assert!(memory["used"].as_u64().is_some_and(|used| used > 0 && used < 16 << 20), "{memory}");
    let before = scene.node.admin().get("/v1/export");
    let mut state = before.clone();
    let networks = state["networks"].as_array_mut().unwrap();
    let network = networks.iter_mut().find(|network| network["name"] == scene.bad.network.as_str()).unwrap();
    let services = network["services"].as_array_mut().unwrap();
    services.extend((0..MANY - 1).map(|index| json!({ "name": format!("more-{index}"), "backends": [] })));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (status, answer) = scene.node.admin().request("POST", "/v1/apply", &state.to_string());
            assert_eq!(status, 504, "{answer}");
        });
        let reason = "signal 9: it needed more memory than its limit of 16 MiB";
        wait_until("the proxy is out of memory", || scene.bad.of(&scene.status())["proxy"]["last_end"] == reason);
        scene.others_go_on();
    });
    let text = text_of_status(&scene.node);
    assert!(text.contains("more memory than its limit") && text.contains(" of 16 MiB"), "{text}");
    scene.node.admin().done("POST", "/v1/apply", &before.to_string());
    assert_ne!(scene.proxy(), pid);
    for site in [&scene.bad, &scene.good] {
        scene.node.ringlb(&["network", "rm", &site.network, "--remove-lb"]);
    }
    assert_eq!(groups(&prefix), Vec::<PathBuf>::new());
}

/// The groups go with what they are for: with a daemon's clean end, with the networks that the next daemon does not know
/// any more, and with `ringlb cleanup`. A daemon without a limit takes it from the proxies that it takes over.
#[test]
fn control_groups_are_left_nowhere() {
    let state_dir = tempfile::tempdir().unwrap();
    let kept = ["--state-dir", state_dir.path().to_str().unwrap()];
    let Some(mut scene) = with_limit(&kept) else { return };
    let (pid, prefix) = (scene.proxy(), prefix(&scene.node));
    let own = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(own(pid).contains("/ringlb/"), "{}", own(pid));
    let restart = |daemon: &mut Process, arguments: &[&str], run_dir: &Path| {
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        *daemon = Node::start_daemon_logging(run_dir, arguments, Stdio::inherit());
    };
    let run_dir = scene.node.run_dir.path().to_owned();
    restart(&mut scene.node.daemon, &kept, &run_dir);
    assert_eq!(scene.proxy(), pid);
    assert_eq!(scene.bad.of(&scene.status())["proxy"]["memory"], Value::Null);
    let group = groups(&prefix).remove(0);
    let limit =
        ["memory.max", "memory.limit_in_bytes"].iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
    let limit = limit.unwrap();
    assert!(limit.trim().parse::<u64>().map_or(limit.trim() == "max", |limit| limit > 1 << 40), "{limit}");
    // One that remembers nothing.
    restart(&mut scene.node.daemon, &["--proxy-memory-limit", LIMIT], &run_dir);
    wait_within(Duration::from_secs(10), "nothing is left", || groups(&prefix).is_empty());
    restart(&mut scene.node.daemon, &[&["--proxy-memory-limit", LIMIT], &kept[..]].concat(), &run_dir);
    scene.proxy();
    assert_eq!(groups(&prefix).len(), 2);
    scene.node.daemon.signal(Signal::SIGKILL);
    scene.node.daemon.wait();
    let report = scene.node.ringlb(&["cleanup"]);
    assert!(report["files"].to_string().contains("/ringlb/"), "{report}");
    assert_eq!(groups(&prefix), Vec::<PathBuf>::new());
    // And by a clean end.
    fs::create_dir_all(&run_dir).unwrap();
    scene.node.daemon = Node::start_daemon(&run_dir, &[&["--proxy-memory-limit", LIMIT], &kept[..]].concat());
    scene.proxy();
    assert_eq!(groups(&prefix).len(), 2);
    scene.node.daemon.signal(Signal::SIGTERM);
    assert_eq!(scene.node.daemon.wait(), Some(0));
    assert_eq!(groups(&prefix), Vec::<PathBuf>::new());
}
