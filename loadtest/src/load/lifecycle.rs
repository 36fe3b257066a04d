//! One run, from the first connection to the report.

use super::arrivals::Arrivals;
use super::options::{Exchange, LoadOptions, Workload};
use super::run::{Run, WHAT};
use super::{tcp, udp};
use crate::record::SharedRecorder;
use crate::{EndReason, LoadError, Report};
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
    let opened = tokio::select! {
        opened = Opened::open(&options, &recorder) => opened?,
        _ = stopped.wait_for(|stopped| *stopped) => Opened::default(),
    };
    let run = Rc::new(Run { arrivals: Arrivals::new(options.rate, options.requests), options, recorder });
    run.recorder.lock().start(run.arrivals.started());

    let mut workers = JoinSet::new();
    start(&run, opened, &mut workers);
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

/// What is opened before the clock is started, because opening it is not what is measured.
#[derive(Default)]
struct Opened {
    sessions: Vec<Option<tcp::pingpong::Session>>,
    sockets: Vec<Option<udp::socket::Socket>>,
}

impl Opened {
    async fn open(options: &LoadOptions, recorder: &SharedRecorder) -> Result<Self, LoadError> {
        let mut opened = Self::default();
        match options.workload {
            Workload::Pingpong { .. } => opened.sessions = tcp::pingpong::connect_all(options, recorder).await?,
            Workload::Udp { exchange: Exchange::Pingpong | Exchange::Bulk, .. } => {
                opened.sockets = udp::socket::open_all(options, recorder);
            }
            Workload::Connect
            | Workload::ConnectEcho { .. }
            | Workload::Bulk { .. }
            | Workload::Udp { exchange: Exchange::Connect, .. } => {}
        }
        Ok(opened)
    }
}

fn start(run: &Rc<Run>, opened: Opened, workers: &mut JoinSet<()>) {
    let Opened { mut sessions, mut sockets } = opened;
    let count = run.options.connections;
    match run.options.workload {
        Workload::Connect | Workload::ConnectEcho { .. } => {
            let size = match run.options.workload {
                Workload::ConnectEcho { size_bytes } => Some(size_bytes),
                _ => None,
            };
            for _ in 0..count {
                workers.spawn_local(tcp::connect::work(Rc::clone(run), size));
            }
        }
        Workload::Pingpong { size_bytes } => {
            sessions.resize_with(count, || None);
            for (index, session) in sessions.into_iter().enumerate() {
                workers.spawn_local(tcp::pingpong::work(Rc::clone(run), index, session, size_bytes));
            }
        }
        Workload::Bulk { direction, size_bytes } => {
            for _ in 0..count {
                workers.spawn_local(tcp::bulk::work(Rc::clone(run), direction, size_bytes));
            }
        }
        Workload::Udp { exchange, size_bytes, names } => {
            let context = Rc::new(udp::context::Context::new(Rc::clone(run), size_bytes, names));
            sockets.resize_with(count, || None);
            for (index, socket) in sockets.into_iter().enumerate() {
                let context = Rc::clone(&context);
                match exchange {
                    Exchange::Connect => workers.spawn_local(udp::connect::work(context)),
                    Exchange::Pingpong => workers.spawn_local(udp::pingpong::work(context, index as u64, socket)),
                    Exchange::Bulk => workers.spawn_local(udp::bulk::work(context, index as u64, socket)),
                };
            }
        }
    }
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
