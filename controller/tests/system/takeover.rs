//! A daemon takes over what an earlier one has left behind.

use crate::node::{Node, find, wait_until};
use nix::sys::signal::Signal;
use ringlb_load::{LoadOptions, Workload};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1)), 80);

fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut echoed = vec![0; text.len()];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, text);
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn restart(node: &mut Node, signal: Signal, arguments: &[&str]) {
    node.daemon.signal(signal);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), arguments);
}

fn is_current(node: &Node) -> bool {
    let status = node.ringlb(&["status"]);
    find(&status, "acknowledged_generation").unwrap() == find(&status, "generation").unwrap()
        && find(&status, "pid").is_some_and(serde_json::Value::is_u64)
}

/// Connections by VIP and by published port go on, however the daemon ended; what changes after that is served.
#[test]
fn connections_outlive_the_daemon() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--keep", "--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let backends = [node.container(11), node.container(12)];
    let servers = backends.each_ref().map(|b| b.serve(&b.address.to_string(), 80));
    let client = node.container(100);
    let vip = TARGET.ip().to_string();
    node.ringlb(&["service", "create", "net", "web", "--vip", &vip, "--publish", "18080:80/tcp"]);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let published = SocketAddr::from((Ipv4Addr::LOCALHOST, 18080));
    let mut streams = [client.connect(TARGET), TcpStream::connect(published).unwrap()];
    for stream in &mut streams {
        echo(stream, b"before");
    }
    let proxy = node.proxy_pid();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        restart(&mut node, signal, &arguments);
        wait_until("the proxy has its table", || is_current(&node));
        assert_eq!(node.proxy_pid(), proxy, "{signal}");
        for stream in &mut streams {
            echo(stream, b"between");
        }
    }
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.12"]);
    node.ringlb(&["backend", "drain", "net", "web", "10.0.0.11"]);
    drop(servers);
    let _servers = [backends[1].serve("second", 80)];
    for target in [TARGET, published] {
        let mut stream = if target == TARGET { client.connect(target) } else { TcpStream::connect(target).unwrap() };
        echo(&mut stream, b"after");
    }
    // A proxy that was taken over is watched like any other.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(proxy), Signal::SIGKILL).unwrap();
    wait_until("there is another proxy", || is_current(&node) && node.proxy_pid() != proxy);
    echo(&mut client.connect(TARGET), b"again");
    echo(&mut TcpStream::connect(published).unwrap(), b"again");
    // And it is ended like any other.
    let last = node.proxy_pid();
    restart(&mut node, Signal::SIGKILL, &arguments[1..]);
    wait_until("the proxy has its table", || is_current(&node));
    assert_eq!(node.proxy_pid(), last);
    node.daemon.signal(Signal::SIGTERM);
    assert_eq!(node.daemon.wait(), Some(0));
    assert!(!is_running(last));
}

/// A daemon sends to a proxy that it takes over what differs from its table, and nothing else.
#[test]
fn what_the_proxy_has_is_not_sent_again() {
    let (state, copy, logs) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let backends = [11, 12, 13].map(|number| node.container(number));
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &backends.each_ref());
    node.ringlb(&["service", "create", "net", "other", "--vip", "10.0.200.2", "--idle-timeout", "30m"]);
    // Its backends are in another order in the proxy.
    node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let mut stream = client.connect(TARGET);
    echo(&mut stream, b"before");
    let proxy = node.proxy_pid();
    let mut restart = |node: &mut Node, name: &str, between: &dyn Fn()| {
        node.daemon.signal(Signal::SIGKILL);
        node.daemon.wait();
        between();
        let log = logs.path().join(name);
        let file = std::fs::File::create(&log).unwrap();
        node.daemon = Node::start_daemon_logging(node.run_dir.path(), &arguments, file.into());
        wait_until("the proxy has its table", || is_current(node));
        assert_eq!(node.proxy_pid(), proxy, "{name}");
        echo(&mut stream, b"between");
        std::fs::read_to_string(log).unwrap()
    };
    let files = |from: &Path, to: &Path| {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let log = restart(&mut node, "same", &|| files(state.path(), copy.path()));
    assert!(log.contains("differ=0 services=2"), "{log}");
    // What the proxy hears next is what the next daemon no longer knows.
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.13", "--weight", "0"]);
    node.ringlb(&["service", "create", "net", "third", "--vip", "10.0.200.3"]);
    let log = restart(&mut node, "older", &|| files(copy.path(), state.path()));
    assert!(log.contains("differ=2 services=3"), "{log}");
    let mut load = LoadOptions::new(vec![TARGET], Workload::Connect);
    load.requests = Some(30);
    let report = client.load(load).join().unwrap();
    assert_eq!((report.failures, report.backends.len()), (0, 3), "{report}");
}

/// What was made while nobody wishes for it any more is ended and removed.
#[test]
fn a_daemon_that_remembers_nothing_ends_what_is_left() {
    let mut node = Node::with_network();
    let backend = node.container(11);
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    let proxy = node.proxy_pid();
    restart(&mut node, Signal::SIGKILL, &[]);
    wait_until("the proxy has ended", || !is_running(proxy));
    let prefix = ringlb::reconcile::name_prefix(&node.run_dir.path().canonicalize().unwrap());
    wait_until("its namespaces are gone", || ringlb_netns::leftovers(&prefix).unwrap().is_empty());
}

/// A network keeps the number of data threads that its sockets are for, with its connections; another one is for networks that
/// begin then.
#[test]
fn another_number_of_threads_cuts_no_connection() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&[&arguments[..], &["--threads", "2"]].concat());
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let backend = node.container(11);
    let _server = backend.serve("one", 80);
    let client = node.container(100);
    let vip = TARGET.ip().to_string();
    node.ringlb(&["service", "create", "net", "web", "--vip", &vip, "--publish", "18080:80/tcp"]);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let published = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut streams = [client.connect(TARGET), TcpStream::connect(published(18080)).unwrap()];
    let threads = |node: &Node| find(&node.ringlb(&["status"]), "threads").and_then(serde_json::Value::as_u64);
    for stream in &mut streams {
        echo(stream, b"before");
    }
    for (wished, port) in [("3", 18081), ("1", 18082)] {
        let proxy = node.proxy_pid();
        restart(&mut node, Signal::SIGKILL, &[&arguments[..], &["--threads", wished]].concat());
        wait_until("the proxy has its table", || is_current(&node));
        assert_eq!((node.proxy_pid(), threads(&node)), (proxy, Some(2)));
        // The sockets of ports that are published from now on are for the same threads, and so are those of the next proxy.
        let (other, publish) = (format!("web-{port}"), format!("{port}:80/tcp"));
        node.ringlb(&["service", "create", "net", &other, "--publish", &publish]);
        node.ringlb(&["backend", "add", "net", &other, "10.0.0.11"]);
        echo(&mut TcpStream::connect(published(port)).unwrap(), b"another port");
        node.ringlb(&["upgrade"]);
        assert_ne!(node.proxy_pid(), proxy);
        assert_eq!(threads(&node), Some(2));
        for stream in &mut streams {
            echo(stream, b"between");
        }
        echo(&mut client.connect(TARGET), b"after");
        echo(&mut TcpStream::connect(published(port)).unwrap(), b"after");
    }
    node.ringlb(&["network", "rm", "net", "--remove-lb"]);
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let new_backend = node.container(12);
    node.service("web", TARGET.ip(), "rr", &[&new_backend]);
    wait_until("the network has begun anew", || is_current(&node));
    assert_eq!(threads(&node), Some(1));
}
