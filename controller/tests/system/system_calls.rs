//! What a task change costs in system calls: the same whatever the number of services.

use crate::node::{Admin, Node, wait_until};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Command, Stdio};

const CHANGES: u32 = 100;

/// For one change, in daemon and proxy together. README.md states these numbers.
const PER_CHANGE: &[(&str, u32)] =
    &[("epoll_wait", 6), ("io_uring_enter", 3), ("recvfrom", 3), ("write", 1), ("writev", 1)];

/// System calls that prepare a namespace, a link or a process.
const FORBIDDEN: &[&str] = &["clone", "clone3", "execve", "fork", "setns", "socket", "unshare", "vfork"];

#[test]
fn a_task_change_costs_the_same_with_ten_and_a_thousand_services() {
    let few = calls_with(10);
    let many = calls_with(1_000);
    println!("10 services: {few:?}\n1,000 services: {many:?}");
    for name in FORBIDDEN {
        assert!(!few.contains_key(*name) && !many.contains_key(*name), "{name}: {few:?} {many:?}");
    }
    let stated: BTreeMap<&str, u32> = PER_CHANGE.iter().copied().collect();
    for counted in [few, many] {
        for (name, count) in &counted {
            // Fewer when the machine has other work: then what wakes a thread comes together.
            let most = stated.get(name.as_str()).copied().unwrap_or_default();
            assert!(*count <= most, "{name}: README.md states {most}, here are {counted:?}");
        }
        assert_eq!(counted.get("write"), Some(&1), "each change wakes the proxy once: {counted:?}");
    }
}

/// System calls for one change, by name, on a network with so many services of three backends each.
fn calls_with(services: u32) -> BTreeMap<String, u32> {
    let node = Node::with_network();
    let _client = node.container(100);
    node.service("watched", IpAddr::from([10, 0, 250, 1]), "rr", &[]);
    let mut admin = node.admin();
    for number in 1..services {
        let backends = (1..=3).map(|last| format!(r#"{{"ip": "10.0.{last}.1"}}"#)).collect::<Vec<_>>().join(",");
        let path = format!("/v1/networks/net/services/s{number}");
        admin.done("PUT", &path, &format!(r#"{{"backends": [{backends}]}}"#));
    }
    change(&mut admin, 20);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log);
    strace.args(["-p", &node.daemon.pid().to_string(), "-p", &node.proxy_pid().to_string()]);
    let strace = crate::node::Process::spawn(strace.stdin(Stdio::null()));
    let traced = |pid: i32| {
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        })
    };
    let pids = [node.daemon.pid(), proxy_of(&mut admin)];
    wait_until("every thread is traced", || pids.iter().all(|pid| traced(*pid)));
    let before = count_calls(&log);
    change(&mut admin, CHANGES);
    let mut strace = strace;
    strace.signal(nix::sys::signal::Signal::SIGINT);
    strace.wait();
    let mut calls = count_calls(&log);
    for (name, count) in before {
        *calls.entry(name).or_default() -= count;
    }
    println!("{services} services, {} changes: {calls:?}", 2 * CHANGES);
    // Each change is counted twice: adding and removing. What does not come with each of them is not theirs.
    calls.into_iter().map(|(name, count)| (name, (count + CHANGES) / (2 * CHANGES))).filter(|(_, c)| *c > 0).collect()
}

/// Adds and removes a backend, so many times.
fn change(admin: &mut Admin, times: u32) {
    for number in 0..times {
        let path = format!("/v1/networks/net/services/watched/backends/10.0.9.{}", number % 200 + 1);
        admin.done("PUT", &path, r#"{"weight": 1}"#);
        admin.done("DELETE", &path, "");
    }
}

fn proxy_of(admin: &mut Admin) -> i32 {
    let (_, status) = admin.request("GET", "/v1/status", "");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    i32::try_from(crate::node::find(&status, "pid").and_then(serde_json::Value::as_i64).unwrap()).unwrap()
}

fn count_calls(log: &std::path::Path) -> BTreeMap<String, u32> {
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        if let Some((name, _)) = call.split_once('(') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}
