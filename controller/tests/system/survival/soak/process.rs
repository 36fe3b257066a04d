//! What a process holds.

use crate::node::PATIENCE;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// The ends of pipes that a data thread keeps for the next direction that splices.
const KEPT_PIPES: usize = 2 * 16;

/// Maps that the daemon keeps once UDP sessions, and connections, go past a proxy: of what goes past it, and where the sandbox is, for
/// each.
const KEPT_MAPS: usize = 4;
/// The program by which connections do.
const KEPT_PROGRAMS: usize = 1;

/// At one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Holdings {
    /// Its own memory, in KiB (`RssAnon`, proc_pid_status(5)).
    pub(super) memory_kib: u64,
    pub(super) descriptors: usize,
}

impl Holdings {
    pub(super) fn of(pid: i32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next());
        Self { memory_kib: memory.unwrap().parse().unwrap(), descriptors: descriptors(pid) }
    }
}

/// How many descriptors a process has of each kind, and of each file.
pub(super) fn open_files(pid: i32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        // One that is closed meanwhile is not open.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind);
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
    }
    kinds
}

/// Waits until a process has no more descriptors of any kind than before: connections are closed a moment after their end.
pub(super) fn wait_until_closed(pid: i32, before: &BTreeMap<String, usize>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = open_files(pid);
        let kept = |kind: &str| match kind {
            "pipe" => KEPT_PIPES,
            "anon_inode:bpf-map" => KEPT_MAPS,
            "anon_inode:bpf-prog" => KEPT_PROGRAMS,
            _ => 0,
        };
        let allowed = |kind: &str| before.get(kind).unwrap_or(&0) + kept(kind);
        if now.iter().all(|(kind, count)| *count <= allowed(kind)) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} has {now:?} open, and had {before:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
