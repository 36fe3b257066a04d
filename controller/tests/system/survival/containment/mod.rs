//! A proxy that is in trouble does not delay another network's changes.

mod memory;

use super::site::{Site, settled_proxy};
use crate::node::{Node, finish, program, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{LoadOptions, Workload};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Within this a change of another network must be acknowledged: well below the time that the daemon waits for a proxy.
const SOON: Duration = Duration::from_secs(2);

/// Two networks, the first of which gets into trouble.
struct Scene {
    node: Node,
    bad: Site,
    good: Site,
}

impl Scene {
    fn new(arguments: &[&str]) -> Self {
        let node = Node::start_with(arguments);
        let [bad, good] = [1, 2].map(|number| Site::make(&node, number));
        for site in [&bad, &good] {
            site.service(&node, "web", 0);
        }
        Self { node, bad, good }
    }

    /// Changes of the other network are acknowledged soon, and connections served.
    fn others_go_on(&self) {
        let mut admin = self.node.admin();
        let mut slowest = Duration::ZERO;
        for round in 0..30 {
            let began = Instant::now();
            let body = json!({ "weight": 1 + round % 2 }).to_string();
            admin.done("PUT", &backend(&self.good), &body);
            slowest = slowest.max(began.elapsed());
            assert!(began.elapsed() < SOON, "a change took {:?}", began.elapsed());
            let mut stream = self.good.client.connect(self.good.target(0));
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        println!("the slowest change of the other network took {slowest:?}");
    }

    fn status(&self) -> Value {
        self.node.admin().get("/v1/status")
    }

    fn proxy(&self) -> i32 {
        self.bad.proxy(&self.node)
    }
}

fn backend(site: &Site) -> String {
    format!("/v1/networks/{}/services/web/backends/{}", site.network, site.server(0))
}

/// What `ringlb status` says to people.
fn text_of_status(node: &Node) -> String {
    let mut command = Command::new(program("ringlb"));
    command.arg("--run-dir").arg(node.run_dir.path()).arg("status");
    String::from_utf8(finish(&mut command)).unwrap()
}

/// A proxy that ends as soon as it is started, again and again, is started with growing pauses, which the status shows. Mended
/// it comes back by itself.
#[test]
fn a_proxy_that_keeps_crashing_delays_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (broken, wrapper) = (directory.path().join("broken"), directory.path().join("ringlb-proxy"));
    let real = program("ringlb-proxy").display().to_string();
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *'--network net-1 '*) [ -e {} ] && exit 3;; esac\nexec {real} \"$@\"\n",
        broken.display()
    );
    fs::write(&wrapper, text).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let scene = Scene::new(&["--proxy-program", wrapper.to_str().unwrap()]);
    let pid = scene.proxy();
    fs::write(&broken, "").unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let proxy = || scene.bad.of(&scene.status())["proxy"].clone();
    wait_until("it has ended often", || {
        let proxy = proxy();
        proxy["quick_ends"].as_u64() >= Some(5) && proxy["starts_in_ms"].as_u64() > Some(500)
    });
    let waiting = proxy();
    assert_eq!((&waiting["pid"], &waiting["last_end"]), (&Value::Null, &json!("exit status 3")));
    assert_eq!(scene.bad.of(&scene.status())["error"], "the proxy ended: exit status 3");
    let text = text_of_status(&scene.node);
    assert!(text.contains("times in a row, starts in ") && text.contains("ended by itself: exit status 3"), "{text}");
    scene.others_go_on();
    fs::remove_file(&broken).unwrap();
    scene.proxy();
    wait_until("the row is over", || proxy()["quick_ends"] == 0);
    let mut stream = scene.bad.client.connect(scene.bad.target(0));
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// A proxy that stands still keeps its own network's changes waiting, and nobody else's; the status says so. A daemon that is
/// started then replaces it, and takes the others over.
#[test]
fn a_proxy_that_stands_still_delays_nobody() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let mut scene = Scene::new(&arguments);
    let mut open = scene.good.client.connect(scene.good.target(0));
    let pid = scene.proxy();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        let (mut admin, path) = (scene.node.admin(), backend(&scene.bad));
        let waiting = scope.spawn(move || admin.request("PUT", &path, r#"{"weight": 3}"#));
        scene.others_go_on();
        assert!(!waiting.is_finished(), "the change of the network itself waits");
        let (status, answer) = waiting.join().unwrap();
        assert_eq!(status, 504, "{answer}");
        assert!(answer.contains("the proxy of network `net-1` has not acknowledged"), "{answer}");
    });
    let status = scene.status();
    assert_eq!(scene.bad.of(&status)["error"], "the proxy does not answer");
    let other = settled_proxy(scene.good.of(&status)).unwrap();
    scene.others_go_on();

    scene.node.daemon.signal(Signal::SIGKILL);
    scene.node.daemon.wait();
    // The kernel has ended it with its parent, as it does with what was stopped (setpgid(2)); here is another one.
    scene.node.daemon = Node::start_daemon(scene.node.run_dir.path(), &arguments);
    let pid = scene.proxy();
    let another = Site::make(&scene.node, 3);
    another.service(&scene.node, "web", 0);
    let too = settled_proxy(another.of(&scene.status())).unwrap();
    scene.node.daemon.signal(Signal::SIGKILL);
    scene.node.daemon.wait();
    for stuck in [pid, too] {
        kill(Pid::from_raw(stuck), Signal::SIGSTOP).unwrap();
    }
    scene.node.daemon = Node::start_daemon(scene.node.run_dir.path(), &arguments);
    // Their networks wait for them, and nobody else does.
    scene.node.admin().done("PUT", &backend(&scene.good), r#"{"weight": 7}"#);
    let stand_still = [pid, too].map(|stuck| Path::new(&format!("/proc/{stuck}/fd/0")).exists());
    assert_eq!(stand_still, [true; 2], "the other network has waited until they were given up");
    scene.others_go_on();
    assert_ne!(scene.proxy(), pid);
    assert_eq!(settled_proxy(scene.good.of(&scene.status())), Some(other));
    open.write_all(b"x").unwrap();
    open.read_exact(&mut [0]).unwrap();
    let exported = scene.node.admin().get(&backend(&scene.bad));
    assert_eq!(exported["weight"], 3, "what was not acknowledged is kept all the same");
}

/// A proxy that has more to do than it can: nothing goes past it.
#[test]
fn a_busy_proxy_delays_nobody() {
    let scene = Scene::new(&["--no-shortcuts"]);
    let pid = scene.proxy();
    let mut options = LoadOptions::new(vec![scene.bad.target(0)], Workload::Pingpong { size_bytes: 64 });
    options.connections = 256;
    let load = scene.bad.client.load(options);
    wait_until("there is load", || load.snapshot().requests > 5_000);
    let (used, began) = (processor_time(pid), Instant::now());
    for _ in 0..5 {
        scene.others_go_on();
    }
    // Whether the load leaves it any rest is the machine's matter: both share its cores with all else.
    let share = (processor_time(pid) - used) * 100 / u64::try_from(began.elapsed().as_millis() / 10).unwrap();
    println!("the busy proxy has used {share} % of a core meanwhile");
    load.stop();
    let report = load.join().unwrap();
    assert_eq!(report.failures, 0, "{report}");
    assert!(share > 20, "the proxy was not busy: {share} % of a core");
}

/// The time that a process has used of processors, in hundredths of a second (proc_pid_stat(5)).
fn processor_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}
