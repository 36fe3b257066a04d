//! The load: what is wanted of it, and its thread.

mod arrivals;
mod backoff;
mod lifecycle;
mod options;
mod run;
mod schedule;
mod tcp;
mod udp;

pub use options::{Direction, Exchange, LoadOptions, Workload};

use crate::record::{Recorder, SharedRecorder};
use crate::thread::{self, Prepare, Started};
use crate::{LoadError, Progress, Report, uring};
use run::WHAT;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Starts loads.
#[derive(Debug)]
pub struct Load;

impl Load {
    /// Starts a load on a thread of its own.
    ///
    /// # Errors
    /// [`LoadError`], if the options make no sense or there is no thread. Whatever goes wrong later is told by
    /// [`LoadHandle::join`].
    pub fn start(options: LoadOptions) -> Result<LoadHandle, LoadError> {
        Self::start_in(options, || Ok(()))
    }

    /// As [`start`](Self::start); `prepare` is called first on the load's thread, for example to enter a network
    /// namespace. Every socket is made after it, on that thread.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn start_in(
        options: LoadOptions,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<LoadHandle, LoadError> {
        options.validate()?;
        let (stop, stopped) = watch::channel(false);
        let recorder = SharedRecorder::new(Recorder::new(&options)?);
        let shared = recorder.clone();
        let prepare: Prepare = Box::new(prepare);
        let Started { thread, result } =
            thread::start(WHAT, prepare, move || uring::run(lifecycle::run(options, shared, stopped)).flatten())?;
        Ok(LoadHandle {
            recorder,
            stop: LoadStopper(stop),
            thread: Some(thread),
            result: Mutex::new(result),
            early: None,
        })
    }
}

/// A running load. Dropping it stops the load and waits for the requests under way. Waiting blocks the thread: call
/// [`wait`](Self::wait) and [`join`](Self::join) where that is allowed, not in a task of an asynchronous runtime.
#[derive(Debug)]
pub struct LoadHandle {
    recorder: SharedRecorder,
    stop: LoadStopper,
    thread: Option<std::thread::JoinHandle<()>>,
    /// In a mutex only so that threads can share the handle; nobody waits for it.
    result: Mutex<Receiver<Result<Report, LoadError>>>,
    /// The result, if [`wait`](Self::wait) received it.
    early: Option<Result<Report, LoadError>>,
}

impl LoadHandle {
    /// How far the load is.
    #[must_use]
    pub fn snapshot(&self) -> Progress {
        self.recorder.lock().progress()
    }

    /// Begins no more requests. Those under way are waited for, as long as their timeout allows.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Something to stop the load with from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> LoadStopper {
        self.stop.clone()
    }

    /// Waits until the load has ended, at most for `timeout`. Returns whether it has.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        if self.early.is_none() {
            let result = self.result.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.early = match result.recv_timeout(timeout) {
                Ok(result) => Some(result),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Err(LoadError::Ended { what: WHAT })),
            };
        }
        self.early.is_some()
    }

    /// Waits until the load has ended and returns what came of it.
    ///
    /// # Errors
    /// [`LoadError`], if the load could not run. Failed requests are no error here; the report counts them.
    pub fn join(mut self) -> Result<Report, LoadError> {
        match self.early.take() {
            Some(result) => result,
            None => self
                .result
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .recv()
                .unwrap_or(Err(LoadError::Ended { what: WHAT })),
        }
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed there.
            let _ = thread.join();
        }
    }
}

/// Stops a load, from any thread.
#[derive(Debug, Clone)]
pub struct LoadStopper(watch::Sender<bool>);

impl LoadStopper {
    /// As [`LoadHandle::stop`].
    pub fn stop(&self) {
        // Without a receiver the load has ended already.
        let _ = self.0.send(true);
    }
}
