//! One run, from the first connection to the report.

use super::arrivals::{Arrival, Arrivals};
use super::failure::Failure;
use super::{LoadOptions, SharedRecorder, WHAT, Workload, bulk, connect, pingpong};
use crate::record::Success;
use crate::{EndReason, LoadError, Report};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Runs the load to its end.
pub(super) async fn run(
    options: LoadOptions,
    recorder: SharedRecorder,
    mut stopped: watch::Receiver<bool>,
) -> Result<Report, LoadError> {
    let mut sessions = Vec::new();
    if let Workload::Pingpong { .. } = options.workload {
        // Connecting is not what this workload measures: the clock starts when the connections are there.
        tokio::select! {
            connected = pingpong::connect_all(&options, &recorder) => sessions = connected?,
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
    let run = Rc::new(Run { arrivals: Arrivals::new(options.rate, options.requests), options, recorder });
    run.recorder.lock().start(run.arrivals.started());

    let mut workers = JoinSet::new();
    sessions.resize_with(run.options.connections, || None);
    for (index, session) in sessions.into_iter().enumerate() {
        let run = Rc::clone(&run);
        match run.options.workload {
            Workload::Connect => workers.spawn_local(connect::work(run)),
            Workload::Pingpong { size_bytes } => workers.spawn_local(pingpong::work(run, index, session, size_bytes)),
            Workload::Bulk { direction, size_bytes } => workers.spawn_local(bulk::work(run, direction, size_bytes)),
        };
    }
    let pacer = Rc::clone(&run);
    let pacer = tokio_uring::spawn(async move { pacer.arrivals.pace(&pacer.recorder).await });

    let reason = tokio::select! {
        result = all(&mut workers) => result.map(|()| EndReason::Requests),
        () = sleep_or_forever(run.options.duration) => Ok(EndReason::Duration),
        // An error says that the handle is gone, which stops the load as well.
        _ = stopped.wait_for(|stopped| *stopped) => Ok(EndReason::Stopped),
    }?;
    run.arrivals.stop();
    run.recorder.lock().end(Instant::now(), reason);
    all(&mut workers).await?;
    pacer.abort();
    let report = run.recorder.lock().report(&run.options, run.arrivals.not_begun());
    Ok(report)
}

async fn all(workers: &mut JoinSet<()>) -> Result<(), LoadError> {
    while let Some(result) = workers.join_next().await {
        result.map_err(|_| LoadError::Ended { what: WHAT })?;
    }
    Ok(())
}

async fn sleep_or_forever(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// What the workers of a run have in common.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) options: LoadOptions,
    pub(super) arrivals: Arrivals,
    pub(super) recorder: SharedRecorder,
}

impl Run {
    /// Which target is the one for this number, and its address.
    pub(super) fn target(&self, index: u64) -> (usize, SocketAddr) {
        let targets = &self.options.targets;
        let index = usize::try_from(index % targets.len() as u64).unwrap_or_default();
        (index, targets[index])
    }

    /// Counts a request that was done.
    pub(super) fn succeeded(&self, target: usize, arrival: Arrival, begun: Instant, backend: &str, first: Instant) {
        let ended = Instant::now();
        self.recorder.lock().success(&Success {
            target,
            backend,
            wait: self.options.rate.map(|_| begun.duration_since(arrival.intended)),
            first_byte: first.duration_since(arrival.intended),
            total: ended.duration_since(arrival.intended),
            ended,
        });
    }

    /// Counts a request that failed.
    pub(super) fn failed(&self, target: usize, backend: Option<&str>, failure: &Failure) {
        self.recorder.lock().failure(target, backend, failure, Instant::now());
    }
}

/// Slows a worker down whose requests all fail: a closed loop on a refusing server would count nothing but how fast it
/// refuses. The first failure costs no wait. In an open loop the schedule decides, and there is no wait at all.
#[derive(Debug)]
pub(super) struct Backoff {
    enabled: bool,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(options: &LoadOptions) -> Self {
        Self { enabled: options.rate.is_none(), next: Duration::ZERO }
    }

    pub(super) const fn succeeded(&mut self) {
        self.next = Duration::ZERO;
    }

    pub(super) async fn failed(&mut self) {
        if !self.enabled {
            return;
        }
        if !self.next.is_zero() {
            tokio::time::sleep(self.next).await;
        }
        self.next = (self.next * 2).clamp(Duration::from_millis(1), Duration::from_millis(100));
    }
}
