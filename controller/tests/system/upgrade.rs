//! Proxies are replaced while they serve.

use crate::node::{Container, Node, PATIENCE, find, program, wait_until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use ringlb_load::{LoadOptions, Workload};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1)), 80);
const PUBLISHED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18080);

fn echo(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut echoed = vec![0; text.len()];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, text);
}

fn published() -> TcpStream {
    let stream = TcpStream::connect(PUBLISHED).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn is_running(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// What a status says of the only network.
fn network(node: &Node) -> Value {
    node.ringlb(&["status"])["networks"][0].clone()
}

fn draining(node: &Node) -> Vec<Value> {
    network(node)["draining"].as_array().unwrap().clone()
}

fn is_current(node: &Node) -> bool {
    let network = network(node);
    network["acknowledged_generation"] == network["generation"] && network["proxy"]["pid"].is_u64()
}

/// Two backends of service `web`, which is published too, and a client.
fn populate(node: &Node) -> ([Container; 2], Container) {
    node.ringlb(&["network", "create", "net", "--subnet", "10.0.0.0/16"]);
    let backends = [node.container(11), node.container(12)];
    let client = node.container(100);
    let vip = TARGET.ip().to_string();
    let publish = ["--publish", "18080:80/tcp", "--publish", "18053:53/udp"];
    node.ringlb(&[&["service", "create", "net", "web", "--vip", &vip], &publish[..]].concat());
    for backend in &backends {
        node.ringlb(&["backend", "add", "net", "web", &backend.address.to_string()]);
    }
    (backends, client)
}

/// Answers every datagram with the last byte of its address, until the test ends.
fn name_by_udp(backend: &Container) {
    let socket = backend.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    let IpAddr::V4(address) = backend.address else { panic!("{} is not IPv4", backend.address) };
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 100]) {
            let _ = socket.send_to(&address.octets()[3..], from);
        }
    });
}

/// A UDP client with a session.
fn ask(socket: &UdpSocket) -> u8 {
    socket.send(b"who").unwrap();
    let mut answer = [0; 10];
    assert_eq!(socket.recv(&mut answer).unwrap(), 1);
    answer[0]
}

fn udp_client(connect: impl FnOnce() -> UdpSocket) -> UdpSocket {
    let socket = connect();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sessions with both backends, by VIP and by published port.
fn sessions(client: &Container) -> Vec<UdpSocket> {
    let connected = |to: SocketAddr| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(to).unwrap();
        socket
    };
    let by_vip = (0..10).map(|_| udp_client(|| client.run(|| connected((TARGET.ip(), 53).into()))));
    by_vip.chain((0..10).map(|_| udp_client(|| connected((PUBLISHED.ip(), 18053).into())))).collect()
}

/// Under a steady load of short connections, and with 500 that last, nothing fails and nothing is cut.
#[test]
fn twenty_upgrades_in_a_row_lose_nothing() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let node = Node::start();
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let mut lasting: Vec<_> =
        (0..500).map(|number| if number % 10 == 0 { published() } else { client.connect(TARGET) }).collect();
    lasting.iter_mut().for_each(|stream| echo(stream, b"before"));
    let mut options = LoadOptions::new(vec![TARGET], Workload::ConnectEcho { size_bytes: 64 });
    (options.connections, options.rate) = (32, Some(300.0));
    let load = client.load(options);
    wait_until("there is load", || load.snapshot().requests > 100);
    let mut pids = vec![network(&node)["proxy"]["pid"].clone()];
    let first = pids[0].as_i64().unwrap();
    for number in 1..=20 {
        let requests = load.snapshot().requests;
        let report = node.ringlb(&["upgrade"]);
        let upgraded = &report["networks"][0];
        assert_eq!((&upgraded["name"], &upgraded["replaced"]["pid"]), (&"net".into(), &pids[number - 1]), "{report}");
        assert!(!pids.contains(&upgraded["pid"]), "{report}");
        pids.push(upgraded["pid"].clone());
        if number == 1 {
            assert!(upgraded["replaced"]["connections"].as_u64().unwrap() >= 500, "{report}");
        }
        lasting.iter_mut().skip(number).step_by(20).for_each(|stream| echo(stream, b"between"));
        echo(&mut published(), b"by the published port");
        wait_until("the new proxy has served", || load.snapshot().requests > requests + 20);
    }
    load.stop();
    let report = load.join().unwrap();
    assert_eq!((report.failures, report.not_begun), (0, 0), "{report}");
    assert!(report.requests > 500, "{report}");
    lasting.iter_mut().for_each(|stream| echo(stream, b"after"));
    // Who was replaced is there as long as it has connections; nothing that was counted is lost.
    wait_until("one process has connections yet", || draining(&node).len() == 1);
    let status = network(&node);
    assert_eq!(status["draining"][0]["pid"], pids[0], "{status:#}");
    assert_eq!(status["draining"][0]["connections"], 500, "{status:#}");
    assert_eq!(status["proxy"]["restarts"], 0, "{status:#}");
    assert_eq!(status["connections"]["accepted"], report.connections_opened + 500 + 20, "{status:#}");
    assert_eq!(find(&status, "active"), Some(&500.into()), "{status:#}");
    assert!(is_running(first));
    drop(lasting);
    wait_until("nobody drains any more", || draining(&node).is_empty());
    assert!(!is_running(first));
    let status = network(&node);
    assert_eq!(status["connections"]["accepted"], report.connections_opened + 500 + 20, "{status:#}");
    let left: Vec<_> = std::fs::read_dir(node.run_dir.path().join("control")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Each session stays with its backend, by VIP and by published port.
#[test]
fn udp_sessions_stay_with_their_backends() {
    let node = Node::start_with(&["--threads", "2"]);
    let (backends, client) = populate(&node);
    backends.iter().for_each(name_by_udp);
    let sockets = sessions(&client);
    let named: Vec<_> = sockets.iter().map(ask).collect();
    assert!(named.contains(&11) && named.contains(&12), "{named:?}");
    for _ in 0..3 {
        let report = node.ringlb(&["upgrade", "--network", "net"]);
        assert_eq!(report["networks"][0]["replaced"]["sessions_handed_over"], 20, "{report}");
        assert_eq!(sockets.iter().map(ask).collect::<Vec<_>>(), named);
        wait_until("nobody drains", || draining(&node).is_empty());
    }
    let status = network(&node);
    assert_eq!((&status["datagrams"]["sessions"], &status["datagrams"]["active"]), (&20.into(), &20.into()));
}

#[test]
fn what_is_left_at_the_deadline_is_reset() {
    let node = Node::start();
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let mut streams = [client.connect(TARGET), client.connect(TARGET)];
    streams.iter_mut().for_each(|stream| echo(stream, b"before"));
    node.ringlb(&["upgrade", "--drain-timeout", "24h"]);
    let one = &draining(&node)[0];
    assert_eq!(one["connections"], 2, "{one}");
    assert!(one["deadline_in_ms"].as_u64().unwrap() > 80_000_000, "{one}");
    // What concerns backends concerns the connections of the proxy that was replaced, too.
    let named = |stream: &TcpStream| stream.peer_addr().unwrap();
    assert_eq!(named(&streams[0]), TARGET);
    node.ringlb(&["backend", "rm", "net", "web", "10.0.0.11"]);
    let cut: Vec<_> = streams.iter_mut().map(is_reset_soon).collect();
    assert_eq!(cut.iter().filter(|cut| **cut).count(), 1, "{cut:?}");
    let mut third = client.connect(TARGET);
    echo(&mut third, b"before");
    node.ringlb(&["upgrade", "--drain-timeout", "300ms"]);
    assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    wait_until("one drains", || draining(&node).len() == 1);
    for arguments in [&["upgrade", "--network", "nobody"][..], &["upgrade", "--drain-timeout", "soon"]] {
        assert_eq!(node.try_ringlb(arguments).status.code(), Some(1));
    }
}

/// Whether the connection is reset within half a second; if not, it works.
fn is_reset_soon(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let reset = stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    if !reset {
        echo(stream, b"between");
    }
    reset
}

/// A program that becomes a proxy, and can be exchanged.
struct ProxyProgram(TempDir);

impl ProxyProgram {
    fn new(line: &str) -> Self {
        let program = Self(tempfile::tempdir().unwrap());
        program.write(line);
        program
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("proxy")
    }

    /// Puts another file there, as an installation does.
    fn write(&self, line: &str) {
        let new = self.0.path().join("new");
        let line = line.replace("PROXY", program("ringlb-proxy").to_str().unwrap());
        std::fs::write(&new, format!("#!/bin/sh\n{line}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    fn arguments(&self) -> [String; 2] {
        ["--proxy-program".to_owned(), self.path().to_str().unwrap().to_owned()]
    }
}

const RUN: &str = "exec PROXY \"$@\"";

#[test]
fn a_proxy_that_cannot_start_leaves_the_old_one_serving() {
    let proxy_program = ProxyProgram::new(RUN);
    let arguments = proxy_program.arguments();
    let node = Node::start_with(&arguments.each_ref().map(String::as_str));
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let mut stream = client.connect(TARGET);
    echo(&mut stream, b"before");
    let pid = node.proxy_pid();
    proxy_program.write("echo of no use; exit 3");
    let output = node.try_ringlb(&["upgrade"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("the new proxy cannot take over: it ended: exit status 3"), "{said}");
    let status = network(&node);
    assert_eq!((&status["proxy"]["pid"], &status["error"]), (&pid.into(), &Value::Null), "{status:#}");
    assert!(status["proxy"]["upgrade_error"].as_str().unwrap().contains("exit status 3"), "{status:#}");
    echo(&mut stream, b"between");
    echo(&mut client.connect(TARGET), b"between");
    proxy_program.write(RUN);
    node.ringlb(&["upgrade"]);
    let status = network(&node);
    assert_ne!(status["proxy"]["pid"], pid);
    assert_eq!(status["proxy"]["upgrade_error"], Value::Null);
    echo(&mut stream, b"after");
}

fn restart(node: &mut Node, arguments: &[&str]) {
    node.daemon.signal(Signal::SIGKILL);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), arguments);
}

/// A new program takes over at the next start of a daemon, unless that is not wanted.
#[test]
fn a_daemon_replaces_proxies_of_another_build() {
    let (proxy_program, state) = (ProxyProgram::new(RUN), tempfile::tempdir().unwrap());
    let given = proxy_program.arguments();
    let arguments = [given[0].as_str(), &given[1], "--state-dir", state.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let mut stream = client.connect(TARGET);
    echo(&mut stream, b"before");
    let first = node.proxy_pid();
    restart(&mut node, &arguments);
    wait_until("the proxy has its table", || is_current(&node));
    // It is asked for after all that the daemon does by itself.
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11", "--weight", "2"]);
    assert_eq!(node.proxy_pid(), first);
    proxy_program.write(RUN);
    restart(&mut node, &[&arguments[..], &["--no-upgrade"]].concat());
    wait_until("the proxy has its table", || is_current(&node));
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11", "--weight", "3"]);
    assert_eq!(node.proxy_pid(), first);
    restart(&mut node, &arguments);
    wait_until("the proxy is another one", || is_current(&node) && node.proxy_pid() != first);
    echo(&mut stream, b"after");
    assert_eq!(draining(&node)[0]["pid"], first);
    echo(&mut client.connect(TARGET), b"after");
    // The next daemon knows both.
    restart(&mut node, &arguments);
    wait_until("the proxy has its table", || is_current(&node));
    assert_eq!(draining(&node)[0]["pid"], first);
    echo(&mut stream, b"after");
    drop(stream);
    wait_until("it has ended", || draining(&node).is_empty() && !is_running(first.into()));
}

/// What a proxy is told at its start counts after the next start of a daemon, too.
#[test]
fn a_daemon_replaces_proxies_that_have_other_settings() {
    let (logs, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let mut stream = client.connect(TARGET);
    echo(&mut stream, b"before");
    let log = logs.path().join("access.log");
    let log = log.to_str().unwrap();
    for other in [["--max-connections", "1000"], ["--access-log", log], ["--proxy-first-user", "0"]] {
        let before = node.proxy_pid();
        restart(&mut node, &[&arguments[..], &other].concat());
        wait_until("the proxy is another one", || is_current(&node) && node.proxy_pid() != before);
        echo(&mut stream, b"between");
        echo(&mut client.connect(TARGET), b"new");
        let replaced = node.proxy_pid();
        restart(&mut node, &[&arguments[..], &other].concat());
        wait_until("the proxy has its table", || is_current(&node));
        // It is asked for after all that the daemon does by itself.
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.11", "--weight", "2"]);
        assert_eq!(node.proxy_pid(), replaced, "{other:?}");
    }
    echo(&mut stream, b"after");
}

/// How often a daemon is killed: each time a little later, until the replacement has long been over.
const ROUNDS: u64 = 16;

/// Whenever a daemon is killed while it replaces a proxy, connections and sessions go on, and the next daemon brings it to an
/// end.
#[test]
fn a_daemon_killed_in_the_middle_costs_nothing() {
    let state = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    backends.iter().for_each(name_by_udp);
    let sockets = sessions(&client);
    let named: Vec<_> = sockets.iter().map(ask).collect();
    let mut streams = vec![client.connect(TARGET), published()];
    let mut options = LoadOptions::new(vec![TARGET], Workload::ConnectEcho { size_bytes: 64 });
    (options.connections, options.rate) = (8, Some(100.0));
    let load = client.load(options);
    let mut replaced = 0;
    for round in 0..ROUNDS {
        streams.iter_mut().for_each(|stream| echo(stream, b"before"));
        let before = node.proxy_pid();
        let mut upgrade = Command::new(program("ringlb"));
        upgrade.arg("--run-dir").arg(node.run_dir.path()).arg("upgrade").stderr(Stdio::null()).stdout(Stdio::null());
        let mut upgrade = upgrade.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(3 * round));
        node.daemon.signal(Signal::SIGKILL);
        node.daemon.wait();
        upgrade.wait().unwrap();
        // Without a daemon, too.
        streams.iter_mut().for_each(|stream| echo(stream, b"without"));
        streams.push(client.connect(TARGET));
        echo(&mut streams[round as usize + 2], b"without");
        node.daemon = Node::start_daemon(node.run_dir.path(), &arguments);
        wait_until("the proxy has its table", || is_current(&node));
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.11", "--weight", &(round + 2).to_string()]);
        assert_eq!(sockets.iter().map(ask).collect::<Vec<_>>(), named, "round {round}");
        let status = network(&node);
        assert!(draining(&node).iter().all(|one| one["sessions"] == 0), "round {round}: {status:#}");
        replaced += u32::from(node.proxy_pid() != before);
    }
    load.stop();
    let report = load.join().unwrap();
    assert_eq!(report.failures, 0, "{report}");
    streams.iter_mut().for_each(|stream| echo(stream, b"after"));
    println!("{replaced} of {ROUNDS} had got far enough to be brought to an end");
    node.ringlb(&["upgrade"]);
    assert_eq!(sockets.iter().map(ask).collect::<Vec<_>>(), named);
    drop(streams);
    wait_until("nobody drains", || draining(&node).is_empty());
    let left: Vec<_> = std::fs::read_dir(node.run_dir.path().join("control")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// A daemon drives proxies of the version before of the control protocol, and proxies serve daemons of it.
#[test]
fn neighbouring_versions_work_together() {
    let (proxy_program, state) = (ProxyProgram::new(&format!("{RUN} --protocol 4")), tempfile::tempdir().unwrap());
    let given = proxy_program.arguments();
    let newer = [given[0].as_str(), &given[1], "--state-dir", state.path().to_str().unwrap(), "--no-upgrade"];
    let older = [&newer[..], &["--protocol", "4"]].concat();
    let mut node = Node::start_with(&newer);
    let (backends, client) = populate(&node);
    let _servers = backends.each_ref().map(|backend| backend.serve(&backend.address.to_string(), 80));
    let check = |node: &Node, stream: &mut TcpStream, weight: &str| {
        node.ringlb(&["backend", "add", "net", "web", "10.0.0.11", "--weight", weight]);
        echo(stream, b"lasting");
        echo(&mut client.connect(TARGET), b"new");
        echo(&mut published(), b"published");
        assert!(find(&network(node), "accepted").is_some_and(Value::is_u64));
    };
    let mut stream = client.connect(TARGET);
    let old = node.proxy_pid();
    check(&node, &mut stream, "2");
    let output = node.try_ringlb(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("end process {old}")));
    // Adopted by a daemon of either version.
    for (arguments, weight) in [(&newer[..], "3"), (&older, "4"), (&newer, "5")] {
        restart(&mut node, arguments);
        wait_until("the proxy has its table", || is_current(&node));
        check(&node, &mut stream, weight);
        assert_eq!(node.proxy_pid(), old);
    }
    // A proxy of the newer version and a daemon of the older one.
    proxy_program.write(RUN);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), Signal::SIGKILL).unwrap();
    wait_until("there is another proxy", || is_current(&node) && node.proxy_pid() != old);
    let mut stream = client.connect(TARGET);
    let new = node.proxy_pid();
    restart(&mut node, &older);
    wait_until("the proxy has its table", || is_current(&node));
    check(&node, &mut stream, "6");
    restart(&mut node, &newer);
    wait_until("the proxy has its table", || is_current(&node));
    check(&node, &mut stream, "7");
    assert_eq!(node.proxy_pid(), new);
    // Back to a program of the older version: it takes over all the same.
    proxy_program.write(&format!("{RUN} --protocol 4"));
    node.ringlb(&["upgrade"]);
    check(&node, &mut stream, "8");
    assert_ne!(node.proxy_pid(), new);
}
