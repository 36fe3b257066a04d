//! Task changes at an even rate, while something else is measured.

use crate::bench::BenchError;
use crate::bench::system::ringlb;
use crate::instruments::api::Api;
use ringlb_load::units::to_float;
use serde_json::json;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Changes a second, in all.
const RATE: u32 = 1_000;
/// Each has a connection and a backend of its own, so that one answer that is late does not hold the others up.
const CLIENTS: u32 = 4;

/// Changes being made.
pub(in crate::bench) struct Churn {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<u64, BenchError>>>,
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
    /// weight 0: whatever is measured meanwhile does not go to them.
    pub(in crate::bench) fn start(socket: &Path) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let clients = (0..CLIENTS).map(|client| {
            let mut api = Api::connect(socket)?;
            let stopped = Arc::clone(&stop);
            let work = move || change(&mut api, client, begun, &stopped);
            let thread = std::thread::Builder::new().name("ringlb-churn".to_owned()).spawn(work);
            thread.map_err(BenchError::machine("start a thread"))
        });
        let clients = clients.collect::<Result<_, _>>()?;
        Ok(Self { stop, clients, begun })
    }

    /// Ends it. A change that was refused is an error.
    pub(in crate::bench) fn stop(self) -> Result<Churned, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let elapsed = self.begun.elapsed();
        let mut done = 0;
        for client in self.clients {
            let ended = || BenchError::Impossible("a thread that makes changes has panicked".to_owned());
            done += client.join().map_err(|_| ended())??;
        }
        Ok(Churned { per_second: to_float(done) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE) })
    }
}

fn change(api: &mut Api, client: u32, begun: Instant, stopped: &AtomicBool) -> Result<u64, BenchError> {
    let address = Ipv4Addr::from(ringlb::ELSEWHERE.to_bits() + client);
    let path = ringlb::backend_path(ringlb::SERVICE, address);
    let weightless = json!({"weight": 0});
    // The clients take turns within the interval.
    let interval = Duration::from_secs(1) * CLIENTS / RATE;
    let first = begun + interval * client / CLIENTS;
    let mut done: u64 = 0;
    while !stopped.load(Ordering::Relaxed) {
        let due = first + interval * u32::try_from(done).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if done.is_multiple_of(2) {
            api.done("PUT", &path, Some(&weightless))?;
        } else {
            api.done("DELETE", &path, None)?;
        }
        done += 1;
    }
    Ok(done)
}
