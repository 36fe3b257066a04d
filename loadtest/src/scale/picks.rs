//! How fast the proxy makes connections, each of which is a pick in its table.

use super::plan::PORT;
use super::stage::Stage;
use crate::instruments::BenchError;
use crate::instruments::accounting::cpu_time;
use ringlb_load::units::to_float;
use ringlb_load::{LoadOptions, Workload};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections at a time.
const CONNECTIONS: usize = 64;
const SIZE: u64 = 64;
/// What is done before anything is measured.
const WARM_UP: u64 = 500;

/// How fast it was.
pub(super) struct Picked {
    /// Connections a second.
    pub(super) per_second: f64,
    /// The proxy's CPU time for each.
    pub(super) cpu_us: f64,
}

/// Makes short connections to the first network's first service, for so long.
pub(super) fn measure(stage: &Stage<'_>, duration: Duration) -> Result<Picked, BenchError> {
    let target = SocketAddr::from((stage.plan.vip(), PORT));
    let mut load = LoadOptions::new(vec![target], Workload::ConnectEcho { size_bytes: SIZE });
    load.connections = CONNECTIONS;
    stage.load(LoadOptions { requests: Some(WARM_UP), ..load.clone() })?.join()?;
    let proxy = stage.proxies().get(..1).unwrap_or_default();
    let before = cpu_time(proxy)?;
    let report = stage.load(LoadOptions { duration: Some(duration), ..load })?.join()?;
    let spent = cpu_time(proxy)?.saturating_sub(before);
    if report.failures > 0 || report.requests == 0 {
        let example = report.errors.values().next().map(|error| error.example.clone()).unwrap_or_default();
        return Err(BenchError::Impossible(format!(
            "{} of {} connections to {target} failed, such as: {example}",
            report.failures,
            report.failures + report.requests
        )));
    }
    let connections = to_float(report.requests);
    Ok(Picked {
        per_second: connections / report.elapsed().as_secs_f64().max(f64::MIN_POSITIVE),
        cpu_us: spent.as_secs_f64() * 1e6 / connections,
    })
}
