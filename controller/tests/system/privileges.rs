//! What the proxies of a daemon have given up, and that the daemon can do with them what it must all the same.

use crate::node::{Node, find, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use ringlb_proxy::privileges::FirstUser;
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 200, 1)), 80);

/// The fields of `/proc/…/status`.
fn status(path: &str) -> HashMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// Whether this test is root and could become any user.
fn has_all_users() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"there").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
}

/// Checks all threads of a proxy; gives its user.
fn check(proxy: i32, first: FirstUser) -> u32 {
    let own = first.of_process(u32::try_from(proxy).unwrap()).filter(|_| has_all_users());
    let user = own.unwrap_or_else(|| geteuid().as_raw());
    for thread in fs::read_dir(format!("/proc/{proxy}/task")).unwrap() {
        let fields = status(thread.unwrap().path().join("status").to_str().unwrap());
        let name = &fields["Name"];
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(fields[set], "0000000000000000", "{set} of {name}");
        }
        assert_eq!((&*fields["NoNewPrivs"], &*fields["Seccomp"]), ("1", "2"), "{name}");
        let number = user.to_string();
        assert_eq!((&fields["Uid"], &fields["Gid"]), (&[&*number; 4].join(" "), &[&*number; 4].join(" ")), "{name}");
    }
    // The sandbox is where it is; nothing else is its own.
    let namespace = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
    for entry in fs::read_dir(format!("/proc/{proxy}/ns")).unwrap() {
        let kind = entry.unwrap().file_name().into_string().unwrap();
        let is_daemons = namespace(&proxy.to_string(), &kind) == namespace("self", &kind);
        assert_eq!(is_daemons, kind != "net", "{kind}");
    }
    user
}

#[test]
fn proxies_have_no_privilege_and_users_of_their_own() {
    let mut node = Node::start_with(&["--threads", "2"]);
    node.create_network(&["10.0.0.0/16"]);
    let backend = node.container(11);
    let _server = backend.serve("one", 80);
    let client = node.container(100);
    node.service("web", TARGET.ip(), "rr", &[&backend]);
    echo(&mut client.connect(TARGET));
    let first = FirstUser::default();
    let user = check(node.proxy_pid(), first);
    let told = find(&node.ringlb(&["status"]), "privileges").unwrap().clone();
    let nothing = json!({"user": user, "capabilities": false, "may_gain": false, "all_system_calls": false});
    assert_eq!(told, nothing);
    // Another proxy is another user.
    kill(Pid::from_raw(node.proxy_pid()), Signal::SIGKILL).unwrap();
    wait_until("the next proxy is known", || find(&node.ringlb(&["status"]), "restarts").is_some_and(|r| r == 1));
    echo(&mut client.connect(TARGET));
    assert_eq!(check(node.proxy_pid(), first) != user, has_all_users());
    // What is asked for goes.
    for given in ["0", "3000000000"] {
        node.daemon.signal(Signal::SIGTERM);
        node.daemon.wait();
        node.daemon = Node::start_daemon(node.run_dir.path(), &["--proxy-first-user", given]);
        node.create_network(&["10.0.0.0/16"]);
        let backend = node.container(11);
        node.service("web", TARGET.ip(), "rr", &[&backend]);
        check(node.proxy_pid(), given.parse().unwrap());
    }
}

/// The next daemon takes the proxy of another user over, and can end it by force.
#[test]
fn a_proxy_of_another_user_is_taken_over_and_ended() {
    let state_dir = tempfile::tempdir().unwrap();
    let arguments = ["--keep", "--state-dir", state_dir.path().to_str().unwrap()];
    let mut node = Node::start_with(&arguments);
    node.create_network(&["10.0.0.0/16"]);
    let backend = node.container(11);
    let _server = backend.serve("one", 80);
    let client = node.container(100);
    node.ringlb(&["service", "create", "net", "web", "--vip", "10.0.200.1", "--publish", "18081:80/tcp"]);
    node.ringlb(&["backend", "add", "net", "web", "10.0.0.11"]);
    let mut stream = client.connect(TARGET);
    echo(&mut stream);
    let proxy = node.proxy_pid();
    check(proxy, FirstUser::default());
    node.daemon.signal(Signal::SIGKILL);
    node.daemon.wait();
    node.daemon = Node::start_daemon(node.run_dir.path(), &arguments[1..]);
    let is_current = |node: &Node| {
        let status = node.ringlb(&["status"]);
        find(&status, "acknowledged_generation").unwrap() == find(&status, "generation").unwrap()
    };
    wait_until("the proxy has its table", || is_current(&node));
    assert_eq!(node.proxy_pid(), proxy);
    echo(&mut stream);
    echo(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, 18081)).unwrap());
    // It does not answer any more, so only SIGKILL ends it.
    kill(Pid::from_raw(proxy), Signal::SIGSTOP).unwrap();
    node.daemon.signal(Signal::SIGTERM);
    assert_eq!(node.daemon.wait(), Some(0));
    let stat = fs::read_to_string(format!("/proc/{proxy}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}
