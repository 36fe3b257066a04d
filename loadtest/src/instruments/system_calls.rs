//! System calls of processes, counted by strace. That makes them slow, so it is done apart from what is measured.

use super::BenchError;
use super::process::Process;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A count that is being made.
pub(crate) struct Count {
    strace: Process,
    table: PathBuf,
}

impl Count {
    /// Begins to count those of the processes, with all their threads. `directory` gets what strace writes.
    pub(crate) fn begin(processes: &[Pid], directory: &Path) -> Result<Self, BenchError> {
        let table = directory.join("system-calls");
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-o"]).arg(&table);
        for pid in processes {
            command.args(["-p", &pid.to_string()]);
        }
        let mut strace = Process::start(&mut command, None, &directory.join("strace.log"))?;
        strace.wait_until("trace every thread", || processes.iter().all(|pid| is_traced(*pid)))?;
        Ok(Self { strace, table })
    }

    /// Ends it; gives the number of each system call by name.
    pub(crate) fn end(mut self) -> Result<BTreeMap<String, u64>, BenchError> {
        self.strace.signal(Signal::SIGINT);
        self.strace.wait();
        let table = fs::read_to_string(&self.table).map_err(BenchError::file("read", &self.table))?;
        Ok(parse(&table))
    }
}

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
