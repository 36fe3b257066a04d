//! Task changes at an even rate, while something else is measured.

use crate::bench::BenchError;
use crate::bench::system::ringlb;
use crate::instruments::api::Api;
use ringlb_load::units::to_float;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Changes a second, in all.
const RATE: u32 = 1_000;
/// Each connection changes a backend of its own, so that one answer that is late does not hold the others up.
const CONNECTIONS: u32 = 4;

/// Changes being made.
pub(in crate::bench) struct Churn {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Result<u64, BenchError>>,
    begun: Instant,
}

/// What was changed.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Churned {
    /// Changes a second that were acknowledged.
    pub(in crate::bench) per_second: f64,
}

impl Churn {
    /// Starts to add and remove backends of the service that is being used, each to a table of its own. They have the
    /// weight 0: whatever is measured meanwhile does not go to them. Whoever calls says on which processor.
    pub(in crate::bench) fn start(socket: &Path) -> Result<Self, BenchError> {
        let connections = (0..CONNECTIONS).map(|number| Connection::open(socket, number));
        let connections = connections.collect::<Result<Vec<_>, _>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let begun = Instant::now();
        let client = std::thread::Builder::new()
            .name("ringlb-churn".to_owned())
            .spawn(move || change(connections, begun, &stopped))
            .map_err(BenchError::machine("start a thread"))?;
        Ok(Self { stop, client, begun })
    }

    /// Ends it. A change that was refused is an error.
    pub(in crate::bench) fn stop(self) -> Result<Churned, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let elapsed = self.begun.elapsed();
        let ended = || BenchError::Impossible("the thread that makes changes has panicked".to_owned());
        let done = self.client.join().map_err(|_| ended())??;
        Ok(Churned { per_second: to_float(done) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE) })
    }
}

/// The connections take turns. An answer is read when it is its connection's turn again, and not as it comes: who changes things is to
/// do as little for a change as it can.
fn change(mut connections: Vec<Connection>, begun: Instant, stopped: &AtomicBool) -> Result<u64, BenchError> {
    let mut done = 0;
    let mut due = begun;
    'changing: loop {
        for connection in &mut connections {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stopped.load(Ordering::Relaxed) {
                break 'changing;
            }
            done += u64::from(connection.finish()?);
            connection.begin()?;
            due += Duration::from_secs(1) / RATE;
        }
    }
    for connection in &mut connections {
        done += u64::from(connection.finish()?);
    }
    Ok(done)
}

struct Connection {
    api: Api,
    /// The path of its backend.
    path: String,
    /// Whether its backend is there once the last change is made.
    is_there: bool,
    /// Whether there is an answer to come.
    is_waiting: bool,
}

impl Connection {
    fn open(socket: &Path, number: u32) -> Result<Self, BenchError> {
        let address = Ipv4Addr::from(ringlb::ELSEWHERE.to_bits() + number);
        let path = ringlb::backend_path(ringlb::SERVICE, address);
        Ok(Self { api: Api::connect(socket)?, path, is_there: false, is_waiting: false })
    }

    fn begin(&mut self) -> Result<(), BenchError> {
        let (method, body) = if self.is_there { ("DELETE", "") } else { ("PUT", r#"{"weight":0}"#) };
        self.api.ask(method, &self.path, body)?;
        self.is_there = !self.is_there;
        self.is_waiting = true;
        Ok(())
    }

    /// Waits for the answer, if there is one to come; says whether there was.
    fn finish(&mut self) -> Result<bool, BenchError> {
        if self.is_waiting {
            self.api.answered()?;
        }
        Ok(std::mem::take(&mut self.is_waiting))
    }
}
