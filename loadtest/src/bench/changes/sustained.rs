//! How many changes a second a large table takes.

use crate::bench::results::{CpuSource, Run};
use crate::bench::stage::Stage;
use crate::bench::system::ringlb::{self, LARGE_BACKENDS, LARGE_SERVICES};
use crate::bench::workload::Workload;
use crate::bench::{BenchError, Options};
use crate::instruments::accounting::cpu_time;
use crate::instruments::api::Api;
use crate::instruments::statistics::Times;
use ringlb_load::units::to_float;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Who makes single changes, each waiting for its answer before the next.
const CLIENTS: usize = 16;

/// Single changes of a table of 1,000 services with 10 backends each: each a request, which adds or removes one backend and
/// is answered when the proxy has acknowledged it.
pub(in crate::bench) fn measure_single(stage: &Stage<'_>, options: &Options) -> Result<Run, BenchError> {
    let socket = stage.admin_socket();
    Api::connect(&socket)?.done("POST", "/v1/apply", Some(&ringlb::large(1)))?;
    work_single(&socket, options.warm_up)?;
    let processes = stage.processes();
    let cpu = cpu_time(&processes)?;
    let begun = Instant::now();
    let mut times = work_single(&socket, options.duration)?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cpu_time(&processes)?.saturating_sub(cpu);
    let run = Run::new(Workload::SingleChanges, stage.system);
    Ok(Run { cpu_source: Some(CpuSource::Processes), ..run }
        .with_work(times.count(), seconds, Some(cpu))
        .with_times(&mut times))
}

fn work_single(socket: &Path, duration: std::time::Duration) -> Result<Times, BenchError> {
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let stopped = &stopped;
                scope.spawn(move || change(socket, client, stopped))
            })
            .collect();
        std::thread::sleep(duration);
        stopped.store(true, Ordering::Relaxed);
        let mut times = Times::default();
        for client in clients {
            let ended = || BenchError::Impossible("a thread that makes changes has panicked".to_owned());
            times.append(client.join().map_err(|_| ended())??);
        }
        Ok(times)
    })
}

/// Removes and adds backends of services that no other client changes, until it is to stop; every one is there then.
fn change(socket: &Path, client: usize, stopped: &AtomicBool) -> Result<Times, BenchError> {
    let mut api = Api::connect(socket)?;
    let mut times = Times::default();
    for service in (client..LARGE_SERVICES).step_by(CLIENTS).cycle() {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let path = ringlb::backend_path(&ringlb::large_service(service), ringlb::large_backend(service, 0));
        for body in [None, Some(json!({}))] {
            let begun = Instant::now();
            api.done(if body.is_some() { "PUT" } else { "DELETE" }, &path, body.as_ref())?;
            times.push(begun.elapsed());
        }
    }
    Ok(times)
}

/// Batches: each one gives every one of the 10,000 backends another weight.
pub(in crate::bench) fn measure_batches(stage: &Stage<'_>, options: &Options) -> Result<Run, BenchError> {
    let states = [ringlb::large(1), ringlb::large(2)];
    let mut api = Api::connect(&stage.admin_socket())?;
    for state in &states {
        api.done("POST", "/v1/apply", Some(state))?;
    }
    let processes = stage.processes();
    let cpu = cpu_time(&processes)?;
    let mut times = Times::default();
    let begun = Instant::now();
    for state in states.iter().cycle() {
        let batch = Instant::now();
        api.done("POST", "/v1/apply", Some(state))?;
        times.push(batch.elapsed());
        if begun.elapsed() >= options.duration {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = cpu_time(&processes)?.saturating_sub(cpu);
    let changes = times.count() * to_float((LARGE_SERVICES * LARGE_BACKENDS) as u64);
    let run = Run::new(Workload::Batches, stage.system);
    Ok(Run { cpu_source: Some(CpuSource::Processes), ..run }
        .with_work(changes, seconds, Some(cpu))
        .with_times(&mut times))
}
