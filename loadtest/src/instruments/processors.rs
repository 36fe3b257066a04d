//! Which processor does what: systems have one, clients and servers another.

use super::BenchError;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The processors of a benchmark, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Processors {
    /// Where the system under test runs, with all its processes and threads.
    pub(crate) system: usize,
    /// Where the client and the servers run.
    pub(crate) load: usize,
}

impl Processors {
    /// The first two that this process may use.
    pub(crate) fn choose() -> Result<Self, BenchError> {
        let allowed = sched_getaffinity(CALLER)
            .map_err(|errno| BenchError::machine("ask which processors may be used")(errno.into()))?;
        let mut numbers = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
        match (numbers.next(), numbers.next()) {
            (Some(system), Some(load)) => Ok(Self { system, load }),
            _ => Err(BenchError::Impossible(
                "a benchmark needs two processors: one for the system, one for the load; this process may use one"
                    .to_owned(),
            )),
        }
    }

    /// Both.
    pub(crate) const fn numbers(self) -> [usize; 2] {
        [self.system, self.load]
    }

    /// Binds the calling thread, and what it starts from now on, to the load's processor.
    pub(crate) fn enter_load(self) -> Result<(), BenchError> {
        bind(self.load)
    }

    /// Does the work bound to the system's processor: what it starts stays there.
    pub(crate) fn on_system<T>(self, work: impl FnOnce() -> Result<T, BenchError>) -> Result<T, BenchError> {
        bind(self.system)?;
        let result = work();
        bind(self.load)?;
        result
    }
}

/// The calling thread (sched_setaffinity(2)).
const CALLER: Pid = Pid::from_raw(0);

fn bind(number: usize) -> Result<(), BenchError> {
    let failed = |errno: nix::Error| BenchError::machine(format!("bind to processor {number}"))(errno.into());
    let mut set = CpuSet::new();
    set.set(number).map_err(failed)?;
    sched_setaffinity(CALLER, &set).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_bound_to_its_processor_and_comes_back() {
        let processors = Processors::choose().unwrap();
        assert_ne!(processors.system, processors.load);
        let is_at = |number| {
            let set = sched_getaffinity(CALLER).unwrap();
            (0..CpuSet::count()).all(|other| set.is_set(other).unwrap() == (other == number))
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                processors.enter_load().unwrap();
                assert!(is_at(processors.load));
                assert!(processors.on_system(|| Ok(is_at(processors.system))).unwrap());
                assert!(is_at(processors.load));
            });
        });
    }
}
