//! The proxies that still run on the node, whoever has started them.

use super::Identity;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The network namespaces in which proxies live.
#[derive(Debug)]
pub(super) struct Neighbours(HashMap<Identity, u32>);

impl Neighbours {
    /// Looks through all processes.
    pub(super) fn look() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Self(pids.filter(|pid| is_proxy(*pid)).filter_map(|pid| Some((namespace_of(pid)?, pid))).collect())
    }

    /// Why a namespace is to be left alone, if it is.
    pub(super) fn reason(&self, namespace: Identity) -> Option<String> {
        self.0
            .get(&namespace)
            .map(|pid| format!("the proxy with pid {pid}, which is not of this run directory, serves there"))
    }
}

/// Proxies are told by what they are given, whatever their program is called.
fn is_proxy(pid: u32) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let given = |name: &str| arguments.split(|byte| *byte == 0).any(|argument| argument == name.as_bytes());
    given("--network") && given("--control-fd") && given("--listener-fd")
}

fn namespace_of(pid: u32) -> Option<Identity> {
    let metadata = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
