//! What dies takes nothing else with it.

use crate::node::{Node, find, wait_until, wait_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlb_load::{ErrorKind, LoadOptions, Workload};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 200, 1)), 80);

#[test]
fn a_killed_proxy_comes_back_and_no_syn_is_refused() {
    let node = Node::with_network();
    let backend = node.container(11);
    let _server = backend.serve("one", 80);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    // Another network, whose connections must not notice.
    node.ringlb(&["network", "create", "second", "--subnet", "10.1.0.0/16"]);
    let second = ringlb_netns::Namespace::create("test-second").unwrap();
    node.ringlb(&["attach", "second", "c", "--netns", "/run/netns/test-second", "--ip", "10.1.0.5"]);
    node.ringlb(&["service", "create", "second", "web", "--vip", "10.1.200.1"]);
    node.ringlb(&["backend", "add", "second", "web", "10.1.0.5"]);
    let other = crate::node::Container { namespace: second, address: IpAddr::from([10, 1, 0, 5]) };
    let _other_server = other.serve("other", 80);
    let mut untouched = other.connect("10.1.200.1:80".parse().unwrap());

    let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
    options.connections = 8;
    options.rate = Some(500.0);
    let load = client.load(options);
    for round in 0..3u64 {
        wait_until("there is load", || load.snapshot().requests > round * 200);
        let mut open = client.connect(TARGET);
        open.write_all(b"x").unwrap();
        open.read_exact(&mut [0]).unwrap();
        let pid = pid_of(&node, "net");
        let killed = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        // The open connection ends; the next one waits in the listener's queue instead of being refused.
        assert!(open.read(&mut [0]).map_or(true, |length| length == 0));
        let mut next = client.connect(TARGET);
        next.write_all(b"x").unwrap();
        next.read_exact(&mut [0]).unwrap();
        println!("served again {:?} after the kill", killed.elapsed());
        assert_ne!(pid_of(&node, "net"), pid);
    }
    load.stop();
    let report = load.join().unwrap();
    assert_eq!(report.failures_of(ErrorKind::Refused), 0, "{report}");
    assert!(report.requests > 400, "{report}");
    untouched.write_all(b"y").unwrap();
    untouched.read_exact(&mut [0]).unwrap();
}

fn pid_of(node: &Node, network: &str) -> i32 {
    let status = node.ringlb(&["status"]);
    let networks = find(&status, "networks").unwrap().as_array().unwrap();
    let network = networks.iter().find(|n| n["name"] == network).unwrap();
    i32::try_from(network["proxy"]["pid"].as_i64().unwrap()).unwrap()
}

/// The table of a proxy that was started anew is the current one, changes made while it was dead included.
#[test]
fn a_restarted_proxy_has_the_current_table() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let _servers = backends.each_ref().map(|b| b.serve(&b.address.to_string(), 80));
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &[&backends[0]]);
    let pid = node.proxy_pid();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.12"]);
    node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
    let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
    options.requests = Some(20);
    let report = client.load(options).join().unwrap();
    assert_eq!((report.requests_of("10.0.0.12"), report.failures), (20, 0), "{report}");
}

/// A backend's process is killed while clients connect: what was not yet sent to it goes elsewhere.
#[test]
fn a_killed_backend_costs_only_what_was_sent_to_it() {
    let node = Node::with_network();
    let backends = [node.container(11), node.container(12)];
    let load_program = crate::node::program("ringlb-load");
    let program = load_program.to_str().unwrap();
    let arguments = ["serve", "--listen", "0.0.0.0:80", "--id"];
    let mut victim = backends[0].spawn(program, &[&arguments[..], &["victim"]].concat());
    let _survivor = backends[1].spawn(program, &[&arguments[..], &["survivor"]].concat());
    backends.iter().for_each(|backend| backend.wait_for_port(80));
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &[&backends[0], &backends[1]]);
    let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
    options.connections = 8;
    let load = client.load(options);
    wait_until("there is load", || load.snapshot().requests > 1_000);
    victim.signal(Signal::SIGKILL);
    victim.wait();
    let after = load.snapshot().requests;
    wait_until("the load goes on", || load.snapshot().requests > after + 2_000);
    load.stop();
    let report = load.join().unwrap();
    // What failed had been sent: the victim's kernel had taken the connection, and the process died before it answered.
    // (For a moment it even takes new ones: the server's io_uring keeps the listening socket until it is torn down.)
    let status = node.ringlb(&["status"]);
    let backends = find(&status, "services").and_then(|services| services[0]["backends"].as_array()).unwrap();
    let established = backends.iter().find(|b| b["ip"] == "10.0.0.11").unwrap()["connections"].as_u64().unwrap();
    let unanswered = established - report.requests_of("victim");
    assert!(report.failures <= unanswered, "{unanswered} were sent and not answered: {report}");
    assert_eq!(report.failures, report.failures_of(ErrorKind::Reset) + report.failures_of(ErrorKind::UnexpectedEnd));
    assert!(report.requests_of("survivor") > 2_000 && report.requests_of("victim") > 0, "{report}");
}

/// A daemon that is killed costs nothing: its proxies go on. The next one starts clean.
#[test]
fn proxies_outlive_a_killed_daemon() {
    let mut node = Node::with_network();
    let backend = node.container(11);
    let _server = backend.serve("one", 80);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    let proxy = node.proxy_pid();
    node.daemon.signal(Signal::SIGKILL);
    node.daemon.wait();
    let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
    options.requests = Some(100);
    let report = client.load(options).join().unwrap();
    assert_eq!((report.requests, report.failures), (100, 0), "{report}");
    node.daemon = Node::start_daemon(node.run_dir.path(), &[]);
    wait_until("the old proxy has ended", || !is_running(proxy));
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let backend = node.container(11);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
    options.requests = Some(100);
    let report = client.load(options).join().unwrap();
    assert_eq!((report.requests, report.failures), (100, 0), "{report}");
}

/// With `--keep` proxies go on when the daemon ends; without it nothing is left.
#[test]
fn the_daemon_ends_cleanly() {
    let mut node = Node::start();
    for keep in [true, false] {
        node.daemon.signal(Signal::SIGTERM);
        node.daemon.wait();
        node.daemon = Node::start_daemon(node.run_dir.path(), if keep { &["--keep"] } else { &[] });
        node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
        let backend = node.container(11);
        let server = backend.serve("one", 80);
        let client = node.container(100);
        node.service("web", TARGET.ip(), "rr", &[&backend]);
        let proxy = node.proxy_pid();
        node.daemon.signal(if keep { Signal::SIGINT } else { Signal::SIGTERM });
        assert_eq!(node.daemon.wait(), Some(0));
        assert_eq!(is_running(proxy), keep);
        if keep {
            let mut options = LoadOptions::new(vec![TARGET], Workload::Connect);
            options.requests = Some(10);
            let report = client.load(options).join().unwrap();
            assert_eq!((report.requests, report.failures), (10, 0), "{report}");
        } else {
            wait_within(Duration::from_secs(5), "namespaces are gone", || {
                ringlb_netns::Namespace::list().unwrap().iter().all(|name| name.starts_with("test-"))
            });
        }
        server.stop();
    }
}

/// Whoever read the log is gone: the daemon goes on without it, and ends as cleanly as ever.
#[test]
fn a_log_that_nobody_reads_is_no_reason_to_end() {
    let mut node = Node::start();
    node.daemon.signal(Signal::SIGTERM);
    node.daemon.wait();
    node.daemon = Node::start_daemon_logging(node.run_dir.path(), &[], Stdio::piped());
    drop(node.daemon.0.stderr.take());
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let backend = node.container(11);
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    let proxy = node.proxy_pid();
    kill(Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    wait_until("there is another proxy", || {
        find(&node.ringlb(&["status"]), "restarts").is_some_and(|count| count == 1)
    });
    node.daemon.signal(Signal::SIGTERM);
    assert_eq!(node.daemon.wait(), Some(0));
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Both died while the sandbox was being removed that the network does not need any more.
#[test]
fn the_control_socket_of_a_proxy_that_died_with_its_daemon_does_not_stay() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    node.create_network(&["10.0.0.0/16"]);
    let _attached = node.container(11);
    node.daemon.signal(Signal::SIGKILL);
    node.daemon.wait();
    let socket = node.run_dir.path().join("control/net.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments);
    wait_until("the control socket is gone", || !socket.exists());
}
