//! Long-lived connections: send bytes, check that the same come back.

use super::connection::{ASKING, Connection, Doing, NAME};
use super::exchange::exchange;
use crate::failure::Failure;
use crate::load::backoff::Backoff;
use crate::load::run::Run;
use crate::load::run::WHAT;
use crate::pattern::split_mix;
use crate::protocol::{Command, MAX_NAME};
use crate::record::SharedRecorder;
use crate::{LoadError, LoadOptions};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Connections being made at the same time at the start: what listeners' queues usually hold.
const CONNECTING_AT_ONCE: usize = 128;

/// A connection to a server that has said its name.
pub(in crate::load) struct Session {
    connection: Connection,
    backend: String,
    /// Where in the pattern the next request starts: every request of every connection elsewhere, so that an answer
    /// to another does not fit.
    position: u64,
    /// To receive into; empty between requests.
    buffer: Vec<u8>,
}

/// Makes the connections of a run. Those that fail are counted and `None`.
pub(in crate::load) async fn connect_all(
    options: &LoadOptions,
    recorder: &SharedRecorder,
) -> Result<Vec<Option<Session>>, LoadError> {
    let mut sessions = Vec::new();
    sessions.resize_with(options.connections, || None);
    let mut attempts = JoinSet::new();
    for index in 0..options.connections {
        if attempts.len() >= CONNECTING_AT_ONCE {
            collect(&mut attempts, &mut sessions).await?;
        }
        let options = options.clone();
        let recorder = recorder.clone();
        attempts.spawn_local(async move {
            let target = index % options.targets.len();
            let result = connect(&options, options.targets[target], &recorder, index, &Doing::new("")).await;
            if let Err(failure) = &result {
                recorder.lock().failure(target, None, failure, Instant::now());
            }
            (index, result.ok())
        });
    }
    while !attempts.is_empty() {
        collect(&mut attempts, &mut sessions).await?;
    }
    Ok(sessions)
}

async fn collect(
    attempts: &mut JoinSet<(usize, Option<Session>)>,
    sessions: &mut [Option<Session>],
) -> Result<(), LoadError> {
    if let Some(result) = attempts.join_next().await {
        let (index, session) = result.map_err(|_| LoadError::Ended { what: WHAT })?;
        sessions[index] = session;
    }
    Ok(())
}

/// Does requests over one connection until there are none left; makes a new one when it breaks.
pub(in crate::load) async fn work(run: Rc<Run>, index: usize, session: Option<Session>, size: u64) {
    let mut backoff = Backoff::new(&run.options);
    let doing = Doing::new("");
    let mut session = session;
    while let Some(arrival) = run.arrivals.next().await {
        let begun = Instant::now();
        let (target, address) = run.target(index as u64);
        let mut current = match session.take() {
            Some(session) => session,
            None => match connect(&run.options, address, &run.recorder, index, &doing).await {
                Ok(session) => session,
                Err(failure) => {
                    run.failed(target, None, &failure);
                    backoff.failed().await;
                    continue;
                }
            },
        };
        match request(&run, &mut current, size, &doing).await {
            Ok(first_byte) => {
                run.succeeded(target, arrival, begun, Some(&current.backend), first_byte);
                session = Some(current);
                backoff.succeeded();
            }
            Err(failure) => {
                run.failed(target, Some(&current.backend), &failure);
                backoff.failed().await;
            }
        }
    }
}

async fn connect(
    options: &LoadOptions,
    address: SocketAddr,
    recorder: &SharedRecorder,
    index: usize,
    doing: &Doing,
) -> Result<Session, Failure> {
    let open = async {
        let begun = Instant::now();
        let connection = Connection::open(address, options.source, doing).await?;
        recorder.lock().connected(begun.elapsed());
        doing.set(ASKING);
        connection.send(Command::Echo.line()).await?;
        doing.set(NAME);
        let mut buffer = Vec::with_capacity(MAX_NAME + 1);
        let (backend, length) = connection.receive_name(&mut buffer).await?;
        if length < buffer.len() {
            return Err(Failure::Mismatch { doing: NAME, position: length as u64 });
        }
        recorder.lock().opened(&backend);
        Ok(Session { connection, backend, position: split_mix(index as u64), buffer: Vec::new() })
    };
    tokio::time::timeout(options.timeout, open)
        .await
        .unwrap_or(Err(Failure::Timeout { doing: doing.get(), after: options.timeout }))
}

/// One request; returns when the first byte of its answer came.
async fn request(run: &Run, session: &mut Session, size: u64, doing: &Doing) -> Result<Instant, Failure> {
    let timeout = run.options.timeout;
    let Session { connection, position, buffer, .. } = session;
    let exchange = exchange(connection, *position, size, buffer, doing);
    let first_byte = tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or(Err(Failure::Timeout { doing: doing.get(), after: timeout }))?;
    *position = position.wrapping_add(size);
    run.recorder.lock().moved(size, size);
    Ok(first_byte)
}
