//! `ringlb cleanup`, after a daemon whose proxies go on.

use crate::node::{Container, Node, Process, find, program, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{LoadOptions, Workload};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Output};

const PORT: u16 = 18_080;

/// A network with a service that is published, and a second one with a service; a backend on both.
struct Scene {
    node: Node,
    backend: Container,
    client: Container,
    vip: SocketAddr,
}

impl Scene {
    fn new(arguments: &[&str]) -> Self {
        let node = Node::start_with(arguments);
        node.create_network(&["10.0.0.0/16", "fd00:7::/64"]);
        let backend = node.container_at(11, &["10.0.0.11"]);
        let client = node.container_at(100, &["10.0.0.100"]);
        let publish = format!("{PORT}:80/tcp");
        node.ringlb(&["service", "create", "net", "web", "--publish", &publish]);
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
        node.ringlb(&["network", "create", "second", "--subnet", "10.1.0.0/16"]);
        node.ringlb(&["attach", "second", "backend", "--netns", &node.container_path(11)]);
        node.ringlb(&["service", "create", "second", "web"]);
        let service = node.ringlb(&["service", "show", "net", "web"]);
        let vip = SocketAddr::new(service["vip"][0].as_str().unwrap().parse().unwrap(), 80);
        Self { node, backend, client, vip }
    }

    fn serves(&self) {
        let mut options = LoadOptions::new(vec![self.vip], Workload::Connect);
        options.requests = Some(4);
        let report = self.client.load(options).join().unwrap();
        assert_eq!((report.requests_of("backend"), report.failures), (4, 0), "{report}");
        assert!(published().is_ok());
    }

    fn clean_up(&self) -> Value {
        let output = self.try_to_clean_up();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{error}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn try_to_clean_up(&self) -> Output {
        self.node.try_ringlb(&["cleanup"])
    }

    fn proxies(&self) -> Vec<i32> {
        let status = self.node.ringlb(&["status"]);
        let networks = status["networks"].as_array().unwrap();
        let pids = networks.iter().filter_map(|network| find(network, "pid")?.as_i64());
        pids.map(|pid| i32::try_from(pid).unwrap()).collect()
    }

    fn prefix(&self) -> String {
        let run_dir = self.node.run_dir.path().canonicalize().unwrap();
        ringlb::reconcile::name_prefix(&run_dir)
    }

    /// The interfaces of the backend.
    fn legs(&self) -> Vec<String> {
        let links = self.backend.output("ip", &["-j", "link", "show"]);
        let links: Value = serde_json::from_slice(&links).unwrap();
        let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("rlb-")).collect()
    }

    fn kill_daemon(&mut self) {
        self.node.daemon.signal(Signal::SIGKILL);
        self.node.daemon.wait();
    }
}

fn published() -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))
}

fn is_running(pid: i32) -> bool {
    // One that has ended and was not waited for has no more memory.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| !arguments.is_empty())
}

#[test]
fn nothing_is_left_of_a_daemon_that_was_killed() {
    let mut scene = Scene::new(&[]);
    let _server = scene.backend.serve("backend", 80);
    scene.serves();
    let proxies = scene.proxies();
    assert_eq!((proxies.len(), scene.legs().len()), (2, 2));
    let prefix = scene.prefix();
    let ours = || ringlb_netns::leftovers(&prefix).unwrap();
    assert_eq!(ours().len(), 4);
    // A file that is not ringlb's, and another daemon with a network of the same name.
    let run_dir = scene.node.run_dir.path().to_owned();
    std::fs::write(run_dir.join("mine"), "").unwrap();
    let other = Node::start();
    other.ringlb(&["network", "create", "net", "--subnet", "10.9.0.0/16"]);
    let neighbour = other.container_at(1, &["10.9.0.1"]);
    other.ringlb(&["service", "create", "net", "web", "--vip", "10.9.200.1"]);
    other.ringlb(&["backend", "add", "net", "web", "10.9.0.1"]);
    let _neighbour_server = neighbour.serve("neighbour", 80);

    // While the daemon runs, nothing is touched.
    let refused = scene.try_to_clean_up();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    assert!(error.contains("another ringlb daemon runs on ") && error.contains("end it first"), "{error}");
    scene.serves();

    scene.kill_daemon();
    scene.serves();
    let report = scene.clean_up();
    let ended: Vec<_> = report["proxies"].as_array().unwrap().iter().map(|proxy| proxy["pid"].as_i64()).collect();
    assert_eq!(ended, proxies.iter().map(|pid| Some(i64::from(*pid))).collect::<Vec<_>>(), "{report:#}");
    assert_eq!(report["namespaces"].as_array().unwrap().len(), 4, "{report:#}");
    assert!(proxies.iter().all(|pid| !is_running(*pid)));
    assert_eq!((ours().len(), scene.legs().len()), (0, 0));
    assert!(published().is_err());
    let left: Vec<_> = std::fs::read_dir(&run_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
    std::fs::remove_file(run_dir.join("mine")).unwrap();
    let report = scene.clean_up();
    assert_eq!((&report["proxies"], &report["namespaces"], &report["errors"]), (&json!([]), &json!([]), &json!([])));
    assert!(!run_dir.exists());
    neighbour.connect("10.9.200.1:80".parse().unwrap());

    // Everything can be made again.
    std::fs::create_dir(&run_dir).unwrap();
    scene.node.daemon = Node::start_daemon(&run_dir, &[]);
    scene.node.create_network(&["10.0.0.0/16"]);
    scene.node.ringlb(&["attach", "net", "again", "--netns", &scene.node.container_path(11)]);
    assert_eq!(scene.legs().len(), 1);
}

/// A proxy that hangs does not answer; it is found by its control socket all the same.
#[test]
fn proxies_that_do_not_answer_are_killed() {
    let mut scene = Scene::new(&["--keep"]);
    let (proxies, prefix) = (scene.proxies(), scene.prefix());
    scene.node.daemon.signal(Signal::SIGTERM);
    assert_eq!(scene.node.daemon.wait(), Some(0));
    let _continue = Continue(proxies.clone());
    for pid in &proxies {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
    }
    let report = scene.clean_up();
    assert_eq!(report["proxies"].as_array().unwrap().len(), 2, "{report:#}");
    wait_until("they have ended", || proxies.iter().all(|pid| !is_running(*pid)));
    assert_eq!(ringlb_netns::leftovers(&prefix).unwrap().len(), 0);
}

/// And so is one by the next daemon, which cannot take it over.
#[test]
fn the_next_daemon_kills_a_proxy_that_does_not_answer() {
    let mut scene = Scene::new(&[]);
    let proxies = scene.proxies();
    scene.kill_daemon();
    let _continue = Continue(proxies.clone());
    for pid in &proxies {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
    }
    scene.node.daemon = Node::start_daemon(scene.node.run_dir.path(), &[]);
    wait_until("they have ended", || proxies.iter().all(|pid| !is_running(*pid)));
}

/// As after `kill -9` of both: what is in the kernel is found by its names.
#[test]
fn nothing_is_left_when_the_proxies_were_killed_too() {
    let mut scene = Scene::new(&[]);
    let proxies = scene.proxies();
    scene.kill_daemon();
    for pid in proxies {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    let prefix = scene.prefix();
    wait_until("the proxies have ended", || published().is_err());
    let report = scene.clean_up();
    assert_eq!(
        (report["proxies"].clone(), report["namespaces"].as_array().unwrap().len()),
        (json!([]), 4),
        "{report:#}"
    );
    assert_eq!(scene.legs().len(), 0);
    assert_eq!(ringlb_netns::leftovers(&prefix).unwrap().len(), 0);
}

/// What it says to people, and that a state directory is none of its business.
#[test]
fn people_read_what_was_done() {
    let state = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(&["--state-dir", state.path().to_str().unwrap()]);
    scene.kill_daemon();
    let clean_up = || {
        let mut command = Command::new(program("ringlb"));
        let output = command.arg("--run-dir").arg(scene.node.run_dir.path()).arg("cleanup").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = clean_up();
    for line in ["ended the proxy of network net, pid ", "removed namespace ringlb.", "removed file "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{text}");
    }
    assert_eq!(clean_up(), "nothing of ringlb was there\n");
    let run_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let _daemon: Process = Node::start_daemon(run_dir.path(), &arguments);
    let mut command = Command::new(program("ringlb"));
    let listed = command.arg("--run-dir").arg(run_dir.path()).args(["network", "ls"]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("second"), "{listed:?}");
}

/// A proxy that was stopped and is not killed must not stay.
struct Continue(Vec<i32>);

impl Drop for Continue {
    fn drop(&mut self) {
        for pid in &self.0 {
            let is_ours = std::fs::read(format!("/proc/{pid}/cmdline"));
            if is_ours.is_ok_and(|arguments| String::from_utf8_lossy(&arguments).contains("--listener-fd")) {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
    }
}
