//! The data threads: how many, what each one serves, and what their ends mean.
//!
//! The kernel spreads connections over them: each has a socket of its own in every group that shares an address
//! (`SO_REUSEPORT`). A connection stays with the thread that accepted it.

mod count;

pub use count::{Count, CountError, MOST_THREADS};

use crate::privileges;
use crate::shared::Shared;
use crate::worker::{self, Settings, Worker};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use thiserror::Error;

/// Why the data threads do not start, or why the first of them ended.
#[derive(Debug, Error)]
pub enum Error {
    /// The sockets cannot be shared out evenly.
    #[error(
        "{threads} data threads need a multiple of {threads} {what}, not {given}: hand over as many for each thread"
    )]
    Uneven {
        /// What is to be shared out.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// The number of threads.
        threads: usize,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread {name}: {source}")]
    Start {
        /// The thread's name.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// What a thread needs is not to be had, or failed for good.
    #[error("{name}: {source}")]
    Worker {
        /// The thread's name.
        name: String,
        /// What failed.
        source: worker::Error,
    },
    /// A thread ended without saying why, which is an error of this program.
    #[error("{name} panicked, which is an error in ringlb-proxy: please report it")]
    Panicked {
        /// The thread's name.
        name: String,
    },
}

/// Shares sockets out among so many threads, in their order: the first ones to the first thread.
///
/// # Errors
/// [`Error::Uneven`], also if there are none.
pub fn share_out<T>(what: &'static str, sockets: Vec<T>, threads: usize) -> Result<Vec<Vec<T>>, Error> {
    let given = sockets.len();
    if threads == 0 || given == 0 || !given.is_multiple_of(threads) {
        return Err(Error::Uneven { what, given, threads });
    }
    let mut sockets = sockets.into_iter();
    Ok((0..threads).map(|_| sockets.by_ref().take(given / threads).collect()).collect())
}

/// What one data thread serves from its start on. The control thread has it too, to hand it over to the next daemon.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// Listening TCP sockets.
    pub listeners: Vec<Arc<OwnedFd>>,
    /// UDP sockets that get the datagrams for VIPs.
    pub datagrams: Vec<Arc<OwnedFd>>,
}

/// Data threads that are running.
#[derive(Debug)]
pub struct DataThreads {
    reports: Receiver<Report>,
    running: usize,
}

/// What a data thread says, in this order.
#[derive(Debug)]
enum Report {
    /// It has all that it needs.
    Ready,
    /// It ended.
    Ended(Result<(), Error>),
}

impl DataThreads {
    /// Starts a thread for each part of the shared state, `data-0` and so on, and waits until all have what they need.
    /// They accept nothing before there is a table.
    ///
    /// # Errors
    /// Any [`enum@Error`] but [`Error::Uneven`]. The caller should end the process then: some threads may be running.
    pub fn start(shared: &Arc<Shared>, settings: Settings, sockets: Vec<Sockets>) -> Result<Self, Error> {
        let (sender, reports) = channel();
        let mut running = 0;
        for (thread, sockets) in shared.threads.iter().zip(sockets) {
            let (shared, thread) = (Arc::clone(shared), Arc::clone(thread));
            let make_worker = move || Worker::new(shared, thread, settings, sockets.listeners, sockets.datagrams);
            start_one(format!("data-{running}"), make_worker, sender.clone())?;
            running += 1;
        }
        let threads = Self { reports, running };
        // Each is ready, or has ended in failure: there is no other end before the control thread starts.
        (0..running).try_for_each(|_| threads.next_report())?;
        Ok(threads)
    }

    /// Waits until all have ended because they were told to.
    ///
    /// # Errors
    /// The first failure, without waiting for the other threads: a network that is served by some of its threads would lose
    /// the connections that the kernel gives to the others, so the process must end.
    pub fn join(self) -> Result<(), Error> {
        (0..self.running).try_for_each(|_| self.next_report())
    }

    fn next_report(&self) -> Result<(), Error> {
        match self.reports.recv() {
            Ok(Report::Ready) => Ok(()),
            Ok(Report::Ended(result)) => result,
            // Every thread reports its end.
            Err(_) => Ok(()),
        }
    }
}

fn start_one(
    name: String,
    make_worker: impl FnOnce() -> Result<Worker, worker::Error> + Send + 'static,
    reports: Sender<Report>,
) -> Result<(), Error> {
    let own_name = name.clone();
    let run = move || {
        // The thread's state is not looked at after a panic: the process ends.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let worker = make_worker()?;
            privileges::seal()?;
            // Nobody listens any more only if the process is ending; the same below.
            let _ = reports.send(Report::Ready);
            worker.run()
        }));
        let result = match outcome {
            Ok(result) => result.map_err(|source| Error::Worker { name: own_name, source }),
            Err(_) => Err(Error::Panicked { name: own_name }),
        };
        let _ = reports.send(Report::Ended(result));
    };
    let started = std::thread::Builder::new().name(name.clone()).spawn(run);
    started.map(drop).map_err(|source| Error::Start { name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_shared_out_in_their_order() {
        assert_eq!(share_out("listeners", vec![1, 2, 3, 4, 5, 6], 3).unwrap(), [[1, 2], [3, 4], [5, 6]]);
        assert_eq!(share_out("listeners", vec![1, 2], 1).unwrap(), [[1, 2]]);
        for (given, threads) in [(0, 1), (1, 2), (3, 2), (2, 4), (1, 0)] {
            assert!(matches!(share_out("listeners", vec![0; given], threads), Err(Error::Uneven { .. })));
        }
    }
}
