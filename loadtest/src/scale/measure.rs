//! Measuring one step.

use super::changes::{self, Changed};
use super::kernel_balancer;
use super::objects::Objects;
use super::options::Options;
use super::picks::{self, Picked};
use super::plan::{CLIENT, Container, Plan, SERVER};
use super::results::Step;
use super::stage::{House, Stage};
use crate::instruments::BenchError;
use crate::instruments::accounting::{cpu_time, memory};
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use std::time::{Duration, Instant};

/// What processes do once they are told of something, such as giving memory back, is to be over.
const SETTLE: Duration = Duration::from_secs(1);

/// Builds all of it, measures, and takes it down.
pub(super) fn step(
    house: &House,
    options: &Options,
    plan: Plan,
    tell: &mut dyn FnMut(&str),
) -> Result<Step, BenchError> {
    let size = plan.size;
    tell(&format!("{size}: building {} backends", size.all_backends()));
    let (mut stage, build) = Stage::build(house, plan)?;
    tell(&format!("{size}: built in {:.1} s; measuring", build.as_secs_f64()));
    std::thread::sleep(SETTLE);
    let idle_cpu_percent = idle(&stage, options.duration)?;
    let (daemon_bytes, proxy_bytes) = bytes(&stage)?;
    let containers = [CLIENT, SERVER].map(Container::namespace);
    let objects = Objects::count(&stage.processes(), &containers, &house.runtime)?;
    let Picked { per_second, cpu_us } = picks::measure(&stage, options.duration)?;
    let Changed { mut times, daemon_cpu_us, proxy_cpu_us, bytes: change_bytes } =
        changes::measure(&stage, options.changes)?;
    let by_name = changes::system_calls(&stage)?;
    let batch = batch(&stage)?;
    std::thread::sleep(SETTLE);
    let (daemon_bytes_after_batch, proxy_bytes_after_batch) = bytes(&stage)?;
    let resync = resync(&mut stage)?;
    std::thread::sleep(SETTLE);
    let proxy_bytes_after_resync = memory(stage.proxies().get(..1).unwrap_or_default())?;
    stage.close()?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Step {
        size,
        all_services: size.all_services(),
        all_backends: size.all_backends(),
        build_ms: milliseconds(build),
        daemon_bytes,
        proxy_bytes,
        kernel_objects: objects.sum(),
        kernel_objects_by_kind: objects,
        idle_cpu_percent,
        picks_per_second: per_second,
        pick_cpu_us: cpu_us,
        change_us_p50: times.per_mille(500).unwrap_or_default(),
        change_us_p99: times.per_mille(990).unwrap_or_default(),
        change_daemon_cpu_us: daemon_cpu_us,
        change_proxy_cpu_us: proxy_cpu_us,
        change_bytes,
        change_syscalls: by_name.values().sum(),
        change_syscalls_by_name: by_name,
        batch_ms: milliseconds(batch),
        resync_ms: milliseconds(resync),
        daemon_bytes_after_batch,
        proxy_bytes_after_batch,
        proxy_bytes_after_resync,
        kernel_balancer: kernel_balancer::cost(size, options.containers),
    })
}

/// The CPU time of all processes while nothing happens, in percent of one processor.
fn idle(stage: &Stage<'_>, duration: Duration) -> Result<f64, BenchError> {
    let processes = stage.processes();
    let (begun, before) = (Instant::now(), cpu_time(&processes)?);
    std::thread::sleep(duration);
    let spent = cpu_time(&processes)?.saturating_sub(before);
    Ok(100.0 * spent.as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// The memory of the daemon, and of all proxies.
fn bytes(stage: &Stage<'_>) -> Result<(u64, u64), BenchError> {
    Ok((memory(&[stage.daemon.pid()])?, memory(stage.proxies())?))
}

/// Gives every backend another weight, as one batch.
fn batch(stage: &Stage<'_>) -> Result<Duration, BenchError> {
    let state = stage.plan.state(2);
    let mut api = stage.api()?;
    let begun = Instant::now();
    api.done_with("POST", "/v1/apply", &state)?;
    Ok(begun.elapsed())
}

/// Kills the first network's proxy. A change that comes then is acknowledged by the one in its place, which has the whole
/// table by then.
fn resync(stage: &mut Stage<'_>) -> Result<Duration, BenchError> {
    let Some(proxy) = stage.proxies().first().copied() else {
        return Err(BenchError::Impossible("there is no proxy to be killed".to_owned()));
    };
    let mut api = stage.api()?;
    let path = stage.plan.backend_path(0, 0, 0);
    let begun = Instant::now();
    kill(proxy, Signal::SIGKILL).map_err(|errno| BenchError::machine("kill a proxy")(errno.into()))?;
    api.done("PUT", &path, Some(&json!({ "weight": 3 })))?;
    let took = begun.elapsed();
    stage.find_proxies()?;
    if stage.proxies().first() == Some(&proxy) {
        return Err(BenchError::Impossible("a change was acknowledged by a proxy that was killed".to_owned()));
    }
    Ok(took)
}
