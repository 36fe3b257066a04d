//! What is in a namespace, to be compared.

use crate::wait::finish;
use ringlb_netns::Namespace;
use std::process::Command;

/// Addresses, routes, firewall rules, listening sockets and kernel parameters of a namespace, a line each.
pub(crate) fn state_of(namespace: &Namespace) -> Vec<String> {
    // Comments tell the time, the kernel counts, link-local addresses come and go with its own checks of them, and the Engine's
    // links with containers.
    let passing = ["#", "fe80:", "ff00:", "ff02:", "conntrack_count", "/veth"];
    let commands = [
        "ip -o addr show",
        "ip route show table all",
        "ip rule show",
        "iptables-save -t mangle",
        "nft list tables",
        "ss -Hltun",
        "grep -rs . /proc/sys/net",
    ];
    let mut state = Vec::new();
    for words in commands {
        let mut words = words.split(' ');
        let program = words.next().unwrap();
        let mut command = Command::new(program);
        namespace.enter_on_exec(&mut command).unwrap();
        command.args(words);
        // Some parameters can only be written, which grep(1) calls a failure.
        let output = if program == "grep" {
            String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
        } else {
            finish(&mut command)
        };
        let lines = output.lines().filter(|line| !passing.iter().any(|text| line.contains(text)));
        state.extend(lines.map(str::to_owned));
    }
    state.sort();
    state
}

/// Fails with the difference if the two are not the same.
#[track_caller]
pub(crate) fn assert_same(what: &str, now: &[String], before: &[String]) {
    let only = |ones: &[String], others: &[String]| -> Vec<String> {
        ones.iter().filter(|line| !others.contains(line)).cloned().collect()
    };
    let (more, less) = (only(now, before), only(before, now));
    assert!(more.is_empty() && less.is_empty(), "{what} has {more:#?} and has no more {less:#?}");
}
