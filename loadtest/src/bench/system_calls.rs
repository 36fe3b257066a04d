//! How many system calls a unit of work takes, counted by strace. That makes a system slow, so it is done apart from what
//! is measured.

use super::process::Process;
use super::results::SystemCalls;
use super::stage::{House, Stage};
use super::system::System;
use super::work::work_of;
use super::workload::Workload;
use super::{BenchError, Options};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use ringlb_load::units::to_float;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// Counts those of a system's processes with a workload, if both have any.
pub(super) fn count(
    house: &House,
    options: &Options,
    workload: Workload,
    system: System,
) -> Result<Option<SystemCalls>, BenchError> {
    if !system.has_processes() || !workload.is_load() {
        return Ok(None);
    }
    let mut stage = Stage::open(house, system)?;
    let load = work_of(&mut stage, workload, None)?;
    load.drive(&stage, options.warm_up.max(SHORTEST))?;
    let processes = stage.processes();
    let path = house.directory.path().join("system-calls");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(&path);
    for pid in &processes {
        command.args(["-p", &pid.to_string()]);
    }
    let mut strace = Process::start(&mut command, None, &house.directory.path().join("strace.log"))?;
    strace.wait_until("trace every thread", || processes.iter().all(|pid| is_traced(*pid)))?;
    let driven = load.drive(&stage, options.duration)?;
    strace.signal(Signal::SIGINT);
    strace.wait();
    let table = fs::read_to_string(&path).map_err(BenchError::file("read", &path))?;
    stage.close()?;
    let units = driven.done(workload).units;
    if units <= 0.0 {
        return Err(BenchError::Impossible(format!("{system} did nothing while its system calls were counted")));
    }
    let by_name: BTreeMap<_, _> =
        parse(&table).into_iter().map(|(name, calls)| (name, to_float(calls) / units)).collect();
    Ok(Some(SystemCalls { workload, system, units, per_unit: by_name.values().sum(), by_name }))
}

/// A system is to have done some of the work before it is looked at.
const SHORTEST: std::time::Duration = std::time::Duration::from_millis(200);

/// Whether all threads of the process are (proc_pid_status(5)).
fn is_traced(pid: Pid) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

/// Reads what `strace -c` writes: share, seconds, microseconds a call, calls, errors if there were any, name.
fn parse(table: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (name, calls) = (*fields.last()?, fields.get(3)?.parse().ok()?);
        (fields.len() >= 5 && name != "total").then(|| (name.to_owned(), calls))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_strace_is_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 70.00    0.700000           7    100000       123 epoll_wait
 30.00    0.300000           3        20           io_uring_enter
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           6    100020       123 total
";
        let calls = parse(table);
        assert_eq!(calls, BTreeMap::from([("epoll_wait".to_owned(), 100_000), ("io_uring_enter".to_owned(), 20)]));
        assert!(parse("").is_empty());
    }
}
