//! What the kernel says that work has cost: CPU time of processes and of processors, memory of processes.

use super::BenchError;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process and all its descendants, as they are now.
pub(crate) fn tree(root: Pid) -> Vec<Pid> {
    let mut pids = vec![root];
    let mut next = 0;
    while next < pids.len() {
        pids.extend(children(pids[next]));
        next += 1;
    }
    pids
}

/// A child belongs to the thread that started it (proc_pid_task_tid_children(5)).
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .map(Pid::from_raw)
        .collect()
}

/// The CPU time that the processes have taken, in user space and in the kernel, with all their threads, those that have
/// ended too: the processes' CPU clocks (clock_getcpuclockid(3)). The packets that a process sends are moved on by the
/// kernel in its time, up to the next queue, unless the kernel was built to keep interrupts apart.
pub(crate) fn cpu_time(pids: &[Pid]) -> Result<Duration, BenchError> {
    let mut total = Duration::ZERO;
    for pid in pids {
        let time = clock_getcpuclockid(*pid).and_then(nix::time::ClockId::now);
        total += Duration::from(time.map_err(|errno| {
            BenchError::machine(format!("read the CPU time of process {pid}; has it ended?"))(errno.into())
        })?);
    }
    Ok(total)
}

/// What the processors have not done nothing with since some time, in all of them together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    at: Instant,
    /// Of the processors concerned.
    unused: Duration,
    count: u32,
}

impl Processors {
    /// As it is now, of the processors with these numbers.
    pub(crate) fn read(numbers: &[usize]) -> Result<Self, BenchError> {
        let path = Path::new("/proc/stat");
        let text = fs::read_to_string(path).map_err(BenchError::file("read", path))?;
        let at = Instant::now();
        let unused = numbers.iter().map(|number| unused(&text, *number)).sum();
        Ok(Self { at, unused, count: u32::try_from(numbers.len()).unwrap_or(u32::MAX) })
    }

    /// The time that the processors were busy from `self` to `later`: what was not idle and not taken by the host. It is
    /// not what a processor was seen to do at each tick, but what is left of the time that passed, which the kernel
    /// knows to the microsecond and tells to 10 ms.
    pub(crate) fn busy_until(&self, later: &Self) -> Duration {
        let passed = later.at.saturating_duration_since(self.at) * self.count;
        passed.saturating_sub(later.unused.saturating_sub(self.unused))
    }
}

/// Idle, waiting for disks, or taken by the host: fields 4, 5 and 8 of `cpuN` in proc_stat(5), in hundredths of a second.
fn unused(text: &str, number: usize) -> Duration {
    let name = format!("cpu{number}");
    let mut fields = text
        .lines()
        .find_map(|line| line.split_once(' ').filter(|(first, _)| *first == name))
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse::<u64>().unwrap_or_default()))
        .into_iter()
        .flatten();
    let idle = fields.by_ref().skip(3).take(2).sum::<u64>();
    let stolen = fields.nth(2).unwrap_or_default();
    Duration::from_millis((idle + stolen) * 10)
}

/// The memory of the processes, in bytes: what is theirs alone, and their part of what they share (`Pss` in
/// proc_pid_smaps(5)). Sockets' memory in the kernel is not in it.
pub(crate) fn memory(pids: &[Pid]) -> Result<u64, BenchError> {
    let mut total = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(BenchError::file("read", &path))?;
        total += kibibytes(&text, "Pss:") * 1024;
    }
    Ok(total)
}

/// Bytes that the process has written to files and sockets by `write` and `writev` (`wchar` in proc_pid_io(5)).
pub(crate) fn written(pid: Pid) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).map_err(BenchError::file("read", &path))?;
    let value = text.lines().find_map(|line| line.strip_prefix("wchar:"));
    Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or_default())
}

fn kibibytes(text: &str, field: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const STAT: &str = "cpu  10 0 10 300 20 0 0 7 0 0\n\
                        cpu0 5 0 5 100 10 1 2 3 0 0\n\
                        cpu1 5 0 5 200 10 1 2 4 0 0\n\
                        cpu10 1 1 1 9999 1 1 1 1 0 0\n";

    #[test]
    fn what_a_processor_did_not_use_is_its_idle_iowait_and_stolen_time() {
        assert_eq!(unused(STAT, 0), Duration::from_millis(1130));
        assert_eq!(unused(STAT, 1), Duration::from_millis(2140));
        assert_eq!(unused(STAT, 2), Duration::ZERO);
    }

    #[test]
    fn busy_is_what_is_left_of_the_time_of_all_processors() {
        let start = Processors { at: Instant::now(), unused: Duration::from_secs(10), count: 2 };
        let later = Processors { at: start.at + Duration::from_secs(5), unused: Duration::from_secs(13), count: 2 };
        assert_eq!(start.busy_until(&later), Duration::from_secs(7));
    }

    #[test]
    fn memory_is_read_from_its_field() {
        assert_eq!(kibibytes("Rss:  10 kB\nPss:                1234 kB\nPss_Anon: 5 kB\n", "Pss:"), 1234);
        assert!(memory(&[Pid::this()]).unwrap() > 100_000);
    }

    #[test]
    fn what_is_written_is_counted() {
        let before = written(Pid::this()).unwrap();
        std::io::Write::write_all(&mut tempfile::tempfile().unwrap(), &[0; 100_000]).unwrap();
        assert!(written(Pid::this()).unwrap() - before >= 100_000);
    }

    #[test]
    fn a_tree_has_the_children_of_children_and_their_time() {
        let script = "(while :; do :; done) & wait";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let root = Pid::from_raw(child.id().cast_signed());
        let deadline = Instant::now() + Duration::from_secs(20);
        let spent = loop {
            let pids = tree(root);
            let spent = cpu_time(&pids).unwrap();
            if (pids.len() == 2 && spent > Duration::from_millis(30)) || Instant::now() > deadline {
                break spent;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for pid in tree(root) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
        assert!(spent > Duration::from_millis(30), "{spent:?}");
        assert!(cpu_time(&[root]).is_err());
    }
}
