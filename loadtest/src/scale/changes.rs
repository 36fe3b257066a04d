//! What a task change costs: a request that adds or removes one backend, answered when the proxy has acknowledged it.

use super::plan::Plan;
use super::stage::Stage;
use crate::instruments::BenchError;
use crate::instruments::accounting::{cpu_time, written};
use crate::instruments::api::Api;
use crate::instruments::statistics::Times;
use crate::instruments::system_calls::Count;
use ringlb_load::units::to_float;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Two services that are changed one after the other are far from each other: it is a prime, and no cache knows the way.
const STRIDE: u64 = 7_919;
/// Changes before anything is measured.
const WARM_UP: u32 = 200;
/// Changes while system calls are counted.
const COUNTED: u32 = 200;

/// What changes have cost.
pub(super) struct Changed {
    /// From request to answer.
    pub(super) times: Times,
    /// The daemon's CPU time for each, in microseconds.
    pub(super) daemon_cpu_us: f64,
    /// That of all proxies.
    pub(super) proxy_cpu_us: f64,
    /// Bytes that the daemon has sent to proxies for each.
    pub(super) bytes: f64,
}

/// Makes so many changes, of all networks in turn.
pub(super) fn measure(stage: &Stage<'_>, changes: u32) -> Result<Changed, BenchError> {
    let mut api = stage.api()?;
    api.stay_awake();
    let networks = stage.plan.size.networks;
    make(&mut api, &stage.plan, networks, WARM_UP, |_| {})?;
    let daemon = stage.daemon.pid();
    let spent = || Ok::<_, BenchError>((cpu_time(&[daemon])?, cpu_time(stage.proxies())?));
    let sent = |api: &Api| Ok::<_, BenchError>(written(daemon)?.saturating_sub(api.received()));
    let ((daemon_cpu, proxy_cpu), bytes) = (spent()?, sent(&api)?);
    let mut times = Times::default();
    make(&mut api, &stage.plan, networks, changes, |time| times.push(time))?;
    let count = times.count();
    let ((daemon_cpu_after, proxy_cpu_after), bytes_after) = (spent()?, sent(&api)?);
    let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / count;
    Ok(Changed {
        daemon_cpu_us: each(daemon_cpu, daemon_cpu_after),
        proxy_cpu_us: each(proxy_cpu, proxy_cpu_after),
        bytes: to_float(bytes_after.saturating_sub(bytes)) / count,
        times,
    })
}

/// The system calls of daemon and proxy for a change, by name, counted with changes of the first network alone.
pub(super) fn system_calls(stage: &Stage<'_>) -> Result<BTreeMap<String, f64>, BenchError> {
    let mut api = stage.api()?;
    let processes: Vec<_> = stage.processes().into_iter().take(2).collect();
    make(&mut api, &stage.plan, 1, 2, |_| {})?;
    let count = Count::begin(&processes, stage.house.directory.path())?;
    make(&mut api, &stage.plan, 1, COUNTED, |_| {})?;
    let changes = f64::from(COUNTED);
    Ok(count.end()?.into_iter().map(|(name, calls)| (name, to_float(calls) / changes)).collect())
}

/// Removes backends of so many networks, and adds them again; each of the two is a change. An odd number is one more: all
/// is there again then.
fn make(
    api: &mut Api,
    plan: &Plan,
    networks: u32,
    changes: u32,
    mut took: impl FnMut(Duration),
) -> Result<(), BenchError> {
    let body = json!({ "weight": 1 });
    for number in 0..u64::from(changes.div_ceil(2)) {
        let place = |of: u32, number: u64| u32::try_from(number % u64::from(of)).unwrap_or_default();
        let network = place(networks, number);
        // Networks take turns; in each of them, services do.
        let service = place(plan.size.services, number / u64::from(networks) * STRIDE);
        let path = plan.backend_path(network, service, place(plan.size.backends, number));
        for (method, body) in [("DELETE", None), ("PUT", Some(&body))] {
            let begun = Instant::now();
            api.done(method, &path, body)?;
            took(begun.elapsed());
        }
    }
    Ok(())
}
